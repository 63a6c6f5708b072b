"""Writing files so that a crash leaves the old contents or the new, never a mixture.

Responsible for: replacing one file, and making a rename durable.
Not responsible for: what is in them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path


def write_atomically(
    path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True
) -> os.stat_result:
    """Replace a file's contents in one step; `durable` also against power failure.

    Returns:
        What the system says of the new file.

    Raises:
        OSError: the disk refuses; the old contents are still there.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        info = _write_new(beside, data, mode, durable=durable)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    return info


def _write_new(path: Path, data: bytes, mode: int, *, durable: bool) -> os.stat_result:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags | getattr(os, "O_BINARY", 0), mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if durable:
            os.fsync(fd)
        info = os.fstat(fd)
    finally:
        os.close(fd)
    if stat.S_IMODE(info.st_mode) != mode:
        # The process' own mask took something away.
        path.chmod(mode)
    return info


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable, where the system has a way to say so."""
    if os.name != "posix":
        return
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
