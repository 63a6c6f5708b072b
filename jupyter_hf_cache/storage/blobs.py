"""Blobs on the local disk: kept, partial and quarantined.

Responsible for: where a blob's bytes lie, opening them for reading, receiving them block by block,
making a verified partial visible in one step, and the sidecar beside each kept blob.
Not responsible for: fetching (`upstream.fill`), how much may be kept (`budget`), or who may read.

    blobs/sha256/ab/<digest>                 complete, verified, 0440; <digest>.json beside it
    blobs/git-sha1/<origin>/ab/<digest>      SHA-1 is not collision-free: one space per origin
    partial/<name>{,.map,.lock}              a sparse file, its block map, its fill's lease
    quarantine/<name>-<time>{,.json}         what failed verification, with the reason

Order at a commit: contents fsynced, sidecar written, file renamed, directory fsynced. A crash
between any two leaves either a partial (resumed later) or a kept blob whose sidecar is there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blockmap import BlockMap, holds, stored_bytes
from jupyter_hf_cache.storage.files import sync_directory, write_atomically
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.sidecar import Sidecar

logger = logging.getLogger(__name__)

_HEX_DIGITS = {"sha256": 64, "git-sha1": 40}
_HEX = frozenset("0123456789abcdef")
_UNFINISHED_SECONDS = 3600.0
_SOUND_IN_MEMORY = 100_000
_BESIDE = (".lock", ".map", ".json")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is no kept blob: partial or quarantined.

    Args:
        size: bytes on disk.
        used: Unix time in seconds of the last write.
    """

    path: Path
    size: int
    used: float


