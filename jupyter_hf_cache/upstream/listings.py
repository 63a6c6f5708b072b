"""JSON answers of the Hub that are kept: repo info, trees, refs, commits, lists.

Responsible for: fetching one, taking Xet out of it, and keeping it per (remote, identity).
Not responsible for: how long it holds or whether the caller may see it (`service.metadata`).
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jupyter_hf_cache.errors import UpstreamError
from jupyter_hf_cache.protocol.headers import answer_headers
from jupyter_hf_cache.protocol.rewrite import strip_xet
from jupyter_hf_cache.storage.records import Credential
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.client import UpstreamClient, UpstreamResponse
from jupyter_hf_cache.upstream.lookup import refusal

MAX_LISTING = 64 * 1024 * 1024
_READ_TIMEOUT = 30.0
_IN_MEMORY = 256
_IN_MEMORY_BYTES = 1024 * 1024
_KEPT_HEADERS = frozenset(
    {"content-type", "link", "x-total-count", "x-repo-commit", "etag", "content-language"}
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A kept answer.

    Args:
        text: the body, Xet taken out.
        headers: of the upstream; `Link` still points at it and is rewritten for each caller.
        fetched: Unix time in seconds.
        commit: what the answer belongs to, where it says so (`sha` of a repo info).
        open: the answer said that the repo is neither private nor gated nor disabled.
    """

    text: str
    headers: dict[str, str]
    fetched: float
    commit: str | None = None
    open: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class Listings:
    """Kept answers in a state table, the latest small ones also in memory. Thread-safe."""

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, Listing] = OrderedDict()

    def get(self, key: str) -> Listing | None:
        """Return a kept answer, however old."""
        with self._lock:
            listing = self._memory.get(key)
            if listing is not None:
                self._memory.move_to_end(key)
                return listing
        row = self._table.get(key)
        if row is None:
            return None
        listing = Listing(**row)
        self._remember(key, listing)
        return listing

    def put(self, key: str, listing: Listing) -> None:
        """Keep an answer."""
        self._table.set(key, asdict(listing))
        self._remember(key, listing)

    def forget(self, prefix: str) -> int:
        """Forget all answers whose key starts with `prefix`."""
        with self._lock:
            for key in [key for key in self._memory if key.startswith(prefix)]:
                del self._memory[key]
        return self._table.delete_prefix(prefix)

    def _remember(self, key: str, listing: Listing) -> None:
        if len(listing.text) > _IN_MEMORY_BYTES:
            return
        with self._lock:
            self._memory[key] = listing
            self._memory.move_to_end(key)
            while len(self._memory) > _IN_MEMORY:
                self._memory.popitem(last=False)


def listing_key(remote_id: str, identity: str, *parts: str) -> str:
    """Return the key of a listing: `listing/<remote>/<identity>/<type>/<repo>/…`."""
    return key_of("listing", remote_id, identity, *parts)


def fetch_listing(
    client: UpstreamClient,
    credential: Credential,
    method: str,
    path: str,
    query: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Listing:
    """Ask the upstream for a JSON answer.

    Raises:
        UpstreamAnswer: the Hub refuses.
        UpstreamError: it fails, or answers something that is not JSON.
    """
    with client.request(
        method,
        path,
        query=query,
        credential=credential,
        headers=dict(headers),
        body=body,
        follow="same-origin",
        read_timeout=_READ_TIMEOUT,
    ) as response:
        if response.status >= 300:
            raise refusal(response)
        return _listing(response)


def _listing(response: UpstreamResponse) -> Listing:
    raw = response.read(MAX_LISTING)
    try:
        parsed = json.loads(raw)
    except ValueError as error:
        kind = response.headers.get("Content-Type", "no content type")
        raise UpstreamError(
            f"The upstream answered with {kind} instead of JSON, so it does not behave like a Hub; "
            f"a login "
            "page or a proxy may stand between."
        ) from error
    body = strip_xet(parsed)
    info = body if isinstance(body, dict) else {}
    commit = info.get("sha")
    return Listing(
        text=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        headers={
            name: value
            for name, value in answer_headers(response.headers).items()
            if name.lower() in _KEPT_HEADERS
        },
        fetched=time.time(),
        commit=commit if isinstance(commit, str) else None,
        open=info.get("private") is False
        and info.get("gated") is False
        and not info.get("disabled"),
        extra={name: info[name] for name in ("private", "gated", "_id", "id") if name in info},
    )
