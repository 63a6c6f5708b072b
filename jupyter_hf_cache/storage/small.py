"""Small blobs: received in memory, written once.

Responsible for: receiving a file of at most 1 MiB without a sparse file and a block map, writing it
together with its sidecar when it is verified, and finding out later whether what lies on disk is
still what was written.
Not responsible for: larger ones (`partial`), or where things lie and what is kept (`blobs`).

Nothing here is synced: three syncs cost more than fetching a small file does. Instead contents are
believed only by the process that wrote them. Every other one, and with it the first one after a
power failure, hashes a small blob before it gives out its first byte: a millisecond at most, once
for each blob and process. What does not match its name is removed and fetched again. So a power
failure may cost small files of the last half minute, and never serves a wrong byte; and a small
file that a disk damages later is found at the next start as well.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Protocol

import filelock

from jupyter_hf_cache.protocol.digests import Hasher
from jupyter_hf_cache.storage.blockmap import Intervals
from jupyter_hf_cache.storage.files import write_atomically
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.storage.quarantine import note_reason, quarantine_path
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.staged import Staged

SMALL = 1024 * 1024


class Places(Protocol):
    """Where small blobs and damaged ones go."""

    quarantine_dir: Path

    def keep_small(self, blob: BlobId, data: bytes, sidecar: Sidecar) -> None:
        """Write a verified small blob."""
        ...


class SmallPartial:
    """A small blob being received. All methods may be called from any thread.

    What arrived is lost with the process, or when the fill ends early.

    Args:
        lease: held; given up with `close` or `release`.
    """

    def __init__(
        self, places: Places, blob: BlobId, size: int, lease: filelock.BaseFileLock
    ) -> None:
        self.blob = blob
        self.size = size
        self.trusted = True
        self.exchange = None
        self._places = places
        self._lease = lease
        self._lock = threading.Lock()
        self._intervals = Intervals()
        self._sealed = False
        # Made when the first bytes come: fills that wait for a connection take no memory.
        self._data = bytearray()

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes. Once sealed, nothing is stored any more."""
        with self._lock:
            if self._sealed:
                return
            if not self._data:
                self._data = bytearray(self.size)
            self._data[offset : offset + len(data)] = data
            self._intervals.add(offset, offset + len(data))

    def seal(self) -> None:
        """Take no more bytes."""
        with self._lock:
            self._sealed = True

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        with self._lock:
            return bytes(memoryview(self._data)[offset : offset + length])

    def fileno(self) -> None:
        """There is no descriptor."""
        return

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset`."""
        with self._lock:
            return self._intervals.end_from(offset)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps in [start, end)."""
        with self._lock:
            return self._intervals.missing(start, end)

    @property
    def present(self) -> int:
        """Bytes present."""
        with self._lock:
            return self._intervals.total()

    def stage(self) -> None:
        """There is no file beside which a copy could lie."""
        return

    def take(self, staged: Staged) -> bool:
        """Never called: nothing is staged."""
        raise OSError("a blob in memory takes no file")

    def can_link(self, copy: OwnCopy) -> bool:
        """A small file is copied in no time."""
        return False

    def link(self, copy: OwnCopy, verified: os.stat_result, sidecar: Sidecar) -> None:
        """Never called."""
        raise OSError("small blobs are not linked")

    def commit(self, sidecar: Sidecar) -> None:
        """Write the verified bytes and the sidecar. What is open stays readable.

        Raises:
            OSError: the disk refuses; nothing of it is visible.
        """
        self._places.keep_small(self.blob, self.read(0, self.size), sidecar)

    def quarantine(self, reason: str) -> Path:
        """Write the bytes to `quarantine/` with a note of the reason."""
        target = quarantine_path(self._places.quarantine_dir, self.blob)
        write_atomically(target, self.read(0, self.size), durable=False)
        note_reason(target, self.blob, reason)
        return target

    def close(self) -> None:
        """Give up the lease."""
        self.release()

    def release(self) -> None:
        """Give up the lease while readers go on."""
        self._lease.release(force=True)


def is_intact(fd: int, blob: BlobId, size: int) -> bool:
    """Return whether the file behind `fd` still is the small blob of this name."""
    hasher = Hasher(blob.digest.algorithm, size)
    hasher.update(os.pread(fd, size, 0))
    return hasher.hexdigest() == blob.digest.hex
