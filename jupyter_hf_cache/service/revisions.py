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


class Revisions:
    """Moving refs in a state table, the latest also in memory. Thread-safe; blocks on disk."""

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._memory: OrderedDict[str, Revision] = OrderedDict()

    def get(self, caller: Caller, repo: RepoRef, revision: str) -> Revision | None:
        """Return what `revision` pointed at when this identity asked last."""
        key = self._key(caller, repo, revision)
        with self._lock:
            if (known := self._memory.get(key)) is not None:
                return known
        row = self._table.get(key)
        if row is None:
            return None
        known = Revision(**row)
        self._remember(key, known)
        return known

    def put(self, caller: Caller, repo: RepoRef, revision: str, record: Revision) -> None:
        """Keep what the upstream just said."""
        key = self._key(caller, repo, revision)
        self._table.set(key, asdict(record))
        self._remember(key, record)

    def forget(self, remote_id: str, repo: RepoRef | None = None) -> None:
        """Forget refs of one repo, or of a whole remote, for every identity."""
        for key, _ in list(self._table.items(key_of("revision", remote_id) + "/")):
            if repo is None or key.split("/")[3:5] == key_of(repo.type, repo.id).split("/"):
                self._table.delete(key)
        with self._lock:
            self._memory.clear()

    def all(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (remote_id, "type/id" as kept in keys, revision, commit) for every identity's
        refs."""
        for key, row in self._table.items("revision/"):
            _, remote_id, _, repo_type, repo_id, revision = key.split("/")
            yield remote_id, f"{repo_type}/{repo_id}", revision, row["commit"]

    def _remember(self, key: str, record: Revision) -> None:
        with self._lock:
            self._memory[key] = record
            while len(self._memory) > _IN_MEMORY:
                self._memory.popitem(last=False)

    @staticmethod
    def _key(caller: Caller, repo: RepoRef, revision: str) -> str:
        return key_of("revision", caller.remote.id, caller.identity, repo.type, repo.id, revision)
