"""The right to read: verdicts of the upstream, kept for a short time for each identity.

Responsible for: storing, finding and forgetting verdicts per (remote, identity, repo), and the two
decisions made on them: `decide_read`, and `decide_read_unasked` for when nobody can be asked.
Not responsible for: who may talk to this server at all (`web.entrance`), or asking.

Each right is learnt on what it opens, and on nothing else: the page of a gated repo is public, its
files are not, and whether its tree is, is for the Hub to say (`Subject`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from enum import Enum
from urllib.parse import unquote

from jupyter_hf_cache.errors import StorageError, UpstreamAnswer
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import RepoRef, Verdict
from jupyter_hf_cache.storage.row_memory import RowMemory
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.policy import Lifetimes

logger = logging.getLogger(__name__)

BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - words, not a token
"""What a Hub says to a token that it does not know; clients compare this very sentence."""

_IN_MEMORY = 10_000
# A verdict that says nothing new is written again only when the row is this old. The row serves
# other processes and the time after a restart; both can do with a slightly older one.
_REWRITE_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 1.0


class Subject(str, Enum):
    """What a verdict is about."""

    FILES = "verdict"
    """What is in the files."""
    PAGES = "page"
    """The repo's page and refs; `content` means that it said "neither gated nor disabled"."""
    LISTS = "list"
    """Names, sizes and digests of files."""
    HISTORY = "history"
    """The list of commits."""


_Key = tuple[str, str, RepoRef, Subject]


def decide_read(verdict: Verdict | None, lifetimes: Lifetimes, now: float) -> bool:
    """Decide whether a repo may be read on the strength of what the upstream said last.

    Called before any metadata or byte is given out, for every kind of read. False is not a refusal:
    the upstream has to be asked with the caller's own credential, and its answer decides.

    Args:
        verdict: of this (remote, identity, repo); one from the future counts as old.
        now: Unix time in seconds.
    """
    if verdict is None or not verdict.content:
        return False
    return 0 <= now - verdict.checked < lifetimes.access


def decide_read_unasked(
    verdict: Verdict | None,
    lifetimes: Lifetimes,
    now: float,
    *,
    single_user: bool,
    owner: bool,
) -> bool:
    """Decide the same when nobody can be asked (offline, outage).

    A last verdict "public" holds; on a single-user server the owner's verdict holds; any other
    holds for the grace time and then fails closed. "Public" is no longer the last word when the
    right was looked at much later without it being said again.

    Args:
        single_user: the server belongs to one person.
        owner: the request came in as that person (a trusted entrance).
    """
    if verdict is None or not verdict.content:
        return False
    if _is_public(verdict, lifetimes) or (single_user and owner):
        return True
    return now - verdict.checked <= lifetimes.access_grace


def _is_public(verdict: Verdict, lifetimes: Lifetimes) -> bool:
    if not verdict.public or verdict.said_public is None:
        return verdict.public
    return verdict.checked - verdict.said_public <= lifetimes.access


