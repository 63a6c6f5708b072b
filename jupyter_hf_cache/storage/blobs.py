"""Blobs on the local disk: kept, partial and quarantined.

Responsible for: where a blob's bytes lie, opening them for reading, receiving them block by block,
making a verified partial visible in one step, and the sidecar beside each kept blob.
Not responsible for: fetching (`upstream.fill`), how much may be kept (`budget`), or who may read.

`BlobStore` is what the rest of the product uses; `LocalBlobStore` is its form on a file system.

    blobs/sha256/ab/<digest>                 complete and verified, 0440, with <digest>.json beside
    it blobs/git-sha1/<origin>/ab/<digest>      SHA-1 is not collision-free: one space per origin
    partial/<name>{,.map,.lock}              a sparse file, its block map, the lease of whoever
    fills it quarantine/<name>-<time>{,.json}         what failed verification, with the reason

Order at a commit: contents fsynced, sidecar written, file renamed, directory fsynced. A crash
between any two leaves either a partial (resumed later) or a kept blob whose sidecar is there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import filelock

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blockmap import BlockMap, stored_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BlobId:
    """A blob's name: its digest, and for git-sha1 also the origin that named it."""

    digest: Digest
    origin_id: str = ""

    @classmethod
    def of(cls, digest: Digest, origin_id: str) -> BlobId:
        """Name the blob with `digest` as claimed by the origin `origin_id`."""
        return cls(digest, "" if digest.algorithm == "sha256" else origin_id)

    @property
    def name(self) -> str:
        """The blob as one file name."""
        parts = [self.digest.algorithm, self.origin_id, self.digest.hex]
        return "-".join(part for part in parts if part)

    @property
    def path(self) -> Path:
        """Path below `blobs/`."""
        return Path(self.digest.algorithm, self.origin_id, self.digest.hex[:2], self.digest.hex)

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class Sidecar:
    """What is known about a kept blob, beside its bytes, so that lost state tables can be rebuilt.

    Args:
        size: bytes.
        sha256: hex digest of the contents, also for git-sha1 blobs.
        origins: ids of the origins whose claim on it is proved.
        claims: [origin_id, type, repo, commit, path, etag] each.
        created: Unix time in seconds.
    """

    size: int
    sha256: str
    origins: list[str] = field(default_factory=list)
    claims: list[list[str]] = field(default_factory=list)
    created: float = 0.0


class BlobReader(Protocol):
    """A kept blob open for reading. `read` may be called from any thread; `close` once."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end."""
        ...

    def close(self) -> None:
        """Release the blob."""
        ...


