"""The two digests by which the Hub names bytes.

Responsible for: reading a digest from an ETag, hashing bytes as they arrive, writing LFS pointers.
Not responsible for: comparing and what follows from a mismatch (`upstream.fill`).

The Hub's ETag is the sha256 of a file kept in LFS or Xet, and the git blob id (sha1 over a short
header and the bytes) of every other file.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

SHA256 = "sha256"
GIT_SHA1 = "git-sha1"

_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Digest:
    """The name of a blob.

    Args:
        algorithm: "sha256" or "git-sha1".
        hex: 64 or 40 lower-case hex digits.
    """

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @classmethod
    def from_etag(cls, etag: str | None) -> Digest | None:
        """The digest an ETag states, quoted, weak or bare; None if it is something else."""
        text = unquote_etag(etag or "").lower()
        if _HEX.fullmatch(text) is None:
            return None
        return cls(GIT_SHA1 if len(text) == 40 else SHA256, text)


class Hasher:
    """Hashes a body as it arrives; for one thread at a time.

    Args:
        algorithm: "sha256" or "git-sha1".
        size: length of the whole body in bytes; git-sha1 hashes it before the first byte.

    Raises:
        ValueError: another algorithm.
    """

    def __init__(self, algorithm: str, size: int) -> None:
        if algorithm == SHA256:
            self._hash = hashlib.sha256()
        elif algorithm == GIT_SHA1:
            self._hash = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        else:
            raise ValueError(f"unknown digest algorithm {algorithm!r}")

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def hexdigest(self) -> str:
        """The digest of what was taken so far."""
        return self._hash.hexdigest()


def unquote_etag(etag: str) -> str:
    """The opaque part of an ETag, without `W/` and quotes."""
    text = etag.strip()
    if text[:2] in ("W/", "w/"):
        text = text[2:].lstrip()
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    return text


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The text that git keeps in place of an LFS file; the Hub's `tree` lists its git blob id."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return text.encode()
