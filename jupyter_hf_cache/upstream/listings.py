"""JSON answers of the Hub that are kept: repo info, trees, refs, commits, lists.

Responsible for: fetching one, taking Xet out of it except of files that need it, and keeping it per
(remote, identity).
Not responsible for: how long it holds or whether the caller may see it (`service.metadata`).
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import unquote

from jupyter_hf_cache.errors import UpstreamError
from jupyter_hf_cache.protocol.headers import answer_headers
from jupyter_hf_cache.protocol.paths import is_commit
from jupyter_hf_cache.protocol.rewrite import strip_xet
from jupyter_hf_cache.storage.records import Credential, RepoRef
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.client import UpstreamClient, UpstreamResponse
from jupyter_hf_cache.upstream.lookup import check_no_page, refusal

MAX_LISTING = 64 * 1024 * 1024
READ_TIMEOUT = 30.0
_IN_MEMORY = 1000
_LARGEST_IN_MEMORY = 1024 * 1024
_BYTES_IN_MEMORY = 16 * 1024 * 1024
_PASSING = "passing"
MOST_PASSING = 2000
_PRUNE_EVERY = 100
_KEPT_HEADERS = frozenset(
    {"content-type", "link", "x-total-count", "x-repo-commit", "etag", "content-language"}
)


@dataclass(frozen=True, slots=True)
class Listing:
    """A kept answer.

    Args:
        text: the body, with Xet in it for files too large for plain HTTP only.
        headers: of the upstream; `Link` still points at it and is rewritten for each caller.
        fetched: Unix time in seconds when it was asked for: a later change may not be in it.
        commit: what the answer belongs to, where it says so (`sha` of a repo info).
        public: it said that the repo is not private.
        restricted: it said that the repo is gated or disabled (True) or neither (False); None: it
            did not say.
        object_id: which repo it is about, by the id that stays with a repo through renames.
        private, gated: as a repo info says; None: it did not.
        extra: the status, code and message of a refusal that is kept.
    """

    text: str
    headers: dict[str, str]
    fetched: float
    commit: str | None = None
    public: bool = False
    restricted: bool | None = None
    private: bool | None = None
    gated: bool | None = None
    object_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Listings:
    """Kept answers in a state table, the latest small ones also in memory. Thread-safe."""

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, Listing] = OrderedDict()
        self._memory_bytes = 0
        self._until_prune = 0
        self._written = 0

    @property
    def written(self) -> int:
        """How many answers were kept by this process so far."""
        return self._written

    def below(self, prefix: str) -> Iterator[tuple[str, Listing]]:
        """Yield (key, answer) for every kept answer whose key starts with `prefix`, refusals left
        out."""
        for key, row in self._table.items(prefix):
            listing = _from_row(row)
            if listing is not None and "status" not in listing.extra:
                yield key, listing

    def identities(self, scope: str) -> Iterator[str]:
        """Yield everybody to whom an answer of a remote was given and kept."""
        prefix = listing_key(scope) + "/"
        after: str | None = None
        while (row := next(self._table.items(prefix, after=after, limit=1), None)) is not None:
            identity = row[0][len(prefix) :].partition("/")[0]
            yield unquote(identity)
            # Behind all keys of this identity: no row of it is read.
            after = f"{prefix}{identity}/\U0010ffff"

    def get(self, key: str) -> Listing | None:
        """Return a kept answer, however old."""
        with self._lock:
            listing = self._memory.get(key)
            if listing is not None:
                self._memory.move_to_end(key)
                return listing
        return self._read(key)

    def look_again(self, key: str) -> Listing | None:
        """Return what is kept by now: another process may have asked the upstream since."""
        return self._read(key)

    def _read(self, key: str) -> Listing | None:
        row = self._table.get(key)
        listing = _from_row(row) if row is not None else None
        if listing is not None:
            self._remember(key, listing)
        return listing

    def put(self, key: str, listing: Listing) -> None:
        """Keep an answer."""
        self._table.set(key, asdict(listing))
        self._remember(key, listing)
        with self._lock:
            self._written += 1
        if key.startswith(_PASSING + "/"):
            self._prune()

    def forget(self, key: str) -> None:
        """Forget an answer: there is none any more."""
        with self._lock:
            self._drop(key)
            self._written += 1
        self._table.delete(key)

    def forget_repo(self, scope: str, repo: RepoRef) -> None:
        """Forget every answer about a repo, whoever asked for it."""
        for kind in ("listing", _PASSING):
            prefix, name = key_of(kind, scope) + "/", [key_of(repo.type), key_of(repo.id)]
            found = [key for key, _ in self._table.items(prefix) if key.split("/")[3:5] == name]
            for key in found:
                self.forget(key)

    def _prune(self) -> None:
        """Now and then, drop the oldest of the answers to endless questions."""
        with self._lock:
            self._until_prune -= 1
            if self._until_prune > 0:
                return
            self._until_prune = _PRUNE_EVERY
        for key in self._table.keep_latest(_PASSING + "/", MOST_PASSING):
            with self._lock:
                self._drop(key)

    def _remember(self, key: str, listing: Listing) -> None:
        with self._lock:
            self._drop(key)
            if len(listing.text) > _LARGEST_IN_MEMORY:
                return
            self._memory[key] = listing
            self._memory_bytes += len(listing.text)
            while len(self._memory) > _IN_MEMORY or self._memory_bytes > _BYTES_IN_MEMORY:
                self._drop(next(iter(self._memory)))

    def _drop(self, key: str) -> None:
        dropped = self._memory.pop(key, None)
        if dropped is not None:
            self._memory_bytes -= len(dropped.text)


def _from_row(row: Any) -> Listing | None:
    """Read a row; None if another version wrote it: the upstream will say it again."""
    try:
        return Listing(**row)
    except TypeError:
        return None


def listing_key(scope: str, *parts: str, passing: bool = False) -> str:
    """Return the key of a listing: `listing/<scope>/<identity>/<type>/<repo>/...`.

    Args:
        passing: there is no end of such questions, so only the latest answers are kept.
    """
    return key_of(_PASSING if passing else "listing", scope, *parts)


def fetch_listing(
    client: UpstreamClient,
    credential: Credential,
    method: str,
    path: str,
    query: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    read_timeout: float | None = None,
    background: bool = False,
    brief: bool = False,
) -> Listing:
    """Ask the upstream for a JSON answer.

    Args:
        read_timeout: seconds between two pieces.
        background, brief: see `UpstreamClient.request`.

    Raises:
        UpstreamAnswer: the Hub refuses.
        UpstreamError: it fails, or answers something that is not JSON.
    """
    asked = time.time()
    with client.request(
        method,
        path,
        query=query,
        credential=credential,
        headers=dict(headers),
        body=body,
        follow="same-origin",
        read_timeout=read_timeout or READ_TIMEOUT,
        background=background,
        brief=brief,
    ) as response:
        if response.status >= 300:
            raise refusal(response)
        return _listing(response, asked)


def _listing(response: UpstreamResponse, asked: float) -> Listing:
    check_no_page(response)
    raw = response.read(MAX_LISTING)
    try:
        return _read(json.loads(raw), response, asked)
    except RecursionError:
        raise UpstreamError(
            "The upstream's JSON is nested deeper than any Hub nests it.",
            advice="Check the url of the remote.",
        ) from None
    except ValueError as error:
        kind = response.headers.get("Content-Type", "no content type")
        raise UpstreamError(
            f"The upstream's answer ({kind}) is not JSON, so it does not behave like a Hub; a "
            "login page or a proxy may stand between.",
            advice="Check the url of the remote.",
        ) from error


def _read(parsed: Any, response: UpstreamResponse, asked: float) -> Listing:
    body = strip_xet(parsed, spare_large=True)
    info = body if isinstance(body, dict) else {}
    commit, object_id = info.get("sha"), info.get("_id")
    return Listing(
        text=_as_text(body),
        headers={
            name: value
            for name, value in answer_headers(response.headers).items()
            if name.lower() in _KEPT_HEADERS
        },
        fetched=asked,
        commit=commit if isinstance(commit, str) and is_commit(commit) else None,
        public=info.get("private") is False,
        restricted=bool(info["gated"] or info.get("disabled")) if "gated" in info else None,
        private=bool(info["private"]) if "private" in info else None,
        gated=bool(info["gated"]) if "gated" in info else None,
        object_id=object_id if isinstance(object_id, str) else None,
    )


def _as_text(body: Any) -> str:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    # JSON may name half a surrogate pair, which no encoding can write.
    return text if text.isascii() or _encodes(text) else json.dumps(body, separators=(",", ":"))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
