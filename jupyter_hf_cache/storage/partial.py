"""A blob being received on the local disk.

Responsible for: a sparse file with its block map and its lease, and making it the kept blob in one
step.
Not responsible for: files small enough to be received in memory (`small`), or where things lie and
what is kept (`blobs`).

What must be durable when:

- While it arrives: nothing. Within one boot of the machine the kernel keeps what was written,
  whatever happens to the process. After a power failure blocks that the map names may be missing.
  A fill goes on from them all the same, but nothing of the file is given to range requests before
  the whole of it was verified; if it is not right, it is fetched once more from nothing.
- At the commit, in this order: contents synced, sidecar synced, file renamed, directory synced. A
  crash between any two leaves a partial that is resumed, or a kept blob with its sidecar. So a name
  below `blobs/` never stands for contents that are not durable; a power failure may cost the
  rename, that is the download, and never a byte.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Protocol

import filelock

from jupyter_hf_cache.storage.blockmap import BlockMap, Intervals, continues
from jupyter_hf_cache.storage.exchange import LocalExchange
from jupyter_hf_cache.storage.files import sync_directory
from jupyter_hf_cache.storage.interface import BlobId, Stage
from jupyter_hf_cache.storage.linked import LinkedBlobs
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.storage.quarantine import note_reason, quarantine_path
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.staged import SUFFIX as STAGED
from jupyter_hf_cache.storage.staged import Staged

_COMPARED = 1024 * 1024


class Places(Protocol):
    """Where a partial's file and those it turns into lie."""

    blob_dir: Path
    partial_dir: Path
    quarantine_dir: Path
    linked: LinkedBlobs

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar) -> None:
        """Replace the sidecar of a blob in one step."""
        ...


class LocalPartial:
    """A blob being received: a partial file, its block map and its lease.

    All methods may be called from any thread.

    Args:
        owner: id of the origin whose bytes they are. Bytes of another one are thrown away: who only
            names a digest must not be handed what another origin delivered.
        lease: held; given up with `close` or `release`.
    """

    def __init__(
        self,
        places: Places,
        blob: BlobId,
        size: int,
        owner: str,
        lease: filelock.BaseFileLock,
    ) -> None:
        self.blob = blob
        self.size = size
        self._places = places
        self._lease = lease
        self._path = places.partial_dir / blob.name
        self._writing = threading.Lock()
        self._sealed = False
        self._fd = self._open(owner)
        try:
            self._map = BlockMap(self._map_path, size, owner)
        except OSError:
            os.close(self._fd)
            raise
        try:
            self.exchange = LocalExchange(self._map)
        except OSError:
            self._map.close()
            os.close(self._fd)
            raise

    def _open(self, owner: str) -> int:
        """Open the file that is continued, or a new one; others may be reading the one that is
        there, so that one is not shortened."""
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        if continues(self._map_path, self.size, owner) and self._path.exists():
            fd = os.open(self._path, flags)
            if os.fstat(fd).st_size == self.size:
                return fd
            os.close(fd)
        # The map goes first: by it those who follow see that this is not the file they opened.
        self._map_path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, self.size)
        except OSError:
            os.close(fd)
            raise
        return fd

    @property
    def _map_path(self) -> Path:
        return self._path.with_name(self._path.name + ".map")

    @property
    def trusted(self) -> bool:
        """Whether bytes found on opening were certainly written."""
        return self._map.trusted

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes, then mark them; the order is what makes the map believable. Once sealed,
        nothing is stored any more."""
        # The file system takes one writer of a file at a time anyway.
        with self._writing:
            if self._sealed:
                return
            self._store(offset, data)
            self._map.add(offset, offset + len(data))

    def _store(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += os.pwrite(self._fd, view[written:], offset + written)

    def seal(self) -> None:
        """Take no more bytes; a write that is under way is waited for."""
        with self._writing:
            self._sealed = True

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        return os.pread(self._fd, length, offset)

    def fileno(self) -> int:
        """Return the descriptor; it belongs to the partial."""
        return self._fd

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset`."""
        return self._map.available(offset)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps in [start, end)."""
        return self._map.missing(start, end)

    @property
    def present(self) -> int:
        """Bytes present."""
        return self._map.present

    def stage(self) -> Staged:
        """Return a new file for a copy that is still to be verified."""
        return Staged(self._path.with_name(self._path.name + STAGED), self.size)

    def take(self, staged: Staged) -> bool:
        """Let the verified bytes of a staged file be this blob's, all at once; False if bytes that
        are here already are others."""
        compared = Intervals()
        if not self._agrees(staged, compared):
            return False
        with self._writing:
            # What came meanwhile; nothing comes after it.
            if not self._agrees(staged, compared):
                return False
            before, self._sealed = self._sealed, True
        try:
            self._take_all(staged)
        except OSError:
            self._sealed = before
            raise
        return True

    def _take_all(self, staged: Staged) -> None:
        if self.present == 0:
            staged.path.replace(self._path)
            # In place, so that whoever holds the number of the descriptor reads the new file.
            os.dup2(staged.fileno(), self._fd, inheritable=False)
            staged.close()
        else:
            # Descriptors of this file are being sent from, so it has to stay the same file.
            for start, end in self._map.missing(0, self.size):
                for offset in range(start, end, _COMPARED):
                    self._store(offset, staged.read(offset, min(_COMPARED, end - offset)))
            staged.discard()
        self._map.fill()

    def _agrees(self, staged: Staged, compared: Intervals) -> bool:
        absent = Intervals()
        for gap in self._map.missing(0, self.size):
            absent.add(*gap)
        for present in absent.missing(0, self.size):
            for start, end in compared.missing(*present):
                for offset in range(start, end, _COMPARED):
                    length = min(_COMPARED, end - offset)
                    if self.read(offset, length) != staged.read(offset, length):
                        return False
                compared.add(start, end)
        return True

    def can_link(self, copy: OwnCopy) -> bool:
        """Return whether a file of the user can take this blob's place."""
        return self._places.linked.can_hold(copy)

    def link(self, copy: OwnCopy, verified: os.stat_result, sidecar: Sidecar) -> None:
        """Let the user's file be the kept blob, as long as it does not change."""
        self._places.linked.add(self.blob, copy, verified, sidecar)
        self._path.unlink(missing_ok=True)
        self._map_path.unlink(missing_ok=True)

    def commit(self, sidecar: Sidecar) -> None:
        """Make the verified bytes the kept blob, durably. The descriptor stays readable."""
        self.exchange.enter(Stage.VERIFIED)
        target = self._places.blob_dir / self.blob.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.fsync(self._fd)
        self._places.write_sidecar(self.blob, sidecar)
        self._path.chmod(0o440)
        self._path.replace(target)
        sync_directory(target.parent)
        self._map_path.unlink(missing_ok=True)

    def quarantine(self, reason: str) -> Path:
        """Move the bytes to `quarantine/` with a note of the reason."""
        target = quarantine_path(self._places.quarantine_dir, self.blob)
        try:
            self._path.replace(target)
        except OSError:
            # Whatever happens to it, nobody may go on from here.
            self._path.unlink(missing_ok=True)
            raise
        finally:
            self._map_path.unlink(missing_ok=True)
        note_reason(target, self.blob, reason)
        return target

    def close(self) -> None:
        """Close the files and give up the lease."""
        # First: while the map is open it can be said that nobody works on it any more.
        self.release()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._map.close()
            os.close(fd)

    def release(self) -> None:
        """Give up the lease while readers still use the descriptor."""
        if self._lease.is_locked:
            with contextlib.suppress(OSError):
                self.exchange.leave()
        self._lease.release(force=True)
