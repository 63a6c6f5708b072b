"""What is kept, as people see it: repos, revisions, files.

Responsible for: listing and deleting by repo, and rebuilding claims from sidecars when the tables
were lost.
Not responsible for: eviction (`storage.budget`) or the shape of the API's answers
(`web.cache_api`).
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from jupyter_hf_cache.errors import NotFound
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.records import Claim, Remote, RepoRef
from jupyter_hf_cache.storage.room import blob_key
from jupyter_hf_cache.storage.state import key_of

if TYPE_CHECKING:
    from jupyter_hf_cache.service.core import CacheService


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One file of a repo whose bytes are kept.

    Args:
        size: bytes.
        used: Unix time in seconds of the last hit.
        shared_with: number of other repos that name the same bytes.
    """

    path: str
    commit: str
    size: int
    digest: str
    used: float
    shared_with: int = 0


@dataclass(slots=True)
class KeptRepo:
    """One repo of which something is kept."""

    repo: RepoRef
    remote: str
    origin_id: str
    files: list[KeptFile] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    private: bool | None = None
    gated: bool | None = None

    @property
    def size(self) -> int:
        """Bytes on disk: equal files of several commits count once."""
        return sum({file.digest: file.size for file in self.files}.values())

    @property
    def used(self) -> float:
        """Unix time in seconds of the last hit."""
        return max((file.used for file in self.files), default=0.0)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What deleting a repo frees, or would free. Sizes are bytes.

    Args:
        freed: at once.
        kept_shared: stays, because other repos name the same bytes.
        in_use: deleted too, but somebody reads it: freed when they have ended.
    """

    freed: int
    kept_shared: int
    files: int
    in_use: int = 0


class Inventory:
    """Lists and deletes what is kept. Thread-safe; blocks on disk."""

    def __init__(self, service: CacheService) -> None:
        self._service = service

    def repos(self) -> list[KeptRepo]:
        """Return every repo of which a file is kept, last used first."""
        return self._collect(self._service.claims.all())

    def repo(self, repo: RepoRef) -> KeptRepo:
        """Return one repo.

        Raises:
            NotFound: nothing of it is kept.
        """
        for kept in self.repos():
            if kept.repo == repo:
                return kept
        raise NotFound(f"Nothing of {repo} is kept.")

    def _collect(self, claims: Iterator[tuple[str, RepoRef, str, Claim]]) -> list[KeptRepo]:
        rows = dict(self._service.budget.rows())
        remotes = {remote.origin_id: remote for remote in self._service.config.remotes()}
        repos: dict[tuple[str, RepoRef], KeptRepo] = {}
        users: dict[str, set[RepoRef]] = defaultdict(set)
        found: list[tuple[KeptRepo, KeptFile, str]] = []
        for origin_id, repo, file, claim in claims:
            key = _blob_key(origin_id, claim)
            row = rows.get(key)
            if row is None:
                continue
            name = remotes[origin_id].name if origin_id in remotes else ""
            kept = repos.setdefault((origin_id, repo), KeptRepo(repo, name, origin_id))
            users[key].add(repo)
            found.append(
                (kept, KeptFile(file, claim.commit, row["size"], claim.etag, row["used"]), key)
            )
        for kept, kept_file, key in found:
            others = len(users[key]) - 1
            kept.files.append(
                KeptFile(
                    kept_file.path,
                    kept_file.commit,
                    kept_file.size,
                    kept_file.digest,
                    kept_file.used,
                    others,
                )
            )
        self._add_revisions(repos, remotes)
        return sorted(repos.values(), key=lambda kept: kept.used, reverse=True)

    def _add_revisions(
        self, repos: dict[tuple[str, RepoRef], KeptRepo], remotes: dict[str, Remote]
    ) -> None:
        by_name = {
            (key_of(remotes[origin_id].scope), key_of(repo.type, repo.id)): kept
            for (origin_id, repo), kept in repos.items()
            if origin_id in remotes
        }
        for scope, name, revision, commit in self._service.revisions.all():
            if (scope, name) in by_name:
                by_name[scope, name].revisions[unquote(revision)] = commit
        for (origin_id, repo), kept in repos.items():
            remote = remotes.get(origin_id)
            if remote is not None:
                self._add_marks(kept, remote, repo)

    def _add_marks(self, kept: KeptRepo, remote: Remote, repo: RepoRef) -> None:
        """Note what the Hub said last about who may read the repo."""
        mark = self._service.marks.of(remote.scope, repo)
        if mark is not None:
            kept.private, kept.gated = mark.private, mark.gated
        since = mark.noted if mark is not None else 0.0
        if self._service.rights.public_since(remote.scope, repo, since):
            # Its files were open to anonymous callers after its page was looked at.
            kept.private, kept.gated = False, False

    def delete(self, repo: RepoRef, *, dry_run: bool) -> Deletion:
        """Forget a repo, whichever remotes it came from, and delete the bytes that no other repo
        names.

        Raises:
            NotFound: nothing of it is kept.
        """
        found = [kept for kept in self.repos() if kept.repo == repo]
        if not found:
            raise NotFound(f"Nothing of {repo} is kept.")
        freed = shared = in_use = 0
        for blob, file in _blobs_of(found).items():
            if file.shared_with:
                shared += file.size
                if not dry_run:
                    self._forget_in_sidecar(blob, repo)
            elif dry_run:
                freed += file.size
            else:
                deleted = self._service.budget.forget(blob)
                freed += deleted.freed
                in_use += deleted.in_use
        if not dry_run:
            for kept in found:
                self._service.claims.forget(kept.origin_id, repo)
        return Deletion(freed, shared, sum(len(kept.files) for kept in found), in_use)

    def _forget_in_sidecar(self, blob: BlobId, repo: RepoRef) -> None:
        """Else a deleted repo would be back after the tables were lost."""
        store = self._service.store
        sidecar = store.sidecar(blob)
        if sidecar is not None:
            sidecar.claims = [one for one in sidecar.claims if one[1:3] != [repo.type, repo.id]]
            with contextlib.suppress(OSError):
                store.write_sidecar(blob, sidecar)

    def rebuild(self) -> None:
        """Restore claims from the sidecars of kept blobs."""
        for blob, _ in self._service.store.blobs():
            sidecar = self._service.store.sidecar(blob)
            if sidecar is None:
                continue
            for origin_id, repo_type, repo_id, commit, file, etag in sidecar.claims:
                claim = Claim(commit=commit, etag=etag, size=sidecar.size)
                self._service.claims.put(origin_id, RepoRef(repo_type, repo_id), file, claim)


def _blobs_of(repos: Iterable[KeptRepo]) -> dict[BlobId, KeptFile]:
    """Return what lies on disk of some repos, each blob once."""
    blobs = {}
    for kept in repos:
        for file in kept.files:
            digest = Digest.from_etag(file.digest)
            if digest is not None:
                blobs[BlobId.of(digest, kept.origin_id)] = file
    return blobs


def _blob_key(origin_id: str, claim: Claim) -> str:
    digest = Digest.from_etag(claim.etag)
    return blob_key(BlobId.of(digest, origin_id)) if digest is not None else ""
