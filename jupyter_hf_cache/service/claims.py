"""Claims: what origins said about files at commits, and the proof that another origin has a kept
blob.

Responsible for: keeping claims for ever (a commit never changes; of files that are not there, of
which anybody may name any number, only the latest), and comparing random ranges before a blob that
came from one origin is served under another's claim.
Not responsible for: the right to read, which is asked before a claim is looked at.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from urllib.parse import unquote

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.interface import BlobReader
from jupyter_hf_cache.storage.pruning import Pruning
from jupyter_hf_cache.storage.records import Claim, RepoRef
from jupyter_hf_cache.storage.row_memory import RowMemory
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.transfer import Source, transfer

logger = logging.getLogger(__name__)

_IN_MEMORY = 10_000
_MOST_ABSENT = 50_000
_KEPT, _ABSENT = "claim", "absent"
_PROOF_BYTES = 1024 * 1024
_PROOF_RANGES = 4


_Key = tuple[str, RepoRef, str, str]


class Claims:
    """Claims in a state table, the latest also in memory. Thread-safe; blocks on disk."""

    def __init__(self, table: StateTable, generations: Generations) -> None:
        self._table = table
        self._generations = generations
        self._memory: RowMemory[_Key, Claim] = RowMemory(generations, "content", most=_IN_MEMORY)
        self._pruning = Pruning(table, _ABSENT + "/", most=_MOST_ABSENT)

    def get(self, origin_id: str, repo: RepoRef, commit: str, file: str) -> Claim | None:
        """Return what the origin said about this file at this commit."""
        key = (origin_id, repo, commit, file)
        return self._memory.get(key, lambda: self._read(key))

    def _read(self, key: _Key) -> Claim | None:
        row = self._table.get(_row_of(key)) or self._table.get(_row_of(key, _ABSENT))
        return Claim(**row) if row is not None else None

    def put(self, origin_id: str, repo: RepoRef, file: str, claim: Claim) -> None:
        """Keep a claim; where the disk refuses, in memory."""
        key = (origin_id, repo, claim.commit, file)
        if self._memory.row(key) == claim:
            return
        try:
            self._table.set(_row_of(key, _ABSENT if claim.absent else _KEPT), asdict(claim))
            if claim.absent:
                self._pruning.written()
        except StorageError as error:
            # What was asked for can be answered all the same.
            logger.warning("a claim on %s is not written: %s", repo, error.message)
            self._memory.put(key, claim, written=False)
        else:
            self._memory.put(key, claim, written=True)

    def of_repo(self, origin_id: str, repo: RepoRef) -> Iterator[tuple[str, Claim]]:
        """Yield (file, claim) for every kept claim of a repo, absent files left out."""
        for key, row in self._table.items(key_of(_KEPT, origin_id, repo.type, repo.id) + "/"):
            claim = Claim(**row)
            if not claim.absent:
                yield _file_of(key), claim

    def all(self) -> Iterator[tuple[str, RepoRef, str, Claim]]:
        """Yield (origin_id, repo, file, claim) for every claim on a file that exists."""
        for key, row in self._table.items(_KEPT + "/"):
            claim = Claim(**row)
            if not claim.absent:
                _, origin_id, repo_type, repo_id, _, _ = key.split("/")
                yield origin_id, RepoRef(repo_type, unquote(repo_id)), _file_of(key), claim

    def forget(self, origin_id: str, repo: RepoRef) -> None:
        """Forget every claim of a repo."""
        for kind in (_KEPT, _ABSENT):
            self._table.delete_prefix(key_of(kind, origin_id, repo.type, repo.id) + "/")
        self._generations.advance("content")


def _row_of(key: _Key, kind: str = _KEPT) -> str:
    origin_id, repo, commit, file = key
    return key_of(kind, origin_id, repo.type, repo.id, commit, file)


def _file_of(key: str) -> str:
    return unquote(key.rsplit("/", 1)[1])


def origin_delivers(source: Source, reader: BlobReader, size: int) -> bool:
    """Return whether `source` hands out the same bytes as a kept blob, judged by random ranges.

    Naming a digest is easy; only who can deliver the bytes has them. The ranges together are at
    least one MiB, or the whole of a smaller file.

    Raises:
        UpstreamError, SourceLost: it cannot be asked.
    """
    for start, end in _sample(size):
        received = bytearray()

        def take(_: int, data: bytes, received: bytearray = received) -> None:
            received.extend(data)

        transfer(source, start, end, size, sink=take, go_on=lambda: True)
        if bytes(received) != reader.read(start, end - start):
            return False
    return True


def _sample(size: int) -> list[tuple[int, int]]:
    if size <= _PROOF_BYTES:
        return [(0, size)] if size else []
    step = _PROOF_BYTES // _PROOF_RANGES
    starts = sorted(secrets.randbelow(size - step + 1) for _ in range(_PROOF_RANGES))
    return [(start, start + step) for start in starts]
