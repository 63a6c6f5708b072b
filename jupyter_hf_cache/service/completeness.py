"""Whether a snapshot is complete: every file of repo@commit kept, so that it loads without the Hub.

Responsible for: saying so from what is kept alone, or naming what is missing; and saying that it is
not known where no list of the commit's files is kept.
Not responsible for: fetching what is missing (`service.snapshots`), or who may read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.protocol.paths import is_commit
from jupyter_hf_cache.protocol.xet import is_too_large
from jupyter_hf_cache.service.bodies import is_empty
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.listed import Listed
from jupyter_hf_cache.service.proofs import Proofs
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.storage.interface import BlobId, BlobStore
from jupyter_hf_cache.storage.records import Claim, Remote, RepoRef
from jupyter_hf_cache.upstream.commit_files import CommitFiles
from jupyter_hf_cache.upstream.listings import Listings


@dataclass(frozen=True, slots=True)
class MissingFile:
    """A file whose bytes are not kept.

    Args:
        size: bytes; None where nobody said.
    """

    path: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is kept of one snapshot.

    Args:
        remote: the name of the remote that it came from.
        commit: None: it is not known what the revision points at.
        complete: None: there is no list of the commit's files.
        files: how many the commit has, None if that is not known.
        missing: by path.
        passed_through: files that are never kept, because they are too large for plain HTTP.
    """

    repo: RepoRef
    remote: str
    revision: str
    commit: str | None
    complete: bool | None = None
    files: int | None = None
    size: int | None = None
    missing: tuple[MissingFile, ...] = ()
    passed_through: tuple[MissingFile, ...] = ()

    @property
    def missing_size(self) -> int:
        """Bytes of the missing files, as far as they are known."""
        return sum(file.size or 0 for file in self.missing)


class Completenesses:
    """Looks at what is kept. Thread-safe; blocks on disk, and asks no upstream."""

    def __init__(
        self,
        *,
        claims: Claims,
        revisions: Revisions,
        listings: Listings,
        listed: Listed,
        store: BlobStore,
        proofs: Proofs,
        single_user: bool,
    ) -> None:
        self._claims = claims
        self._revisions = revisions
        self._listings = listings
        self._listed = listed
        self._store = store
        self._proofs = proofs
        self._single_user = single_user

    def best(self, remotes: list[Remote], repo: RepoRef, revision: str) -> Completeness:
        """Return the most complete of what came from some remotes.

        Args:
            remotes: one at least.
        """
        found = [self.of(remote, repo, revision) for remote in remotes]
        return max(found, key=_goodness)

    def of(self, remote: Remote, repo: RepoRef, revision: str) -> Completeness:
        """Return what is kept of a snapshot that came from one remote.

        Args:
            revision: a full commit, or a branch, tag or pull request as it was named before; then
                the commit is the one that anybody was told last.
        """
        commit = revision if is_commit(revision) else self._commit(remote, repo, revision)
        if commit is None:
            return Completeness(repo, remote.name, revision, None)
        identities = list(self._listings.identities(remote.scope))
        files = self._files(remote, identities, repo, commit)
        if not files.all_named:
            return Completeness(repo, remote.name, revision, commit)
        missing, passed_through, size = [], [], 0
        for path, entry in sorted(files.entries.items()):
            claim = self._claims.get(remote.origin_id, repo, commit, path)
            if claim is None and entry is not None:
                claim = Claim(commit=commit, etag=entry[0], size=entry[1])
            file = MissingFile(path, claim.size if claim is not None else None)
            size += file.size or 0
            if is_too_large(file.size):
                passed_through.append(file)
            elif claim is None or not self._is_kept(remote, identities, repo, claim):
                missing.append(file)
        return Completeness(
            repo=repo,
            remote=remote.name,
            revision=revision,
            commit=commit,
            complete=not missing,
            files=len(files.entries),
            size=size,
            missing=tuple(missing),
            passed_through=tuple(passed_through),
        )

    def _commit(self, remote: Remote, repo: RepoRef, revision: str) -> str | None:
        pointers = self._revisions.pointers(remote.scope, repo, revision)
        latest = max(pointers, key=lambda pointer: pointer.checked, default=None)
        return latest.commit if latest is not None else None

    def _files(
        self, remote: Remote, identities: list[str], repo: RepoRef, commit: str
    ) -> CommitFiles:
        """Return the files of a commit as anybody was told them."""
        known = CommitFiles()
        for identity in identities:
            files = self._listed.files(remote.scope, identity, repo, commit)
            for path, entry in files.entries.items():
                if entry is not None or path not in known.entries:
                    known.entries[path] = entry
            known.all_named = known.all_named or (files.all_named and bool(files.entries))
        return known

    def _is_kept(self, remote: Remote, identities: list[str], repo: RepoRef, claim: Claim) -> bool:
        """Return whether the bytes are kept and somebody gets them for this repo with nobody
        asked."""
        if is_empty(claim):
            return True
        digest = Digest.from_etag(claim.etag)
        if digest is None:
            return False
        blob = BlobId.of(digest, remote.origin_id)
        return self._store.size_of(blob) is not None and any(
            self._proofs.is_given(blob, repo, remote, identity, owner=self._single_user)
            for identity in identities
        )


def _goodness(found: Completeness) -> tuple[bool, bool, bool, int]:
    return (
        found.complete is True,
        found.complete is not None,
        found.commit is not None,
        -len(found.missing),
    )
