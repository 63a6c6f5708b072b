"""What was changed upstream through this cache.

Responsible for: remembering when, so that who pushes sees the result at once, whoever they read as
and whichever process answers.
Not responsible for: changes made elsewhere; those are seen when what is known has aged.
"""

from __future__ import annotations

import logging
import threading
import time

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.storage.row_memory import RowMemory
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

_PREFIX = "change/"
_MOST = 10_000
_PRUNE_EVERY = 100

_Key = tuple[str, "RepoRef | None"]


class Changes:
    """Times of the last change per (scope, repo), in a state table and in memory. Thread-safe."""

    def __init__(self, table: StateTable, generations: Generations) -> None:
        self._table = table
        self._generations = generations
        self._memory: RowMemory[_Key, float] = RowMemory(generations, "content", most=_MOST)
        self._lock = threading.Lock()
        self._until_prune = 0

    def note(self, scope: str, repo: RepoRef | None) -> None:
        """A change went through.

        Args:
            repo: None when its address does not say which (creating, moving, deleting one).
        """
        key, now = (scope, repo), time.time()
        try:
            self._table.set(_row_of(key), now)
            self._prune()
        except StorageError as error:
            # The upload itself succeeded. The other processes see it when what they know has aged.
            logger.warning("a change is not noted on disk: %s", error.message)
        self._generations.advance("content")
        self._memory.put(key, now, written=True)

    def last(self, scope: str, repo: RepoRef | None) -> float:
        """Return the Unix time of the last change that may concern a repo, 0 if there was none."""
        return max(self._time_of((scope, repo)), self._time_of((scope, None)))

    def _time_of(self, key: _Key) -> float:
        return self._memory.get(key, lambda: self._read(key)) or 0.0

    def _read(self, key: _Key) -> float:
        row = self._table.get(_row_of(key))
        return float(row) if isinstance(row, (int, float)) else 0.0

    def _prune(self) -> None:
        """Now and then, drop the oldest: nothing that is known is as old as they are."""
        with self._lock:
            self._until_prune -= 1
            if self._until_prune > 0:
                return
            self._until_prune = _PRUNE_EVERY
        self._table.keep_latest(_PREFIX, _MOST)


def _row_of(key: _Key) -> str:
    scope, repo = key
    return _PREFIX + (key_of(scope) if repo is None else key_of(scope, repo.type, repo.id))
