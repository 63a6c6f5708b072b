"""Blobs on the local disk: kept, partial and quarantined.

Responsible for: where a blob's bytes lie, opening them for reading, the lease on receiving them,
deleting them, and the sidecar beside each kept blob.
Not responsible for: receiving (`partial`, `small`) and fetching (`upstream.fill`), how much may be
kept (`budget`), or who may read.

    blobs/sha256/ab/<digest>                 complete, verified, 0440; <digest>.json beside it
    blobs/git-sha1/<origin>/ab/<digest>      SHA-1 is not collision-free: one space per origin
    partial/<name>{,.map,.lock}              a sparse file, its block map, its fill's lease
    partial/<name>.own                       a copy of the user's own file, until it is verified
    quarantine/<name>-<time>{,.json}         what failed verification, with the reason
    linked/<name>{,.json}                    the user's own files, where links are wanted

Readers hold a shared lock on a blob; eviction needs the exclusive one, an explicit deletion does
not: its bytes go with their last reader. What is written when, and synced: `partial` and `small`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blockmap import holds, stored_bytes
from jupyter_hf_cache.storage.files import write_atomically
from jupyter_hf_cache.storage.following import FollowedPartial
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.linked import LinkedBlobs, LinkedReader
from jupyter_hf_cache.storage.partial import LocalPartial
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.small import SMALL, SmallPartial, is_intact
from jupyter_hf_cache.storage.staged import SUFFIX as STAGED

logger = logging.getLogger(__name__)

_HEX_DIGITS = {"sha256": 64, "git-sha1": 40}
_HEX = frozenset("0123456789abcdef")
_UNFINISHED_SECONDS = 3600.0
_SOUND_IN_MEMORY = 20_000
_BESIDE_CONTENTS = (".map", ".json", STAGED)
_BESIDE = (".lock", *_BESIDE_CONTENTS)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file that is no kept blob: partial or quarantined.

    Args:
        blob: what a partial is of; None for a quarantined file.
        size: bytes on disk, with what lies beside it.
        used: Unix time in seconds of the last write.
    """

    path: Path
    blob: BlobId | None
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a deletion frees. Sizes are bytes.

    Args:
        freed: at once.
        in_use: when the last of those who read it now has ended.
    """

    freed: int
    in_use: int = 0


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


class LocalBlobStore:
    """Blobs below one directory of a local file system.

    Args:
        root: the cache directory; its sub-directories are created (0700).
        on_removed: called in the thread that did it whenever a kept blob is gone.
    """

    def __init__(self, root: Path, *, on_removed: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self._on_removed = on_removed
        self.blob_dir = root / "blobs"
        self.partial_dir = root / "partial"
        self.quarantine_dir = root / "quarantine"
        self.linked = LinkedBlobs(root / "linked")
        self._sound: dict[BlobId, tuple[int, int, int]] = {}
        for directory in (self.blob_dir, self.partial_dir, self.quarantine_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def size_of(self, blob: BlobId) -> int | None:
        """Return the size of a kept blob in bytes, or None."""
        held = self.size_held(blob)
        return self.linked.size_of(blob) if held is None else held

    def size_held(self, blob: BlobId) -> int | None:
        """Return the size of a kept blob whose room is the cache's own, or None."""
        try:
            return (self.blob_dir / blob.path).stat().st_size
        except OSError:
            return None

    def open(self, blob: BlobId) -> LocalBlobReader | LinkedReader | None:
        """Open a kept blob under a shared lock, or return None.

        A file whose length is not that of its sidecar was damaged behind our back: it is removed.
        So is a small one that this process did not write and that does not match its name.
        """
        path = self.blob_dir / blob.path
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return self.linked.open(blob)
        _lock(fd, shared=True)
        info = os.fstat(fd)
        if info.st_nlink == 0:
            # Evicted between opening and locking.
            os.close(fd)
            return None
        if not self._is_sound(fd, blob, info):
            os.close(fd)
            logger.warning("kept blob %s is damaged or has lost its sidecar; removing it", blob)
            self.delete(blob)
            return None
        return LocalBlobReader(fd, info.st_size)

    def _is_sound(self, fd: int, blob: BlobId, info: os.stat_result) -> bool:
        """Compare a blob with its sidecar, and a small one with its name, once for each state of
        the file."""
        if self._sound.get(blob) == _state(info):
            return True
        sidecar = self.sidecar(blob)
        if sidecar is None or sidecar.size != info.st_size:
            return False
        if info.st_size <= SMALL and not is_intact(fd, blob, info.st_size):
            return False
        self._note_sound(blob, info)
        return True

    def _note_sound(self, blob: BlobId, info: os.stat_result) -> None:
        if len(self._sound) >= _SOUND_IN_MEMORY:
            self._sound.clear()
        self._sound[blob] = _state(info)

    def partial(
        self, blob: BlobId, size: int, owner: str = ""
    ) -> LocalPartial | SmallPartial | None:
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
                if size > SMALL:
                    return LocalPartial(self, blob, size, owner, lease)
                if (self.partial_dir / blob.name).exists():
                    self._unlink(self.partial_dir / blob.name)
                return SmallPartial(self, blob, size, lease)
        except OSError:
            lease.release(force=True)
            raise
        lease.release(force=True)
        return None

    def follow(self, blob: BlobId, size: int, owner: str) -> FollowedPartial | None:
        """Open the partial that another process fills; None when there is none to be seen.

        Raises:
            Foreign: its bytes are not those of the origin `owner`.
        """
        return FollowedPartial.open(self.partial_dir / blob.name, size, owner)

    def is_idle(self, blob: BlobId) -> bool:
        """Return whether nobody holds the lease on filling `blob` now."""
        try:
            with self._lease(blob.name):
                return True
        except filelock.Timeout:
            return False
        except OSError:
            # The disk refuses to make the lock's file, so there is none that anybody could hold.
            return True

    def _lease(self, name: str) -> filelock.BaseFileLock:
        """The lock file is never removed: two who wait for two files of one name both get in."""
        return filelock.FileLock(
            self.partial_dir / f"{name}.lock", timeout=0, thread_local=False, is_singleton=False
        )

    def sidecar(self, blob: BlobId) -> Sidecar | None:
        """Return the sidecar of a kept blob, or None if there is none that can be read."""
        try:
            return Sidecar.parse(self._sidecar_path(blob).read_bytes())
        except OSError:
            return self.linked.sidecar(blob)
        except ValueError:
            return None

    def keep_small(self, blob: BlobId, data: bytes, sidecar: Sidecar) -> None:
        """Write a small blob whose bytes were verified, and its sidecar before it.

        Raises:
            OSError: the disk refuses; the blob is not visible.
        """
        path = self.blob_dir / blob.path
        self.write_sidecar(blob, sidecar)
        info = write_atomically(path, data, 0o440, durable=False)
        self._note_sound(blob, info)

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar) -> None:
        """Replace the sidecar in one step. A large blob's is synced: without it the blob would be
        fetched again.

        Raises:
            OSError: the disk refuses.
        """
        if sidecar.linked:
            self.linked.write_sidecar(blob, sidecar)
            return
        path = self._sidecar_path(blob)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, sidecar.as_json(), durable=sidecar.size > SMALL)

    def _sidecar_path(self, blob: BlobId) -> Path:
        path = self.blob_dir / blob.path
        return path.with_name(path.name + ".json")

    def delete(self, blob: BlobId) -> Deleted:
        """Delete a kept blob. Who reads it goes on, and holds its room until then."""
        return self._remove(blob, while_read=True)

    def evict(self, blob: BlobId) -> bool:
        """Delete a kept blob unless somebody reads it; returns whether it is gone."""
        return self._remove(blob, while_read=False).freed > 0 or self.size_of(blob) is None

    def _remove(self, blob: BlobId, *, while_read: bool) -> Deleted:
        if while_read and self.linked.delete(blob):
            self._on_removed()
        path = self.blob_dir / blob.path
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return Deleted(0)
        try:
            unread = _lock(fd, shared=False)
            if not unread and not while_read:
                return Deleted(0)
            size = os.fstat(fd).st_size
            path.unlink(missing_ok=True)
            self._sidecar_path(blob).unlink(missing_ok=True)
            self._on_removed()
            return Deleted(size) if unread else Deleted(0, in_use=size)
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
        paths = [*self.partial_dir.iterdir(), *self.quarantine_dir.iterdir()]
        return [found for path in paths if (found := self.leftover_at(path)) is not None]

    def leftover_at(self, path: Path) -> Leftover | None:
        """Return the partial or quarantined file of this name, if it is one."""
        quarantined = path.parent == self.quarantine_dir
        blob = None if quarantined else _blob_named(path.name)
        if path.suffix in _BESIDE or (blob is None and not quarantined):
            return None
        try:
            used = path.stat().st_mtime
        except OSError:
            return None
        return Leftover(path, blob, _room(path), used)

    def present_of(self, blob: BlobId) -> int:
        """Return how many bytes of `blob` an idle partial holds, about."""
        path = self.partial_dir / blob.name
        return stored_bytes(path.with_name(path.name + ".map")) if path.exists() else 0

    def room_of_partial(self, blob: BlobId) -> int:
        """Return how many bytes the partial of `blob` takes on disk, with what lies beside it."""
        return _room(self.partial_dir / blob.name)

    def holds(self, blob: BlobId, size: int, owner: str, start: int, end: int) -> bool:
        """Return whether [start, end) can be read now without fetching anything."""
        if self.size_of(blob) == size:
            return True
        path = self.partial_dir / blob.name
        return path.exists() and holds(path.with_name(path.name + ".map"), size, owner, start, end)

    def tidy(self) -> None:
        """Remove what killed processes leave behind and nothing ever looks at again."""
        self.linked.tidy()
        for path in self.partial_dir.glob("*.map"):
            if not path.with_suffix("").exists():
                self.drop(path.with_suffix(""))
        for path in self.partial_dir.glob(f"*{STAGED}"):
            with contextlib.suppress(filelock.Timeout), self._lease(path.stem):
                path.unlink(missing_ok=True)
        unfinished = time.time() - _UNFINISHED_SECONDS
        for path in self.blob_dir.rglob(".*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < unfinished:
                    path.unlink()

    def drop(self, path: Path) -> bool:
        """Delete a quarantined file, or a partial that no fill works on; returns whether it is
        gone."""
        if path.parent == self.quarantine_dir:
            self._unlink(path)
            return True
        try:
            with self._lease(path.name):
                self._unlink(path)
        except filelock.Timeout:
            return False
        return True

    def _unlink(self, path: Path) -> None:
        for suffix in ("", *_BESIDE_CONTENTS):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def _blob_named(name: str) -> BlobId | None:
    """Return the blob whose `name` this is."""
    for algorithm, digits in _HEX_DIGITS.items():
        origin_id, _, hexdigest = name.removeprefix(algorithm + "-").rpartition("-")
        if (
            name.startswith(algorithm + "-")
            and len(hexdigest) == digits
            and _HEX.issuperset(hexdigest)
            and bool(origin_id) == (algorithm != "sha256")
        ):
            return BlobId(Digest(algorithm, hexdigest), origin_id)
    return None


def _state(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_ino, info.st_size, info.st_mtime_ns


def _room(path: Path) -> int:
    """Bytes that a sparse file takes, with what lies beside it; whole lengths where the system does
    not say."""
    room = 0
    for suffix in ("", *_BESIDE_CONTENTS):
        with contextlib.suppress(OSError):
            info = path.with_name(path.name + suffix).stat()
            room += info.st_blocks * 512 if hasattr(info, "st_blocks") else info.st_size
    return room


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
