"""Where moving refs pointed last, for each identity.

Responsible for: keeping (remote, identity, repo, revision) → commit with the time it was learnt,
where a ref pointed before it moved, and when a commit was last named by the upstream at all.
Not responsible for: how long that holds (`upstream.policy`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.paths import is_commit
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.pruning import Pruning
from jupyter_hf_cache.storage.records import RepoRef, Revision
from jupyter_hf_cache.storage.row_memory import RowMemory
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

_IN_MEMORY = 10_000
# A ref that did not move is written again only when its row is this old: the row serves other
# processes and the time after a restart.
_REWRITE_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 1.0
_MOST_COMMITS = 20_000
_MOST_MOVES = 8
_POINTERS, _COMMITS, _MOVES = "revision", "seen", "moved"

FORMER_SECONDS = 24 * 3600.0
"""For so long it is known what a ref pointed at before."""


_Key = tuple[str, str, RepoRef, str]


class Revisions:
    """Moving refs in a state table, the latest also in memory. Thread-safe; blocks on disk.

    A full commit may be asked for like a ref: it points at itself, and its time is when the
    upstream last named it. That a repo of this name may be read says nothing of a commit which the
    name had under its former owner.
    """

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
        self._pruning = Pruning(table, _COMMITS + "/", most=_MOST_COMMITS)

    def get(self, caller: Caller, repo: RepoRef, revision: str) -> Revision | None:
        """Return what `revision` pointed at when this identity asked last."""
        key = (caller.scope, caller.identity, repo, revision)
        return self._memory.get(key, lambda: self._read(key))

    def _read(self, key: _Key) -> Revision | None:
        row = self._table.get(_row_of(key))
        return Revision(**row) if row is not None else None

    def put(self, caller: Caller, repo: RepoRef, revision: str, record: Revision) -> None:
        """Keep what the upstream just said; where the disk refuses, in memory."""
        self._put((caller.scope, caller.identity, repo, revision), record)
        if not is_commit(revision):
            self._put((caller.scope, caller.identity, repo, record.commit), record)

    def _put(self, key: _Key, record: Revision) -> None:
        row = self._memory.row(key)
        same = row is not None and row.commit == record.commit
        if row is not None and same and 0 <= record.checked - row.checked < _REWRITE_SECONDS:
            self._memory.put(key, record, written=False)
            return
        former = row or self._read(key)
        moved = former is not None and former.commit != record.commit
        self._memory.put(key, record, written=False)
        try:
            if former is not None and moved:
                self._note_move(key, former)
            self._table.set(_row_of(key), asdict(record))
            if is_commit(key[3]):
                self._pruning.written()
        except StorageError as error:
            # What was asked for can be answered all the same.
            logger.warning("a revision of %s is not written: %s", key[2], error.message)
            written = False
        else:
            self._memory.put(key, record, written=True)
            written = True
        if moved:
            # Else a HEAD answered here and a GET answered elsewhere would come from two commits.
            self._generations.advance("content")
        if not written:
            # Raising the counter made the memory forget it, and there is no row of it.
            self._memory.put(key, record, written=False)

    def forget(self, caller: Caller, repo: RepoRef, revision: str) -> None:
        """Forget a ref or a commit: the upstream says that there is none. Other processes are
        told."""
        key = (caller.scope, caller.identity, repo, revision)
        former = self.get(caller, repo, revision)
        if former is None:
            return
        try:
            if not is_commit(revision):
                self._note_move(key, former)
            self._table.delete(_row_of(key))
        except StorageError as error:
            logger.warning("a revision of %s is not deleted: %s", repo, error.message)
            self._generations.advance("content")
            self._memory.put(key, None, written=False)
        else:
            self._generations.advance("content")

    def forget_repo(self, scope: str, repo: RepoRef) -> None:
        """Forget every ref of a repo, whoever asked for it.

        Raises:
            StorageError: rows stay.
        """
        for kind in (_POINTERS, _COMMITS, _MOVES):
            mine = [
                key
                for key, _ in self._table.items(key_of(kind, scope) + "/")
                if key.split("/")[3:5] == [key_of(repo.type), key_of(repo.id)]
            ]
            for key in mine:
                self._table.delete(key)
        self._generations.advance("content")

    # -- what it pointed at before

    def former(self, caller: Caller, repo: RepoRef, revision: str) -> list[str]:
        """Return the commits that a ref pointed at within the last day and points at no more."""
        oldest = time.time() - FORMER_SECONDS
        rows = self._moves((caller.scope, caller.identity, repo, revision))
        return [commit for commit, left in rows if left > oldest]

    def _note_move(self, key: _Key, former: Revision) -> None:
        oldest = time.time() - FORMER_SECONDS
        rows = [row for row in self._moves(key) if row[1] > oldest and row[0] != former.commit]
        rows = [[former.commit, time.time()], *rows]
        self._table.set(_row_of(key, _MOVES), rows[:_MOST_MOVES])

    def _moves(self, key: _Key) -> list[list[Any]]:
        return self._table.get(_row_of(key, _MOVES)) or []

    def pointers(self, scope: str, repo: RepoRef, revision: str) -> Iterator[Revision]:
        """Yield what a ref pointed at, as each identity was told last."""
        wanted = [key_of(repo.type), key_of(repo.id), key_of(revision)]
        for key, row in self._table.items(key_of(_POINTERS, scope) + "/"):
            if key.split("/")[3:] == wanted:
                yield Revision(**row)

    def all(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (scope, "type/id" as kept in keys, revision, commit) for every identity's refs."""
        for key, row in self._table.items(_POINTERS + "/"):
            _, scope, _, repo_type, repo_id, revision = key.split("/")
            yield scope, f"{repo_type}/{repo_id}", revision, row["commit"]


def _row_of(key: _Key, kind: str | None = None) -> str:
    scope, identity, repo, revision = key
    kind = kind or (_COMMITS if is_commit(revision) else _POINTERS)
    return key_of(kind, scope, identity, repo.type, repo.id, revision)
