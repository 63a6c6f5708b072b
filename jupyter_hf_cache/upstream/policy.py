"""What to do about a read of a file: pure decisions over what is known and how old it is.

Responsible for: `plan` (before anything is asked) and `plan_without_upstream` (when nobody can be
asked). Not responsible for: the right to read (`upstream.rights`, decided before), asking, storing,
or who the caller is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from jupyter_hf_cache.storage.records import Claim, Remote, Revision


class Action(str, Enum):
    """The next step of a read."""

    SERVE = "serve"
    """Everything needed is known and fresh, and the bytes (if any are wanted) are kept."""
    FETCH = "fetch"
    """Everything needed is known and fresh; the bytes must come from upstream."""
    REVALIDATE = "revalidate"
    """The upstream has to be asked first."""
    REFUSE = "refuse"
    """It cannot or must not be answered."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long answers of the upstream hold, in seconds."""

    revision: float = 60.0
    metadata: float = 60.0
    negative: float = 60.0
    access: float = 60.0
    access_grace: float = 3600.0

    def of(self, remote: Remote) -> Lifetimes:
        """Return those that hold for a remote, which may have its own."""
        own = {
            "revision": remote.revision_ttl,
            "metadata": remote.metadata_ttl,
            "negative": remote.negative_ttl,
            "access": remote.access_ttl,
            "access_grace": remote.access_grace,
        }
        return replace(self, **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about one file for one identity.

    Args:
        pinned: the request names a full commit, which never moves.
        revision: what a moving ref pointed at last; of a commit, when it was last named by the
            upstream at all.
        claim: the statement about the file at the commit.
        kept: the bytes are on disk, or there are none (an absent file). False also where nobody
            looked, because only the head is wanted.
        changed: Unix time of the last change of the repo that went through this cache, 0 if none.
    """

    pinned: bool
    revision: Revision | None
    claim: Claim | None
    kept: bool
    changed: float = 0.0


def plan(
    known: Known, lifetimes: Lifetimes, now: float, *, may_read: bool, want_body: bool
) -> Action:
    """Decide what a read of a file needs.

    Args:
        now: Unix time in seconds.
        may_read: what `rights.decide_read` said.
        want_body: the bytes are wanted, not only what is said about them.
    """
    if not may_read or known.claim is None:
        return Action.REVALIDATE
    # A commit never moves, but the name may belong to another repo by now: the right to read that
    # one opens nothing of the former one.
    lifetime = lifetimes.access if known.pinned else lifetimes.revision
    if not is_fresh(known.revision, lifetime, now, known.changed):
        return Action.REVALIDATE
    return Action.SERVE if known.kept or not want_body else Action.FETCH


def plan_without_upstream(known: Known, *, may_read: bool) -> Action:
    """Decide whether a read may be answered from what is kept when the upstream cannot be asked.

    A file whose bytes are gone is refused at the HEAD already: clients that hold a copy of their
    own use it then, and others learn the reason at once.

    Args:
        may_read: what `rights.decide_read_unasked` said.
    """
    if not may_read or known.claim is None or not known.kept:
        return Action.REFUSE
    if not known.pinned and known.revision is None:
        return Action.REFUSE
    return Action.SERVE


def is_fresh(record: Revision | None, lifetime: float, now: float, changed: float = 0.0) -> bool:
    """Return whether a moving ref was looked up lately, and after the last change that went
    through this cache. A record from the future counts as old."""
    if record is None or record.checked <= changed:
        return False
    return 0 <= now - record.checked < lifetime
