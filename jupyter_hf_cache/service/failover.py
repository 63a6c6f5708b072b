"""Answers from a mirror when the remote itself cannot be asked.

Responsible for: the order of who answers: the remote, what is kept from it, then each mirror; that
one conversation has one upstream; and that a mirror contradicts nothing that the remote said.
Not responsible for: what a mirror is sent (`service.mirrors`), whether an upstream rests
(`service.breaker`), or bytes: a mirror's are given out as `service.bodies` says.

A mirror is an upstream of its own: its own verdicts, its own claims, its own answers kept. But the
remote's last word binds it: where the remote said which commit a branch is at, it is asked for that
commit, and where the remote said which digest a file has, it has to name the same. So no answer of
a mirror mixes two versions of a repo, and one that lags or lies about what is known is passed over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from jupyter_hf_cache.answers import Answer
from jupyter_hf_cache.errors import UpstreamAnswer, UpstreamError
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, api_path, is_commit, resolve_path
from jupyter_hf_cache.service.caller import READS_OF_A_REPO, Caller
from jupyter_hf_cache.service.callers import Callers
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.files import Files
from jupyter_hf_cache.service.refusals import Refusals
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.storage.records import Claim, RepoRef
from jupyter_hf_cache.upstream.policy import is_fresh

logger = logging.getLogger(__name__)

_CONVERSATION_SECONDS = 600.0
_CONVERSATIONS = 2000
_VERBS = {
    Kind.INFO: "revision",
    Kind.TREE: "tree",
    Kind.PATHS_INFO: "paths-info",
    Kind.COMMITS: "commits",
}

AskOne = Callable[[HubRequest, Caller], Answer]
"""Answers a request for one caller, from one upstream."""


class Failover:
    """Asks mirrors where it has to. Thread-safe; blocks on disk and upstream."""

    def __init__(
        self, *, callers: Callers, files: Files, claims: Claims, revisions: Revisions
    ) -> None:
        self._callers = callers
        self._files = files
        self._claims = claims
        self._revisions = revisions
        self._lock = threading.Lock()
        self._refusals = Refusals()
        self._named: OrderedDict[tuple[str, RepoRef, str], tuple[float, str]] = OrderedDict()

    def answer(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], ask: AskOne
    ) -> Answer:
        """Answer a read from the remote or, where it has mirrors and cannot be asked, from one.

        Raises:
            HfCacheError: what the remote itself ends with, if no mirror has an answer.
        """
        if not caller.remote.mirrors or request.kind not in READS_OF_A_REPO:
            return ask(request, caller)
        if self._refusals.holds(request, caller):
            return self._ask_itself(request, caller, ask)
        for mirror in self._in_conversation(request, caller):
            # What it began it goes on with: the remote may be back, with another version.
            answer = self._try(request, mirror, headers, ask, None, "answered before")
            if answer is not None:
                return answer
        try:
            return self._ask_itself(request, caller, ask)
        except UpstreamError as error:
            answer = self._from_mirrors(request, caller, headers, ask, error)
            if answer is None:
                raise
            return answer

    def _ask_itself(self, request: HubRequest, caller: Caller, ask: AskOne) -> Answer:
        try:
            answer = ask(request, caller)
        except UpstreamAnswer as refused:
            self._refusals.note(request, caller, refused)
            raise
        self._refusals.forget(request, caller)
        return answer

    def _from_mirrors(
        self,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        ask: AskOne,
        error: UpstreamError,
    ) -> Answer | None:
        asked = self._at_known_commit(request, caller)
        known = self._known_claim(asked, caller)
        for mirror in self._callers.mirrors(caller):
            answer = self._try(asked, mirror, headers, ask, known, error.message)
            if answer is not None:
                self._note_commit(asked, caller, mirror, answer)
                return answer
        return None

    def _try(
        self,
        request: HubRequest,
        mirror: Caller,
        headers: Mapping[str, str],
        ask: AskOne,
        known: Claim | None,
        reason: str,
    ) -> Answer | None:
        """Return a mirror's answer; None if it has none, or contradicts what is `known`."""
        try:
            if known is not None:
                found = self._files.find(request, mirror, headers).claim
                if (found.absent, found.etag) != (known.absent, known.etag):
                    logger.warning("%s has another %s", mirror.remote.origin, request.file)
                    return None
            answer = ask(request, mirror)
        except UpstreamError as error:
            logger.info("the mirror %s: %s", mirror.remote.origin, error.message)
            return None
        except UpstreamAnswer as refused:
            if refused.code == "EntryNotFound":
                # It has the repo, and clients build on files that are not there.
                raise
            # That a mirror has no such repo, or may not show it, says nothing of the remote's.
            return None
        answer.until = 0.0
        answer.headers.setdefault("X-HF-Warning", _warning(reason))
        return answer

    # -- one version

    def _at_known_commit(self, request: HubRequest, caller: Caller) -> HubRequest:
        """Return the same question at the commit that the remote named last."""
        repo, revision = request.repo, request.revision
        if request.kind is Kind.INFO:
            revision = revision or "main"
        if repo is None or revision is None or is_commit(revision):
            return request
        pointer = self._revisions.get(caller, repo, revision)
        if pointer is None:
            return request
        return replace(request, path=_path_at(request, pointer.commit), revision=pointer.commit)

    def _known_claim(self, request: HubRequest, caller: Caller) -> Claim | None:
        """Return what the remote said about this file at this commit."""
        repo, commit = request.repo, request.revision or ""
        if request.kind not in (Kind.RESOLVE, Kind.RAW) or repo is None or not is_commit(commit):
            return None
        return self._claims.get(caller.remote.origin_id, repo, commit, request.file or "")

    # -- one conversation

    def _in_conversation(self, request: HubRequest, caller: Caller) -> Iterator[Caller]:
        """Yield the mirrors that named what is asked for a moment ago."""
        repo, revision = request.repo, request.revision
        if request.kind is Kind.INFO:
            revision = revision or "main"
        if repo is None or revision is None:
            return
        mirrors = self._callers.mirrors(caller)
        if is_commit(revision):
            with self._lock:
                until, by = self._named.get((caller.remote.id, repo, revision), (0.0, ""))
            if time.monotonic() < until:
                yield from (mirror for mirror in mirrors if mirror.remote.id == by)
            return
        own = self._revisions.get(caller, repo, revision)
        for mirror in mirrors:
            theirs = self._revisions.get(mirror, repo, revision)
            newer = theirs is not None and (own is None or own.checked < theirs.checked)
            if newer and is_fresh(theirs, caller.lifetimes.revision, time.time()):
                yield mirror

    def _note_commit(
        self, request: HubRequest, caller: Caller, mirror: Caller, answer: Answer
    ) -> None:
        """Remember a commit that a mirror named for a moving ref: what is asked next is at it."""
        repo, revision = request.repo, request.revision or "main"
        if repo is None or is_commit(revision):
            return
        pointer = self._revisions.get(mirror, repo, revision)
        commit = answer.headers.get("X-Repo-Commit") or (pointer.commit if pointer else "")
        with self._lock:
            until = time.monotonic() + _CONVERSATION_SECONDS
            self._named[caller.remote.id, repo, commit] = (until, mirror.remote.id)
            while len(self._named) > _CONVERSATIONS:
                self._named.popitem(last=False)


def _path_at(request: HubRequest, commit: str) -> str:
    repo, file = request.repo or RepoRef("models", ""), request.file or ""
    if request.kind in (Kind.RESOLVE, Kind.RAW):
        return resolve_path(repo, commit, file)
    return api_path(repo, _VERBS[request.kind], commit, file)


def _warning(reason: str) -> str:
    plain = reason.encode("ascii", "replace").decode()
    return f"Mirror; The Hub could not be asked ({plain}) so a mirror of it answered."