class Rights:
    """Verdicts in the table `access`, the latest also in memory. Thread-safe.

    A lost table means that nothing is known, and so that the upstream is asked. A verdict that is
    taken back or changed is announced (`access`): no process goes on with the former one. A new one
    is not, but found within a second by who looks at the same repo.
    """

    def __init__(self, table: StateTable, generations: Generations) -> None:
        self._table = table
        self._generations = generations
        self._memory: RowMemory[_Key, Verdict] = RowMemory(
            generations,
            "access",
            most=_IN_MEMORY,
            look_again=_LOOK_AGAIN_SECONDS,
            newer=lambda one, other: max(one, other, key=lambda verdict: verdict.checked),
        )

    def verdict(
        self, scope: str, identity: str, repo: RepoRef, subject: Subject = Subject.FILES
    ) -> Verdict | None:
        """Return the last verdict, however old."""
        key = (scope, identity, repo, subject)
        return self._memory.get(key, lambda: self._read(key))

    def _read(self, key: _Key) -> Verdict | None:
        row = self._table.get(_row_of(key))
        return Verdict(**row) if row is not None else None

    def grant(
        self,
        scope: str,
        identity: str,
        repo: RepoRef,
        verdict: Verdict,
        subject: Subject = Subject.FILES,
    ) -> None:
        """Keep a verdict that the upstream just gave; where the disk refuses, in memory.

        Raises:
            StorageError: one that takes a right back cannot be written.
        """
        key = (scope, identity, repo, subject)
        row = self._memory.row(key)
        same = row is not None and (row.content, row.public) == (verdict.content, verdict.public)
        if row is not None and same and 0 <= verdict.checked - row.checked < _REWRITE_SECONDS:
            self._memory.put(key, verdict, written=False)
            return
        former = row or self._read(key)
        try:
            self._table.set(_row_of(key), asdict(verdict))
        except StorageError as error:
            if former is not None and _takes_back(former, verdict):
                raise
            logger.warning("a verdict on %s is not written: %s", repo, error.message)
            self._memory.put(key, verdict, written=False)
            return
        self._memory.put(key, verdict, written=True)
        if former is not None and _takes_back(former, verdict):
            self._generations.advance("access")

    def grant_files(
        self, scope: str, identity: str, repo: RepoRef, checked: float, *, public: bool
    ) -> None:
        """Keep that the upstream gave files, or would give them.

        Args:
            checked: Unix time in seconds when it was asked: what it took back since is not in its
                answer.
            public: it was asked by nobody in particular. Else that says nothing of who else may
                read, and what a page said of it lately stays.

        Raises:
            StorageError: as of `grant`.
        """
        verdict = Verdict(content=True, public=public, checked=checked)
        before = None if public else self.verdict(scope, identity, repo)
        if before is not None and before.public:
            said = before.checked if before.said_public is None else before.said_public
            verdict = replace(verdict, public=True, said_public=said)
        self.grant(scope, identity, repo, verdict)

    def revoke(self, scope: str, identity: str, repo: RepoRef, *subjects: Subject) -> None:
        """Forget verdicts: the upstream refused.

        Raises:
            StorageError: a row stays, because the disk refuses; in memory it is forgotten.
        """
        for subject in subjects or tuple(Subject):
            key = (scope, identity, repo, subject)
            # Most refusals are for who never had the right; they cost no write and tell nobody.
            had = self.verdict(scope, identity, repo, subject) is not None
            self._memory.put(key, None, written=False)
            if had or self._read(key) is not None:
                try:
                    self._table.delete(_row_of(key))
                except StorageError:
                    self._generations.advance("access")
                    # Once more: the counter made the memory forget it, and the row is still there.
                    self._memory.put(key, None, written=False)
                    raise
                self._generations.advance("access")

    def note_refusal(
        self, scope: str, identity: str, repo: RepoRef, refused: UpstreamAnswer
    ) -> None:
        """The upstream refused something about a repo: end the right that this speaks of.

        A missing revision or file says nothing of the right. 403 and `GatedRepo` close the content,
        while the repo's own page stays visible; 401 and 404 say that there is no such repo, for
        this identity. That its token is not known ends all its rights.

        Raises:
            StorageError: as of `revoke`.
        """
        if refused.code in ("RevisionNotFound", "EntryNotFound"):
            return
        if refused.code != "GatedRepo" and refused.status in (401, 404):
            self.revoke(scope, identity, repo)
            if refused.message == BAD_TOKEN:
                self.forget_identity(scope, identity)
            return
        self.revoke(scope, identity, repo, Subject.FILES, Subject.LISTS, Subject.HISTORY)
        page = self.verdict(scope, identity, repo, Subject.PAGES)
        if page is not None and page.content:
            self.grant(scope, identity, repo, replace(page, content=False), Subject.PAGES)

    def forget_identity(self, scope: str, identity: str) -> None:
        """Forget every verdict for an identity whose credential ended, unless there is none.

        Raises:
            StorageError: rows stay, because the disk refuses.
        """
        prefixes = [key_of(subject.value, scope, identity) + "/" for subject in Subject]
        if any(next(self._table.items(prefix), None) is not None for prefix in prefixes):
            self._forget(prefixes)

    def forget_all(self, scope: str) -> None:
        """Forget every verdict learnt through a remote whose credentials changed."""
        self._forget([key_of(subject.value, scope) + "/" for subject in Subject])

    def _forget(self, prefixes: Iterable[str]) -> None:
        try:
            for prefix in prefixes:
                self._table.delete_prefix(prefix)
        finally:
            self._memory.clear()
            self._generations.advance("access")

    def forget(self, scope: str, matches: Callable[[RepoRef], bool]) -> None:
        """Forget every verdict on the repos that match, whoever it is for: a change to who may read
        them went through here."""
        for subject in Subject:
            for key, _ in list(self._table.items(key_of(subject.value, scope) + "/")):
                *_, type_, id_ = map(unquote, key.split("/"))
                if matches(RepoRef(type_, id_)):
                    self._table.delete(key)
        self._memory.clear()
        self._generations.advance("access")

    def public_since(self, scope: str, repo: RepoRef, since: float) -> bool:
        """Return whether the last anonymous verdict was "public", and is younger than `since` (Unix
        time in seconds)."""
        verdict = self.verdict(scope, "anonymous", repo)
        return verdict is not None and verdict.public and verdict.checked > since


def _takes_back(former: Verdict, verdict: Verdict) -> bool:
    return (former.content and not verdict.content) or (former.public and not verdict.public)


def _row_of(key: _Key) -> str:
    scope, identity, repo, subject = key
    return key_of(subject.value, scope, identity, repo.type, repo.id)
