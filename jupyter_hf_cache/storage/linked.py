"""Blobs that are the user's own files, by hard link.

Responsible for: linking a verified file of the user, giving its bytes out only while it is as it
was when it was verified, and letting go of it when it is not.
Not responsible for: verifying it (`upstream.adopt`), or copies (`blobs`).

    linked/<name>           another name of the user's file
    linked/<name>.json      its sidecar, with inode, size, mtime and ctime

The room is the user's: it is never counted as the cache's, and deleting a link frees nothing. The
user may write to the file at any moment. A write changes mtime or ctime before it changes the
bytes, so bytes that were read are given out only if both are as before *after* the read. That does
not see what a program writes through a memory map that it had already written through when the
file was linked, or what somebody does who sets clocks back.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.files import write_atomically
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.storage.sidecar import Sidecar

# Two changes within one tick of a file system's clock cannot be told apart.
SETTLED_NS = 2 * 10**9


def state_of(info: os.stat_result) -> list[int]:
    """Return what an edit changes."""
    return [info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def is_settled(info: os.stat_result) -> bool:
    """Return whether a change from now on is certain to be seen in `state_of`."""
    return time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > SETTLED_NS


class LinkedReader:
    """A linked file open for reading."""

    def __init__(self, fd: int, state: list[int]) -> None:
        self._fd = fd
        self._state = state
        self.size = state[1]

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`.

        Raises:
            StorageError: the user has changed the file.
        """
        data = os.pread(self._fd, length, offset)
        if state_of(os.fstat(self._fd)) != self._state:
            raise StorageError("The user's own file was changed while it was read.")
        return data

    def fileno(self) -> None:
        """There is none to send from: each piece is checked after it was read."""
        return

    def close(self) -> None:
        """Release the file; later calls do nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LinkedBlobs:
    """Links below one directory. Thread-safe; blocks on disk.

    Args:
        directory: created (0700) with the first link.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def can_hold(self, copy: OwnCopy) -> bool:
        """Return whether a link to this file can be made at all."""
        try:
            return self._directory.parent.stat().st_dev == copy.device and hasattr(os, "link")
        except OSError:
            return False

    def add(self, blob: BlobId, copy: OwnCopy, verified: os.stat_result, sidecar: Sidecar) -> None:
        """Link a file that is as it was when it was `verified`.

        Raises:
            OSError: it is not, or it cannot be linked.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self.delete(blob)
        path = self._path(blob)
        if state_of(copy.path.lstat()) != state_of(verified):
            raise OSError(f"{copy.path} was changed")
        os.link(copy.path, path, follow_symlinks=False)
        try:
            # The link itself is a change of the file's ctime.
            state = state_of(path.lstat())
            if state[:3] != state_of(verified)[:3]:
                raise OSError(f"{copy.path} was changed")
            sidecar.linked = state
            write_atomically(self._sidecar_path(blob), sidecar.as_json())
        except OSError:
            self.delete(blob)
            raise

    def open(self, blob: BlobId) -> LinkedReader | None:
        """Open a linked file, or return None. One that is not as it was is let go of."""
        try:
            fd = os.open(self._path(blob), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        state = state_of(os.fstat(fd))
        sidecar = self.sidecar(blob)
        if sidecar is not None and sidecar.linked == state:
            return LinkedReader(fd, state)
        os.close(fd)
        self.delete(blob)
        return None

    def size_of(self, blob: BlobId) -> int | None:
        """Return the size of a linked file in bytes, if it is as it was, or None."""
        try:
            state = state_of(self._path(blob).lstat())
        except OSError:
            return None
        sidecar = self.sidecar(blob)
        return state[1] if sidecar is not None and sidecar.linked == state else None

    def sidecar(self, blob: BlobId) -> Sidecar | None:
        """Return the sidecar of a linked file, or None."""
        try:
            return Sidecar.parse(self._sidecar_path(blob).read_bytes())
        except (OSError, ValueError):
            return None

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar) -> None:
        """Replace the sidecar of a linked file.

        Raises:
            OSError: the disk refuses.
        """
        write_atomically(self._sidecar_path(blob), sidecar.as_json(), durable=False)

    def delete(self, blob: BlobId) -> bool:
        """Let go of a file; the user's own name of it stays. Returns whether there was one."""
        found = self._path(blob).exists()
        self._path(blob).unlink(missing_ok=True)
        self._sidecar_path(blob).unlink(missing_ok=True)
        return found

    def tidy(self) -> None:
        """Let go of files that the user changed or deleted: a deleted one would not free its
        room."""
        if not self._directory.is_dir():
            return
        for path in self._directory.iterdir():
            name = path.name.removesuffix(".json")
            if not self._is_sound(name):
                self._directory.joinpath(name).unlink(missing_ok=True)
                self._directory.joinpath(name + ".json").unlink(missing_ok=True)

    def _is_sound(self, name: str) -> bool:
        path = self._directory / name
        try:
            sidecar = Sidecar.parse(path.with_name(name + ".json").read_bytes())
            return sidecar.linked == state_of(path.lstat())
        except (OSError, ValueError):
            return False

    def _path(self, blob: BlobId) -> Path:
        return self._directory / blob.name

    def _sidecar_path(self, blob: BlobId) -> Path:
        return self._directory / f"{blob.name}.json"
