"""The pace of requests to one remote.

Responsible for: spacing requests so that no more than the remote's `rate_limit` start in a second,
those that somebody waits for before all others.
Not responsible for: what the upstream itself says about its limits (`upstream.allowance`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Gives each request its time. Thread-safe; `wait` blocks.

    Args:
        per_second: requests per second; None or 0 means no limit.
    """

    def __init__(
        self,
        per_second: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / per_second if per_second else 0.0
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, *, background: Callable[[], bool] = lambda: False) -> None:
        """Return when the next request may start.

        Args:
            background: while it says that nobody waits for the request, others go first.
        """
        if not self._interval:
            return
        while True:
            with self._lock:
                now = self._clock()
                start = max(now, self._next)
                # Who waits in the background holds no place: others may come in between.
                mine = start <= now or not background()
                if mine:
                    self._next = start + self._interval
            if start > now:
                self._sleep(start - now)
            if mine:
                return
