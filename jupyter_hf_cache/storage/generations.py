"""Counters that all processes on one directory see at once.

Responsible for: telling every process, without asking a disk or a lock, that something which it
holds in memory was changed by another one.
Not responsible for: what changed, or for keeping it: whoever finds a counter raised reads again.

The counters lie in one small file that every process maps into memory: reading one costs as much
as reading a variable, so a request may do it. Only raising takes a lock. On a directory where no
file can be mapped the counters serve this process alone.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import threading
from pathlib import Path
from typing import Literal

import filelock

logger = logging.getLogger(__name__)

Name = Literal["config", "access", "content"]

_NAMES: tuple[Name, ...] = ("config", "access", "content")
_COUNTER = struct.Struct("=Q")
_SIZE = 4096


class Generations:
    """The counters of one directory. Thread-safe; `values` never blocks, `advance` does.

    - `config`: remotes, distributions and stored tokens.
    - `access`: who may come in or read: a key revoked, a right lost.
    - `content`: what is kept or known of repos: something deleted, refreshed, or pushed through us.

    Args:
        path: the file of the counters; a lock file lies beside it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file_lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=10)
        self._map: mmap.mmap | bytearray = self._open(path)

    def _open(self, path: Path) -> mmap.mmap | bytearray:
        try:
            # The lock, so that no counter of another process is overwritten by the first zeros.
            with self._file_lock:
                return _map(path)
        except (OSError, ValueError, filelock.Timeout) as error:
            logger.warning("changes of other processes are not seen at once: %s", error)
            return bytearray(_SIZE)

    def value(self, name: Name) -> int:
        """Return a counter."""
        return int(_COUNTER.unpack_from(self._map, _NAMES.index(name) * _COUNTER.size)[0])

    def values(self) -> tuple[int, ...]:
        """Return all counters, for what depends on everything."""
        return struct.unpack_from(f"={len(_NAMES)}Q", self._map)

    def advance(self, name: Name) -> None:
        """Tell every process that what it holds of this kind is out of date."""
        offset = _NAMES.index(name) * _COUNTER.size
        with self._lock:
            try:
                with self._file_lock:
                    self._add_one(offset)
            except (OSError, filelock.Timeout) as error:
                # Two raised at once may count as one; whoever looks sees a change all the same.
                logger.warning("a change is announced without its lock: %s", error)
                self._add_one(offset)

    def _add_one(self, offset: int) -> None:
        (value,) = _COUNTER.unpack_from(self._map, offset)
        _COUNTER.pack_into(self._map, offset, (value + 1) % 2**64)

    def close(self) -> None:
        """Let go of the file. Later reads see what was last seen; for shutting down."""
        with self._lock:
            # Not closed but dropped: a thread may be reading it.
            self._map = bytearray(self._map[:])


def _map(path: Path) -> mmap.mmap:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0) as file:
        missing = _SIZE - file.seek(0, os.SEEK_END)
        if missing > 0:
            # Written, not only made longer: a hole in a mapped file on a full disk is fatal.
            file.write(bytes(missing))
        return mmap.mmap(file.fileno(), _SIZE)
