"""How many downloads a remote is asked for at once.

Responsible for: the remote's `download_concurrency`, first for downloads that somebody waits for,
then for the additional connections of those that run.
Not responsible for: threads (`upstream.pools`) or how many connections help (`upstream.lanes`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType


class Crowded(Exception):
    """There is no slot to spare now."""


class Slots:
    """Slots for downloads; a context manager that waits for one. Thread-safe.

    Args:
        limit: how many downloads may run at once; None for any number.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._taken = 0
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())

    def __enter__(self) -> Slots:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(self._free)
            finally:
                self._waiting -= 1
            self._taken += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    @contextlib.contextmanager
    def spare(self) -> Iterator[None]:
        """Hold a slot that nobody else waits for.

        Raises:
            Crowded: there is none.
        """
        with self._changed:
            if self._waiting or not self._free():
                raise Crowded
            self._taken += 1
        try:
            yield
        finally:
            self.__exit__(None, None, None)

    @property
    def crowded(self) -> bool:
        """Whether a download waits for a slot."""
        return self._waiting > 0

    def _free(self) -> bool:
        return self._limit is None or self._taken < self._limit
