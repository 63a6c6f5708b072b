"""The digest of a file that is still growing.

Responsible for: hashing a partial from its start, in order, as far as it is there, in short steps;
and the sha256 beside a git-sha1, which is kept in the sidecar.
Not responsible for: when that is done, and what follows from it (`upstream.fill`).
"""

from __future__ import annotations

import os

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.digests import Hasher
from jupyter_hf_cache.storage.interface import BlobId, Partial

_STEP = 1024 * 1024


class GrowingDigest:
    """Hashes one partial. For one thread at a time.

    Attributes:
        hashed: bytes from the start that are hashed; may be read from any thread.
    """

    def __init__(self, blob: BlobId, partial: Partial) -> None:
        self.hashed = 0
        self._blob = blob
        self._buffer: bytearray | None = None
        self._partial = partial
        self._digest = Hasher(blob.digest.algorithm, partial.size)
        other = blob.digest.algorithm != "sha256"
        self._sha256 = Hasher("sha256", partial.size) if other else None

    @property
    def complete(self) -> bool:
        """Whether the whole file is hashed."""
        return self.hashed >= self._partial.size

    @property
    def matches(self) -> bool:
        """Whether the complete file is the blob it should be."""
        return self._digest.hexdigest() == self._blob.digest.hex

    @property
    def sha256(self) -> str:
        """Hex sha256 of the complete file, whatever the blob's own digest is."""
        return (self._sha256 or self._digest).hexdigest()

    def step(self, reached: int) -> int:
        """Hash up to 1 MiB more of what is there up to `reached`; returns how much that was.

        Raises:
            StorageError: the file lost bytes that it had.
        """
        data = self._read(min(_STEP, reached - self.hashed))
        if not data:
            raise StorageError("The file that is being received became shorter.")
        self._digest.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)
        return len(data)

    def _read(self, length: int) -> bytes | memoryview:
        """Read into the same memory each time, where that is possible."""
        file = self._partial.fileno()
        if file is None or length < _STEP or not hasattr(os, "preadv"):
            return self._partial.read(self.hashed, length)
        if self._buffer is None:
            self._buffer = bytearray(_STEP)
        view = memoryview(self._buffer)
        return view[: os.preadv(file, [view], self.hashed)]
