"""Reads of files: resolve.

Responsible for: one read of repo@revision:file from question to answer: the right to read before
everything, what is known, whether the upstream has to be asked, and what is said when it cannot be.
Not responsible for: asking (`service.inquiry`), JSON answers (`service.metadata`), where bytes come
from (`service.bodies`), or sending.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jupyter_hf_cache.answers import Answer
from jupyter_hf_cache.errors import (
    HfCacheError,
    NotFound,
    UpstreamAnswer,
    UpstreamError,
    UpstreamUnreachable,
)
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, is_commit
from jupyter_hf_cache.service.bodies import Bodies
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.conversations import Conversations, Turn
from jupyter_hf_cache.service.heads import missing_file, wants_fresh
from jupyter_hf_cache.service.inquiry import Inquiry, Question
from jupyter_hf_cache.service.listed import Listed
from jupyter_hf_cache.service.ref_looks import RefLooks
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import Claim, RepoRef, Revision, Verdict
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.policy import (
    Action,
    Known,
    is_fresh,
    plan,
    plan_without_upstream,
)
from jupyter_hf_cache.upstream.rights import Rights, decide_read, decide_read_unasked

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it may be given to this caller.

    Args:
        headers: of the request, without `Range` where the whole file has to be sent.
        stale: why nobody could be asked, "" if all is well.
    """

    claim: Claim
    headers: Mapping[str, str]
    stale: str = ""


