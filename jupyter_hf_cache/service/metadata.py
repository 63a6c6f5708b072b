"""Reads of JSON: repo info, trees, paths-info, refs, commits and lists.

Responsible for: the right to see each, how long it holds, resolving a moving ref to a commit before
a tree is asked for, and what is said when the upstream cannot be asked.
Not responsible for: files (`service.files`), or fetching and keeping one answer
(`upstream.listings`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.errors import UpstreamAnswer, UpstreamError
from jupyter_hf_cache.protocol.headers import forward_request_headers
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, api_path, is_commit
from jupyter_hf_cache.protocol.rewrite import rewrite_link
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.files import final
from jupyter_hf_cache.service.heads import missing_folder, wants_fresh, warning
from jupyter_hf_cache.service.listed import Listed
from jupyter_hf_cache.service.marks import Marks
from jupyter_hf_cache.service.names import Owners
from jupyter_hf_cache.service.negatives import Negatives
from jupyter_hf_cache.service.page_rights import PageRights
from jupyter_hf_cache.service.passing import Passing
from jupyter_hf_cache.service.questions import (
    FOR_EVER,
    lifetime,
    page_of,
    question_key,
    repo_of,
    without_conditions,
)
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import RepoRef, Revision
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.listings import READ_TIMEOUT, Listing, Listings, fetch_listing
from jupyter_hf_cache.upstream.lookup import METADATA_TIMEOUT
from jupyter_hf_cache.upstream.policy import is_fresh

logger = logging.getLogger(__name__)

_JSON = "application/json; charset=utf-8"
_ACCEPT = {"Accept": "application/json"}
_FRESH = {"Cache-Control": "no-cache"}


class Metadata:
    """Answers reads of JSON. Thread-safe; every method blocks on disk or upstream."""

    def __init__(
        self,
        *,
        listings: Listings,
        listed: Listed,
        marks: Marks,
        passing: Passing,
        owners: Owners,
        revisions: Revisions,
        rights: PageRights,
        usage: Usage,
        breaker: Breaker,
        changes: Changes,
    ) -> None:
        self._listings = listings
        self._listed = listed
        self._marks = marks
        self._passing = passing
        self._owners = owners
        self._revisions = revisions
        self._rights = rights
        self._usage = usage
        self._breaker = breaker
        self._changes = changes
        self._flight = SingleFlight()
        self._negatives = Negatives()

    def answer(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer GET, HEAD, or the POST of paths-info.

        Raises:
            HfCacheError: the upstream's refusal, or why nobody could be asked.
        """
        asked, old = request, ""
        if request.kind in (Kind.TREE, Kind.PATHS_INFO) and request.revision is not None:
            asked, old = self._at_commit(request, caller, headers)
        try:
            listing, stale = self._read(asked, caller, headers, body)
        except UpstreamAnswer as gone:
            if asked is request or gone.code != "RevisionNotFound":
                raise
            # The branch was moved by force, and what it pointed at is no more.
            asked, old = self._at_commit(request, caller, {**headers, **_FRESH})
            listing, stale = self._read(asked, caller, headers, body)
        _raise_if_refused(listing)
        text = self._passing.listing(listing.text, caller)
        return _answer(replace(listing, text=text), asked, caller, stale or old)

    # -- moving refs

    def _at_commit(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str]
    ) -> tuple[HubRequest, str]:
        """Return the same question at the commit that its revision points at now and, when that is
        stale, why.

        Without this, the pages of one listing could straddle a push.
        """
        repo, revision = repo_of(request), request.revision or "main"
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
            listing, stale = self._read(page_of(repo, revision), caller, headers, b"")
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
        key = question_key(request, caller, headers, body)
        known = self._listings.get(key)
        fresh = wants_fresh(headers)
        try:
            caller.client.watch.check()
            if known is not None and not fresh and self._holds(request, caller, known):
                self._usage.saved_call()
                return known, ""
            if known is not None and self._renewed(request, caller, headers):
                return known, ""
            refused = self._refusal(key, request, caller) if known is None else None
            if refused is not None and not fresh:
                self._usage.saved_call()
                raise refused
            return self._flight.do(
                key, lambda: self._find_out(key, request, caller, headers, body)
            ), ""
        except UpstreamError as error:
            if known is not None and self._rights.may_list_unasked(request, caller, known):
                logger.info("serving a kept listing: %s", error.message)
                return known, error.message
            missing = self._missing(request, caller)
            if missing is not None and self._rights.may_list_unasked(request, caller):
                raise missing from error
            raise final(error) from error

    def _holds(self, request: HubRequest, caller: Caller, known: Listing) -> bool:
        """Return whether a kept listing may be shown, and is fresh enough, without asking."""
        now = time.time()
        holds = lifetime(request, caller.lifetimes.metadata)
        if holds == FOR_EVER:
            return self._is_named(request, caller) and self._rights.may_list(request, caller, now)
        # The right to see it, and the names in it, was learnt with it.
        holds = min(holds, caller.lifetimes.access)
        if not 0 <= now - known.fetched < holds:
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

    def _renewed(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> bool:
        """Ask whether this identity may still see what never changes, by asking for the repo's
        page; False when that does not tell, or when the listing itself may have changed."""
        if request.kind is Kind.INFO or lifetime(request, 0.0) != FOR_EVER:
            return False
        now = time.time()
        if self._is_named(request, caller) and self._rights.is_fresh(request, caller, now):
            return self._rights.may_list(request, caller, now)
        info = page_of(repo_of(request), request.revision)
        key = question_key(info, caller, headers, b"")
        self._flight.do(key, lambda: self._fetch(key, info, caller, headers, b""))
        return self._rights.may_list(request, caller, time.time())

    def _is_named(self, request: HubRequest, caller: Caller) -> bool:
        """Return whether the upstream named a commit lately. What never changes is still of this
        repo only then: its name may belong to another one by now."""
        repo, commit = repo_of(request), request.revision or ""
        changed = self._changes.last(caller.scope, repo)
        named = self._revisions.get(caller, repo, commit)
        return is_fresh(named, caller.lifetimes.access, time.time(), changed)

    def _refusal(self, key: str, request: HubRequest, caller: Caller) -> UpstreamAnswer | None:
        """Return the answer to a question of which it is known that there is nothing."""
        missing = self._missing(request, caller)
        if (
            missing is not None
            and self._is_named(request, caller)
            and self._rights.may_list(request, caller, time.time())
        ):
            return missing
        changed = self._changes.last(caller.scope, request.repo)
        return self._negatives.find(key, caller.lifetimes.negative, changed)

    def _missing(self, request: HubRequest, caller: Caller) -> UpstreamAnswer | None:
        """Return the answer for a folder that a commit is known not to have."""
        repo, commit, folder = request.repo, request.revision or "", request.file
        if request.kind is not Kind.TREE or repo is None or not folder or not is_commit(commit):
            return None
        there = self._listed.has(caller, repo, commit, folder)
        return missing_folder(commit, folder) if there is False else None

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
            at_commit = self._page_at_commit(request, caller)
            try:
                return self._fetch(key, at_commit, caller, headers, body)
            except UpstreamAnswer as gone:
                if at_commit is request or gone.code != "RevisionNotFound":
                    raise
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
        sent = {**_ACCEPT, **without_conditions(forward_request_headers(headers, bearer=None))}
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
                    read_timeout=self._patience(key),
                )
        except UpstreamAnswer as refused:
            self._note_refusal(key, request, caller, refused, asked)
            raise
        if request.kind is Kind.INFO and request.repo is not None and listing.object_id is not None:
            # First of all: what was learnt of a former owner of the name ends here.
            self._owners.note(caller, request.repo, listing.object_id)
        self._rights.note(request, caller, listing)
        self._marks.note(caller.scope, request, listing)
        self._note_commit(request, caller, listing)
        self._listings.put(key, listing)
        return listing

    def _patience(self, key: str) -> float:
        """Return how many seconds the upstream may stay silent: fewer where an older answer is kept
        that can be given instead."""
        return READ_TIMEOUT if self._listings.get(key) is None else METADATA_TIMEOUT

    def _note_commit(self, request: HubRequest, caller: Caller, listing: Listing) -> None:
        """Keep where a moving ref points, as a repo's page tells, and that a commit was named."""
        revision = request.revision or "main"
        commit = (listing.commit if request.kind is Kind.INFO else None) or request.revision
        if request.repo is None or commit is None or not is_commit(commit):
            return
        self._revisions.put(caller, request.repo, revision, Revision(commit, listing.fetched))

    def _note_refusal(
        self, key: str, request: HubRequest, caller: Caller, refused: UpstreamAnswer, asked: float
    ) -> None:
        if refused.code == "EntryNotFound" and is_commit(request.revision or ""):
            # A commit never gains a path, and clients ask for optional ones also when the Hub is
            # down.
            self._listings.put(key, _refused_listing(refused))
            return
        self._rights.note_refusal(request, caller, refused)
        if refused.code == "RevisionNotFound" and request.repo is not None:
            # Nor is it shown when nobody can be asked any more.
            self._revisions.forget(caller, request.repo, request.revision or "main")
            self._listings.forget(key)
        self._negatives.note(key, refused, asked)


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
