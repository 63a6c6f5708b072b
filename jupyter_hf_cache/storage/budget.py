"""The budget: how much may be kept, and what goes first.

Responsible for: reserving room before bytes arrive, last-use times, pins, and evicting the least
recently used unpinned blobs, partials and quarantined files.
Not responsible for: the rows that all processes share (`ledger`), deleting repos on request
(`service.inventory`), or what a fill does when it gets no room (it streams through unkept).

What holds at every instant, in all processes on a directory together: the files that count and the
reservations for what is still to come take no more than `limit`, and what is still to come fits on
the disk beside `min_free`. A file counts in whole blocks, with what lies beside it; directories,
empty lock files and the state tables do not count.

Reserving is one transaction of the ledger; a hit costs none. Last-use times are collected in memory
and written in batches, so a killed process loses those of its last minute.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jupyter_hf_cache.errors import OutOfSpace, StorageError
from jupyter_hf_cache.storage.blobs import Deleted, Leftover, LocalBlobStore
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.last_use import LastUse
from jupyter_hf_cache.storage.ledger import Entry, Ledger
from jupyter_hf_cache.storage.room import (
    blob_key,
    blob_of,
    partial_key,
    room_of_blob,
    room_of_partial,
)

logger = logging.getLogger(__name__)

DEFAULT_LIMIT = 200 * 10**9
_BATCH = 100
# A disk may give room back only some time after a deletion: it is asked again a few times, instead
# of evicting until it has.
_ROUNDS = 4


def default_limit(directory: Path) -> int:
    """Return the default budget in bytes: a fifth of the disk, at most 200 GB."""
    return min(shutil.disk_usage(directory).total // 5, DEFAULT_LIMIT)


class Reservation:
    """Room for the bytes of one blob, until `release`. Releasing twice does nothing.

    Args:
        whole: size of the whole blob in bytes.
        size: bytes of it for which there is room; 0 while another one has room for the same blob.
    """

    def __init__(self, budget: Budget, blob: BlobId, whole: int, size: int) -> None:
        self._budget: Budget | None = budget
        self.blob = blob
        self.whole = whole
        self.size = size

    def release(self, *, kept: bool) -> None:
        """Give the room back: the blob is kept and counted as such, or (not `kept`) what lies
        about of it counts."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget._release(self, kept=kept)


class _TakenError(Exception):
    """Another one has room for the same blob."""


