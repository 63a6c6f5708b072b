"""The bytes of a file, small or made up on the fly.

Responsible for: reading any range of a file's content, its sha256, its git object id, and the text
of an LFS pointer.
Not responsible for: where a file sits in a repo (`catalogue`), or sending it (`delivery`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

MIB = 1 << 20
_BLOCKS = 7  # distinct pseudo-random blocks per seed
_POINTER = re.compile(
    rb"version https://git-lfs.github.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n"
)
_STAMP = 16  # bytes at the head of each block that name its number, so that no two are alike


class Content(Protocol):
    """What a file holds. Immutable and safe to read from any thread."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`; shorter only at the end."""

    def sha256(self) -> str:
        """Hex digest of the whole content."""


@dataclass(frozen=True, slots=True)
class SmallFile:
    """Content held in memory."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class BigFile:
    """Deterministic pseudo-random content of any size that takes no memory.

    Block k of 1 MiB is one of a few blocks per seed, stamped with k: a block delivered at the wrong
    place is noticed, and reading stays a memory copy.
    """

    size: int
    seed: int = 0

    def read(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size)
        pieces: list[bytes] = []
        while offset < end:
            number, start = divmod(offset, MIB)
            stop = min(MIB, start + end - offset)
            pieces.append(_piece(self.seed, number, start, stop))
            offset += stop - start
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def sha256(self) -> str:
        return _sha256_of(self)


@dataclass(frozen=True, slots=True)
class HugeFile:
    """Content too long to be read whole by a test: its digest is announced, not computed."""

    size: int
    seed: int = 0

    def read(self, offset: int, length: int) -> bytes:
        return BigFile(self.size, self.seed).read(offset, length)

    def sha256(self) -> str:
        return hashlib.sha256(f"{self.size}:{self.seed}".encode()).hexdigest()


def _piece(seed: int, number: int, start: int, stop: int) -> bytes:
    body = _block(seed, number % _BLOCKS)
    if start >= _STAMP:
        return body[start:stop]
    stamp = f"{number:0{_STAMP}x}".encode()
    return stamp[start:stop] + body[max(start, _STAMP) : stop]


@lru_cache(maxsize=32)
def _block(seed: int, number: int) -> bytes:
    return hashlib.shake_128(f"{seed}:{number}".encode()).digest(MIB)


@lru_cache(maxsize=256)
def _sha256_of(content: BigFile) -> str:
    digest = hashlib.sha256()
    for offset in range(0, content.size, MIB):
        digest.update(content.read(offset, MIB))
    return digest.hexdigest()


def git_object_id(kind: str, body: bytes) -> str:
    """The id git gives an object of `kind` ("blob", "tree", "commit")."""
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text git stores in place of a large file (git-lfs specification, version 1)."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    ).encode()


def read_pointer(text: bytes) -> str | None:
    """The sha256 that a pointer names; None for anything else."""
    match = _POINTER.fullmatch(text)
    return match[1].decode() if match else None