class Partial(Protocol):
    """A blob being received. All methods may be called from any thread."""

    size: int
    trusted: bool

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes; raises OSError when the disk refuses."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        ...

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset`."""
        ...

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps in [start, end)."""
        ...

    def commit(self, sidecar: Sidecar) -> None:
        """Make the verified bytes the kept blob, durably."""
        ...

    def quarantine(self, reason: str) -> Path:
        """Move the bytes out of use, with the reason beside them."""
        ...

    def close(self) -> None:
        """Give up the lease; what was written stays for the next fill."""
        ...


class BlobStore(Protocol):
    """Where blobs live. Methods block and belong in worker threads."""

    def size_of(self, blob: BlobId) -> int | None:
        """Return the size of a kept blob in bytes, or None."""
        ...

    def open(self, blob: BlobId) -> BlobReader | None:
        """Open a kept blob, or return None."""
        ...

    def partial(self, blob: BlobId, size: int) -> Partial | None:
        """Take the lease on filling `blob`; None while another process holds it."""
        ...

    def sidecar(self, blob: BlobId) -> Sidecar | None:
        """Return the sidecar of a kept blob."""
        ...

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar, *, durable: bool = True) -> None:
        """Replace the sidecar of a kept blob; `durable` also against power failure."""
        ...

    def delete(self, blob: BlobId) -> int:
        """Delete a kept blob that nobody reads; returns the bytes freed."""
        ...

    def blobs(self) -> Iterator[tuple[BlobId, int]]:
        """Yield every kept blob with its size."""
        ...

    def partial_bytes(self) -> int:
        """Return the bytes that partial and quarantined files take."""
        ...


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
    """A partial file with its block map and lease."""

    def __init__(
        self, store: LocalBlobStore, blob: BlobId, size: int, lease: filelock.BaseFileLock
    ) -> None:
        self.blob = blob
        self.size = size
        self._store = store
        self._lease = lease
        self._path = store.partial_dir / blob.name
        self._readers = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(self._fd).st_size != size:
                os.ftruncate(self._fd, 0)
                os.ftruncate(self._fd, size)
                self._map_path.unlink(missing_ok=True)
            self._map = BlockMap(self._map_path, size)
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
        _sync_directory(target.parent)
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
        size = os.fstat(fd).st_size
        sidecar = self.sidecar(blob)
        if sidecar is None or sidecar.size != size:
            os.close(fd)
            logger.warning("kept blob %s has lost its sidecar or its length; removing it", blob)
            self.delete(blob)
            return None
        _lock(fd, shared=True)
        return LocalBlobReader(fd, size)

    def partial(self, blob: BlobId, size: int) -> LocalPartial | None:
        """Take the lease on filling `blob`; None while another process holds it."""
        lease = filelock.FileLock(
            self.partial_dir / f"{blob.name}.lock",
            timeout=0,
            thread_local=False,
            is_singleton=False,
        )
        try:
            lease.acquire()
        except filelock.Timeout:
            return None
        try:
            return LocalPartial(self, blob, size, lease)
        except OSError:
            lease.release(force=True)
            raise

    def sidecar(self, blob: BlobId) -> Sidecar | None:
        """Return the sidecar of a kept blob, or None if there is none that can be read."""
        try:
            fields: dict[str, Any] = json.loads(self._sidecar_path(blob).read_bytes())
            return Sidecar(**fields)
        except (OSError, ValueError, TypeError):
            return None

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar, *, durable: bool = True) -> None:
        """Replace the sidecar in one step; a lost claim costs one question, so that may be lazy."""
        path = self._sidecar_path(blob)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = json.dumps(
            {
                "size": sidecar.size,
                "sha256": sidecar.sha256,
                "origins": sidecar.origins,
                "claims": sidecar.claims,
                "created": sidecar.created,
            }
        )
        write_atomically(path, text.encode(), durable=durable)

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
        if "." not in path.name:
            with contextlib.suppress(OSError):
                yield BlobId(Digest(algorithm, path.name), origin_id), path.stat().st_size

    def partial_bytes(self) -> int:
        """Return the bytes that partial and quarantined files take on disk."""
        total = 0
        for path in self.partial_dir.glob("*.map"):
            total += stored_bytes(path)
        for path in self.quarantine_dir.iterdir():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def drop_idle_partials(self, keep_newer_than: float) -> int:
        """Delete partial and quarantined files not touched since a Unix time; returns bytes
        freed."""
        freed = 0
        for path in [*self.partial_dir.iterdir(), *self.quarantine_dir.iterdir()]:
            if path.suffix in (".lock", ".map", ".json"):
                continue
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < keep_newer_than:
                    freed += self._drop_partial(path)
        return freed

    def _drop_partial(self, path: Path) -> int:
        lease = filelock.FileLock(
            self.partial_dir / f"{path.name}.lock",
            timeout=0,
            thread_local=False,
            is_singleton=False,
        )
        try:
            with lease:
                blocks = getattr(path.stat(), "st_blocks", 0) * 512
                for suffix in ("", ".map", ".json"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                return int(blocks)
        except filelock.Timeout:
            return 0


def write_atomically(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Replace a file's contents in one step; `durable` also against power failure.

    Raises:
        OSError: the disk refuses; the old contents are still there.
    """
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
