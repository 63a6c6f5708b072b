"""A user's own Hugging Face cache, made without a client.

Responsible for: files where `huggingface_hub` would put them, and a file system that can clone.
Not responsible for: what real clients do (`tests/clients`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

XET = "5e" * 32


def sha256(data: bytes) -> str:
    """The name of a large file."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """The name of a small file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def place(hub: Path, folder: str, name: str, data: bytes) -> Path:
    """Put a blob into a repo's folder, as after a download."""
    path = hub / folder / "blobs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def place_shared(hub: Path, folder: str, name: str, data: bytes) -> Path:
    """Put a blob into the folder that all repos share, and a link to it into the repo's, as after a
    download through Xet; returns the file."""
    shared = hub / "blobs" / XET[:2] / XET
    shared.parent.mkdir(parents=True, exist_ok=True)
    shared.write_bytes(data)
    link = hub / folder / "blobs" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(shared, link.parent))
    return shared


def edit(path: Path, data: bytes, at: int = 0) -> None:
    """Change a file in place, as an editor or a program of the user does."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@contextmanager
def cloning_disk(root: Path, size: int = 350 * 1024 * 1024) -> Iterator[Path]:
    """A small XFS in a file, mounted for as long as the block runs; skips where that needs more
    than there is."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("a file system that can clone needs root and mkfs.xfs")
    image, mount = root / "disk.img", root / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mount], capture_output=True).returncode:
        pytest.skip("no loop devices can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=False)
