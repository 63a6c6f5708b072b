"""Rows of a state table, remembered.

Responsible for: answering from memory what was read lately, and forgetting it as soon as any
process on the directory announces a change (`generations`).
Not responsible for: reading and writing rows; callers bring both.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from jupyter_hf_cache.storage.generations import Generations, Name

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class _Entry(Generic[V]):
    """Args:
    value: None: known to be gone.
    row: what the table is known to hold.
    looked: monotonic seconds when the row was read or written.
    """

    value: V | None
    row: V | None
    looked: float


class RowMemory(Generic[K, V]):
    """The latest rows of one kind. Thread-safe.

    What is remembered may be newer than its row, for rows that say nothing new need not be written.
    A row that is not there is not remembered.

    Args:
        counter: everything is forgotten when it moves. Whoever changes rows moves it afterwards.
        most: how many entries.
        look_again: seconds after which a row is read once more, for what other processes learnt
            without announcing it.
        newer: returns the one of two values that was learnt later.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        generations: Generations,
        counter: Name,
        *,
        most: int,
        look_again: float = math.inf,
        newer: Callable[[V, V], V] = lambda _, row: row,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._generations = generations
        self._counter = counter
        self._most = most
        self._look_again = look_again
        self._newer = newer
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._seen = generations.value(counter)

    def get(self, key: K, read: Callable[[], V | None]) -> V | None:
        """Return a value, from memory if it is known well enough.

        Args:
            read: returns the row; called without a lock.
        """
        while True:
            with self._lock:
                seen = self._forget_if_moved()
                entry = self._entries.get(key)
                if entry is not None and self._is_good(entry):
                    self._entries.move_to_end(key)
                    return entry.value
            row = read()
            with self._lock:
                if self._forget_if_moved() != seen:
                    # The row may be from before the change.
                    continue
                present = self._entries.get(key)
                if present is not entry and present is not None:
                    return present.value
                value = self._newest(present, row)
                if value is not None:
                    self._remember(key, _Entry(value, row, self._clock()))
                return value

    def put(self, key: K, value: V | None, *, written: bool) -> None:
        """Remember a value.

        Args:
            value: None: it is gone.
            written: its row says the same.
        """
        with self._lock:
            self._forget_if_moved()
            before = self._entries.get(key)
            if written or before is None:
                self._remember(key, _Entry(value, value if written else None, self._clock()))
            else:
                self._remember(key, _Entry(value, before.row, before.looked))

    def row(self, key: K) -> V | None:
        """Return what the row is known to hold, without looking; None when that is not known."""
        with self._lock:
            self._forget_if_moved()
            entry = self._entries.get(key)
            return entry.row if entry is not None else None

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def _is_good(self, entry: _Entry[V]) -> bool:
        return entry.value is None or self._clock() - entry.looked < self._look_again

    def _newest(self, entry: _Entry[V] | None, row: V | None) -> V | None:
        if entry is None or entry.value is None:
            return row
        return entry.value if row is None else self._newer(entry.value, row)

    def _forget_if_moved(self) -> int:
        now = self._generations.value(self._counter)
        if now != self._seen:
            self._entries.clear()
            self._seen = now
        return now

    def _remember(self, key: K, entry: _Entry[V]) -> None:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
