"""Writing files so that a crash leaves the old contents or the new, never a mixture.

Responsible for: replacing one file, and making a rename durable.
Not responsible for: what is in them.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


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


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable, where the system has a way to say so."""
    if os.name != "posix":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
