"""Xet, where it may show: files too large for plain HTTP.

Responsible for: which files those are, and the advertisement by which a client loads one from the
Hub's own storage, past this cache.
Not responsible for: hiding Xet everywhere else (`rewrite.strip_xet`, `headers.answer_headers`), or
whether an option allows it (`service.passing`).

huggingface_hub refuses to load a file of more than 50 GB over plain HTTP, and the Hub's CDN to send
one in one answer. Hiding Xet would make such a file impossible to download.
"""

from __future__ import annotations

import re

from jupyter_hf_cache.protocol.paths import HubRequest, Kind, api_path
from jupyter_hf_cache.storage.records import RepoRef

LARGEST_OVER_HTTP = 50 * 10**9
"""Bytes of the largest file that clients load over plain HTTP; what is larger needs Xet."""

_HASH = re.compile(r"[0-9a-fA-F]{64}")
_TOKEN_ROUTE = re.compile(r"/api/[^/]+/[^/]+(?:/[^/]+)?/xet-read-token/.+")


def is_too_large(size: object) -> bool:
    """Whether a file of this size needs Xet; not, if the size is unknown."""
    return isinstance(size, int) and not isinstance(size, bool) and size > LARGEST_OVER_HTTP


def usable_hash(value: object) -> str | None:
    """A Xet hash that a client can load by; None for anything else.

    The tree of a gated repo shows asterisks in its place to those who may not read the files.
    """
    return value if isinstance(value, str) and _HASH.fullmatch(value) else None


def asks_for_token(request: HubRequest) -> bool:
    """Whether a request wants the token with which Xet reads a repo."""
    return (
        request.kind is Kind.FORWARD
        and request.method == "GET"
        and _TOKEN_ROUTE.fullmatch(request.path) is not None
    )


def advertisement(xet_hash: str, repo: RepoRef, commit: str, base: str) -> dict[str, str]:
    """The headers that send a client to Xet for a file, by the token route of this cache.

    Args:
        base: the endpoint as this client knows it; an absolute URL, for clients take it as it is.
    """
    route = base.rstrip("/") + api_path(repo, "xet-read-token", commit)
    return {
        "X-Xet-Hash": xet_hash,
        "X-Xet-Refresh-Route": route,
        "Link": f'<{route}>; rel="xet-auth"',
    }
