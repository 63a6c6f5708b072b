"""Web pages of other origins that may read content, where the operator named them.

Responsible for: which origins those are, the headers that let a browser hand the answer to such a
page, and the answer to what it asks beforehand.
Not responsible for: who may come in (`entrance`). A page gets what anybody gets who sends the same
request, and never what a browser would add by itself: no answer allows credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

ANY = "*"

# What clients of the Hub read from answers; a page sees nothing else of the head.
_EXPOSED = (
    "Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Link, "
    "X-Error-Code, X-Error-Message, X-HF-Cache, X-HF-Cache-Result, X-HF-Warning, X-Linked-ETag, "
    "X-Linked-Size, X-Repo-Commit, X-Request-Id, X-Total-Count, X-Xet-Hash"
)
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": (
        "Accept, Authorization, Cache-Control, Content-Type, If-None-Match, Range, User-Agent, "
        "X-HF-Download-Counter"
    ),
    "Access-Control-Max-Age": "600",
}


@dataclass(frozen=True, slots=True)
class CorsRules:
    """Which origins may read.

    Args:
        origins: as `parse_origins` returns them; none by default.
    """

    origins: frozenset[str] = frozenset()

    def allows(self, origin: str | None) -> bool:
        """Whether a page of this `Origin` may read content."""
        if origin is None or not self.origins:
            return False
        return ANY in self.origins or origin.lower() in self.origins

    def headers(self, origin: str | None) -> dict[str, str]:
        """What every answer about content carries, errors included: nothing without the option."""
        if not self.origins:
            return {}
        if ANY in self.origins:
            return {"Access-Control-Allow-Origin": ANY, "Access-Control-Expose-Headers": _EXPOSED}
        varying = {"Vary": "Origin"}
        if origin is None or not self.allows(origin):
            return varying
        return {
            **varying,
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _EXPOSED,
        }

    def preflight(self, origin: str | None, headers: Mapping[str, str]) -> dict[str, str] | None:
        """The head of the answer to what a browser asks before the request itself, or None if this
        is no such question of a page that may read.

        Args:
            headers: of the request, a case-insensitive mapping.
        """
        if not self.allows(origin) or "Access-Control-Request-Method" not in headers:
            return None
        return dict(_PREFLIGHT)


def parse_origins(values: Iterable[str]) -> frozenset[str]:
    """Origins as browsers write them: scheme, host and port, in lower case.

    Raises:
        ValueError: one of them is neither "*" nor such an origin.
    """
    return frozenset(_parse(value.strip()) for value in values)


def _parse(value: str) -> str:
    if value == ANY:
        return value
    parts = urlsplit(value.lower())
    origin = f"{parts.scheme}://{parts.netloc}"
    is_origin = parts.scheme and parts.hostname and "@" not in parts.netloc
    # Reading the port raises where it is none.
    if not is_origin or origin != value.lower().removesuffix("/") or parts.port == 0:
        raise ValueError(f"{value!r} is no origin such as https://pages.example.org")
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    return origin.removesuffix(default) if default else origin
