"""Reads of JSON: repo info, trees, paths-info, refs, commits and lists.

Responsible for: how long each holds, resolving a moving ref to a commit before a tree is asked
for, the right to see it, and what is said when the upstream cannot be asked.
Not responsible for: files (`service.files`), or fetching and keeping one answer
(`upstream.listings`).
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping
from urllib.parse import parse_qsl

from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.errors import BadRequest, UpstreamAnswer, UpstreamError, UpstreamUnreachable
from jupyter_hf_cache.protocol.headers import forward_request_headers
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, api_path, is_commit
from jupyter_hf_cache.protocol.rewrite import rewrite_link
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.files import final
from jupyter_hf_cache.service.heads import wants_fresh, warning
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import RepoRef, Revision, Verdict
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.listings import Listing, Listings, fetch_listing, listing_key
from jupyter_hf_cache.upstream.policy import Lifetimes, is_fresh, verdict_holds
from jupyter_hf_cache.upstream.rights import Rights

logger = logging.getLogger(__name__)

_FOR_EVER = float("inf")
_JSON = "application/json; charset=utf-8"
_ACCEPT = {"Accept": "application/json"}


class Metadata:
    """Answers reads of JSON. Thread-safe; every method blocks on disk or upstream."""

    def __init__(
        self,
        *,
        listings: Listings,
        revisions: Revisions,
        rights: Rights,
        usage: Usage,
        breaker: Breaker,
        lifetimes: Lifetimes,
        single_user: bool,
        offline: bool,
    ) -> None:
        self._listings = listings
        self._revisions = revisions
        self._rights = rights
        self._usage = usage
        self._breaker = breaker
        self._lifetimes = lifetimes
        self._single_user = single_user
        self._offline = offline
        self._flight = SingleFlight()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str, RepoRef | None], float] = {}
        self._negative: dict[str, tuple[float, UpstreamAnswer]] = {}

    def answer(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer GET, HEAD, or the POST of paths-info.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        if request.kind in (Kind.TREE, Kind.PATHS_INFO) and request.revision is not None:
            request = self._at_commit(request, caller, headers)
        listing, stale = self._read(request, caller, headers, body)
        _raise_if_refused(listing)
        return _answer(listing, request, caller, stale)

    def forget(self, caller: Caller, repo: RepoRef) -> None:
        """Forget what moves about a repo: the caller just changed it through us."""
        self._listings.forget(
            listing_key(caller.remote.id, caller.identity, repo.type, repo.id) + "/"
        )
        self._revisions.forget(caller.remote.id, repo)
        with self._lock:
            self._negative.clear()

    # -- moving refs

    def _at_commit(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str]
    ) -> HubRequest:
        """Return the same question at the commit that its revision points at now."""
        repo, revision = _repo(request), request.revision or "main"
        if is_commit(revision):
            return request
        pointer = self._revisions.get(caller, repo, revision)
        if not is_fresh(pointer, self._lifetimes.revision, time.time()) or wants_fresh(headers):
            info = HubRequest(
                kind=Kind.INFO,
                method="GET",
                path=api_path(repo, "revision", revision),
                query="",
                repo=repo,
                revision=revision,
            )
            listing, _ = self._read(info, caller, headers, b"")
            if listing.commit is None:
                raise UpstreamError("The upstream's repo info names no commit.")
            commit = listing.commit
        else:
            commit = pointer.commit if pointer is not None else revision
        verb = "tree" if request.kind is Kind.TREE else "paths-info"
        return HubRequest(
            kind=request.kind,
            method=request.method,
            path=api_path(repo, verb, commit, request.file or ""),
            query=request.query,
            repo=repo,
            revision=commit,
            file=request.file,
        )

    # -- reading

    def _read(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes
    ) -> tuple[Listing, str]:
        """Return a listing and, when it is stale, why."""
        key = _key(request, caller, headers, body)
        known = self._listings.get(key)
        now = time.time()
        if (
            known is not None
            and not wants_fresh(headers)
            and self._holds(request, caller, known, now)
        ):
            self._usage.saved_call()
            return known, ""
        if known is None and (refused := self._refused(key)) is not None:
            raise refused
        try:
            if self._offline:
                raise UpstreamUnreachable("This cache is offline.")
            if known is not None and self._lifetime(request) == _FOR_EVER:
                self._ask_for_the_right(request, caller, headers)
                return known, ""
            return self._flight.do(
                key, lambda: self._fetch(key, request, caller, headers, body)
            ), ""
        except UpstreamError as error:
            if known is not None and self._holds_without_upstream(caller, known, now):
                logger.info("serving a kept listing: %s", error.message)
                return known, error.message
            raise final(error) from error

    def _holds(self, request: HubRequest, caller: Caller, known: Listing, now: float) -> bool:
        lifetime = self._lifetime(request)
        if lifetime == _FOR_EVER:
            return self._seen_lately(request, caller, now)
        if now - known.fetched >= lifetime:
            return False
        if request.kind is not Kind.INFO or known.commit is None or request.repo is None:
            return True
        revision = request.revision or "main"
        pointer = (
            None if is_commit(revision) else self._revisions.get(caller, request.repo, revision)
        )
        # A file read may have seen the branch move since: page and files must speak of one commit.
        return pointer is None or pointer.commit == known.commit

    def _lifetime(self, request: HubRequest) -> float:
        if request.kind in (Kind.TREE, Kind.PATHS_INFO):
            moving = any(name.startswith("expand") for name, _ in parse_qsl(request.query))
            return self._lifetimes.metadata if moving else _FOR_EVER
        if request.kind is Kind.COMMITS and is_commit(request.revision or ""):
            return _FOR_EVER
        return self._lifetimes.metadata

    def _seen_lately(self, request: HubRequest, caller: Caller, now: float) -> bool:
        """Return whether this identity was shown something of the repo within the access
        lifetime."""
        seen = self._seen.get((caller.remote.id, caller.identity, request.repo), 0.0)
        if 0 <= now - seen < self._lifetimes.access:
            return True
        if request.repo is None:
            return False
        verdict = self._rights.verdict(caller.remote.id, caller.identity, request.repo)
        return verdict is not None and 0 <= now - verdict.checked < self._lifetimes.access

    def _ask_for_the_right(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str]
    ) -> None:
        """Ask whether this identity may still see the repo, by asking for its page."""
        repo = _repo(request)
        info = HubRequest(
            kind=Kind.INFO,
            method="GET",
            path=api_path(repo, "revision", request.revision),
            query="",
            repo=repo,
            revision=request.revision,
        )
        key = _key(info, caller, headers, b"")
        self._flight.do(key, lambda: self._fetch(key, info, caller, headers, b""))

    def _fetch(
        self,
        key: str,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Listing:
        sent = {**_ACCEPT, **_without_conditions(forward_request_headers(headers, bearer=None))}
        try:
            with self._breaker.asking(caller.remote.id):
                listing = fetch_listing(
                    caller.client,
                    caller.credential,
                    "POST" if request.kind is Kind.PATHS_INFO else "GET",
                    request.path,
                    request.query,
                    headers=sent,
                    body=body or None,
                )
        except UpstreamAnswer as refused:
            self._note_refusal(key, request, caller, refused)
            raise
        self._note_answer(request, caller, listing)
        self._listings.put(key, listing)
        self._usage.miss()
        return listing

    def _note_answer(self, request: HubRequest, caller: Caller, listing: Listing) -> None:
        now = time.time()
        if request.repo is None:
            return
        self._seen[(caller.remote.id, caller.identity, request.repo)] = now
        if request.kind is not Kind.INFO:
            return
        if listing.open:
            verdict = Verdict(content=True, public=True, checked=now)
            self._rights.grant(caller.remote.id, caller.identity, request.repo, verdict)
        revision = request.revision or "main"
        if listing.commit is not None and not is_commit(revision):
            self._revisions.put(caller, request.repo, revision, Revision(listing.commit, now))

    def _note_refusal(
        self, key: str, request: HubRequest, caller: Caller, refused: UpstreamAnswer
    ) -> None:
        if request.repo is not None and refused.code in (None, "RepoNotFound", "GatedRepo"):
            self._listings.forget(
                listing_key(caller.remote.id, caller.identity, request.repo.type, request.repo.id)
                + "/"
            )
            self._rights.revoke(caller.remote.id, caller.identity, request.repo)
            self._seen.pop((caller.remote.id, caller.identity, request.repo), None)
        if refused.code == "EntryNotFound" and is_commit(request.revision or ""):
            # A commit never gains a path, and clients ask for optional ones also when the Hub is
            # down.
            self._listings.put(key, _refused_listing(refused))
        elif refused.status == 404:
            with self._lock:
                if len(self._negative) > 10_000:
                    self._negative.clear()
                self._negative[key] = (time.time() + self._lifetimes.negative, refused)

    def _refused(self, key: str) -> UpstreamAnswer | None:
        until, refused = self._negative.get(key, (0.0, None))
        return refused if refused is not None and time.time() < until else None

    def _holds_without_upstream(self, caller: Caller, known: Listing, now: float) -> bool:
        public = caller.identity == "anonymous" or known.extra.get("private") is False
        verdict = Verdict(content=True, public=public, checked=known.fetched)
        return verdict_holds(
            verdict, self._lifetimes, now, single_user=self._single_user, owner=caller.owner
        )


def _refused_listing(refused: UpstreamAnswer) -> Listing:
    kept = ("x-repo-commit", "content-type")
    return Listing(
        text=refused.body.decode("utf-8", "replace"),
        headers={name: value for name, value in refused.headers.items() if name.lower() in kept},
        fetched=time.time(),
        extra={"status": refused.status, "code": refused.code, "message": refused.message},
    )


def _raise_if_refused(listing: Listing) -> None:
    if "status" in listing.extra:
        raise UpstreamAnswer(
            listing.extra["status"],
            listing.extra["message"],
            code=listing.extra["code"],
            headers=listing.headers,
            body=listing.text.encode(),
        )


def _answer(listing: Listing, request: HubRequest, caller: Caller, stale: str) -> Answer:
    headers = {
        name: value
        for name, value in listing.headers.items()
        if name.lower() not in ("link", "content-type", "etag")
    }
    headers["Content-Type"] = _JSON
    link = next((v for n, v in listing.headers.items() if n.lower() == "link"), None)
    if link is not None:
        rewritten = rewrite_link(link, caller.remote.upstream_url, caller.base)
        if rewritten:
            headers["Link"] = rewritten
    if stale:
        headers["X-HF-Warning"] = warning(stale)
    data = listing.text.encode()
    headers["Content-Length"] = str(len(data))
    body = None if request.method == "HEAD" else BytesBody(data)
    return Answer(200, headers, body, result="stale" if stale else "hit")


def _key(request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes) -> str:
    """Name an answer by everything it depends on."""
    what = [request.kind.value, request.path, request.query]
    if body:
        kind = headers.get("Content-Type", "")
        what.append(hashlib.sha256(kind.encode() + b"\0" + body).hexdigest())
    repo = [request.repo.type, request.repo.id] if request.repo is not None else ["-", "-"]
    return listing_key(caller.remote.id, caller.identity, *repo, *what)


def _without_conditions(headers: dict[str, str]) -> dict[str, str]:
    """Leave out what would make the upstream answer with something else than the whole body."""
    dropped = ("if-none-match", "if-match", "if-modified-since", "if-range", "range", "accept")
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def _repo(request: HubRequest) -> RepoRef:
    if request.repo is None:
        raise BadRequest("This address names no repository.")
    return request.repo
