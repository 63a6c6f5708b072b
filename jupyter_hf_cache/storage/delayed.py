"""Work that can wait a while, so that it is done once for many occasions.

Responsible for: doing it some seconds after the first occasion, in a thread that lives only then.
Not responsible for: doing it at the end; whoever closes does what is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Delayed:
    """One piece of work. Thread-safe; `want` does not block.

    Args:
        seconds: how long it may wait.
        work: called in a daemon thread; must not raise.
    """

    def __init__(self, seconds: float, work: Callable[[], None]) -> None:
        self._seconds = seconds
        self._work = work
        self._lock = threading.Lock()
        self._waiting: threading.Timer | None = None
        self._working: threading.Timer | None = None
        self._over = False

    def want(self) -> None:
        """There is something to do."""
        with self._lock:
            if self._waiting is None and not self._over:
                self._waiting = threading.Timer(self._seconds, self._run)
                self._waiting.daemon = True
                self._waiting.start()

    def stop(self) -> None:
        """Do nothing any more; waits for work that has begun."""
        with self._lock:
            self._over = True
            timers = (self._waiting, self._working)
        for timer in timers:
            if timer is not None:
                timer.cancel()
                timer.join()

    def _run(self) -> None:
        with self._lock:
            if self._over:
                return
            # What is wanted from now on is done another time.
            self._working, self._waiting = self._waiting, None
        self._work()
