"""Where moving refs pointed last, for each identity.

Responsible for: keeping (remote, identity, repo, revision) → commit with the time it was learnt.
Not responsible for: how long that holds (`upstream.policy`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict

from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.storage.records import RepoRef, Revision
from jupyter_hf_cache.storage.state import StateTable, key_of

_IN_MEMORY = 10_000
# A ref that did not move is written again only when its row is this old: the row serves other
# processes and the time after a restart.
_REWRITE_SECONDS = 15.0


_Key = tuple[str, str, RepoRef, str]


class Revisions:
    """Moving refs in a state table, the latest also in memory. Thread-safe; blocks on disk."""

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._memory: OrderedDict[_Key, Revision] = OrderedDict()
        self._written: dict[_Key, Revision] = {}

    def get(self, caller: Caller, repo: RepoRef, revision: str) -> Revision | None:
        """Return what `revision` pointed at when this identity asked last."""
        key = (caller.scope, caller.identity, repo, revision)
        with self._lock:
            if (known := self._memory.get(key)) is not None:
                return known
        row = self._table.get(_row_of(key))
        if row is None:
            return None
        known = Revision(**row)
        self._remember(key, known)
        return known

    def put(self, caller: Caller, repo: RepoRef, revision: str, record: Revision) -> None:
        """Keep what the upstream just said."""
        key = (caller.scope, caller.identity, repo, revision)
        with self._lock:
            written = self._written.get(key)
        age = record.checked - written.checked if written is not None else _REWRITE_SECONDS
        self._remember(key, record)
        if written is None or written.commit != record.commit or age >= _REWRITE_SECONDS:
            self._table.set(_row_of(key), asdict(record))
            with self._lock:
                self._written[key] = record

    def all(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (scope, "type/id" as kept in keys, revision, commit) for every identity's refs."""
        for key, row in self._table.items("revision/"):
            _, scope, _, repo_type, repo_id, revision = key.split("/")
            yield scope, f"{repo_type}/{repo_id}", revision, row["commit"]

    def _remember(self, key: _Key, record: Revision) -> None:
        with self._lock:
            self._memory[key] = record
            while len(self._memory) > _IN_MEMORY:
                forgotten, _ = self._memory.popitem(last=False)
                self._written.pop(forgotten, None)


def _row_of(key: _Key) -> str:
    scope, identity, repo, revision = key
    return key_of("revision", scope, identity, repo.type, repo.id, revision)
