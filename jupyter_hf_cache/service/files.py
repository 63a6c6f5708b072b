"""Reads of files: resolve.

Responsible for: one read of repo@revision:file from question to answer: the right to read before
everything, what is known, whether the upstream has to be asked, and what is said when it cannot be.
Not responsible for: JSON answers (`service.metadata`), where bytes come from (`service.bodies`), or
sending.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from jupyter_hf_cache.answers import Answer
from jupyter_hf_cache.errors import (
    HfCacheError,
    NotFound,
    UpstreamAnswer,
    UpstreamError,
    UpstreamUnreachable,
)
from jupyter_hf_cache.protocol.paths import HubRequest, api_path, is_commit, resolve_path
from jupyter_hf_cache.service.bodies import Bodies
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.heads import missing_file, wants_fresh
from jupyter_hf_cache.service.listed import Listed
from jupyter_hf_cache.service.negatives import Negatives
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import Claim, RepoRef, Revision, Verdict
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.lookup import METADATA_TIMEOUT, Look, look_up, refusal
from jupyter_hf_cache.upstream.policy import (
    Action,
    Known,
    is_fresh,
    plan,
    plan_without_upstream,
)
from jupyter_hf_cache.upstream.rights import Rights, decide_read, decide_read_unasked

logger = logging.getLogger(__name__)

_DOWNLOAD_COUNTER = "X-HF-Download-Counter"


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it may be given to this caller: its claim, and whether that is stale."""

    claim: Claim
    stale: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    """One read of a file."""

    repo: RepoRef
    revision: str
    file: str
    want_body: bool
    want_fresh: bool
    headers: Mapping[str, str]


