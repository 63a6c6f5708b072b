"""Single flight: callers that want the same answer at the same time share one question.

Responsible for: running one of several equal calls and giving its result, or its error, to all.
Not responsible for: keeping results afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlight:
    """Joins equal calls across threads. The key must hold everything the result depends on, the
    caller's identity included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[Any]] = {}

    def do(self, key: Hashable, call: Callable[[], T]) -> T:
        """Run `call`, or wait for the equal one that runs already.

        Raises:
            Exception: whatever the one that ran raised.
        """
        with self._lock:
            future = self._running.get(key)
            mine = future is None
            if future is None:
                future = self._running[key] = Future()
        if not mine:
            result: T = future.result()
            return result
        try:
            result = call()
        except BaseException as error:
            self._land(key)
            future.set_exception(error)
            raise
        self._land(key)
        future.set_result(result)
        return result

    def _land(self, key: Hashable) -> None:
        with self._lock:
            del self._running[key]
