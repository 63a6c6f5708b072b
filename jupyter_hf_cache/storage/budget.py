"""The budget: how much may be kept, and what goes first.

Responsible for: reserving room before bytes arrive, last-use times, pins, and evicting the least
recently used unpinned blobs.
Not responsible for: deleting repos on request (`service.inventory`), or what a fill does when it
gets no room (it streams through unkept).

Last-use times are collected in memory and written in batches: a hit must not cost a write.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jupyter_hf_cache.errors import OutOfSpace
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blobs import BlobId, LocalBlobStore
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 200 * 10**9
DEFAULT_MIN_FREE = 10 * 10**9
_FLUSH_SECONDS = 30.0
_RECOUNT_SECONDS = 10.0
_PARTIAL_AGE_SECONDS = 60.0


def default_limit(directory: Path) -> int:
    """Return the default budget in bytes: a fifth of the disk, at most 200 GB."""
    return min(shutil.disk_usage(directory).total // 5, DEFAULT_LIMIT)


class Reservation:
    """Room for a number of bytes, until `release`. Releasing twice does nothing."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget: Budget | None = budget
        self.size = size

    def release(self, *, kept: bool) -> None:
        """Give the room back: the bytes are kept and counted as such, or (not `kept`) some lie
        about."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget._release(self.size, recount=not kept)


class Budget:
    """Keeps what is kept below a limit. Thread-safe; methods block on disk.

    Args:
        store: where the blobs are.
        table: last-use times and sizes, under keys `blob/…`.
        limit: bytes that blobs, partials and quarantine may take together.
        min_free: bytes that must stay free on the disk.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        store: LocalBlobStore,
        table: StateTable,
        *,
        limit: int,
        min_free: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self.min_free = min_free
        self._store = store
        self._table = table
        self._clock = clock
        self._lock = threading.RLock()
        self._reserved = 0
        self._kept: int | None = None
        self._counted = 0.0
        self._used: dict[str, float] = {}
        self._flushed = clock()

    def used(self) -> int:
        """Return the bytes kept and reserved. Counted anew at most every ten seconds: another
        process may share the directory."""
        with self._lock:
            now = self._clock()
            if self._kept is None or now - self._counted > _RECOUNT_SECONDS:
                kept = sum(int(row["size"]) for _, row in self._table.items("blob/"))
                self._kept = kept + self._store.partial_bytes()
                self._counted = now
            return self._kept + self._reserved

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (key, {"size", "used", "pinned"}) of every kept blob."""
        yield from self._table.items("blob/")

    def free_on_disk(self) -> int:
        """Return the bytes that may still be written without touching `min_free`."""
        return shutil.disk_usage(self._store.root).free - self.min_free - self._reserved

    def reserve(self, size: int) -> Reservation:
        """Make room for `size` bytes, evicting what was not used for longest.

        Raises:
            OutOfSpace: not even eviction makes enough room.
        """
        with self._lock:
            lacking = self._lacking(size)
            if lacking > 0:
                self._evict(lacking)
                lacking = self._lacking(size)
            if lacking > 0:
                raise OutOfSpace(
                    f"There is no room for {size:,} bytes in the cache: the budget is "
                    f"{self.limit:,} bytes and {self.min_free:,} bytes stay free on the disk.",
                    advice="Raise cache_size_limit, lower min_free_space, or delete cached repos.",
                )
            self._reserved += size
            return Reservation(self, size)

    def _lacking(self, size: int) -> int:
        return max(self.used() + size - self.limit, size - self.free_on_disk())

    def _release(self, size: int, *, recount: bool) -> None:
        with self._lock:
            self._reserved -= size
            if recount:
                self._kept = None

    def note_kept(self, blob: BlobId, size: int) -> None:
        """Record a newly kept blob."""
        self._table.set(blob_key(blob), {"size": size, "used": self._clock(), "pinned": False})
        with self._lock:
            if self._kept is not None:
                self._kept += size

    def note_used(self, blob: BlobId) -> None:
        """Record a hit, in memory; written with the next batch."""
        with self._lock:
            self._used[blob_key(blob)] = self._clock()
            due = self._clock() - self._flushed > _FLUSH_SECONDS
        if due:
            self.flush()

    def flush(self) -> None:
        """Write the collected last-use times."""
        with self._lock:
            used, self._used = self._used, {}
            self._flushed = self._clock()
        if not used:
            return
        with self._table.transact():
            for key, when in used.items():
                row = self._table.get(key)
                if row is not None:
                    self._table.set(key, {**row, "used": when})

    def forget(self, blob: BlobId) -> int:
        """Delete a kept blob and its record; returns the bytes freed (0 while it is being read)."""
        freed = self._store.delete(blob)
        if freed or self._store.size_of(blob) is None:
            self._table.delete(blob_key(blob))
        with self._lock:
            self._kept = None
        return freed

    def _evict(self, wanted: int) -> int:
        """Free at least `wanted` bytes if possible: idle partials first by age, then blobs by last
        use."""
        self.flush()
        freed = self._store.drop_idle_partials(self._clock() - _PARTIAL_AGE_SECONDS)
        rows = sorted(
            (row["used"], key, row) for key, row in self._table.items("blob/") if not row["pinned"]
        )
        for _, key, _row in rows:
            if freed >= wanted:
                break
            blob = blob_of(key)
            gone = self.forget(blob)
            if gone:
                logger.info("evicted %s (%d bytes)", blob, gone)
            freed += gone
        self._kept = None
        return freed

    def reconcile(self) -> None:
        """Make the records agree with the disk: after a crash, or when the tables were lost."""
        known = {key for key, _ in self._table.items("blob/")}
        for blob, size in self._store.blobs():
            key = blob_key(blob)
            if key in known:
                known.discard(key)
            elif self._store.sidecar(blob) is None:
                self._store.delete(blob)
            else:
                self._table.set(key, {"size": size, "used": self._clock(), "pinned": False})
        for key in known:
            if self._store.size_of(blob_of(key)) is None:
                self._table.delete(key)
        with self._lock:
            self._kept = None


def blob_key(blob: BlobId) -> str:
    """Return the key of a blob's record."""
    return key_of("blob", blob.digest.algorithm, blob.origin_id or "-", blob.digest.hex)


def blob_of(key: str) -> BlobId:
    """Return the blob that a record's key names."""
    _, algorithm, origin_id, hexdigest = key.split("/")
    return BlobId(Digest(algorithm, hexdigest), "" if origin_id == "-" else origin_id)
