"""The cache directory, looked at from outside.

Responsible for: whether what lies in it at rest is right (every kept blob hashed again, nothing
left over, no lease held, the budget's figure true), how much it takes, small file systems to put it
on, and crude copies of it.
Not responsible for: what was served (`readers`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
from robustness.wanted import Wrong

from jupyter_hf_cache.service import CacheService, ServiceOptions


def blob_files(cache_dir: Path) -> list[Path]:
    """The kept blobs."""
    return [
        path
        for path in sorted((cache_dir / "blobs").rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".json"
    ]


def check_blobs(cache_dir: Path) -> int:
    """Hash every kept blob again; how many there are.

    Raises:
        Wrong: one is not what its name says.
    """
    blobs = blob_files(cache_dir)
    for path in blobs:
        data = path.read_bytes()
        if path.relative_to(cache_dir / "blobs").parts[0] == "sha256":
            found = hashlib.sha256(data).hexdigest()
        else:
            found = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        if found != path.name:
            raise Wrong(f"the kept blob {path} has the digest {found}")
    return len(blobs)


def check_at_rest(root: Path, upstream: str, *, leftovers: bool = False) -> int:
    """Look at what a stopped server left in `root`, and open it as the next one would; how many
    blobs are kept.

    Args:
        leftovers: partial or quarantined files may be there.

    Raises:
        Wrong: something is wrong with it.
    """
    cache_dir = root / "cache"
    count = check_blobs(cache_dir)
    for lock in (cache_dir / "partial").glob("*.lock"):
        with _clear(f"the lease {lock.name} is still held"):
            filelock.FileLock(lock, timeout=0).acquire().lock.release()
    service = CacheService.open(
        ServiceOptions(
            cache_dir,
            _data_dir(root),
            root / "config",
            default_upstream=upstream,
            min_free_space=0,
            cache_size_limit=10**11,
        )
    )
    try:
        kept = dict(service.store.blobs())
        size = 0
        for blob, length in kept.items():
            sidecar = service.store.sidecar(blob)
            data = (service.store.blob_dir / blob.path).read_bytes()
            _expect(sidecar is not None, f"{blob} has no sidecar")
            assert sidecar is not None
            _expect(sidecar.size == length == len(data), f"{blob} has another length")
            _expect(sidecar.sha256 == hashlib.sha256(data).hexdigest(), f"{blob}: other sha256")
            size += length
        left = [one.path.name for one in service.store.leftovers()]
        maps = [path.name for path in (cache_dir / "partial").glob("*.map")]
        rows = [row["size"] for _, row in service.budget.rows()]
        _expect(service.problems == [], f"problems: {service.problems}")
        _expect(len(kept) == count, f"{count} blobs lie there, {len(kept)} are known")
        _expect(sorted(rows) == sorted(kept.values()), "the records are not those of the blobs")
        if not leftovers:
            _expect(left == [] and maps == [], f"left over: {left} {maps}")
            _expect(service.budget.used() == size, f"{service.budget.used()} used, {size} kept")
    finally:
        service.close()
    return count


def _data_dir(root: Path) -> Path:
    """Where a stand-alone server's data are, else those of a cache in a test's process."""
    own = root / "data" / "hf-cache"
    return own if own.is_dir() else root / "data"


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)


@contextmanager
def _clear(otherwise: str) -> Iterator[None]:
    try:
        yield
    except filelock.Timeout:
        raise Wrong(otherwise) from None


def bytes_taken(cache_dir: Path, limit: int) -> int:
    """What blobs, partials and quarantine take on the disk now.

    One look takes a while, in which a file may go that was counted and another come that will be: a
    figure above `limit` is believed when it is found several times.
    """
    least = _bytes_seen(cache_dir)
    for _ in range(4):
        if least > limit:
            least = min(least, _bytes_seen(cache_dir))
    return least


def _bytes_seen(cache_dir: Path) -> int:
    taken = 0
    for name in ("blobs", "partial", "quarantine"):
        for path in (cache_dir / name).rglob("*"):
            with contextlib.suppress(OSError):
                info = path.lstat()
                if path.is_file() and path.suffix not in (".json", ".map", ".lock"):
                    taken += min(info.st_blocks * 512, info.st_size)
    return taken


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes at `directory`, for as long as the block runs."""
    directory.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(directory)], check=True)
    try:
        yield directory
    finally:
        # Lazily: what this process looked at last, another thread of it may still have open.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def copy_crudely(source: Path, target: Path) -> None:
    """Copy a directory in which others write, file by file, as far as that goes."""
    for folder, _, names in os.walk(source):
        here = target / Path(folder).relative_to(source)
        here.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in sorted(names):
            with contextlib.suppress(OSError):
                shutil.copy2(Path(folder) / name, here / name)