class LocalBlobReader:
    """A kept blob open for reading, under a shared lock that keeps eviction away."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`."""
        return os.pread(self._fd, length, offset)

    def fileno(self) -> int:
        """Return the descriptor; it belongs to this reader."""
        return self._fd

    def close(self) -> None:
        """Release the blob; later calls do nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


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
        store: LocalBlobStore,
        blob: BlobId,
        size: int,
        owner: str,
        lease: filelock.BaseFileLock,
    ) -> None:
        self.blob = blob
        self.size = size
        self._store = store
        self._lease = lease
        self._path = store.partial_dir / blob.name
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(self._fd).st_size != size:
                self._map_path.unlink(missing_ok=True)
            self._map = BlockMap(self._map_path, size, owner)
            if not self._map.continued:
                os.ftruncate(self._fd, 0)
                os.ftruncate(self._fd, size)
        except OSError:
            os.close(self._fd)
            raise

    @property
    def _map_path(self) -> Path:
        return self._path.with_name(self._path.name + ".map")

    @property
    def trusted(self) -> bool:
        """Whether bytes found on opening were certainly written."""
        return self._map.trusted

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes, then mark them; the order is what makes the map believable."""
        view = memoryview(data)
        written = 0
        while written < len(view):
            written += os.pwrite(self._fd, view[written:], offset + written)
        self._map.add(offset, offset + len(data))

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

    def commit(self, sidecar: Sidecar) -> None:
        """Make the verified bytes the kept blob, durably. The descriptor stays readable."""
        target = self._store.blob_dir / self.blob.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.fsync(self._fd)
        self._store.write_sidecar(self.blob, sidecar)
        self._path.chmod(0o440)
        self._path.replace(target)
        sync_directory(target.parent)
        self._map_path.unlink(missing_ok=True)

    def quarantine(self, reason: str) -> Path:
        """Move the bytes to `quarantine/` with a note of the reason."""
        target = self._store.quarantine_dir / f"{self.blob.name}-{time.time_ns()}"
        self._path.replace(target)
        self._map_path.unlink(missing_ok=True)
        note = {"blob": self.blob.name, "reason": reason, "time": time.time()}
        target.with_name(target.name + ".json").write_text(json.dumps(note))
        return target

    def close(self) -> None:
        """Close the files and give up the lease."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._map.close()
            os.close(fd)
        self.release()

    def release(self) -> None:
        """Give up the lease while readers still use the descriptor."""
        self._lease.release(force=True)


class LocalBlobStore:
    """Blobs below one directory of a local file system.

    Args:
        root: the cache directory; its sub-directories are created (0700).
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blob_dir = root / "blobs"
        self.partial_dir = root / "partial"
        self.quarantine_dir = root / "quarantine"
        self._sound: dict[BlobId, tuple[int, int, int]] = {}
        for directory in (self.blob_dir, self.partial_dir, self.quarantine_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def size_of(self, blob: BlobId) -> int | None:
        """Return the size of a kept blob in bytes, or None."""
        try:
            return (self.blob_dir / blob.path).stat().st_size
        except OSError:
            return None

    def open(self, blob: BlobId) -> LocalBlobReader | None:
        """Open a kept blob under a shared lock, or return None.

        A file whose length is not that of its sidecar was damaged behind our back: it is removed.
        """
        path = self.blob_dir / blob.path
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        info = os.fstat(fd)
        if not self._is_sound(blob, info):
            os.close(fd)
            logger.warning("kept blob %s has lost its sidecar or its length; removing it", blob)
            self.delete(blob)
            return None
        _lock(fd, shared=True)
        return LocalBlobReader(fd, info.st_size)

    def _is_sound(self, blob: BlobId, info: os.stat_result) -> bool:
        """Compare a blob's length with its sidecar's, once for each state of the file."""
        state = (info.st_ino, info.st_size, info.st_mtime_ns)
        if self._sound.get(blob) == state:
            return True
        sidecar = self.sidecar(blob)
        if sidecar is None or sidecar.size != info.st_size:
            return False
        if len(self._sound) >= _SOUND_IN_MEMORY:
            self._sound.clear()
        self._sound[blob] = state
        return True

    def partial(self, blob: BlobId, size: int, owner: str = "") -> LocalPartial | None:
        """Take the lease on filling `blob` with bytes of the origin `owner`.

        Returns:
            None while another fill holds it, in whatever process, or when the blob is kept.

        Raises:
            OSError: the disk refuses.
        """
        lease = self._lease(blob.name)
        try:
            lease.acquire()
        except filelock.Timeout:
            return None
        try:
            # Whoever held the lease until now may have kept the blob.
            if self.size_of(blob) is None:
                return LocalPartial(self, blob, size, owner, lease)
        except OSError:
            lease.release(force=True)
            raise
        lease.release(force=True)
        return None

    def _lease(self, name: str) -> filelock.BaseFileLock:
        """The lock file is never removed: two who wait for two files of one name both get in."""
        return filelock.FileLock(
            self.partial_dir / f"{name}.lock", timeout=0, thread_local=False, is_singleton=False
        )

    def sidecar(self, blob: BlobId) -> Sidecar | None:
        """Return the sidecar of a kept blob, or None if there is none that can be read."""
        try:
            return Sidecar.parse(self._sidecar_path(blob).read_bytes())
        except (OSError, ValueError):
            return None

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar, *, durable: bool = True) -> None:
        """Replace the sidecar in one step; a lost claim costs one question, so that may be lazy."""
        path = self._sidecar_path(blob)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, sidecar.as_json(), durable=durable)

    def _sidecar_path(self, blob: BlobId) -> Path:
        path = self.blob_dir / blob.path
        return path.with_name(path.name + ".json")

    def delete(self, blob: BlobId) -> int:
        """Delete a kept blob that nobody reads; returns the bytes freed, 0 if it is being read."""
        path = self.blob_dir / blob.path
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return 0
        try:
            if not _lock(fd, shared=False):
                return 0
            size = os.fstat(fd).st_size
            path.unlink(missing_ok=True)
            self._sidecar_path(blob).unlink(missing_ok=True)
            return size
        finally:
            os.close(fd)

    def blobs(self) -> Iterator[tuple[BlobId, int]]:
        """Yield every kept blob with its size."""
        for path in self.blob_dir.glob("sha256/??/*"):
            yield from self._blob_at(path, "sha256", "")
        for path in self.blob_dir.glob("git-sha1/*/??/*"):
            yield from self._blob_at(path, "git-sha1", path.parent.parent.name)

    def _blob_at(self, path: Path, algorithm: str, origin_id: str) -> Iterator[tuple[BlobId, int]]:
        name = path.name
        if (
            len(name) == _HEX_DIGITS[algorithm]
            and _HEX.issuperset(name)
            and name[:2] == path.parent.name
        ):
            with contextlib.suppress(OSError):
                yield BlobId(Digest(algorithm, name), origin_id), path.stat().st_size

    def leftovers(self) -> list[Leftover]:
        """Return what partial and quarantined files there are, running fills' among them."""
        found = []
        for path in [*self.partial_dir.iterdir(), *self.quarantine_dir.iterdir()]:
            if path.suffix not in _BESIDE:
                with contextlib.suppress(OSError):
                    info = path.stat()
                    found.append(Leftover(path, _on_disk(info), info.st_mtime))
        return found

    def present_of(self, blob: BlobId) -> int:
        """Return how many bytes of `blob` an idle partial holds, about."""
        path = self.partial_dir / blob.name
        return stored_bytes(path.with_name(path.name + ".map")) if path.exists() else 0

    def holds(self, blob: BlobId, size: int, owner: str, start: int, end: int) -> bool:
        """Return whether [start, end) can be read now without fetching anything."""
        if self.size_of(blob) == size:
            return True
        path = self.partial_dir / blob.name
        return path.exists() and holds(path.with_name(path.name + ".map"), size, owner, start, end)

    def tidy(self) -> None:
        """Remove what killed processes leave behind and nothing ever looks at again."""
        for path in self.partial_dir.glob("*.map"):
            if not path.with_suffix("").exists():
                self.drop(Leftover(path.with_suffix(""), 0, 0.0))
        unfinished = time.time() - _UNFINISHED_SECONDS
        for path in self.blob_dir.rglob(".*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < unfinished:
                    path.unlink()

    def drop(self, leftover: Leftover) -> int:
        """Delete a quarantined file, or a partial that no fill works on; returns bytes freed."""
        if leftover.path.parent == self.quarantine_dir:
            return self._unlink(leftover)
        try:
            with self._lease(leftover.path.name):
                return self._unlink(leftover)
        except filelock.Timeout:
            return 0

    def _unlink(self, leftover: Leftover) -> int:
        path, size = leftover.path, 0
        with contextlib.suppress(OSError):
            size = _on_disk(path.stat())
        for suffix in ("", ".map", ".json"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return size


def _on_disk(info: os.stat_result) -> int:
    """Bytes a sparse file takes; its whole length where the system does not say."""
    return int(info.st_blocks) * 512 if hasattr(info, "st_blocks") else info.st_size


def _lock(fd: int, *, shared: bool) -> bool:
    """Take a lock on an open blob without waiting; True where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
