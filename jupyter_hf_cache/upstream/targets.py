"""Where a request goes.

Responsible for: building request URLs from an origin and a path, reading absolute URLs and
redirects, and telling the remote's own origin from every other.
Not responsible for: what is sent there (`client`).

Two parsers that disagree about a host send a credential to the wrong one. So every URL is taken
apart here, by one parser that refuses doubtful forms, and put together again from the parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, urljoin, urlsplit

from jupyter_hf_cache.errors import UpstreamError
from jupyter_hf_cache.storage.records import Remote

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_URL_SAFE = "!$%&'()*+,-./:;=?@[]_~|"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """One URL to ask.

    Args:
        origin: scheme://host[:port], normalised as `Remote.origin`.
        url: origin, path and query; may hold a signature.
        own: it is the remote's own origin.
    """

    origin: str
    url: str = field(repr=False)
    own: bool

    @property
    def host(self) -> str:
        """Host, and port if it is not the scheme's own."""
        return self.origin.partition("://")[2]


def own_target(remote: Remote, path: str, query: str = "") -> Target:
    """A canonical path below the remote's URL, appended and never joined.

    Raises:
        ValueError: the path does not start with "/".
    """
    if not path.startswith("/"):
        raise ValueError("a path below a remote starts with '/'")
    # The remote's URL is taken apart like any other, so that its origin has one spelling.
    origin, base = _take_apart(remote.upstream_url)
    return Target(origin, origin + base.rstrip("/") + _with_query(path, query), own=True)


def absolute_target(remote: Remote, url: str, query: str = "") -> Target:
    """An absolute URL, e.g. a signed one that the remote handed out.

    Raises:
        UpstreamError: it is no plain http or https URL.
    """
    origin, rest = _take_apart(url)
    if query:
        rest += ("&" if "?" in rest else "?") + query
    return Target(origin, origin + rest, own=origin == remote.origin)


def redirect_target(remote: Remote, current: Target, location: str) -> Target:
    """Where a `Location`, absolute or relative, leads from `current`.

    Raises:
        UpstreamError: to something that is no plain http or https URL.
    """
    location = location.strip()
    if _UNSAFE.search(location):
        raise _doubtful()
    try:
        joined = urljoin(current.url, location)
    except ValueError:
        raise _doubtful() from None
    return absolute_target(remote, joined)


def _take_apart(url: str) -> tuple[str, str]:
    """Origin, and path with query; a fragment is dropped."""
    if _UNSAFE.search(url):
        raise _doubtful()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _doubtful() from None
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    if scheme not in _DEFAULT_PORTS or "@" in parts.netloc or not _HOST.fullmatch(host):
        raise _doubtful()
    origin = f"{scheme}://{host}"
    if port is not None and port != _DEFAULT_PORTS[scheme]:
        origin += f":{port}"
    return origin, _with_query(parts.path or "/", parts.query)


def _with_query(path: str, query: str) -> str:
    text = quote(path.encode("utf-8", "surrogateescape"), safe=_URL_SAFE.replace("?", ""))
    if query:
        text += "?" + quote(query.encode("utf-8", "surrogateescape"), safe=_URL_SAFE)
    return text


def _doubtful() -> UpstreamError:
    return UpstreamError(
        "The upstream leads to something that is not a plain http or https address.",
        advice="Check the remote's URL; it may lead to a login page.",
    )
