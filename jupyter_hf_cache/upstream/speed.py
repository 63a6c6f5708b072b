"""How fast bytes arrive.

Responsible for: a mean over the last few seconds, and the sum over all downloads of the process.
Not responsible for: what follows from it (`upstream.lanes`).
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

_SECONDS = 5.0


@dataclass(slots=True)
class Speed:
    """Bytes per second over the last few seconds. Not thread-safe."""

    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, now: float, count: int) -> None:
        """Note `count` bytes that arrived at `now` (monotonic seconds)."""
        if self.marks and now - self.marks[-1][0] < 0.1:
            when, before = self.marks[-1]
            self.marks[-1] = (when, before + count)
        else:
            self.marks.append((now, count))

    def value(self, now: float) -> float:
        """Return bytes per second over the last five seconds."""
        recent = [(when, count) for when, count in self.marks if now - when < _SECONDS]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / max(now - recent[0][0], 0.1)


class Flow:
    """Bytes that all downloads of this process brought. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0

    def add(self, count: int) -> int:
        """Note `count` bytes; returns the sum so far."""
        with self._lock:
            self.total += count
            return self.total
