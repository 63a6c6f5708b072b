"""Locks that are held while something is decided about one blob.

Responsible for: one lock for each blob in effect, in bounded memory, and holding all of them.
Not responsible for: what is decided, or other processes (they have leases).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from jupyter_hf_cache.storage.interface import BlobId

_COUNT = 64


class BlobLocks:
    """Equal blobs share a lock, and now and then others do. No thread may ask for a second one
    while it holds one."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(_COUNT)]

    def of(self, blob: BlobId) -> threading.Lock:
        """Return the lock of a blob."""
        return self._locks[hash(blob) % _COUNT]

    @contextlib.contextmanager
    def all(self) -> Iterator[None]:
        """Hold every lock: nothing is being decided anywhere meanwhile."""
        with contextlib.ExitStack() as held:
            for lock in self._locks:
                held.enter_context(lock)
            yield
