"""A circuit breaker for each upstream.

Responsible for: not asking an upstream again that could not be reached a moment ago, so that
replaying what is kept costs no time-out per file.
Not responsible for: answers of the upstream, not even 5xx: those are retried by whoever asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jupyter_hf_cache.errors import HfCacheError, UpstreamUnreachable

_REST_SECONDS = 5.0


class Breaker:
    """Remembers, per remote, that it could not be reached. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[str, tuple[float, str]] = {}
        self._reached: set[str] = set()

    @contextmanager
    def asking(self, remote_id: str) -> Iterator[None]:
        """Guard one question to a remote.

        Raises:
            UpstreamUnreachable: at once while it rests, with the reason of the last failure.
        """
        with self._lock:
            when, reason = self._failed.get(remote_id, (0.0, ""))
            if reason and self._clock() - when < _REST_SECONDS:
                raise UpstreamUnreachable(reason)
        try:
            yield
        except UpstreamUnreachable as error:
            with self._lock:
                self._failed[remote_id] = (self._clock(), error.message)
            raise
        except HfCacheError:
            self._answered(remote_id)
            raise
        self._answered(remote_id)

    def _answered(self, remote_id: str) -> None:
        with self._lock:
            self._failed.pop(remote_id, None)
            self._reached.add(remote_id)

    def state(self, remote_id: str) -> tuple[str, str]:
        """Return ("reachable" | "unreachable" | "unknown", reason)."""
        with self._lock:
            if remote_id in self._failed:
                return "unreachable", self._failed[remote_id][1]
            return ("reachable" if remote_id in self._reached else "unknown"), ""

    def forget(self, remote_id: str) -> None:
        """Ask again at once: the remote was changed."""
        with self._lock:
            self._failed.pop(remote_id, None)
            self._reached.discard(remote_id)
