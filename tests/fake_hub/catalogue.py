"""The repos of the fake Hub.

Responsible for: repos, their commits, files and refs, real git object ids for all of them, renames,
and finding a repo or a revision by any name a client may use.
Not responsible for: who may read them (`accounts`) and HTTP.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from .content import BigFile, Content, SmallFile, git_object_id, lfs_pointer

if TYPE_CHECKING:
    from .community import Discussion

TYPES = ("models", "datasets", "spaces")
EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)
LFS_THRESHOLD = 1_000_000  # bytes; anything larger is stored outside git
LFS_SUFFIXES = (
    ".safetensors", ".bin", ".pt", ".h5", ".onnx", ".gguf", ".parquet", ".zip", ".tar", ".gz",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a commit. `oid` is the git id: of the content, or of the pointer of an LFS
    file."""

    content: Content
    lfs: bool
    oid: str
    xet_hash: str | None

    @property
    def size(self) -> int:
        return self.content.size

    @property
    def etag(self) -> str:
        """What the Hub names the content by: sha256 for LFS, git-sha1 for others."""
        return self.content.sha256() if self.lfs else self.oid

    @property
    def pointer(self) -> bytes:
        return lfs_pointer(self.content.sha256(), self.size)


@dataclass(frozen=True, slots=True)
class Commit:
    """An immutable state of a repo."""

    sha: str
    parent: Commit | None
    message: str
    date: datetime
    author: str
    files: Mapping[str, Entry]
    folders: Mapping[str, str]  # path -> git tree id, without the root

    @property
    def title(self) -> str:
        return self.message.partition("\n")[0]

    def history(self) -> Iterator[Commit]:
        """This commit and all before it, newest first."""
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent


class Repo:
    """A model, dataset or space. Change it from any thread; readers see whole commits only."""

    def __init__(self, catalogue: Catalogue, type: str, id: str, number: int) -> None:
        self.catalogue = catalogue
        self.type = type
        self.id = id
        self.number = number
        self.private = False
        self.gated: bool | str = False
        self.disabled = False
        self.xet = False
        self.downloads = 0
        self.likers: set[str] = set()
        self.discussions: dict[int, Discussion] = {}
        self.git_folder: Path | None = None
        self.git_refs: dict[str, str] = {}
        self.tags: list[str] = []
        self.refs: dict[str, Commit] = {}  # full names: refs/heads/main, refs/tags/v1, refs/pr/1
        self.commits: dict[str, Commit] = {}

    @property
    def likes(self) -> int:
        return len(self.likers)

    @property
    def object_id(self) -> str:
        """The `_id` field: stays with the repo through a rename."""
        return f"{0x6500000000000000_00000000 + self.number:024x}"

    @property
    def web_path(self) -> str:
        return self.id if self.type == "models" else f"{self.type}/{self.id}"

    @property
    def head(self) -> Commit | None:
        return self.refs.get("refs/heads/main")

    def commit(
        self,
        files: Mapping[str, bytes | str | Content | None],
        message: str = "Update files",
        *,
        branch: str = "main",
        author: str = "system",
        replace: bool = False,
        lfs: bool | None = None,
    ) -> str:
        """Add a commit and move `branch` to it.

        Args:
            files: path -> content; None removes the file.
            branch: a branch name, or a full ref (refs/pr/1, refs/convert/parquet); made if missing,
                from `main`.
            replace: the commit holds these files only.
            lfs: force storage in or out of LFS; None decides by size and suffix.

        Returns:
            The new commit's sha, 40 hex digits.
        """
        ref = full_ref(branch)
        with self.catalogue.lock:
            parent = self.refs.get(ref) or self.head
            entries = {} if replace or parent is None else dict(parent.files)
            for path, content in files.items():
                if content is None:
                    entries.pop(path, None)
                else:
                    entries[path] = self._entry(path, content, lfs)
            commit = _make_commit(self, parent, entries, message, author)
            self.commits[commit.sha] = commit
            self.refs[ref] = commit
        return commit.sha

    def point(self, ref: str, revision: str = "main") -> None:
        """Create or move a branch or full ref to an existing revision."""
        commit = self.resolve(revision)
        if commit is None:
            raise KeyError(revision)
        with self.catalogue.lock:
            self.refs[full_ref(ref)] = commit

    def tag(self, name: str, revision: str = "main") -> None:
        """Create or move a tag."""
        self.point(f"refs/tags/{name}", revision)

    def squash(self, branch: str, message: str) -> str:
        """Replace the history of a branch by one commit of its files."""
        ref = full_ref(branch)
        with self.catalogue.lock:
            entries = dict(self.refs[ref].files)
            commit = _make_commit(self, None, entries, message, "system")
            self.commits[commit.sha] = self.refs[ref] = commit
        return commit.sha

    def drop_ref(self, ref: str) -> None:
        with self.catalogue.lock:
            self.refs.pop(full_ref(ref), None)

    def resolve(self, revision: str) -> Commit | None:
        """The commit of a branch, tag, full ref, HEAD, or (short) commit id."""
        if revision == "HEAD":
            return self.head
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.refs[name]
        if 7 <= len(revision) <= 40 and all(c in "0123456789abcdef" for c in revision):
            matches = [c for sha, c in list(self.commits.items()) if sha.startswith(revision)]
            return matches[0] if len(matches) == 1 else None
        return None

    def _entry(self, path: str, content: bytes | str | Content, lfs: bool | None) -> Entry:
        if isinstance(content, str):
            content = content.encode()
        if isinstance(content, bytes):
            content = SmallFile(content)
        if lfs is None:
            large = content.size > LFS_THRESHOLD or isinstance(content, BigFile)
            lfs = content.size > 0 and (large or path.endswith(LFS_SUFFIXES))
        if not lfs:
            return Entry(content, False, git_object_id("blob", content.read(0, content.size)), None)
        sha256 = content.sha256()
        self.catalogue.large[sha256] = content
        oid = git_object_id("blob", lfs_pointer(sha256, content.size))
        return Entry(content, True, oid, xet_hash(sha256) if self.xet else None)


