"""Rows without end, kept in bounds.

Responsible for: dropping the longest unwritten rows of one kind now and then, as rows are written.
Not responsible for: writing them.
"""

from __future__ import annotations

import threading

from jupyter_hf_cache.storage.state import StateTable


class Pruning:
    """Keeps the number of rows under one prefix of a table near a limit. Thread-safe.

    Args:
        prefix: of the keys, with "/" at its end.
        most: how many rows stay.
        every: after how many writes it is looked after them; the first write of a process counts
            as so many.
    """

    def __init__(self, table: StateTable, prefix: str, *, most: int, every: int = 200) -> None:
        self._table = table
        self._prefix = prefix
        self._most = most
        self._every = every
        self._lock = threading.Lock()
        self._left = 0

    def written(self) -> None:
        """A row was written.

        Raises:
            StorageError: the disk refuses.
        """
        with self._lock:
            self._left -= 1
            if self._left > 0:
                return
            self._left = self._every
        self._table.keep_latest(self._prefix, self._most)
