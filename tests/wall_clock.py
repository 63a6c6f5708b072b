"""Time that passes when a test says so."""

from __future__ import annotations

import time


class Clock:
    """The wall clock of this process, which tests put forward instead of waiting."""

    def __init__(self) -> None:
        self._true = time.time
        self._ahead = 0.0

    def __call__(self) -> float:
        return self._true() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._ahead += seconds
