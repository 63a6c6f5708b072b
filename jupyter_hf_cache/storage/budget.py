"""The budget: how much may be kept, and what goes first.

Responsible for: reserving room before bytes arrive, last-use times, pins, and evicting the least
recently used unpinned blobs.
Not responsible for: deleting repos on request (`service.inventory`), or what a fill does when it
gets no room (it streams through unkept).

Last-use times are collected in memory and written in batches: a hit must not cost a write.
"""

from __future__ import annotations

import functools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jupyter_hf_cache.errors import OutOfSpace, StorageError
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blobs import Leftover, LocalBlobStore
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 200 * 10**9
DEFAULT_MIN_FREE = 10 * 10**9
_FLUSH_SECONDS = 30.0
_RECOUNT_SECONDS = 10.0


def default_limit(directory: Path) -> int:
    """Return the default budget in bytes: a fifth of the disk, at most 200 GB."""
    return min(shutil.disk_usage(directory).total // 5, DEFAULT_LIMIT)


class Reservation:
    """Room for the bytes of one blob, until `release`. Releasing twice does nothing.

    Args:
        present: bytes of it that are on disk already.
    """

    def __init__(self, budget: Budget, name: str, size: int, present: int) -> None:
        self._budget: Budget | None = budget
        self.name = name
        self.size = size
        self._present: Callable[[], int] = lambda: present

    @property
    def outstanding(self) -> int:
        """Bytes that are still to be written."""
        return max(0, self.size - self._present())

    def follow(self, present: Callable[[], int]) -> None:
        """Ask `present` how many bytes are written: those are not counted twice."""
        self._present = present

    def release(self, *, kept: bool) -> None:
        """Give the room back: the bytes are kept and counted as such, or (not `kept`) some lie
        about."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget._release(self, recount=not kept)


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
        self._reservations: set[Reservation] = set()
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
                self._kept = kept + sum(leftover.size for leftover in self._leftovers())
                self._counted = now
            return self._kept + sum(reservation.size for reservation in self._reservations)

    def _leftovers(self) -> list[Leftover]:
        """Partial and quarantined files whose room is not reserved."""
        reserved = {reservation.name for reservation in self._reservations}
        return [one for one in self._store.leftovers() if one.path.name not in reserved]

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (key, {"size", "used", "pinned"}) of every kept blob."""
        yield from self._table.items("blob/")

    def free_on_disk(self) -> int:
        """Return the bytes that may still be written without touching `min_free`."""
        with self._lock:
            promised = sum(reservation.outstanding for reservation in self._reservations)
        return shutil.disk_usage(self._store.root).free - self.min_free - promised

    def reserve(self, blob: BlobId, size: int) -> Reservation:
        """Make room for a blob, or for `size` bytes of it, evicting what was not used for longest.

        What an idle partial holds of it counts as part of `size`.

        Raises:
            OutOfSpace: not even eviction makes enough room.
        """
        with self._lock:
            present = self._store.present_of(blob)
            reservation = Reservation(self, blob.name, max(size, present), present)
            self._reservations.add(reservation)
            if present:
                self._kept = None
            try:
                self._make_room(size)
            except OutOfSpace:
                reservation.release(kept=False)
                raise
            return reservation

    def grow(self, reservation: Reservation, size: int) -> None:
        """Let a reservation be of `size` bytes, if it is smaller.

        Raises:
            OutOfSpace: not even eviction makes enough room; it stays as it was.
        """
        with self._lock:
            before = reservation.size
            if size <= before:
                return
            reservation.size = size
            try:
                self._make_room(size - before)
            except OutOfSpace:
                reservation.size = before
                raise

    def _make_room(self, size: int) -> None:
        lacking = self._lacking()
        if lacking > 0:
            self._evict(lacking)
            lacking = self._lacking()
        if lacking > 0:
            raise OutOfSpace(
                f"There is no room for {size:,} bytes in the cache: the budget is "
                f"{self.limit:,} bytes and {self.min_free:,} bytes stay free on the disk.",
                advice="Raise cache_size_limit, lower min_free_space, or delete cached repos.",
            )

    def _lacking(self) -> int:
        return max(self.used() - self.limit, -self.free_on_disk())

    def _release(self, reservation: Reservation, *, recount: bool) -> None:
        with self._lock:
            self._reservations.discard(reservation)
            if recount:
                self._kept = None

    def note_kept(self, blob: BlobId, size: int) -> None:
        """Record a newly kept blob."""
        self._table.update(
            blob_key(blob),
            lambda row: {
                "size": size,
                "used": self._clock(),
                "pinned": (row or {}).get("pinned", False),
            },
        )
        with self._lock:
            if self._kept is not None:
                self._kept += size

    def note_used(self, blob: BlobId) -> None:
        """Record a hit, in memory; written with the next batch. A disk that refuses is no reason
        to refuse what is kept on it."""
        with self._lock:
            self._used[blob_key(blob)] = self._clock()
            due = self._clock() - self._flushed > _FLUSH_SECONDS
        if due:
            self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except StorageError as error:
            logger.warning("last-use times are not written: %s", error.message)

    def flush(self) -> None:
        """Write the collected last-use times.

        Raises:
            StorageError: the disk refuses; they are kept for the next time.
        """
        with self._lock:
            used, self._used = self._used, {}
            self._flushed = self._clock()
        if not used:
            return
        try:
            with self._table.transact():
                for key, when in used.items():
                    row = self._table.get(key)
                    if row is not None:
                        self._table.set(key, {**row, "used": max(when, row["used"])})
        except StorageError:
            with self._lock:
                self._used = {**used, **self._used}
            raise

    def forget(self, blob: BlobId) -> int:
        """Delete a kept blob and its record; returns the bytes freed (0 while it is being read)."""
        freed = self._store.delete(blob)
        try:
            if freed or self._store.size_of(blob) is None:
                self._table.delete(blob_key(blob))
        except StorageError as error:
            # On a full disk the file has to go first; its record goes at the next start.
            logger.warning("the record of %s stays: %s", blob, error.message)
        with self._lock:
            self._kept = None
        return freed

    def _evict(self, wanted: int) -> None:
        """Free at least `wanted` bytes if possible, least recently used first."""
        self._try_flush()
        freed = 0
        for _, name, drop in sorted(self._evictable(), key=lambda one: one[:2]):
            if freed >= wanted:
                break
            gone = drop()
            if gone:
                logger.info("evicted %s (%d bytes)", name, gone)
            freed += gone
        self._kept = None

    def _evictable(self) -> Iterator[tuple[float, str, Callable[[], int]]]:
        """Yield (last use, name, what deletes it) of unpinned blobs and of leftovers."""
        for leftover in self._leftovers():
            yield leftover.used, leftover.path.name, functools.partial(self._store.drop, leftover)
        for key, row in self._table.items("blob/"):
            if not row["pinned"]:
                blob = blob_of(key)
                yield row["used"], blob.name, functools.partial(self.forget, blob)

    def reconcile(self) -> None:
        """Make the records agree with the disk: after a crash, or when the tables were lost."""
        self._store.tidy()
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
