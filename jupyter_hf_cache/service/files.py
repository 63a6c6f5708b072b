"""Reads of files: resolve.

Responsible for: one read of repo@revision:file from question to answer: what is known, whether the
upstream has to be asked, the right to read before everything, and where the bytes come from.
Not responsible for: JSON answers (`service.metadata`), raw (`service.raw`), or sending.
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
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.protocol.paths import HubRequest, is_commit
from jupyter_hf_cache.service.bodies import Bodies
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.heads import missing_file, wants_fresh
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.blobs import BlobId, LocalBlobStore
from jupyter_hf_cache.storage.records import ANONYMOUS, Claim, RepoRef, Revision, Verdict
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.lookup import Look, look_up
from jupyter_hf_cache.upstream.policy import (
    Action,
    Known,
    Lifetimes,
    plan,
    plan_without_upstream,
)
from jupyter_hf_cache.upstream.rights import Rights

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it may be given to this caller: its claim, and whether that is stale."""

    claim: Claim
    stale: str = ""


class Files:
    """Answers reads of files. Thread-safe; every method blocks on disk or upstream."""

    def __init__(
        self,
        *,
        store: LocalBlobStore,
        claims: Claims,
        revisions: Revisions,
        rights: Rights,
        bodies: Bodies,
        usage: Usage,
        breaker: Breaker,
        lifetimes: Lifetimes,
        single_user: bool,
        offline: bool,
    ) -> None:
        self._store = store
        self._claims = claims
        self._revisions = revisions
        self._rights = rights
        self._bodies = bodies
        self._usage = usage
        self._breaker = breaker
        self._lifetimes = lifetimes
        self._single_user = single_user
        self._offline = offline
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
            return self._bodies.head(request, claim, headers, found.stale)
        return self._bodies.answer(request, caller, claim, headers, found.stale)

    def find(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Found:
        """Return the claim on the file, after the right to read it was established.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        repo, revision, file = _parts(request)
        now = time.time()
        known = self._known(caller, repo, revision, file, want_body=request.method == "GET")
        action = plan(known, self._lifetimes, now, offline=self._offline)
        if action in (Action.SERVE, Action.FETCH) and not wants_fresh(headers):
            self._usage.saved_call()
            return Found(_claim_of(known))
        if not self._offline:
            try:
                return Found(self._ask(caller, repo, revision, file, known))
            except UpstreamError as error:
                return self._without_upstream(caller, known, now, error)
        return self._without_upstream(
            caller, known, now, UpstreamUnreachable("This cache is offline.")
        )

    def _known(
        self, caller: Caller, repo: RepoRef, revision: str, file: str, *, want_body: bool
    ) -> Known:
        pinned = is_commit(revision)
        pointer = None if pinned else self._revisions.get(caller, repo, revision)
        commit = revision if pinned else (pointer.commit if pointer else None)
        claim = self._claims.get(caller.remote.origin_id, repo, commit, file) if commit else None
        return Known(
            pinned=pinned,
            revision=pointer,
            verdict=self._verdict(caller, repo),
            claim=claim,
            kept=claim is not None and (not want_body or claim.absent or self._kept(caller, claim)),
        )

    def _kept(self, caller: Caller, claim: Claim) -> bool:
        digest = Digest.from_etag(claim.etag)
        if digest is None:
            return False
        return self._store.size_of(BlobId.of(digest, caller.remote.origin_id)) is not None

    def _verdict(self, caller: Caller, repo: RepoRef) -> Verdict | None:
        verdict = self._rights.verdict(caller.remote.id, caller.identity, repo)
        if caller.public_only and caller.identity != "anonymous" and verdict is not None:
            public = self._rights.verdict(caller.remote.id, "anonymous", repo)
            return public if public is not None and public.public else None
        return verdict

    # -- asking

    def _ask(self, caller: Caller, repo: RepoRef, revision: str, file: str, known: Known) -> Claim:
        """Ask the upstream with the caller's own credential; keep what it says."""
        pointer = known.revision
        fresh = pointer is not None and time.time() - pointer.checked < self._lifetimes.revision
        # While a branch is known well enough, all its files are asked for at that one commit.
        asked = pointer.commit if pointer is not None and fresh else revision
        key = (caller.remote.id, caller.identity, repo, asked, file)
        look = self._flight.do(key, lambda: self._look(caller, repo, asked, file))
        if caller.public_only and caller.identity != "anonymous":
            self._ask_publicly(caller, repo, look.claim.commit, file)
        if asked == revision and not is_commit(revision):
            self._revisions.put(caller, repo, revision, Revision(look.claim.commit, time.time()))
        return look.claim

    def _look(self, caller: Caller, repo: RepoRef, revision: str, file: str) -> Look:
        try:
            with self._breaker.asking(caller.remote.id):
                look = look_up(caller.client, caller.credential, repo, revision, file)
        except UpstreamAnswer as refused:
            if refused.status in (401, 403, 404):
                self._rights.revoke(caller.remote.id, caller.identity, repo)
            raise
        if look.readable:
            public = caller.credential.token is None and caller.credential.source == "none"
            verdict = Verdict(content=True, public=public, checked=time.time())
            self._rights.grant(caller.remote.id, caller.identity, repo, verdict)
        self._claims.put(caller.remote.origin_id, repo, file, look.claim)
        return look

    def _ask_publicly(self, caller: Caller, repo: RepoRef, commit: str, file: str) -> None:
        """For callers from the network: the content must be public, whatever their token opens."""
        look = look_up(caller.client, ANONYMOUS, repo, commit, file)
        if look.readable:
            verdict = Verdict(content=True, public=True, checked=time.time())
            self._rights.grant(caller.remote.id, "anonymous", repo, verdict)

    def _without_upstream(
        self, caller: Caller, known: Known, now: float, error: UpstreamError
    ) -> Found:
        """Fall back on what is kept, or say why that is not possible."""
        action = plan_without_upstream(
            known, self._lifetimes, now, single_user=self._single_user, owner=caller.owner
        )
        if action is Action.SERVE:
            logger.info("serving what is kept: %s", error.message)
            return Found(_claim_of(known), stale=error.message)
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


def _parts(request: HubRequest) -> tuple[RepoRef, str, str]:
    if request.repo is None or request.revision is None or not request.file:
        raise NotFound("This address names no file.")
    return request.repo, request.revision, request.file


def _claim_of(known: Known) -> Claim:
    if known.claim is None:
        raise RuntimeError("a plan to serve without a claim")
    return known.claim
