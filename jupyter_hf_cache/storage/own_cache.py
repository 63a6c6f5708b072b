"""The user's own Hugging Face cache: files that other programs of the same user downloaded before.

Responsible for: where it lies, and finding a file in it by its digest, cheaply.
Not responsible for: whether the file still is what its name says (`upstream.adopt` hashes it), or
who may have it.

    {directory}/models--{owner}--{name}/blobs/{sha256 or git blob id}
    {directory}/blobs/ab/{xet hash}         what huggingface_hub shares between repos, by links

The repo that is asked for is looked at directly. A file of another repo is found in an index of
names, which a short thread brings up to date when somebody looks and it is older than ten seconds:
it lists only folders that changed.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.records import RepoRef

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}")
_REPO_FOLDER = re.compile(r"(?:models|datasets|spaces|kernels)--.+")
_REFRESH_SECONDS = 10.0
_FIRST_SECONDS = 1.0
_MAX_NAMES = 200_000
_MAX_REJECTED = 10_000
# A folder that changed this lately may change again without another time on it.
_SETTLED_NS = 2 * 10**9


@dataclass(frozen=True, slots=True)
class OwnCopy:
    """A file of the user's own cache, as it was found.

    Args:
        path: the file itself, no link.
        size: bytes.
        mtime_ns: last change, in ns since 1970.
        cache: where it was found.
    """

    path: Path
    size: int
    device: int
    inode: int
    mtime_ns: int
    cache: OwnCache = field(repr=False, compare=False)

    @classmethod
    def of(cls, path: Path, info: os.stat_result, cache: OwnCache) -> OwnCopy:
        """Describe the file of which `info` is the state."""
        return cls(path, info.st_size, info.st_dev, info.st_ino, info.st_mtime_ns, cache)

    def open(self) -> int:
        """Open the file; returns a descriptor.

        Raises:
            OSError: it cannot be read, or another file is there now.
        """
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(self.path, flags | getattr(os, "O_BINARY", 0))
        if self.of(self.path, os.fstat(fd), self.cache) != self:
            os.close(fd)
            raise FileNotFoundError(f"{self.path} is another file now")
        return fd

    def reject(self) -> None:
        """Say that it is not what its name says: it is not found again until it changes."""
        self.cache.reject(self)


class OwnCache:
    """Files by digest in directories laid out like `HF_HUB_CACHE`. Thread-safe; blocks on disk.

    Args:
        directories: looked through in this order; they need not exist.

    Attributes:
        by_link: its files are to be linked rather than copied.
    """

    def __init__(self, directories: Sequence[Path], *, by_link: bool = False) -> None:
        self.by_link = by_link
        self._directories = list(directories)
        self._lock = threading.Lock()
        self._rejected: set[OwnCopy] = set()
        self._folders: dict[Path, tuple[int, frozenset[str]]] = {}
        self._where: dict[str, list[Path]] = {}
        self._refreshed = 0.0
        self._refreshing = False
        self._indexed = threading.Event()

    def find(self, digest: Digest, size: int, repo: RepoRef) -> OwnCopy | None:
        """Return a file that has the digest by its name, and this size.

        Files known by a git blob id are looked for in `repo` alone: two files may be made to share
        a SHA-1, but within one repo the user's own programs take them for one as well.
        """
        if not self._directories:
            return None
        for directory in self._directories:
            folder = directory / _folder_of(repo) / "blobs"
            if (copy := self._look(directory, folder / digest.hex, size)) is not None:
                return copy
        if digest.algorithm != "sha256":
            return None
        self._refresh()
        for folder in self._where.get(digest.hex, ()):
            copy = self._look(folder.parent.parent, folder / digest.hex, size)
            if copy is not None:
                return copy
        return None

    def reject(self, copy: OwnCopy) -> None:
        """Remember that a file is not what its name says, as long as it does not change."""
        with self._lock:
            if len(self._rejected) >= _MAX_REJECTED:
                self._rejected.clear()
            self._rejected.add(copy)

    def _look(self, directory: Path, path: Path, size: int) -> OwnCopy | None:
        try:
            info = path.lstat()
            if stat.S_ISLNK(info.st_mode):
                path = _shared(directory, path)
                info = path.lstat()
        except (OSError, ValueError):
            return None
        if not stat.S_ISREG(info.st_mode) or info.st_size != size or not _is_own(info):
            return None
        copy = OwnCopy.of(path, info, self)
        return None if copy in self._rejected else copy

    # -- the index

    def _refresh(self) -> None:
        """Bring the index up to date in the background; only the first one is waited for."""
        with self._lock:
            due = time.monotonic() - self._refreshed > _REFRESH_SECONDS or not self._refreshed
            if due and not self._refreshing:
                self._refreshing = True
                threading.Thread(target=self._index, name="hf-cache-own", daemon=True).start()
        self._indexed.wait(_FIRST_SECONDS)

    def _index(self) -> None:
        try:
            folders: dict[Path, tuple[int, frozenset[str]]] = {}
            where: dict[str, list[Path]] = {}
            names = 0
            for folder in self._blob_folders():
                listed = self._listed(folder)
                names += len(listed[1])
                if names > _MAX_NAMES:
                    logger.info("only a part of the user's own cache is known: it is very large")
                    break
                folders[folder] = listed
                for name in listed[1]:
                    where.setdefault(name, []).append(folder)
            self._folders, self._where = folders, where
        finally:
            with self._lock:
                self._refreshed = time.monotonic()
                self._refreshing = False
            self._indexed.set()

    def _blob_folders(self) -> Iterator[Path]:
        for directory in self._directories:
            try:
                entries = sorted(entry.name for entry in directory.iterdir())
            except OSError:
                continue
            for name in entries:
                if _REPO_FOLDER.fullmatch(name):
                    yield directory / name / "blobs"

    def _listed(self, folder: Path) -> tuple[int, frozenset[str]]:
        """Return the time and the names of a folder; it is read only if it changed."""
        try:
            changed = folder.stat().st_mtime_ns
            known = self._folders.get(folder)
            if known is not None and known[0] == changed:
                return known
            with os.scandir(folder) as entries:
                names = frozenset(one.name for one in entries if _NAME.fullmatch(one.name))
        except OSError:
            return 0, frozenset()
        settled = time.time_ns() - changed > _SETTLED_NS
        return (changed if settled else 0), names


def own_cache_directory(environ: Mapping[str, str]) -> Path:
    """Return where the client libraries of this user keep their files.

    Args:
        environ: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME and XDG_CACHE_HOME count, in this
            order, as they do for `huggingface_hub`.
    """
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return _expanded(environ[name])
    if environ.get("HF_HOME"):
        return _expanded(environ["HF_HOME"]) / "hub"
    return _expanded(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def _expanded(text: str) -> Path:
    # Not `Path.expanduser`, which fails for a user without a home.
    return Path(os.path.expanduser(os.path.expandvars(text))).absolute()  # noqa: PTH111


def _folder_of(repo: RepoRef) -> str:
    return "--".join([repo.type, *repo.id.split("/")])


def _shared(directory: Path, link: Path) -> Path:
    """Return the file of the folder that all repos share to which `link` leads.

    Raises:
        OSError: it is no link any more.
        ValueError: it leads elsewhere.
    """
    target = Path(os.path.normpath(link.parent / link.readlink()))
    below = target.relative_to(os.path.normpath(directory / "blobs"))
    if len(below.parts) != 2 or _NAME.fullmatch(below.name) is None:
        raise ValueError(f"{link} leads out of the cache")
    return target


def _is_own(info: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or info.st_uid == os.geteuid()
