"""Headers on their way through: what is believed, what is passed on, what is added.

Responsible for: reading a file's identity from an answer of the Hub, the allow-list of request
headers that go upstream, the headers of an upstream answer that reach a client, and the headers
that keep a browser from running what a repository holds.
Not responsible for: `Link` and `Location` (`rewrite`), ranges (`ranges`), credentials as such.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from jupyter_hf_cache.protocol.digests import unquote_etag
from jupyter_hf_cache.protocol.paths import is_commit
from jupyter_hf_cache.protocol.ranges import parse_content_range
from jupyter_hf_cache.protocol.xet import is_too_large, usable_hash

DECODED_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
"""Content encodings that `upstream.client` undoes; their length is not that of the decoded body."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})

XET_FILE_INFO = "application/vnd.xet-fileinfo+json"
"""The type by which the JavaScript client asks for a description in place of the file."""

_FORWARDED = {
    name.lower(): name
    for name in (
        "User-Agent",
        "Accept",
        "Accept-Language",
        "Content-Type",
        "Content-Length",
        "Content-Encoding",
        "Git-Protocol",
        "If-Match",
        "If-Modified-Since",
        "If-None-Match",
        "If-Range",
        "If-Unmodified-Since",
        "Range",
        "X-Amzn-Trace-Id",
    )
}
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What would act on our origin in a browser, or describes the upstream's own connection.
_NOT_OURS = frozenset(
    {
        "accept-ch",
        "alt-svc",
        "authentication-info",
        "clear-site-data",
        "content-security-policy",
        "content-security-policy-report-only",
        "date",
        "document-policy",
        "expect-ct",
        "feature-policy",
        "nel",
        "origin-agent-cluster",
        "origin-trial",
        "permissions-policy",
        "public-key-pins",
        "refresh",
        "report-to",
        "reporting-endpoints",
        "server",
        "server-timing",
        "service-worker-allowed",
        "set-cookie",
        "set-cookie2",
        "set-login",
        "sourcemap",
        "speculation-rules",
        "strict-transport-security",
        "timing-allow-origin",
        "via",
        "x-frame-options",
        "x-powered-by",
        "x-sourcemap",
        "x-xss-protection",
    }
)
_NOT_OURS_PREFIXES = ("access-control-", "cross-origin-", "x-amz-")
_ERROR_HEADERS = {
    name.lower(): name
    for name in (
        "X-Error-Code",
        "X-Error-Message",
        "X-Repo-Commit",
        "X-Request-Id",
        "X-HF-Warning",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "WWW-Authenticate",
    )
}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LINK = re.compile(r'<[^>]*>(?:[^,"]|"[^"]*")*')
_MEDIA_TYPE = re.compile(r"([a-z0-9!#$&^_.+-]+)/([a-z0-9!#$&^_.+-]+)\s*(;.*)?")
_BYTE_RANGES = re.compile(r"multipart/byteranges; boundary=[A-Za-z0-9]{1,70}")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?(utf-8|us-ascii|iso-8859-1)\"?\s*(?:;|$)")
_OCTETS = "application/octet-stream"
_INERT_TYPES = frozenset(
    {
        _OCTETS,
        "application/gzip",
        "application/vnd.apache.parquet",
        "application/vnd.apache.arrow.file",
        "application/vnd.apache.arrow.stream",
        "application/x-bzip2",
        "application/x-gzip",
        "application/x-hdf5",
        "application/x-ndjson",
        "application/x-tar",
        "application/x-xz",
        "application/yaml",
        "application/zip",
        "application/zstd",
        "text/csv",
        "text/event-stream",
        "text/markdown",
        "text/tab-separated-values",
        "text/yaml",
    }
)
# A browser shows these, but runs nothing in them; SVG is an image that holds scripts.
_INERT_FAMILIES = frozenset({"audio", "font", "image", "video"})


