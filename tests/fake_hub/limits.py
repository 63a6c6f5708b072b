"""Rate limits.

Responsible for: counting requests per caller and kind in fixed windows, what the headers of every
answer say of it, and when a caller has had enough.
Not responsible for: the refusal (`routes`).
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass


def bucket_of(path: str) -> str:
    """The kind of requests that a path belongs to."""
    if "/resolve/" in path or path.startswith("/api/resolve-cache/"):
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"


@dataclass(slots=True)
class _Window:
    ends: float
    spent: int = 0


class Limits:
    """Counts requests. Safe to use from any thread.

    Attributes:
        allowed: requests of an anonymous caller in a window, per kind.
        seconds: length of a window.
        enforced: who asks for more is refused; else the next window begins early.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str], _Window] = {}
        self.allowed = {"api": 500, "resolvers": 3000, "pages": 100}
        self.seconds = 300.0
        self.enforced = False

    def spend(self, caller: str, bucket: str) -> bool:
        """Count one request; False when it is one too many."""
        allowed = self.allowed[bucket]
        with self._lock:
            window = self._window(caller, bucket)
            if window.spent >= allowed - 1 and not self.enforced:
                window = self._windows[caller, bucket] = self._new()
            window.spent += 1
            return window.spent <= allowed

    def headers(self, caller: str, bucket: str) -> dict[str, str]:
        """What an answer says of the limit."""
        allowed = self.allowed[bucket]
        with self._lock:
            window = self._window(caller, bucket)
            left = max(0, allowed - window.spent)
            seconds = math.ceil(window.ends - time.monotonic())
        return {
            "RateLimit": f'"{bucket}";r={left};t={seconds}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={allowed};w={self.seconds:.0f}',
        }

    def _window(self, caller: str, bucket: str) -> _Window:
        window = self._windows.get((caller, bucket))
        if window is None or time.monotonic() >= window.ends:
            window = self._windows[caller, bucket] = self._new()
        return window

    def _new(self) -> _Window:
        return _Window(time.monotonic() + self.seconds)
