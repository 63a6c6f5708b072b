"""Looking a file up: one HEAD that tells commit, digest, size and the right to read at once.

Responsible for: asking the upstream about one file, walking through renames, and turning its
answer into a `Claim` or its refusal into an error.
Not responsible for: keeping what was learnt (`service.files`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from jupyter_hf_cache.errors import (
    BadPath,
    HfCacheError,
    NotAHub,
    UpstreamAnswer,
    UpstreamError,
    UpstreamFailing,
)
from jupyter_hf_cache.protocol.headers import FileMetadata, error_headers, file_metadata
from jupyter_hf_cache.protocol.paths import Kind, is_commit, parse, resolve_path
from jupyter_hf_cache.storage.records import Claim, Credential, RepoRef
from jupyter_hf_cache.upstream.client import UpstreamClient, UpstreamResponse
from jupyter_hf_cache.upstream.targets import absolute_target, redirect_target

_CHECK_URL = "Check the url of the remote."
_RENAMES = 10
_BODY_OF_ERROR = 8 * 1024
METADATA_TIMEOUT = 8.0
_PASSING = (408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)


@dataclass(frozen=True, slots=True)
class Look:
    """What the upstream said about a file.

    Args:
        claim: at its commit; `absent` when there is no such file.
        readable: the answer proves the right to read content (a missing file does not).
        repo: who answered: the one that was asked for, or what it is called now.
        link: where the answer sends those who want the bytes; may be a signed URL.
    """

    claim: Claim
    readable: bool
    repo: RepoRef
    link: str | None = field(default=None, repr=False)


def look_up(
    client: UpstreamClient,
    credential: Credential,
    repo: RepoRef,
    revision: str,
    file: str,
    headers: Mapping[str, str] | None = None,
) -> Look:
    """Ask the upstream about repo@revision:file with the caller's credential.

    The metadata of a Hub answer is on the first response that carries `X-Repo-Commit`: on the
    redirect to the storage or to the resolve-cache route. A redirect without it is a rename and is
    followed.

    Args:
        headers: extra request headers.

    Raises:
        UpstreamAnswer: the Hub refuses (its status, code and message).
        UpstreamError: it fails, cannot be reached, or is not a Hub.
    """
    path, query = resolve_path(repo, revision, file), ""
    asked: set[tuple[str, str]] = set()
    while (path, query) not in asked and len(asked) < _RENAMES:
        asked.add((path, query))
        with client.request(
            "HEAD",
            path,
            query=query,
            credential=credential,
            headers=headers,
            follow="none",
            read_timeout=METADATA_TIMEOUT,
        ) as response:
            found = file_metadata(response.status, response.headers)
            if response.status in (301, 302, 303, 307, 308) and found.commit is None:
                path, query = _renamed(client, found)
                continue
            return _look(client, response, found, revision, _repo_at(path, file) or repo)
    raise UpstreamError("The upstream renames this repository in a circle.")


def _repo_at(path: str, file: str) -> RepoRef | None:
    """Return the repo whose file a path names, None where it is no such path."""
    try:
        request = parse("HEAD", path)
    except BadPath:
        return None
    return request.repo if request.kind is Kind.RESOLVE and request.file == file else None


def _renamed(client: UpstreamClient, found: FileMetadata) -> tuple[str, str]:
    """Return path and query below the remote's URL that a rename points at."""
    target = urlsplit(found.location or "")
    remote = client.remote
    if target.netloc and f"{target.scheme}://{target.netloc}".lower() != remote.origin:
        raise NotAHub(
            "The upstream redirects elsewhere without naming a commit (no X-Repo-Commit), so it "
            "does not behave like a Hub.",
            advice=_CHECK_URL,
        )
    path = target.path
    if remote.base_path and path.startswith(remote.base_path + "/"):
        path = path[len(remote.base_path) :]
    return path, target.query


def _look(
    client: UpstreamClient,
    response: UpstreamResponse,
    found: FileMetadata,
    revision: str,
    repo: RepoRef,
) -> Look:
    status = response.status
    if status < 400:
        check_no_page(response)
        return Look(_claim(found), readable=True, repo=repo, link=_link(client, response, found))
    commit = found.commit or (revision if is_commit(revision) else None)
    if response.headers.get("X-Error-Code") == "EntryNotFound" and commit:
        return Look(Claim(commit=commit, absent=True), readable=False, repo=repo)
    raise refusal(response)


def _link(client: UpstreamClient, response: UpstreamResponse, found: FileMetadata) -> str | None:
    if found.location is None:
        return None
    remote = client.remote
    try:
        return redirect_target(remote, absolute_target(remote, response.url), found.location).url
    except UpstreamError:
        # Who asks for the bytes is told.
        return None


def _claim(found: FileMetadata) -> Claim:
    if found.commit is None or not found.etag:
        raise UpstreamError(
            "The upstream's answer has no X-Repo-Commit or no ETag, so it does not behave like a "
            "Hub.",
            advice=_CHECK_URL,
        )
    return Claim(
        commit=found.commit,
        etag=found.etag,
        size=found.size,
        content_type=found.content_type,
        xet_hash=found.xet_hash,
    )


def check_no_page(response: UpstreamResponse) -> None:
    """Make sure that what should be an answer of the Hub is no web page.

    Raises:
        NotAHub: it is one; the Hub itself answers these questions with anything but HTML.
    """
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind == "text/html" and "X-Repo-Commit" not in response.headers:
        raise NotAHub(
            "The upstream answered with a web page, so it does not behave like a Hub; a login "
            "page or a proxy may stand between.",
            advice="Open a web page in a browser on this network, or check the url of the remote.",
        )


def wants_another_login(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a 401 is no word of a Hub: that wants a token, and says what is wrong.

    Some proxies answer so instead of 407.
    """
    basic = headers.get("WWW-Authenticate", "").lower().startswith("basic")
    said = headers.get("X-Error-Message") or headers.get("X-Error-Code")
    return status == 401 and basic and not said


def refusal(response: UpstreamResponse) -> HfCacheError:
    """Turn an error answer of the upstream into an error: passing failures apart from final
    words.

    A Hub says why it refuses, in `X-Error-Code` or `X-Error-Message`. A bare 403 or 404 is the word
    of something in between, or of a server that is no Hub, and ends no right that a Hub gave.
    """
    status = response.status
    code = response.headers.get("X-Error-Code")
    message = response.headers.get("X-Error-Message")
    headers = error_headers(status, response.headers, anonymous=False)
    headers.pop("X-Error-Message", None)
    headers.pop("X-Error-Code", None)
    if status in _PASSING:
        return UpstreamFailing(
            message or f"The upstream answered {status}.", status=status, headers=headers
        )
    if 300 <= status < 400:
        raise NotAHub(
            "The upstream redirects to another host, so it does not behave like a Hub; a login "
            "page may stand between.",
            advice=_CHECK_URL,
        )
    if wants_another_login(status, response.headers):
        return NotAHub(
            "The upstream, or a proxy before it, wants a user name and password, or refused them "
            "(401).",
            advice="Set proxy_username and proxy_password of the remote, or its username and "
            "password.",
        )
    if status != 401 and not code and not message:
        return UpstreamError(
            f"The upstream answered {status} without saying why, so it does not behave like a Hub; "
            "a login page or a proxy may stand between.",
            advice=_CHECK_URL,
        )
    return UpstreamAnswer(
        status,
        message or f"The upstream answered {status}.",
        code=code,
        headers=headers,
        body=response.read_some(_BODY_OF_ERROR),
    )