@dataclass(frozen=True, slots=True)
class FileMetadata:
    """What an answer to `/resolve/` says of the file.

    Args:
        commit: 40 hex digits.
        etag: without quotes and `W/`: the name of the blob.
        size: bytes of the whole file.
        location: where a redirect points; may be a signed URL.
        xet_hash: of a file that plain HTTP cannot bring; None for every other.
    """

    commit: str | None = None
    etag: str | None = None
    size: int | None = None
    location: str | None = field(default=None, repr=False)
    content_type: str | None = None
    content_disposition: str | None = None
    xet_hash: str | None = None


def file_metadata(status: int, headers: Mapping[str, str]) -> FileMetadata:
    """Read the Hub's statement of a file from one answer.

    A redirect describes the file in `X-Linked-*` only: its ETag and length are those of the
    redirect's own body. The same holds for an error, which states no more than the commit.
    `Content-Length` counts only where the body is not compressed.
    """
    found = _lower(headers)
    commit = found.get("x-repo-commit", "").strip()
    etag, size = found.get("x-linked-etag"), _length(found.get("x-linked-size"))
    redirect = status in REDIRECTS
    success = 200 <= status < 300 or status == 304
    if success:
        etag = etag or found.get("etag")
        size = _own_size(status, found) if size is None else size
    if not success and not redirect:
        etag, size = None, None
    return FileMetadata(
        commit=commit if is_commit(commit) else None,
        etag=unquote_etag(etag) or None if etag else None,
        size=size,
        location=found.get("location") if redirect else None,
        content_type=found.get("content-type") if success else None,
        content_disposition=found.get("content-disposition") if success else None,
        xet_hash=usable_hash(found.get("x-xet-hash")) if is_too_large(size) else None,
    )


def forward_request_headers(headers: Mapping[str, str], *, bearer: str | None) -> dict[str, str]:
    """The request headers that go upstream: an allow-list, so that no Jupyter credential does.

    Args:
        headers: as the client sent them.
        bearer: the caller's own upstream token, the only source of `Authorization`.
    """
    forwarded: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        known = _FORWARDED.get(lower) or (name if lower.startswith("x-hf-") else None)
        if known is None or _CONTROL.search(value):
            continue
        if lower == "accept":
            value = _without_xet_file_info(value)
        if value:
            forwarded[known] = value
    if bearer:
        forwarded["Authorization"] = f"Bearer {bearer}"
    return forwarded


def answer_headers(headers: Mapping[str, str], *, keep_xet: bool = False) -> dict[str, str]:
    """The headers of an upstream answer that reach the client.

    Dropped are hop-by-hop headers (also those that `Connection` names), cookies, what acts on an
    origin (HSTS, CORS, CSP and their like) and every trace of Xet. `Content-Encoding` and
    `Content-Length` go when the body is decoded on its way. `Link` and `Location` stay and still
    name the upstream: see `rewrite.rewrite_link` and `rewrite.rewrite_location`.

    Args:
        keep_xet: the answer is a Xet token, which Python clients read from `X-Xet-*`.
    """
    found = _lower(headers)
    dropped = _HOP_BY_HOP | _NOT_OURS | _named_by_connection(found.get("connection", ""))
    encoding = found.get("content-encoding", "").strip().lower()
    if encoding in DECODED_ENCODINGS or encoding == "identity":
        dropped |= {"content-encoding"}
    if encoding in DECODED_ENCODINGS:
        dropped |= {"content-length"}
    answer: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in dropped or lower.startswith(_NOT_OURS_PREFIXES) or _CONTROL.search(value):
            continue
        if lower.startswith("x-xet-") and not keep_xet:
            continue
        if lower == "www-authenticate" and not value.lower().startswith("bearer"):
            continue  # a Basic challenge would make a browser ask for *our* password
        if lower == "link":
            value = _without_xet_links(value)
        if value or lower != "link":
            answer[name] = value
    return answer


