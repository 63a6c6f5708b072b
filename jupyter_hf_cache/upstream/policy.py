"""What to do about a read: pure decisions over what is known and how old it is.

Responsible for: `plan` (before anything is asked) and `plan_without_upstream` (when nobody can be
asked).
Not responsible for: asking, storing, or who the caller is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from jupyter_hf_cache.storage.records import Claim, Revision, Verdict


class Action(str, Enum):
    """The next step of a read."""

    SERVE = "serve"
    """Everything needed is known and fresh, and the bytes (if any are wanted) are kept."""
    FETCH = "fetch"
    """Everything needed is known and fresh; the bytes must come from upstream."""
    REVALIDATE = "revalidate"
    """The upstream has to be asked first."""
    FORWARD = "forward"
    """Not a cacheable read: pass it on."""
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


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about one file (or JSON answer) for one identity.

    Args:
        pinned: the request names a full commit, which never moves.
        revision: what a moving ref pointed at last.
        verdict: the last word on the right to read.
        claim: the statement about the file at the commit.
        kept: the bytes are on disk, or none are wanted (HEAD, an absent file).
    """

    pinned: bool
    revision: Revision | None
    verdict: Verdict | None
    claim: Claim | None
    kept: bool


def plan(known: Known, lifetimes: Lifetimes, now: float, *, offline: bool) -> Action:
    """Decide what a read of a file needs.

    Args:
        now: Unix time in seconds.
        offline: the remote must not be asked; `plan_without_upstream` decides then.
    """
    if offline:
        return Action.REVALIDATE
    if not known.pinned and not is_fresh(known.revision, lifetimes.revision, now):
        return Action.REVALIDATE
    if known.claim is None or not may_read(known.verdict, lifetimes.access, now):
        return Action.REVALIDATE
    return Action.SERVE if known.kept else Action.FETCH


def plan_without_upstream(
    known: Known, lifetimes: Lifetimes, now: float, *, single_user: bool, owner: bool
) -> Action:
    """Decide whether a read may be answered from what is kept when the upstream cannot be asked.

    A last verdict "public" holds; on a single-user server the owner's verdict holds; on a shared
    server any other verdict holds for the grace time and then fails closed.

    Args:
        single_user: the server belongs to one person.
        owner: the request came in as that person (a trusted entrance).
    """
    verdict = known.verdict
    if verdict is None or not verdict.content or known.claim is None:
        return Action.REFUSE
    if not known.pinned and known.revision is None:
        return Action.REFUSE
    if not verdict_holds(verdict, lifetimes, now, single_user=single_user, owner=owner):
        return Action.REFUSE
    return Action.SERVE if known.kept else Action.REFUSE


def verdict_holds(
    verdict: Verdict, lifetimes: Lifetimes, now: float, *, single_user: bool, owner: bool
) -> bool:
    """Return whether a last verdict still counts when nobody can be asked."""
    if verdict.public or (single_user and owner):
        return True
    return now - verdict.checked <= lifetimes.access_grace


def is_fresh(record: Revision | None, lifetime: float, now: float) -> bool:
    """Return whether a moving ref was looked up lately. A record from the future counts as old."""
    return record is not None and 0 <= now - record.checked < lifetime


def may_read(verdict: Verdict | None, lifetime: float, now: float) -> bool:
    """Return whether a verdict grants content now."""
    return verdict is not None and verdict.content and 0 <= now - verdict.checked < lifetime
