"""Passing on what is not a cacheable read: whoami, login, likes, uploads, git, pages of the API.

Responsible for: sending such a request to the remote's origin with the caller's own credential
only, and making its answer harmless: Xet taken out, links kept inside the cache.
Not responsible for: deciding whether the caller may (`service.caller.check_allowed`).

`HF_ENDPOINT` points here for a whole kernel, so `push_to_hub` and `hf auth login` have to keep
working.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from requests.structures import CaseInsensitiveDict

from jupyter_hf_cache.answers import Answer, BytesBody, StreamBody
from jupyter_hf_cache.errors import NotFound, UpstreamError
from jupyter_hf_cache.protocol.headers import (
    REDIRECTS,
    answer_headers,
    forward_request_headers,
)
from jupyter_hf_cache.protocol.paths import HubRequest
from jupyter_hf_cache.protocol.rewrite import (
    rewrite_actions,
    rewrite_link,
    rewrite_location,
    strip_xet,
    xet_route,
)
from jupyter_hf_cache.protocol.shown_urls import client_release, show_urls
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.upstream.client import UpstreamResponse
from jupyter_hf_cache.upstream.lookup import check_no_page
from jupyter_hf_cache.upstream.transfer import CHUNK_SIZE

_MAX_JSON = 16 * 1024 * 1024
_READ_TIMEOUT = 120.0
_NO_PAGE = ("/api/", "/oauth/", "/.well-known/")
# What lies in buckets is not kept here and comes by Xet alone.
_BUCKETS = ("/api/buckets/", "/buckets/")
# Files of what is no repo here; they lie in the storage that the Hub redirects to.
_STORED = re.compile(r"/(buckets|kernels)/[^/]+/[^/]+/resolve/.+")
_GIT_CHALLENGE = 'Basic realm="Hugging Face: your user name, and a token as the password"'


def forward(
    request: HubRequest,
    caller: Caller,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] | None,
) -> Answer:
    """Send a request upstream as it came and answer with what comes back.

    Raises:
        NotFound: a browser asks for a page of the Hub's web site.
        UpstreamError: the upstream fails, or a web page answers for it.
    """
    _refuse_pages(request, caller, headers)
    response = caller.client.request(
        request.method,
        request.path,
        query=request.query,
        credential=caller.credential,
        headers=forward_request_headers(headers, bearer=None),
        body=body,
        follow="all" if request.method == "GET" and _is_stored(request) else "none",
        read_timeout=_READ_TIMEOUT,
    )
    try:
        if response.status < 400 and (request.mints or request.path.startswith("/api/")):
            check_no_page(response)
        answer = _answer(request, caller, response, headers.get("User-Agent", ""))
    except BaseException:
        response.close()
        raise
    if answer.status == 401:
        answer.headers |= git_challenge(request, headers)
    return answer


def git_challenge(request: HubRequest, headers: Mapping[str, str]) -> dict[str, str]:
    """The header by which git asks its user for a token; none for anything but git.

    A browser would keep what it is told for this server, where our own password belongs.
    """
    browser = any(name.lower().startswith("sec-fetch-") for name in headers)
    return {"WWW-Authenticate": _GIT_CHALLENGE} if request.git and not browser else {}


def _is_stored(request: HubRequest) -> bool:
    """Whether a client that is sent elsewhere has to be given what is there: it gets no address
    outside this cache."""
    return _STORED.fullmatch(request.path) is not None


def _refuse_pages(request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> None:
    """A page of the Hub opened through the cache would be a stranger's page on this origin."""
    if request.method not in ("GET", "HEAD") or request.mints or request.path.startswith(_NO_PAGE):
        return
    navigates = headers.get("Sec-Fetch-Mode") == "navigate" or "text/html" in headers.get(
        "Accept", ""
    )
    if navigates:
        page = caller.remote.upstream_url + request.path
        raise NotFound(f"This cache serves files and the API. The page is at {page}")


def _answer(
    request: HubRequest, caller: Caller, response: UpstreamResponse, user_agent: str
) -> Answer:
    upstream = caller.remote.upstream_url
    keep_xet = request.mints or request.path.startswith(_BUCKETS)
    headers = answer_headers(response.headers, keep_xet=keep_xet)
    nobody = caller.credential.token is None and "X-Error-Code" not in response.headers
    if response.status == 401 and request.repo is not None and nobody:
        # What huggingface_hub concludes by itself from an https address only.
        headers["X-Error-Code"] = "RepoNotFound"
    for name in [name for name in headers if name.lower() in ("link", "location")]:
        rewrite = rewrite_link if name.lower() == "link" else rewrite_location
        rewritten = rewrite(headers.pop(name), upstream, caller.base)
        if rewritten:
            headers[name] = rewritten
    if keep_xet and (route := xet_route(response.headers, upstream, caller.base)):
        headers["X-Xet-Refresh-Route"] = route
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if request.method != "HEAD" and (kind == "application/json" or kind.endswith("+json")):
        return _json_answer(request, caller, response, headers, user_agent)
    if request.method == "HEAD" or response.status in (204, 304):
        response.close()
        leads = any(name.lower() == "location" for name in headers)
        if response.status in REDIRECTS and not leads and _is_stored(request):
            return Answer(200, _as_of_file(headers), result="forwarded")
        return Answer(response.status, headers, result="forwarded")
    body = StreamBody(response.iter_bytes(CHUNK_SIZE), response, response.stop)
    return Answer(response.status, headers, body, result="forwarded")


def _as_of_file(headers: Mapping[str, str]) -> dict[str, str]:
    """The head of a redirect as the head of the file that it describes."""
    found = CaseInsensitiveDict(headers)
    for name, linked in (("Content-Length", "X-Linked-Size"), ("ETag", "X-Linked-ETag")):
        found.pop(name, None)
        if linked in found:
            found[name] = found[linked]
    return dict(found)


def _json_answer(
    request: HubRequest,
    caller: Caller,
    response: UpstreamResponse,
    headers: dict[str, str],
    user_agent: str,
) -> Answer:
    data = response.read(_MAX_JSON)
    response.close()
    try:
        parsed: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        if response.status >= 400:
            return _bytes_answer(response.status, headers, data)
        raise UpstreamError("The upstream announced JSON and sent something else.") from error
    upstream = caller.remote.upstream_url
    if request.mints:
        parsed = rewrite_actions(parsed, upstream, caller.base)
    elif not request.path.startswith(_BUCKETS):
        parsed = strip_xet(parsed)
    if request.writes:
        parsed = show_urls(parsed, upstream, client_release(user_agent))
    return _bytes_answer(response.status, headers, json.dumps(parsed, ensure_ascii=False).encode())


def _bytes_answer(status: int, headers: dict[str, str], data: bytes) -> Answer:
    for name in [n for n in headers if n.lower() in ("content-length", "content-encoding", "etag")]:
        del headers[name]
    headers["Content-Length"] = str(len(data))
    return Answer(status, headers, BytesBody(data), result="forwarded")