def full_ref(name: str) -> str:
    return name if name.startswith("refs/") else f"refs/heads/{name}"


def xet_hash(sha256: str) -> str:
    """A stand-in for the Merkle hash Xet gives the same bytes: 64 hex digits, never the sha256."""
    return hashlib.sha256(f"xet:{sha256}".encode()).hexdigest()


def folders_of(entries: Mapping[str, Entry]) -> dict[str, str]:
    """The git id of every folder but the root."""
    folders = _tree_ids(entries)
    del folders[""]
    return folders


def _make_commit(
    repo: Repo, parent: Commit | None, entries: dict[str, Entry], message: str, author: str
) -> Commit:
    folders = _tree_ids(entries)
    date = repo.catalogue.next_date()
    stamp = f"{author} <{author}@example.test> {int(date.timestamp())} +0000"
    lines = [f"tree {folders.pop('')}"]
    if parent is not None:
        lines.append(f"parent {parent.sha}")
    lines += [f"author {stamp}", f"committer {stamp}", "", message, ""]
    sha = git_object_id("commit", "\n".join(lines).encode())
    return Commit(sha, parent, message, date, author, dict(sorted(entries.items())), folders)


def _tree_ids(entries: Mapping[str, Entry]) -> dict[str, str]:
    """The git id of every folder; the root is ""."""
    children: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, entry in entries.items():
        folder, _, name = path.rpartition("/")
        children.setdefault(folder, {})[name] = ("100644", entry.oid)
        while folder:
            folder = folder.rpartition("/")[0]
            children.setdefault(folder, {})
    ids: dict[str, str] = {}
    for folder in sorted(children, key=lambda f: f.count("/") + bool(f), reverse=True):
        rows = sorted(
            children[folder].items(), key=lambda row: row[0] + "/" * (row[1][0] == "40000")
        )
        body = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, (mode, oid) in rows
        )
        ids[folder] = git_object_id("tree", body)
        if folder:
            above, _, name = folder.rpartition("/")
            children[above][name] = ("40000", ids[folder])
    return ids


@dataclass(slots=True)
class Catalogue:
    """All repos. Ids are matched exactly first, then by alias, then without regard to case."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    large: dict[str, Content] = field(default_factory=dict)  # sha256 -> content, as the CDN has it
    _repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    _aliases: dict[tuple[str, str], Repo] = field(default_factory=dict)
    _made: int = 0
    _clock: int = 0

    def create(
        self,
        type: str,
        id: str,
        *,
        private: bool = False,
        gated: bool | str = False,
        disabled: bool = False,
        xet: bool = False,
    ) -> Repo:
        """Make an empty repo; it takes over an old name that pointed elsewhere.

        Raises:
            ValueError: the type is unknown or the repo exists.
        """
        if type not in TYPES:
            raise ValueError(f"unknown repo type {type!r}")
        with self.lock:
            if (type, id) in self._repos:
                raise ValueError(f"{type}/{id} exists")
            self._made += 1
            repo = Repo(self, type, id, self._made)
            repo.private, repo.gated, repo.disabled, repo.xet = private, gated, disabled, xet
            self._repos[type, id] = repo
            self._aliases.pop((type, id.lower()), None)
        return repo

    def get(self, type: str, id: str) -> Repo | None:
        """The repo of exactly this id."""
        return self._repos.get((type, id))

    def moved(self, type: str, id: str) -> Repo | None:
        """The repo an old or differently written id leads to."""
        with self.lock:
            alias = self._aliases.get((type, id.lower()))
            if alias is not None:
                return alias
            return next(
                (r for (t, i), r in self._repos.items() if t == type and i.lower() == id.lower()),
                None,
            )

    def rename(self, type: str, old: str, new: str) -> Repo:
        """Move a repo to a new id; the old one redirects until it is taken again."""
        with self.lock:
            repo = self._repos.pop((type, old))
            repo.id = new
            self._repos[type, new] = repo
            self._aliases[type, old.lower()] = repo
        return repo

    def alias(self, type: str, old: str, repo: Repo) -> None:
        """Let an id that has no repo lead to one."""
        with self.lock:
            self._aliases[type, old.lower()] = repo

    def delete(self, type: str, id: str) -> None:
        """Remove a repo and every old name of it."""
        with self.lock:
            repo = self._repos.pop((type, id))
            self._aliases = {k: r for k, r in self._aliases.items() if r is not repo}

    def all(self, type: str) -> list[Repo]:
        """Every repo of a type, oldest first."""
        with self.lock:
            return [r for (t, _), r in self._repos.items() if t == type]

    def first_date(self, repo: Repo) -> datetime:
        """When a repo was made, on the catalogue's clock."""
        return EPOCH + timedelta(seconds=repo.number)

    def next_date(self) -> datetime:
        """A new moment on the catalogue's own clock: commit ids do not depend on the wall's."""
        with self.lock:
            self._clock += 1
            return EPOCH + timedelta(minutes=self._clock)
