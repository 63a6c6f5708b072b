"""The files of a snapshot.

Responsible for: listing all files of a commit, page by page, and choosing among them by patterns.
Not responsible for: fetching them (`service.snapshots`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_hf_cache.answers import BytesBody
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, resolve_path
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.metadata import Metadata
from jupyter_hf_cache.service.questions import WHOLE_TREE, whole_tree
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.upstream.commit_files import CommitFiles, next_page
from jupyter_hf_cache.upstream.listings import Listing


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file that can be kept.

    Args:
        size: bytes.
    """

    path: str
    blob: BlobId
    size: int

    def is_wanted(self, include: Sequence[str], exclude: Sequence[str]) -> bool:
        """Return whether the patterns let it through; "folder/" stands for all that is in it."""
        if include and not _matches(self.path, include):
            return False
        return not _matches(self.path, exclude)


def list_files(
    metadata: Metadata, caller: Caller, repo: RepoRef, commit: str
) -> list[SnapshotFile]:
    """Return the files of a commit, as the upstream tells this caller. Those that plain HTTP cannot
    bring are left out.

    Raises:
        HfCacheError: the upstream's refusal, or why it cannot be asked.
    """
    found = CommitFiles()
    query: str | None = WHOLE_TREE
    while query is not None:
        answer = metadata.answer(whole_tree(repo, commit, query), caller, {}, b"")
        text = answer.body.data.decode() if isinstance(answer.body, BytesBody) else "[]"
        page = Listing(text=text, headers=answer.headers, fetched=0.0)
        found.add_rows(page)
        query = next_page(page)
    files = []
    for path, entry in found.entries.items():
        digest = Digest.from_etag(entry[0]) if entry is not None else None
        if entry is not None and digest is not None:
            blob = BlobId.of(digest, caller.remote.origin_id)
            files.append(SnapshotFile(path, blob, entry[1]))
    return files


def request_for(repo: RepoRef, commit: str, path: str) -> HubRequest:
    """Return the read of one file of a commit."""
    address = resolve_path(repo, commit, path)
    return HubRequest(Kind.RESOLVE, "GET", address, "", repo, commit, path)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern)
        for pattern in patterns
    )