class Budget:
    """Keeps what is kept below a limit. Thread-safe; methods block on disk, but for `note_used`.

    Args:
        store: where the blobs are.
        ledger: what takes room there.
        limit: bytes that blobs, partials and quarantine may take together.
        min_free: bytes that must stay free on the disk.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        store: LocalBlobStore,
        ledger: Ledger,
        *,
        limit: int,
        min_free: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit = limit
        self.min_free = min_free
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._lock = threading.RLock()
        self._reserved: dict[str, Reservation] = {}
        self._last_use = LastUse(ledger)

    # -- how much there is

    def used(self) -> int:
        """Return the bytes kept, lying about and reserved."""
        return self._ledger.totals()[0]

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (key, {"size", "used", "pinned"}) of every kept blob."""
        for entry in self._ledger.entries("blob/"):
            yield entry.key, {"size": entry.size, "used": entry.used, "pinned": entry.pinned}

    def free_on_disk(self) -> int:
        """Return the bytes that may still be written without touching `min_free`."""
        # What is promised first: bytes that arrive between the two looks count twice, not never.
        promised = sum(self._outstanding(entry) for entry in self._ledger.owned())
        return shutil.disk_usage(self._store.root).free - self.min_free - promised

    def _outstanding(self, entry: Entry) -> int:
        """Return the bytes that a reservation has still to write."""
        blob = blob_of(entry.key)
        if self._store.size_held(blob) is not None:
            return 0
        return max(0, entry.room - self._store.room_of_partial(blob))

    # -- reserving

    def reserve(self, blob: BlobId, size: int, *, whole: int | None = None) -> Reservation:
        """Make room for a blob, or for `size` bytes of it, evicting what was not used for longest.

        What an idle partial holds of it counts as part of `size`. While somebody else has room for
        the same blob nothing is reserved: the lease on the partial shows them. Should the lease be
        free all the same, `grow` takes the room over.

        Args:
            whole: size of the whole blob in bytes, where that is more.

        Raises:
            OutOfSpace: not even eviction makes enough room.
            StorageError: the ledger cannot be written.
        """
        reservation = Reservation(self, blob, whole if whole is not None else size, 0)
        with self._lock, contextlib.suppress(_TakenError):
            self._take(reservation, max(size, self._store.present_of(blob)), leased=False)
        return reservation

    def grow(self, reservation: Reservation, size: int) -> None:
        """Let a reservation be of `size` bytes, if it is smaller. The lease on the partial is held.

        Raises:
            OutOfSpace: not even eviction makes enough room; it stays as it was.
            StorageError: the ledger cannot be written.
        """
        if self._suffices(reservation, size):
            return  # as for nearly every fill, which must not wait for those that begin
        with self._lock:
            if not self._suffices(reservation, size):
                self._take(reservation, max(size, reservation.size), leased=True)

    def _suffices(self, reservation: Reservation, size: int) -> bool:
        return size <= reservation.size and partial_key(reservation.blob) in self._reserved

    def _take(self, reservation: Reservation, size: int, *, leased: bool) -> None:
        key = partial_key(reservation.blob)
        on_disk = self._store.room_of_partial(reservation.blob)
        wanted = Entry(
            key,
            size,
            max(room_of_partial(size, reservation.whole), on_disk),
            self._clock(),
            owner=self._ledger.token,
        )
        for _ in range(_ROUNDS):
            lacking = self._put_if_it_fits(wanted, leased=leased)
            if lacking <= 0:
                reservation.size = size
                self._reserved[key] = reservation
                return
            if not self._evict(lacking, but=key):
                break
        raise OutOfSpace(
            f"There is no room for {size:,} bytes in the cache: the budget is "
            f"{self.limit:,} bytes and {self.min_free:,} bytes stay free on the disk.",
            advice="Raise cache_size_limit, lower min_free_space, or delete cached repos.",
        )

    def _put_if_it_fits(self, wanted: Entry, *, leased: bool) -> int:
        """Enter a reservation; if that is too much, return how many bytes are lacking.

        Raises:
            _TakenError: without the lease, while another one has room for the same blob.
        """
        with self._ledger.transaction():
            before = self._ledger.get(wanted.key)
            taken = before is not None and before.owner and not leased
            if taken and before is not None and self._ledger.lives(before.owner):
                raise _TakenError
            _, room = self._ledger.totals()
            over = room + wanted.room - (before.room if before is not None else 0) - self.limit
            # Nothing is written before it is clear that it fits: on a full disk that would fail.
            lacking = over
            if not self._fits_easily(wanted):
                lacking = max(over, self._lacking(wanted, before))
            if lacking <= 0:
                self._ledger.put(wanted)
            return lacking

    def _fits_easily(self, wanted: Entry) -> bool:
        """Return whether the disk has room even if of all that is promised nothing were written
        yet: to look at each of the files takes longer than a small file does."""
        most = self._ledger.promised() + wanted.room
        return most <= shutil.disk_usage(self._store.root).free - self.min_free

    def _lacking(self, wanted: Entry, before: Entry | None) -> int:
        """Return how many bytes the disk lacks, 0 or less for none."""
        more = self._outstanding(wanted)
        if before is not None and before.owner:
            more -= self._outstanding(before)
        return more - self.free_on_disk()

    def _release(self, reservation: Reservation, *, kept: bool) -> None:
        key = partial_key(reservation.blob)
        with self._lock:
            if self._reserved.get(key) is not reservation:
                return
            del self._reserved[key]
            if kept:
                return
            try:
                with self._ledger.transaction():
                    entry = self._ledger.get(key)
                    if entry is not None and entry.owner == self._ledger.token:
                        self._give_up(entry)
            except StorageError as error:
                # It counts in full until room is lacking; then this is done again.
                logger.warning("the room of %s is not given back: %s", key, error.message)

    def _give_up(self, entry: Entry) -> None:
        """Let a partial that nobody works on any more count as what it takes."""
        blob = blob_of(entry.key)
        kept, room = self._store.size_held(blob), self._store.room_of_partial(blob)
        if kept is not None:
            # Its fill broke off, or died, between keeping it and recording that.
            self.note_kept(blob, kept)
        elif room:
            present = self._store.present_of(blob)
            self._ledger.put(replace(entry, size=present, room=room, owner=""))
        else:
            self._ledger.remove(entry.key)

    # -- what is kept

    def note_kept(self, blob: BlobId, size: int) -> None:
        """Record a newly kept blob, in place of its reservation.

        Raises:
            StorageError: the ledger cannot be written; the reservation goes on to count for it.
        """
        key = blob_key(blob)
        with self._ledger.transaction():
            known = self._ledger.get(key)
            pinned = known is not None and known.pinned
            self._ledger.put(Entry(key, size, room_of_blob(size), self._clock(), pinned))
            self._ledger.remove(partial_key(blob))

    def note_quarantined(self, blob: BlobId, where: Path) -> None:
        """Record that the bytes of a partial lie in quarantine now.

        Raises:
            StorageError: the ledger cannot be written; they are recorded at the next start.
        """
        found = self._store.leftover_at(where)
        with self._ledger.transaction():
            self._ledger.remove(partial_key(blob))
            if found is not None:
                self._ledger.put(_entry_of(found))

    def note_used(self, blob: BlobId) -> None:
        """Record a hit, in memory; written with the next batch. Never blocks."""
        self._last_use.note(blob_key(blob), self._clock())

    def flush(self) -> None:
        """Write the collected last-use times.

        Raises:
            StorageError: the disk refuses; they are kept for the next time.
        """
        self._last_use.flush()

    def pin(self, blob: BlobId, *, pinned: bool = True) -> bool:
        """Protect a kept blob from eviction, or no longer; False when it is not kept."""
        return self._ledger.pin(blob_key(blob), pinned=pinned)

    def forget(self, blob: BlobId) -> Deleted:
        """Delete a kept blob and its record, also while it is being read."""
        deleted = self._store.delete(blob)
        self._strike(blob_key(blob))
        return deleted

    def close(self) -> None:
        """Write last-use times, if that is possible, and begin no more batches."""
        self._last_use.close()

    # -- eviction

    def _evict(self, wanted: int, *, but: str = "") -> int:
        """Free `wanted` bytes if possible, least recently used first; returns what was freed."""
        self._last_use.try_flush()
        freed = self._reclaim()
        after: Entry | None = None
        while freed < wanted and (victims := self._ledger.oldest(after, _BATCH)):
            for victim in victims:
                if freed < wanted and victim.key != but:
                    freed += self._drop(victim)
            after = victims[-1]
        return freed

    def _drop(self, entry: Entry) -> int:
        """Delete what an entry stands for, if nobody uses it; returns the room it took."""
        if entry.key.startswith("blob/"):
            gone = self._store.evict(blob_of(entry.key))
        else:
            gone = self._store.drop(self._path_of(entry.key))
        if not gone:
            return 0
        logger.info("evicted %s (%d bytes)", entry.key, entry.size)
        self._strike(entry.key)
        return entry.room

    def _strike(self, key: str) -> None:
        """Remove the record of what is gone, unless it came back."""
        try:
            with self._ledger.transaction():
                entry = self._ledger.get(key)
                if entry is not None and not entry.owner and not self._is_there(key):
                    self._ledger.remove(key)
        except StorageError as error:
            # On a full disk the file has to go first; its record goes at the next start.
            logger.warning("the record of %s stays: %s", key, error.message)

    def _is_there(self, key: str) -> bool:
        if key.startswith("blob/"):
            return self._store.size_held(blob_of(key)) is not None
        return self._path_of(key).exists()

    def _path_of(self, key: str) -> Path:
        if key.startswith("partial/"):
            return self._store.partial_dir / blob_of(key).name
        return self._store.quarantine_dir / key.removeprefix("quarantine/")

    def _reclaim(self) -> int:
        """Give back what dead processes had reserved; returns how much that was."""
        with self._ledger.transaction():
            _, before = self._ledger.totals()
            for entry in self._ledger.owned():
                mine = entry.owner == self._ledger.token
                if entry.key not in self._reserved if mine else not self._ledger.lives(entry.owner):
                    self._give_up(entry)
            return before - self._ledger.totals()[1]

    # -- agreeing with the disk

    def reconcile(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Make the records agree with the disk: after a crash, or when the ledger was lost.
        Requests, fills and other processes may be at work meanwhile.

        Args:
            stopped: whether to leave it at that; asked often.
        """
        self._store.tidy()
        self._ledger.tidy()
        with self._lock:
            self._reclaim()
        found = itertools.chain(self._kept_without_record(), self._lying_about())
        # A transaction for each would take a minute for what a lost ledger once held.
        while batch := list(itertools.islice(found, _BATCH)):
            if stopped():
                return
            with self._ledger.transaction():
                for entry in batch:
                    self._enter(entry)
        for entry in self._ledger.entries(""):
            if stopped():
                return
            if not self._is_there(entry.key):
                self._strike(entry.key)

    def _kept_without_record(self) -> Iterator[Entry]:
        for blob, size in self._store.blobs():
            if self._ledger.get(blob_key(blob)) is not None:
                continue
            sidecar = self._store.sidecar(blob)
            if sidecar is None:
                self._store.evict(blob)
            else:
                yield Entry(blob_key(blob), size, room_of_blob(size), sidecar.created)

    def _lying_about(self) -> Iterator[Entry]:
        yield from map(_entry_of, self._store.leftovers())

    def _enter(self, entry: Entry) -> None:
        """Record what was found, unless it counts already, or has gone since."""
        with self._ledger.transaction():
            if self._ledger.get(entry.key) is not None or not self._is_there(entry.key):
                return
            if entry.key.startswith("blob/"):
                reserved = self._ledger.get(partial_key(blob_of(entry.key)))
                if reserved is not None and reserved.owner:
                    # It was kept this moment: its fill is about to record it.
                    return
            self._ledger.put(entry)


def _entry_of(found: Leftover) -> Entry:
    if found.blob is not None:
        return Entry(partial_key(found.blob), found.size, found.size, found.used)
    return Entry(f"quarantine/{found.path.name}", found.size, found.size, found.used)
