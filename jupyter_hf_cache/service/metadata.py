"""Reads of JSON: repo info, trees, paths-info, refs, commits and lists.

Responsible for: the right to see each, how long it holds, resolving a moving ref to a commit before
a tree is asked for, and what is said when the upstream cannot be asked.
Not responsible for: files (`service.files`), or fetching and keeping one answer
(`upstream.listings`).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.errors import BadRequest, UpstreamAnswer, UpstreamError
from jupyter_hf_cache.protocol.headers import forward_request_headers
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, api_path, is_commit
from jupyter_hf_cache.protocol.rewrite import rewrite_link
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import ANONYMOUS_IDENTITY, Caller
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.files import final
from jupyter_hf_cache.service.heads import wants_fresh, warning
from jupyter_hf_cache.service.negatives import Negatives
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import RepoRef, Revision, Verdict
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.listings import Listing, Listings, fetch_listing, listing_key
from jupyter_hf_cache.upstream.policy import is_fresh
from jupyter_hf_cache.upstream.rights import Rights, Subject, decide_read, decide_read_unasked

logger = logging.getLogger(__name__)

_FOR_EVER = float("inf")
_JSON = "application/json; charset=utf-8"
_ACCEPT = {"Accept": "application/json"}
# Questions of which there is no end: only the latest answers are kept.
_ENDLESS = frozenset({Kind.LIST, Kind.PATHS_INFO, Kind.COMMITS})
# What a gated repo shows to everybody.
_OPEN_PAGES = frozenset({Kind.INFO, Kind.REFS})
_USUAL_FIELDS = frozenset({"recursive", "expand", "limit", "cursor", "blobs", "securityStatus"})


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
        changes: Changes,
        single_user: bool,
    ) -> None:
        self._listings = listings
        self._revisions = revisions
        self._rights = rights
        self._usage = usage
        self._breaker = breaker
        self._changes = changes
        self._single_user = single_user
        self._flight = SingleFlight()
        self._negatives = Negatives()

    def answer(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer GET, HEAD, or the POST of paths-info.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        old = ""
        if request.kind in (Kind.TREE, Kind.PATHS_INFO) and request.revision is not None:
            request, old = self._at_commit(request, caller, headers)
        listing, stale = self._read(request, caller, headers, body)
        _raise_if_refused(listing)
        return _answer(listing, request, caller, stale or old)

    # -- moving refs

    def _at_commit(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str]
    ) -> tuple[HubRequest, str]:
        """Return the same question at the commit that its revision points at now and, when that is
        stale, why.

        Without this, the pages of one listing could straddle a push.
        """
        repo, revision = _repo(request), request.revision or "main"
        if is_commit(revision):
            return request, ""
        pointer = self._revisions.get(caller, repo, revision)
        changed = self._changes.last(caller.scope, repo)
        fresh = is_fresh(pointer, caller.lifetimes.revision, time.time(), changed)
        stale = ""
        if pointer is not None and fresh and not wants_fresh(headers):
            commit = pointer.commit
        else:
            found, stale = self._ask_for_commit(repo, revision, caller, headers, pointer)
            if found is None:
                # A repo without any commit: let the upstream say what there is.
                return request, stale
            commit = found
        verb = "tree" if request.kind is Kind.TREE else "paths-info"
        path = api_path(repo, verb, commit, request.file or "")
        return replace(request, path=path, revision=commit), stale

    def _ask_for_commit(
        self,
        repo: RepoRef,
        revision: str,
        caller: Caller,
        headers: Mapping[str, str],
        pointer: Revision | None,
    ) -> tuple[str | None, str]:
        try:
            listing, stale = self._read(_page_of(repo, revision), caller, headers, b"")
        except UpstreamError as error:
            if pointer is None:
                raise
            # The page was never loaded, but a file of the branch was.
            return pointer.commit, error.message
        if stale and pointer is not None:
            # A file read may have seen the branch later than its page.
            return pointer.commit, stale
        return listing.commit, stale

    # -- reading

    def _read(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes
    ) -> tuple[Listing, str]:
        """Return a listing and, when it is stale, why."""
        key = _key(request, caller, headers, body)
        known = self._listings.get(key)
        fresh = wants_fresh(headers)
        try:
            caller.client.watch.check()
            if known is not None and not fresh and self._holds(request, caller, known):
                self._usage.saved_call()
                return known, ""
            if known is not None and self._renewed(request, caller, headers):
                return known, ""
            refused = self._negatives.find(
                key, caller.lifetimes.negative, self._changes.last(caller.scope, request.repo)
            )
            if refused is not None and not fresh:
                raise refused
            return self._flight.do(
                key, lambda: self._find_out(key, request, caller, headers, body)
            ), ""
        except UpstreamError as error:
            if known is not None and self._holds_unasked(request, caller, known):
                logger.info("serving a kept listing: %s", error.message)
                return known, error.message
            raise final(error) from error

    def _holds(self, request: HubRequest, caller: Caller, known: Listing) -> bool:
        """Return whether a kept listing may be shown, and is fresh enough, without asking."""
        now = time.time()
        lifetime = self._lifetime(request, caller)
        if lifetime == _FOR_EVER:
            return self._may_list(request, caller, now)
        if request.repo is not None:
            # The right to see it was learnt with it.
            lifetime = min(lifetime, caller.lifetimes.access)
        if not 0 <= now - known.fetched < lifetime:
            return False
        if known.fetched <= self._changes.last(caller.scope, request.repo):
            return False
        if request.kind is not Kind.INFO or known.commit is None or request.repo is None:
            return True
        revision = request.revision or "main"
        pointer = (
            None if is_commit(revision) else self._revisions.get(caller, request.repo, revision)
        )
        # A file read may have seen the branch move since: page and files must speak of one commit.
        return pointer is None or pointer.commit == known.commit

    def _lifetime(self, request: HubRequest, caller: Caller) -> float:
        fixed = is_commit(request.revision or "")
        if request.kind in (Kind.TREE, Kind.PATHS_INFO):
            fixed = fixed and not _is_expanded(request.query)
            return _FOR_EVER if fixed else caller.lifetimes.metadata
        return _FOR_EVER if fixed and request.kind is Kind.COMMITS else caller.lifetimes.metadata

    def _may_list(self, request: HubRequest, caller: Caller, now: float) -> bool:
        verdicts = self._verdicts(request, caller)
        return any(decide_read(verdict, caller.lifetimes, now) for verdict in verdicts)

    def _verdicts(self, request: HubRequest, caller: Caller) -> list[Verdict]:
        """What the upstream said of this identity's right to this kind of page. Who may read the
        files of a repo may see its pages."""
        repo = _repo(request)
        files = self._rights.verdict(caller.scope, caller.identity, repo)
        page = self._rights.verdict(caller.scope, caller.identity, repo, Subject.PAGES)
        if page is not None and request.kind in _OPEN_PAGES:
            # "No content" is said of a gated repo, whose own page is open.
            page = replace(page, content=True)
        return [verdict for verdict in (files, page) if verdict is not None]

    def _renewed(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> bool:
        """Ask whether this identity may still see what never changes, by asking for the repo's
        page; False when that does not tell, or when the listing itself may have changed."""
        if self._lifetime(request, caller) != _FOR_EVER:
            return False
        page = self._rights.verdict(caller.scope, caller.identity, _repo(request), Subject.PAGES)
        if page is not None and 0 <= time.time() - page.checked < caller.lifetimes.access:
            return self._may_list(request, caller, time.time())
        info = _page_of(_repo(request), request.revision)
        key = _key(info, caller, headers, b"")
        self._flight.do(key, lambda: self._fetch(key, info, caller, headers, b""))
        return self._may_list(request, caller, time.time())

    # -- asking

    def _find_out(
        self,
        key: str,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Listing:
        if not wants_fresh(headers):
            # An equal question may have been answered between a look at what is known and here, in
            # this process or another one.
            known = self._listings.look_again(key)
            if known is not None and self._holds(request, caller, known):
                return known
            request = self._page_at_commit(request, caller)
        return self._fetch(key, request, caller, headers, body)

    def _page_at_commit(self, request: HubRequest, caller: Caller) -> HubRequest:
        """While a branch is known well enough, its page is asked for at that commit: page and
        files must speak of one."""
        repo, revision = request.repo, request.revision or "main"
        if request.kind is not Kind.INFO or repo is None or is_commit(revision):
            return request
        pointer = self._revisions.get(caller, repo, revision)
        changed = self._changes.last(caller.scope, repo)
        if pointer is None or not is_fresh(
            pointer, caller.lifetimes.revision, time.time(), changed
        ):
            return request
        path = api_path(repo, "revision", pointer.commit)
        return replace(request, path=path, revision=pointer.commit)

    def _fetch(
        self,
        key: str,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes,
    ) -> Listing:
        sent = {**_ACCEPT, **_without_conditions(forward_request_headers(headers, bearer=None))}
        asked = time.time()
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
            self._note_refusal(key, request, caller, refused, asked)
            raise
        self._note_right(request, caller, listing)
        self._note_commit(request, caller, listing)
        self._listings.put(key, listing)
        self._usage.miss()
        return listing

    def _note_commit(self, request: HubRequest, caller: Caller, listing: Listing) -> None:
        """Keep where a moving ref points, as a repo's page tells."""
        revision = request.revision or "main"
        if request.kind is not Kind.INFO or request.repo is None or is_commit(revision):
            return
        if listing.commit is not None:
            pointer = Revision(listing.commit, listing.fetched)
            self._revisions.put(caller, request.repo, revision, pointer)

    def _note_right(self, request: HubRequest, caller: Caller, listing: Listing) -> None:
        """Keep what an answer proves: that this identity may see this kind of page."""
        repo, now = request.repo, time.time()
        if repo is None:
            return
        scope, identity = caller.scope, caller.identity
        before = self._rights.verdict(scope, identity, repo, Subject.PAGES)
        public = identity == ANONYMOUS_IDENTITY or listing.public
        if request.kind not in _OPEN_PAGES:
            public = public or (before is not None and before.public)
            page = Verdict(content=True, public=public, checked=now)
            self._rights.grant(scope, identity, repo, page, Subject.PAGES)
            return
        if listing.restricted is None:
            page = before or Verdict(content=False, public=public, checked=now)
            self._rights.grant(scope, identity, repo, replace(page, checked=now), Subject.PAGES)
        elif not (listing.restricted and decide_read(before, caller.lifetimes, now)):
            page = Verdict(content=not listing.restricted, public=public, checked=now)
            self._rights.grant(scope, identity, repo, page, Subject.PAGES)
        if listing.public and listing.restricted is False:
            verdict = Verdict(content=True, public=True, checked=now)
            self._rights.grant(scope, identity, repo, verdict)

    def _note_refusal(
        self, key: str, request: HubRequest, caller: Caller, refused: UpstreamAnswer, asked: float
    ) -> None:
        if refused.code == "EntryNotFound" and is_commit(request.revision or ""):
            # A commit never gains a path, and clients ask for optional ones also when the Hub is
            # down.
            self._listings.put(key, _refused_listing(refused))
            return
        if request.repo is not None:
            self._rights.note_refusal(
                caller.scope, caller.identity, request.repo, refused.status, refused.code
            )
        self._negatives.note(key, refused, asked)

    # -- not asking

    def _holds_unasked(self, request: HubRequest, caller: Caller, known: Listing) -> bool:
        if request.repo is None:
            public = caller.identity == ANONYMOUS_IDENTITY
            verdicts = [Verdict(content=True, public=public, checked=known.fetched)]
        else:
            verdicts = self._verdicts(request, caller)
        return any(
            decide_read_unasked(
                verdict,
                caller.lifetimes,
                time.time(),
                single_user=self._single_user,
                owner=caller.owner,
            )
            for verdict in verdicts
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
    fields = {name for name, _ in parse_qsl(request.query, keep_blank_values=True)}
    passing = request.kind in _ENDLESS or not fields <= _USUAL_FIELDS
    return listing_key(caller.scope, caller.identity, *repo, *what, passing=passing)


def _is_expanded(query: str) -> bool:
    """Return whether a tree was asked for with the last commit and scan of each file; scans go
    on."""
    values = {value.lower() for name, value in parse_qsl(query) if name == "expand"}
    return bool(values - {"false", "0"})


def _page_of(repo: RepoRef, revision: str | None) -> HubRequest:
    """The question for a repo's page at a revision."""
    return HubRequest(
        kind=Kind.INFO,
        method="GET",
        path=api_path(repo, "revision", revision),
        query="",
        repo=repo,
        revision=revision,
    )


def _without_conditions(headers: dict[str, str]) -> dict[str, str]:
    """Leave out what would make the upstream answer with something else than the whole body."""
    dropped = ("if-none-match", "if-match", "if-modified-since", "if-range", "range", "accept")
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def _repo(request: HubRequest) -> RepoRef:
    if request.repo is None:
        raise BadRequest("This address names no repository.")
    return request.repo