def sandbox_headers(content_type: str | None, filename: str | None) -> dict[str, str]:
    """The headers that make a repository's bytes harmless in a logged-in browser.

    JSON and plain text are shown; everything else is a download, and what a browser could run
    (HTML, SVG, XML, scripts, PDF, types nobody knows) is `application/octet-stream`.

    Args:
        content_type: as upstream said it, or None.
        filename: name or path of the file, for `Content-Disposition`; None if there is none.
    """
    safe, shown = _safe_type(content_type)
    headers = {
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Type": safe,
    }
    if not shown:
        headers["Content-Disposition"] = _attachment(filename)
    return headers


def error_headers(status: int, headers: Mapping[str, str], *, anonymous: bool) -> dict[str, str]:
    """The headers that explain an upstream refusal of a request for a repo.

    To an anonymous caller the Hub answers 401 without a code for a repo that is missing or private,
    and huggingface_hub guesses "no such repo" only from an https URL: the code is added. A refused
    token keeps its 401 as it is.

    Args:
        anonymous: the request went upstream without a token.
    """
    found = _lower(headers)
    kept = {
        name: found[lower]
        for lower, name in _ERROR_HEADERS.items()
        if lower in found and not _CONTROL.search(found[lower])
    }
    if not kept.get("WWW-Authenticate", "Bearer").lower().startswith("bearer"):
        del kept["WWW-Authenticate"]
    if status == 401 and anonymous and "X-Error-Code" not in kept:
        kept["X-Error-Code"] = "RepoNotFound"
    return kept


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _length(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _own_size(status: int, found: Mapping[str, str]) -> int | None:
    """The size that the answer's own framing tells, where it can."""
    if found.get("content-encoding", "identity").strip().lower() != "identity":
        return None
    if status == 206:
        parsed = parse_content_range(found.get("content-range"))
        return None if parsed is None else parsed[1]
    return _length(found.get("content-length")) if status == 200 else None


def _without_xet_file_info(accept: str) -> str:
    kept = [
        part.strip()
        for part in accept.split(",")
        if part.partition(";")[0].strip().lower() not in ("", XET_FILE_INFO)
    ]
    return ", ".join(kept)


def _without_xet_links(value: str) -> str:
    links = [link.group().strip() for link in _LINK.finditer(value)]
    return ", ".join(link for link in links if "xet-" not in link.partition(">")[2].lower())


def _named_by_connection(connection: str) -> frozenset[str]:
    return frozenset(token.strip().lower() for token in connection.split(","))


def _safe_type(content_type: str | None) -> tuple[str, bool]:
    """A type no browser runs, and whether it may be shown."""
    if _BYTE_RANGES.fullmatch(content_type or ""):
        # Clients find the parts by the boundary, of which each letter counts.
        return content_type or "", False
    match = _MEDIA_TYPE.fullmatch((content_type or "").strip().lower())
    if match is None:
        return _OCTETS, False
    family, subtype, parameters = match[1], match[2], match[3] or ""
    essence = f"{family}/{subtype}"
    charset = _CHARSET.search(parameters)
    suffix = f"; charset={charset[1]}" if charset else ""
    if essence in ("application/json", "text/plain") or (
        family == "application" and subtype.endswith("+json")
    ):
        return essence + suffix, True
    inert = essence in _INERT_TYPES or family in _INERT_FAMILIES or subtype.startswith("x-git-")
    if not inert or "xml" in subtype or "svg" in subtype:
        return _OCTETS, False
    return essence + suffix, False


def _attachment(filename: str | None) -> str:
    """`Content-Disposition` with an ASCII name and, where it differs, the true one (RFC 6266)."""
    name = (filename or "").rstrip("/").rpartition("/")[2]
    if not name:
        return "attachment"
    plain = re.sub(r"[^ !#-\[\]-~]|[%]", "_", name)
    value = f'attachment; filename="{plain}"'
    if plain != name:
        encoded = quote(name, safe="!#$&+-.^_`|~", errors="replace")
        value += f"; filename*=UTF-8''{encoded}"
    return value
