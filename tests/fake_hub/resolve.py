"""Files: resolve, resolve-cache and raw.

Responsible for: the Hub's answers to a file's URL, redirects and metadata headers included.
Not responsible for: the CDN a large file redirects to (`cdn`), and access (checked by `routes`).
"""

from __future__ import annotations

import gzip
import json
import mimetypes
from typing import TYPE_CHECKING
from urllib.parse import quote

from . import errors
from .addresses import Address, take_revision
from .catalogue import Commit, Entry, Repo
from .delivery import Delivery, matches
from .handler import GZIP_FROM

if TYPE_CHECKING:
    from .routes import HubHandler

CSP = "default-src 'none'; sandbox"
XET_INFO = "application/vnd.xet-fileinfo+json"


async def answer_resolve(handler: HubHandler, repo: Repo, address: Address) -> None:
    """`/{id}/resolve/{rev}/{path}`: metadata, and where the bytes are."""
    commit, path = take_revision(repo, address.rest)
    entry = _find(commit, path)
    headers = _metadata(commit, entry)
    if matches(handler.request.headers.get("If-None-Match"), f'"{entry.etag}"'):
        handler.begin(304, {**headers, "ETag": f'"{entry.etag}"'})
        await handler.end()
    elif entry.lfs:
        if entry.xet_hash is not None:
            headers |= _xet_headers(handler, repo, commit, entry.xet_hash)
            if XET_INFO in handler.request.headers.get("Accept", ""):
                await _send_xet_info(handler, repo, commit, entry, headers)
                return
        name = path.rpartition("/")[2]
        await handler.redirect_to(302, handler.hub.urls.download(repo, entry, name), headers)
    elif (repo.private or repo.gated) and handler.hub.private_direct:
        await _send_small(handler, commit, path, entry, headers)
    else:
        await handler.redirect_to(307, _cache_location(handler, repo, commit, path, entry), headers)


async def answer_resolve_cache(handler: HubHandler, repo: Repo, rest: tuple[str, ...]) -> None:
    """`/api/resolve-cache/{type}/{id}/{commit}/{path}`: the bytes of a small file."""
    revision = rest[0] if rest else ""
    commit = repo.commits.get(revision)
    if len(revision) != 40:
        raise errors.bad_request("Invalid commit: a full commit id is required")
    if commit is None:
        raise errors.revision_not_found(revision)
    path = "/".join(rest[1:])
    entry = _find(commit, path)
    if entry.lfs:
        raise errors.bad_request("Large files are not served here")
    await _send_small(handler, commit, path, entry, {})


async def answer_raw(handler: HubHandler, repo: Repo, address: Address) -> None:
    """`/{id}/raw/{rev}/{path}`: what git stores, so the pointer of a large file. Never 304."""
    commit, path = take_revision(repo, address.rest)
    entry = _find(commit, path)
    body = entry.pointer if entry.lfs else entry.content.read(0, entry.size)
    headers = {
        "X-Repo-Commit": commit.sha,
        "ETag": f'"{entry.oid}"',
        "Content-Security-Policy": CSP,
        "Accept-Ranges": "bytes",
    }
    await handler.answer(body, _content_type(path), headers=headers)


def _find(commit: Commit, path: str) -> Entry:
    entry = commit.files.get(path)
    if entry is None:
        raise errors.entry_not_found(commit.sha)
    return entry


def _metadata(commit: Commit, entry: Entry) -> dict[str, str]:
    return {
        "X-Repo-Commit": commit.sha,
        "X-Linked-Size": str(entry.size),
        "X-Linked-ETag": f'"{entry.etag}"',
        "Accept-Ranges": "bytes",
    }


def _xet_headers(handler: HubHandler, repo: Repo, commit: Commit, hash: str) -> dict[str, str]:
    hub = handler.hub
    route = f"{hub.url}/api/{repo.type}/{repo.id}/xet-read-token/{commit.sha}"
    return {
        "X-Xet-Hash": hash,
        "X-Xet-Refresh-Route": route,
        "Link": f'<{route}>; rel="xet-auth", '
        f'<{hub.cas_url}/v1/reconstructions/{hash}>; rel="xet-reconstruction-info"',
    }


async def _send_xet_info(
    handler: HubHandler, repo: Repo, commit: Commit, entry: Entry, headers: dict[str, str]
) -> None:
    """What those get who accept Xet file information: this in place of the file."""
    hub = handler.hub
    body = {
        "hash": entry.xet_hash,
        "size": entry.size,
        "etag": f'"{entry.etag}"',
        "refreshUrl": f"{hub.url}/api/{repo.type}/{repo.id}/xet-read-token/{commit.sha}",
        "reconstructionUrl": f"{hub.cas_url}/v1/reconstructions/{entry.xet_hash}",
    }
    await handler.answer(json.dumps(body).encode(), XET_INFO, headers=headers)


def _cache_location(
    handler: HubHandler, repo: Repo, commit: Commit, path: str, entry: Entry
) -> str:
    asked = quote(handler.request.uri, safe="")
    return (
        f"/api/resolve-cache/{repo.type}/{quote(repo.id)}/{commit.sha}/{quote(path)}"
        f"?{asked}=&etag=%22{entry.etag}%22"
    )


async def _send_small(
    handler: HubHandler, commit: Commit, path: str, entry: Entry, headers: dict[str, str]
) -> None:
    name = path.rpartition("/")[2]
    plain = "".join(c if c.isascii() and c not in '"\\' else "_" for c in name)
    manner = "attachment" if handler.get_query_argument("download", "") == "true" else "inline"
    headers = {
        **headers,
        "Content-Type": _content_type(path),
        "X-Repo-Commit": commit.sha,
        "Content-Disposition": f"{manner}; filename*=UTF-8''{quote(name)}; filename=\"{plain}\";",
        "Content-Security-Policy": CSP,
        "Cache-Control": "public, max-age=31536000, immutable",
    }
    request = handler.request
    compress = handler.allows_gzip() and entry.size >= GZIP_FROM and "Range" not in request.headers
    compress = compress and handler.fault is None  # faults count in bytes of the file
    if compress and not matches(request.headers.get("If-None-Match"), f'"{entry.oid}"'):
        handler.begin(200, {**headers, "ETag": f'W/"{entry.oid}"'})
        body = gzip.compress(entry.content.read(0, entry.size), compresslevel=1)
        await Delivery(handler).send_compressed(body)
    else:
        await Delivery(handler).send_file(entry.content, headers, f'"{entry.oid}"')


def _content_type(path: str) -> str:
    """Text as text, the rest by suffix: the Hub trusts a file's name."""
    guess = mimetypes.guess_type(path, strict=False)[0]
    if guess is None or guess.startswith("text/"):
        return f"{guess or 'text/plain'}; charset=utf-8"
    return guess
