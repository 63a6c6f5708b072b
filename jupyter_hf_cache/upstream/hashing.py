"""Keeping a digest abreast of a file that is arriving.

Responsible for: when there is something to hash, hashing it, and making connections wait that are
too far ahead.
Not responsible for: the digest itself (`upstream.growing_digest`), threads, and what follows from
the result (`upstream.fill`).

The file is hashed as it lies on disk, in order, by a job of its own: ranges may arrive in any
order, and a slow hash never stops the line unless it is 256 MiB behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from jupyter_hf_cache.storage.interface import Partial
from jupyter_hf_cache.upstream.growing_digest import GrowingDigest

MAX_AHEAD_OF_HASH = 256 * 1024 * 1024
# Enough to be worth waking a thread for; what is left at the end is hashed in a few milliseconds.
_LAG = 4 * 1024 * 1024
_CAUGHT_UP = 1024 * 1024


class Hashing:
    """The hashing of one fill. Thread-safe; what needs the lock held says so.

    Args:
        changed: the fill's lock.
        running: whether the fill still runs; called with the lock held.
    """

    def __init__(
        self,
        digest: GrowingDigest,
        partial: Partial,
        changed: threading.Condition,
        running: Callable[[], bool],
    ) -> None:
        self._digest = digest
        self._partial = partial
        self._changed = changed
        self._running = running
        self._busy = False

    def claim(self, *, whole: bool) -> bool:
        """Return whether `run` is due now; the caller then runs it. The lock is held.

        Args:
            whole: the whole file is being fetched; otherwise only a complete one is hashed.
        """
        if self._busy or not self._running():
            return False
        reached = self._partial.available(0)
        complete = reached >= self._partial.size
        self._busy = complete or (whole and reached - self._digest.hashed >= _LAG)
        return self._busy

    def run(self) -> bool:
        """Hash what is there; return whether the whole file is hashed now."""
        while True:
            with self._changed:
                reached = self._partial.available(0)
                behind = reached - self._digest.hashed
                rest = behind < _CAUGHT_UP and reached < self._partial.size
                if rest or not self._running():
                    self._busy = False
                    self._changed.notify_all()
                    return False
            if self._digest.complete:
                return True
            count = self._digest.step(reached)
            with self._changed:
                self._digest.hashed += count
                self._changed.notify_all()

    def wait_near(self) -> None:
        """Wait while it is more than 256 MiB behind."""
        if self._behind() <= MAX_AHEAD_OF_HASH:
            return
        with self._changed:
            while self._running() and self._busy and self._behind() > MAX_AHEAD_OF_HASH:
                self._changed.wait(1.0)

    def _behind(self) -> int:
        return self._partial.available(0) - self._digest.hashed
