"""What a remote refused lately, for which its mirrors are not asked either.

Responsible for: remembering that a caller was refused a repo, or a token altogether.
Not responsible for: rights (`upstream.rights`), which end with a refusal and are then unknown.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from jupyter_hf_cache.errors import UpstreamAnswer
from jupyter_hf_cache.protocol.paths import HubRequest, Kind
from jupyter_hf_cache.service.caller import ANONYMOUS_IDENTITY, Caller
from jupyter_hf_cache.storage.records import RepoRef

_MOST = 10_000

_Key = tuple[str, str, RepoRef | None]


class Refusals:
    """In memory, for as long as a right would hold in an outage (`access_grace`). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: OrderedDict[_Key, float] = OrderedDict()

    def note(self, request: HubRequest, caller: Caller, refused: UpstreamAnswer) -> None:
        """The remote refused a read; that a file or a revision is missing is no refusal."""
        if refused.status not in (401, 403, 404):
            return
        if refused.code in ("EntryNotFound", "RevisionNotFound"):
            return
        with self._lock:
            until = time.monotonic() + caller.lifetimes.access_grace
            self._until[_of_repo(request, caller)] = until
            if refused.status == 401 and caller.identity != ANONYMOUS_IDENTITY:
                # Who signs in and is answered 401 has a bad token.
                self._until[_of_token(caller)] = until
            while len(self._until) > _MOST:
                self._until.popitem(last=False)

    def forget(self, request: HubRequest, caller: Caller) -> None:
        """The remote, or what is kept of it, answered a read. The page of a gated repo says
        nothing of its files."""
        if not self._until:
            return
        with self._lock:
            self._until.pop(_of_token(caller), None)
            if request.kind in (Kind.RESOLVE, Kind.RAW):
                self._until.pop(_of_repo(request, caller), None)

    def holds(self, request: HubRequest, caller: Caller) -> bool:
        """Return whether the last word to this caller was a refusal."""
        now = time.monotonic()
        with self._lock:
            keys = (_of_repo(request, caller), _of_token(caller))
            return any(now < self._until.get(key, 0.0) for key in keys)


def _of_repo(request: HubRequest, caller: Caller) -> _Key:
    return caller.scope, caller.identity, request.repo


def _of_token(caller: Caller) -> _Key:
    return caller.scope, caller.identity, None
