"""Where moving refs pointed last, for each identity.

Responsible for: keeping (remote, identity, repo, revision) → commit with the time it was learnt.
Not responsible for: how long that holds (`upstream.policy`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import RepoRef, Revision
from jupyter_hf_cache.storage.row_memory import RowMemory
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

_IN_MEMORY = 10_000
# A ref that did not move is written again only when its row is this old: the row serves other
# processes and the time after a restart.
_REWRITE_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 1.0


_Key = tuple[str, str, RepoRef, str]


class Revisions:
    """Moving refs in a state table, the latest also in memory. Thread-safe; blocks on disk."""

    def __init__(self, table: StateTable, generations: Generations) -> None:
        self._table = table
        self._generations = generations
        self._memory: RowMemory[_Key, Revision] = RowMemory(
            generations,
            "content",
            most=_IN_MEMORY,
            look_again=_LOOK_AGAIN_SECONDS,
            newer=lambda one, other: max(one, other, key=lambda record: record.checked),
        )

    def get(self, caller: Caller, repo: RepoRef, revision: str) -> Revision | None:
        """Return what `revision` pointed at when this identity asked last."""
        key = (caller.scope, caller.identity, repo, revision)
        return self._memory.get(key, lambda: self._read(key))

    def _read(self, key: _Key) -> Revision | None:
        row = self._table.get(_row_of(key))
        return Revision(**row) if row is not None else None

    def put(self, caller: Caller, repo: RepoRef, revision: str, record: Revision) -> None:
        """Keep what the upstream just said; where the disk refuses, in memory."""
        key = (caller.scope, caller.identity, repo, revision)
        row = self._memory.row(key)
        same = row is not None and row.commit == record.commit
        if row is not None and same and 0 <= record.checked - row.checked < _REWRITE_SECONDS:
            self._memory.put(key, record, written=False)
            return
        former = row or self._read(key)
        self._memory.put(key, record, written=False)
        try:
            self._table.set(_row_of(key), asdict(record))
        except StorageError as error:
            # What was asked for can be answered all the same.
            logger.warning("a revision of %s is not written: %s", repo, error.message)
            written = False
        else:
            self._memory.put(key, record, written=True)
            written = True
        if former is not None and former.commit != record.commit:
            # Else a HEAD answered here and a GET answered elsewhere would come from two commits.
            self._generations.advance("content")
        if not written:
            # Raising the counter made the memory forget it, and there is no row of it.
            self._memory.put(key, record, written=False)

    def all(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (scope, "type/id" as kept in keys, revision, commit) for every identity's refs."""
        for key, row in self._table.items("revision/"):
            _, scope, _, repo_type, repo_id, revision = key.split("/")
            yield scope, f"{repo_type}/{repo_id}", revision, row["commit"]


def _row_of(key: _Key) -> str:
    scope, identity, repo, revision = key
    return key_of("revision", scope, identity, repo.type, repo.id, revision)
