"""The threads that fills run in.

Responsible for: naming the bounded executors, one of which begins work at once or not at all.
Not responsible for: making them and their end (`upstream.fills`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from jupyter_hf_cache.upstream.speed import Flow


class SparePool(ThreadPoolExecutor):
    """Threads for work that is worth doing only if it can begin at once.

    Attributes:
        flow: what all downloads bring, by which those who want more threads judge whether they
            help.
    """

    def __init__(self, workers: int, name: str = "") -> None:
        super().__init__(workers, name)
        self.flow = Flow()
        self._idle = threading.Semaphore(workers)

    def offer(self, work: Callable[[], None]) -> bool:
        """Begin `work` if a thread is idle; return whether it was begun."""
        if not self._idle.acquire(blocking=False):
            return False
        try:
            self.submit(self._do, work)
        except RuntimeError:
            # Shut down meanwhile.
            self._idle.release()
            return False
        return True

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            self._idle.release()


@dataclass(frozen=True, slots=True)
class Pools:
    """The bounded executors that fills run in.

    Args:
        fetch: the first connection of each fill.
        ranges: connections for parts that a reader waits for.
        hash: digests, and making a blob durable.
        adopt: copying what the user has already; None: nothing is.
        spare: further connections of a fill; None: each whole fill has one.
    """

    fetch: Executor
    ranges: Executor
    hash: Executor
    spare: SparePool | None = field(default=None, kw_only=True)
    adopt: Executor | None = field(default=None, kw_only=True)
