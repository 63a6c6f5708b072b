"""A file that receives a copy, out of everybody's sight until it is known what it is.

Responsible for: the file beside a partial, cloned or written from its start on, until it is taken
or discarded.
Not responsible for: judging the copy (`upstream.adopt`), or the partial (`blobs`).
"""

from __future__ import annotations

import os
from pathlib import Path

from jupyter_hf_cache.storage.reflink import clone

SUFFIX = ".own"


class Staged:
    """A private file of ours. For one thread at a time; whoever made it holds the partial's lease.

    Args:
        path: made anew; what a killed process left there is replaced.
        size: bytes that it will have.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0)
        self._fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)

    def fileno(self) -> int:
        """Return the descriptor; it belongs to this file."""
        return self._fd

    def clone(self, source: int) -> bool:
        """Become a clone of the file behind `source`, if the file system can do that."""
        return clone(source, self._fd)

    def write(self, data: memoryview) -> None:
        """Append bytes.

        Raises:
            OSError: the disk refuses.
        """
        written = 0
        while written < len(data):
            written += os.write(self._fd, data[written:])

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        """Close the file; later calls do nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def discard(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)