class Files:
    """Answers reads of files. Thread-safe; every method blocks on disk or upstream."""

    def __init__(
        self,
        *,
        claims: Claims,
        listed: Listed,
        revisions: Revisions,
        rights: Rights,
        bodies: Bodies,
        usage: Usage,
        breaker: Breaker,
        changes: Changes,
        single_user: bool,
    ) -> None:
        self._claims = claims
        self._listed = listed
        self._revisions = revisions
        self._rights = rights
        self._bodies = bodies
        self._usage = usage
        self._breaker = breaker
        self._changes = changes
        self._single_user = single_user
        self._flight = SingleFlight()
        self._negatives = Negatives()

    def answer(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Answer:
        """Answer GET or HEAD of a file.

        Raises:
            HfCacheError: the upstream's refusal, or why it cannot be answered.
        """
        found = self.find(request, caller, headers)
        claim = found.claim
        if claim.absent:
            raise missing_file(claim.commit)
        if request.method == "HEAD":
            answer = self._bodies.head(request, caller, claim, headers, found.stale)
        else:
            answer = self._bodies.answer(request, caller, claim, headers, found.stale)
        if not found.stale:
            answer.until = self._holds_until(request, caller, claim)
        return answer

    def find(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Found:
        """Return the claim on the file, after the right to read it was established.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        question = _question(request, headers)
        try:
            caller.client.watch.check()
            known = self._known(question, caller)
            if not question.want_fresh and (claim := self._sufficient(question, caller, known)):
                self._usage.saved_call()
                return Found(claim)
            return Found(self._ask(question, caller, known))
        except UpstreamError as error:
            return self._without_upstream(question, caller, error)

    def _holds_until(self, request: HubRequest, caller: Caller, claim: Claim) -> float:
        """Return the Unix time up to which nobody has to be asked about this file, 0 if it is
        over."""
        repo, revision, now = request.repo, request.revision or "", time.time()
        if repo is None or not self._may_read(caller, repo, now):
            return 0.0
        verdict = self._rights.verdict(caller.scope, caller.identity, repo)
        until = verdict.checked + caller.lifetimes.access if verdict is not None else 0.0
        if is_commit(revision):
            return until
        pointer = self._revisions.get(caller, repo, revision)
        changed = self._changes.last(caller.scope, repo)
        if pointer is None or pointer.commit != claim.commit:
            return 0.0
        if not is_fresh(pointer, caller.lifetimes.revision, now, changed):
            return 0.0
        return min(until, pointer.checked + caller.lifetimes.revision)

    def check_right(self, caller: Caller, repo: RepoRef) -> None:
        """Establish the right to read the files of a repo where no file is asked for.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        if self._may_read(caller, repo, time.time()):
            return
        key = (caller.scope, caller.identity, repo)
        self._flight.do(key, lambda: self._ask_for_the_right(caller, repo))

    # -- what is known

    def _known(self, question: _Question, caller: Caller, *, look_for_bytes: bool = False) -> Known:
        repo, revision = question.repo, question.revision
        pinned = is_commit(revision)
        pointer = None if pinned else self._revisions.get(caller, repo, revision)
        commit = revision if pinned else (pointer.commit if pointer else None)
        claim = None
        if commit is not None:
            claim = self._claim(question, caller, commit)
        return Known(
            pinned=pinned,
            revision=pointer,
            claim=claim,
            kept=claim is not None
            and (question.want_body or look_for_bytes)
            and (claim.absent or self._bodies.at_hand(repo, caller, claim, question.headers)),
            changed=self._changes.last(caller.scope, repo),
        )

    def _claim(self, question: _Question, caller: Caller, commit: str) -> Claim | None:
        repo, file, origin_id = question.repo, question.file, caller.remote.origin_id
        claim = self._claims.get(origin_id, repo, commit, file)
        if claim is None:
            claim = self._listed.claim(caller, repo, commit, file)
            if claim is not None:
                # What is asked for outlives the listing.
                self._claims.put(origin_id, repo, file, claim)
        return claim

    def _may_read(self, caller: Caller, repo: RepoRef, now: float) -> bool:
        verdict = self._rights.verdict(caller.scope, caller.identity, repo)
        return decide_read(verdict, caller.lifetimes, now)

    def _sufficient(self, question: _Question, caller: Caller, known: Known) -> Claim | None:
        """Return the claim if nobody has to be asked before it is used.

        Raises:
            UpstreamError: the bytes are missing and the upstream could not answer a moment ago.
        """
        now = time.time()
        action = plan(
            known,
            caller.lifetimes,
            now,
            may_read=self._may_read(caller, question.repo, now),
            want_body=question.want_body,
        )
        if action is Action.FETCH:
            self._breaker.check(caller.remote.id)
        return known.claim if action in (Action.SERVE, Action.FETCH) else None

    # -- asking

    def _ask(self, question: _Question, caller: Caller, known: Known) -> Claim:
        """Ask the upstream with the caller's own credential; keep what it says."""
        repo, now = question.repo, time.time()
        pointer = known.revision
        asked = question.revision
        if (
            pointer is not None
            and not question.want_fresh
            and is_fresh(pointer, caller.lifetimes.revision, now, known.changed)
        ):
            # While a branch is known well enough, all its files are asked for at that one commit.
            asked = pointer.commit
        identity = (caller.scope, caller.identity, repo)
        if known.claim is not None and not known.claim.absent and is_commit(asked):
            # Only the right has aged, and it is the same for all files: one question is enough.
            self._flight.do((*identity, asked), lambda: self._look(question, caller, asked))
            if self._may_read(caller, repo, time.time()):
                return known.claim
        key = (*identity, asked, question.file)
        if refused := self._negatives.find(key, caller.lifetimes.negative, known.changed):
            self._usage.saved_call()
            raise refused
        return self._flight.do(key, lambda: self._find_out(key, question, caller, asked))

    def _find_out(
        self,
        key: tuple[str, str, RepoRef, str, str],
        question: _Question,
        caller: Caller,
        asked: str,
    ) -> Claim:
        if not question.want_fresh:
            # An equal question may have been answered between a look at what is known and here.
            claim = self._sufficient(question, caller, self._known(question, caller))
            claim = claim or self._learnt(question, caller, asked)
            if claim is not None:
                return claim
        began = time.time()
        try:
            look = self._look(question, caller, asked)
        except UpstreamAnswer as refused:
            self._negatives.note(key, refused, began)
            raise
        if not is_commit(asked):
            # Not when the answer came: a change may have gone through in between.
            pointer = Revision(look.claim.commit, began)
            self._revisions.put(caller, question.repo, asked, pointer)
        return look.claim

    def _learnt(self, question: _Question, caller: Caller, asked: str) -> Claim | None:
        """Return the claim on a file if it comes cheaper with those on its neighbours."""
        repo, file = question.repo, question.file
        if not is_commit(asked) or not self._may_read(caller, repo, time.time()):
            return None
        claim = self._listed.learn(caller, repo, asked, file)
        if claim is not None:
            self._claims.put(caller.remote.origin_id, repo, file, claim)
        return claim

    def _look(self, question: _Question, caller: Caller, revision: str) -> Look:
        repo = question.repo
        counter = question.headers.get(_DOWNLOAD_COUNTER, "")
        # The Hub counts downloads by this header, which clients send with theirs.
        headers = {_DOWNLOAD_COUNTER: counter} if counter.isascii() and counter.isalnum() else {}
        try:
            with self._breaker.asking(caller.remote.id):
                look = look_up(
                    caller.client, caller.credential, repo, revision, question.file, headers
                )
        except UpstreamAnswer as refused:
            self._note_refusal(caller, repo, refused)
            raise
        if look.readable:
            self._grant(caller, repo)
        if look.link is not None:
            # Whoever asks for the head of a file mostly asks for its bytes next.
            path = resolve_path(repo, look.claim.commit, question.file)
            caller.client.links.put((caller.identity, path), look.link)
        self._claims.put(caller.remote.origin_id, repo, question.file, look.claim)
        return look

    def _ask_for_the_right(self, caller: Caller, repo: RepoRef) -> None:
        try:
            with (
                self._breaker.asking(caller.remote.id),
                caller.client.request(
                    "GET",
                    api_path(repo, "auth-check"),
                    credential=caller.credential,
                    follow="same-origin",
                    read_timeout=METADATA_TIMEOUT,
                ) as response,
            ):
                if response.status >= 300:
                    raise refusal(response)
        except UpstreamAnswer as refused:
            self._note_refusal(caller, repo, refused)
            raise
        self._grant(caller, repo)

    def _grant(self, caller: Caller, repo: RepoRef) -> None:
        public = caller.credential.token is None and caller.credential.source == "none"
        verdict = Verdict(content=True, public=public, checked=time.time())
        self._rights.grant(caller.scope, caller.identity, repo, verdict)

    def _note_refusal(self, caller: Caller, repo: RepoRef, refused: UpstreamAnswer) -> None:
        self._rights.note_refusal(caller.scope, caller.identity, repo, refused.status, refused.code)

    # -- not asking

    def _without_upstream(self, question: _Question, caller: Caller, error: UpstreamError) -> Found:
        """Fall back on what is kept, or say why that is not possible."""
        known = self._known(question, caller, look_for_bytes=True)
        verdict = self._rights.verdict(caller.scope, caller.identity, question.repo)
        may_read = decide_read_unasked(
            verdict,
            caller.lifetimes,
            time.time(),
            single_user=self._single_user,
            owner=caller.owner,
        )
        action = plan_without_upstream(known, may_read=may_read)
        if action is Action.SERVE and known.claim is not None:
            logger.info("serving what is kept: %s", error.message)
            return Found(known.claim, stale=error.message)
        raise final(error)


def final(error: UpstreamError) -> HfCacheError:
    """Give a failure of the upstream a status that clients do not repeat for half a minute.

    429 stays: clients wait as long as it says. Everything else becomes 521 with the reason in
    words.
    """
    if error.status == 429 or isinstance(error, UpstreamUnreachable):
        return error
    return UpstreamUnreachable(
        error.message, advice=error.advice or "Nothing of this is kept here.", headers=error.headers
    )


def _question(request: HubRequest, headers: Mapping[str, str]) -> _Question:
    if request.repo is None or request.revision is None or not request.file:
        raise NotFound("This address names no file.")
    return _Question(
        request.repo,
        request.revision,
        request.file,
        want_body=request.method == "GET",
        want_fresh=wants_fresh(headers),
        headers=headers,
    )