class Files:
    """Answers reads of files. Thread-safe; every method blocks on disk or upstream."""

    def __init__(
        self,
        *,
        inquiry: Inquiry,
        conversations: Conversations,
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
        self._inquiry = inquiry
        self._looks = RefLooks(inquiry, revisions)
        self._conversations = conversations
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
            answer = self._bodies.head(request, caller, claim, found.headers, found.stale)
        else:
            answer = self._bodies.answer(request, caller, claim, found.headers, found.stale)
        if not is_commit(request.revision or ""):
            self._conversations.say(request, caller, found.headers, claim, answer)
        if not found.stale:
            answer.until = self._holds_until(request, caller, claim)
        return answer

    def note_list(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], answer: Answer
    ) -> None:
        """A list of files of a moving ref is given out: what is read of them next must fit to
        it."""
        repo, revision = request.repo, request.revision
        if repo is None or revision is None or is_commit(revision):
            return
        if request.kind not in (Kind.TREE, Kind.PATHS_INFO):
            return
        pointer = self._revisions.get(caller, repo, revision)
        if pointer is not None:
            self._conversations.say_list(request, caller, headers, pointer.commit, answer)

    def find(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Found:
        """Return the claim on the file, after the right to read it was established.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        question = _question(request, headers)
        if is_commit(question.revision) or question.want_fresh:
            return self._find(question, caller)
        changed = self._changes.last(caller.scope, question.repo)
        turn = self._conversations.turn(request, caller, headers, changed=changed)
        if turn.commit is not None:
            try:
                return self._find(question.at(turn.commit), caller)
            except UpstreamAnswer as gone:
                if gone.code != "RevisionNotFound":
                    raise
                turn = Turn(whole=True)
        found = self._find(question, caller)
        if turn.whole or (turn.unknown and self._changed_lately(question, caller, found.claim)):
            # The client would join the rest of this version to the beginning of another one.
            whole = {name: value for name, value in headers.items() if name.lower() != "range"}
            return replace(found, headers=whole)
        return found

    def _find(self, question: Question, caller: Caller) -> Found:
        try:
            caller.client.watch.check()
            known = self._known(question, caller)
            if not question.want_fresh and (claim := self._sufficient(question, caller, known)):
                self._usage.saved_call()
                return Found(claim, question.headers)
            return Found(self._ask(question, caller, known), question.headers)
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
        pointer = self._revisions.get(caller, repo, revision)
        changed = self._changes.last(caller.scope, repo)
        if pointer is None or pointer.commit != claim.commit:
            return 0.0
        lifetimes = caller.lifetimes
        lifetime = lifetimes.access if is_commit(revision) else lifetimes.revision
        if not is_fresh(pointer, lifetime, now, changed):
            return 0.0
        return min(until, pointer.checked + lifetime)

    def check_right(self, caller: Caller, repo: RepoRef) -> None:
        """Establish the right to read the files of a repo where no file is asked for.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        if self._may_read(caller, repo, time.time()):
            return
        key = (caller.scope, caller.identity, repo)
        self._flight.do(key, lambda: self._inquiry.right(caller, repo))

    def _changed_lately(self, question: Question, caller: Caller, claim: Claim) -> bool:
        """Return whether the file had other bytes at a commit that the ref pointed at lately."""
        repo, file = question.repo, question.file
        for commit in self._revisions.former(caller, repo, question.revision):
            former = self._claims.get(caller.remote.origin_id, repo, commit, file)
            if former is not None and not former.absent and former.etag != claim.etag:
                return True
        return False

    # -- what is known

    def _known(self, question: Question, caller: Caller, *, look_for_bytes: bool = False) -> Known:
        repo, revision = question.repo, question.revision
        pinned = is_commit(revision)
        pointer = self._revisions.get(caller, repo, revision)
        commit = revision if pinned else (pointer.commit if pointer else None)
        claim = self._claim(question, caller, commit) if commit is not None else None
        return Known(
            pinned=pinned,
            revision=pointer,
            claim=claim,
            kept=claim is not None
            and (question.want_body or look_for_bytes)
            and (claim.absent or self._bodies.at_hand(repo, caller, claim, question.headers)),
            changed=self._changes.last(caller.scope, repo),
        )

    def _claim(self, question: Question, caller: Caller, commit: str) -> Claim | None:
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

    def _sufficient(self, question: Question, caller: Caller, known: Known) -> Claim | None:
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

    def _ask(self, question: Question, caller: Caller, known: Known) -> Claim:
        """Ask the upstream with the caller's own credential; keep what it says."""
        if known.pinned:
            return self._ask_at_commit(question, caller)
        pointer = known.revision
        if pointer is not None and self._looks.is_current(pointer, question, caller):
            # While a branch is known well enough, all its files are asked for at that one commit.
            try:
                return self._ask_at_commit(question.at(pointer.commit), caller)
            except UpstreamAnswer as gone:
                if gone.code != "RevisionNotFound":
                    raise
                # The ref was moved by force, and what it pointed at is no more.
                question = question.anew()
        renewal = self._looks.renew(question, caller)
        if renewal.claim is not None and renewal.file == question.file:
            return renewal.claim
        return self._ask_at_commit(question.at(renewal.commit), caller)

    def _ask_at_commit(self, question: Question, caller: Caller) -> Claim:
        repo, commit = question.repo, question.revision
        key = (caller.scope, caller.identity, repo, commit)
        if not question.want_fresh:
            known = self._known(question, caller)
            if claim := self._sufficient(question, caller, known):
                return claim
            # If only the right has aged, that is the same for all files: one question is enough.
            if (
                known.claim is not None
                and not known.claim.absent
                and self._flight.do(key, lambda: self._renew_right(question, caller))
            ):
                return known.claim
        return self._flight.do((*key, question.file), lambda: self._find_out(question, caller))

    def _renew_right(self, question: Question, caller: Caller) -> bool:
        if self._sufficient(question, caller, self._known(question, caller)):
            return True
        return self._inquiry.look(question, caller).readable

    def _find_out(self, question: Question, caller: Caller) -> Claim:
        if not question.want_fresh:
            # An equal question may have been answered between a look at what is known and here.
            claim = self._sufficient(question, caller, self._known(question, caller))
            claim = claim or self._learnt(question, caller)
            if claim is not None:
                return claim
        return self._inquiry.look(question, caller).claim

    def _learnt(self, question: Question, caller: Caller) -> Claim | None:
        """Return the claim on a file if it comes cheaper with those on its neighbours."""
        repo, commit, file = question.repo, question.revision, question.file
        asked = time.time()
        if not self._may_read(caller, repo, asked):
            return None
        claim = self._listed.learn(caller, repo, commit, file)
        if claim is not None:
            self._claims.put(caller.remote.origin_id, repo, file, claim)
            self._revisions.put(caller, repo, commit, Revision(commit, asked))
        return claim

    # -- not asking

    def _without_upstream(self, question: Question, caller: Caller, error: UpstreamError) -> Found:
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
            return Found(known.claim, question.headers, stale=error.message)
        raise final(error, _lacking(known, verdict, may_read=may_read))


def final(error: UpstreamError, lacking: str = "It is not kept here.") -> HfCacheError:
    """Give a failure of the upstream a status that clients do not repeat for half a minute.

    429 stays: clients wait as long as it says. Everything else becomes 521 with the reason in
    words.

    Args:
        lacking: why it is not answered from what is kept; one sentence.
    """
    if error.status == 429:
        return error
    kind = type(error) if isinstance(error, UpstreamUnreachable) else UpstreamUnreachable
    return kind(f"{error.message} {lacking}", advice=error.advice, headers=error.headers)


def _lacking(known: Known, verdict: Verdict | None, *, may_read: bool) -> str:
    """Say what a read lacks without the upstream. Who was never allowed to read it learns nothing
    of what is kept."""
    if not may_read and verdict is not None and verdict.content:
        return "That you may read this was looked up too long ago to rely on."
    if may_read and known.claim is not None and not known.kept:
        return "The file is known here, but its bytes are not kept."
    return "It is not kept here."


def _question(request: HubRequest, headers: Mapping[str, str]) -> Question:
    if request.repo is None or request.revision is None or not request.file:
        raise NotFound("This address names no file.")
    return Question(
        request.repo,
        request.revision,
        request.file,
        want_body=request.method == "GET",
        want_fresh=wants_fresh(headers),
        headers=headers,
        began=time.time(),
    )
