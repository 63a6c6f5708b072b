"""Bodies and URLs of the upstream that must not reach a client as they are.

Responsible for: hiding Xet in JSON, and turning those of the upstream's own URLs that a client
calls (pages of a list, redirects, actions of an LFS batch) into URLs below this cache.
Not responsible for: `X-Xet-*` headers (`headers`), URLs that a person reads (`shown_urls`),
deciding what a client may fetch there.

Xet must vanish from JSON too: huggingface_hub takes `xetHash` of a listing for a promise and then
leaves this endpoint without a way back. Only files that plain HTTP cannot bring are left to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from jupyter_hf_cache.protocol.xet import is_too_large, usable_hash

_PAGE_RELS = frozenset({"next", "prev", "previous", "first", "last"})
_MAX_LINK = 16384
_LINK = re.compile(r'<([^<>]*)>((?:[^,"<>]|"[^"]*")*)')
_REL = re.compile(r'(?:^|;)\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x20\x7f<>\\]")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def strip_xet(body: Any, *, spare_large: bool = False) -> Any:
    """A copy of parsed JSON without any key that starts with "xet", at every depth.

    Works without recursion: a listing is hostile input too.

    Args:
        spare_large: the `xetHash` of a file that plain HTTP cannot bring stays, if it is one that
            a client can use.
    """
    root: list[Any] = [None]
    pending: list[tuple[Any, Any, Any]] = [(root, 0, body)]
    while pending:
        parent, key, value = pending.pop()
        copy: Any = value
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if not str(k).lower().startswith("xet")}
            if spare_large and is_too_large(kept.get("size")) and usable_hash(value.get("xetHash")):
                kept["xetHash"] = value["xetHash"]
            copy = dict.fromkeys(kept)
            pending.extend((copy, k, v) for k, v in kept.items())
        elif isinstance(value, list):
            copy = [None] * len(value)
            pending.extend((copy, index, v) for index, v in enumerate(value))
        parent[key] = copy
    return root[0]


def rewrite_link(value: str, origin: str, base: str) -> str | None:
    """The page links of a `Link` header as absolute URLs below `base`; None if none is left.

    Clients take such a URL as it is and send their token to it: a link to a foreign host is
    dropped. The form, quotes and spaces included, is the one the JavaScript client can read.

    Args:
        value: as upstream sent it.
        origin: URL of the upstream, with its base path if it has one.
        base: absolute URL of the distribution, as this client sees it.
    """
    links = []
    for match in _LINK.finditer(value[:_MAX_LINK]):
        rels = _REL.search(match[2])
        names = (rels[1] or rels[2] or "").lower().split() if rels else []
        url = _below_base(match[1].strip(), origin, base)
        links += [f'<{url}>; rel="{name}"' for name in names if url and name in _PAGE_RELS]
    return ", ".join(links) or None


def xet_route(headers: Mapping[str, str], origin: str, base: str) -> str | None:
    """The route for Xet's token that an answer names, as an absolute URL below `base`; None if it
    names none of the upstream's own.

    Args:
        headers: case-insensitive.
    """
    for match in _LINK.finditer(headers.get("Link", "")[:_MAX_LINK]):
        if "xet-auth" in match[2]:
            return _below_base(match[1].strip(), origin, base)
    route = headers.get("X-Xet-Refresh-Route")
    return _below_base(route.strip(), origin, base) if route else None


def rewrite_location(location: str, origin: str, base: str) -> str | None:
    """The upstream's redirect to itself as an absolute URL below `base`; None if it leaves."""
    return _below_base(location.strip(), origin, base)


def rewrite_actions(body: Any, origin: str, base: str) -> Any:
    """Turn the upstream's own URLs in an LFS batch answer into URLs below `base`, in a copy.

    A client calls them with its token. URLs of other hosts (signed ones above all) stay.
    """
    if not isinstance(body, dict) or not isinstance(body.get("objects"), list):
        return body
    return {**body, "objects": [_lfs_object(entry, origin, base) for entry in body["objects"]]}


def own_path(url: str, origin: str) -> str | None:
    """Path and query below the upstream of one of its own URLs; None if it is not the upstream's or
    could climb.

    Args:
        url: absolute, or a path.
        origin: URL of the upstream, with its base path if it has one.
    """
    if _UNSAFE.search(url):
        return None
    try:
        parts, upstream = urlsplit(url), urlsplit(origin)
        if parts.netloc and _authority(parts) != _authority(upstream):
            return None
    except ValueError:
        return None
    if (parts.scheme and not parts.netloc) or not parts.path.startswith("/"):
        return None
    prefix = upstream.path.rstrip("/")
    path = parts.path
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        path = path[len(prefix) :]
    elif prefix and parts.netloc:
        return None
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        return None
    return path + (f"?{parts.query}" if parts.query else "")


def lfs_batch_downloads(body: bytes) -> bool:
    """Whether the body of an LFS batch request asks for downloads only."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and request.get("operation") == "download"


def _lfs_object(entry: Any, origin: str, base: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("actions"), dict):
        return entry
    actions = {
        name: {**action, "href": _own_url(action["href"], origin, base)}
        if isinstance(action, dict) and "href" in action
        else action
        for name, action in entry["actions"].items()
    }
    return {**entry, "actions": actions}


def _own_url(value: Any, origin: str, base: str) -> Any:
    if not isinstance(value, str) or not value.lower().startswith(("http://", "https://")):
        return value
    return _below_base(value, origin, base) or value


def _below_base(url: str, origin: str, base: str) -> str | None:
    """The URL of the same thing below `base`; None if there is none."""
    path = own_path(url, origin)
    return None if path is None else base.rstrip("/") + path


def _authority(parts: SplitResult) -> tuple[str, int | None]:
    """Host and port; http and https on their default ports are one host behind a TLS front."""
    port = parts.port
    scheme = parts.scheme.lower()
    default = port is None or _DEFAULT_PORTS.get(scheme) == port
    return (parts.hostname or "").lower(), None if default else port
