"""What the rest of the product asks of a place where blobs live.

Responsible for: the names of blobs, and the operations on kept and partial ones, block by block,
that a local disk (`blobs`) and an object store can both offer.
Not responsible for: any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.sidecar import Sidecar


@dataclass(frozen=True, slots=True)
class BlobId:
    """A blob's name: its digest, and for git-sha1 also the origin that named it."""

    digest: Digest
    origin_id: str = ""

    @classmethod
    def of(cls, digest: Digest, origin_id: str) -> BlobId:
        """Name the blob with `digest` as claimed by the origin `origin_id`."""
        return cls(digest, "" if digest.algorithm == "sha256" else origin_id)

    @property
    def name(self) -> str:
        """The blob as one file name."""
        parts = [self.digest.algorithm, self.origin_id, self.digest.hex]
        return "-".join(part for part in parts if part)

    @property
    def path(self) -> Path:
        """Path below `blobs/`."""
        return Path(self.digest.algorithm, self.origin_id, self.digest.hex[:2], self.digest.hex)

    def __str__(self) -> str:
        return self.name


class BlobReader(Protocol):
    """A kept blob open for reading. `read` may be called from any thread; `close` once."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer only at the end."""
        ...

    def fileno(self) -> int | None:
        """Return a descriptor of the whole blob, if there is one; it belongs to this reader."""
        ...

    def close(self) -> None:
        """Release the blob."""
        ...


class Partial(Protocol):
    """A blob being received, and the lease on doing so. Any thread may call any method."""

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether the bytes found on opening were certainly written."""
        ...

    @property
    def present(self) -> int:
        """Bytes present."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes, unless it is sealed; raises OSError when the store refuses."""
        ...

    def seal(self) -> None:
        """Take no more bytes; writes that are under way are waited for."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were written."""
        ...

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset`."""
        ...

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps in [start, end)."""
        ...

    def fileno(self) -> int | None:
        """Return a descriptor of the growing blob, if there is one; it belongs to the partial."""
        ...

    def commit(self, sidecar: Sidecar) -> None:
        """Make the verified bytes the kept blob, durably; what is open stays readable."""
        ...

    def quarantine(self, reason: str) -> Path:
        """Take the bytes out of use, with the reason beside them."""
        ...

    def release(self) -> None:
        """Give up the lease; what is open stays readable."""
        ...

    def close(self) -> None:
        """Give up everything; what was written stays for the next fill."""
        ...


class BlobStore(Protocol):
    """Where blobs live. Methods block and belong in worker threads."""

    def size_of(self, blob: BlobId) -> int | None:
        """Return the size of a kept blob in bytes, or None."""
        ...

    def open(self, blob: BlobId) -> BlobReader | None:
        """Open a kept blob against eviction, or return None."""
        ...

    def partial(self, blob: BlobId, size: int, owner: str = "") -> Partial | None:
        """Take the lease on filling `blob` with bytes of the origin `owner`; None while another
        fill holds it, or when the blob is kept."""
        ...

    def holds(self, blob: BlobId, size: int, owner: str, start: int, end: int) -> bool:
        """Return whether [start, end) can be read now without fetching anything."""
        ...

    def sidecar(self, blob: BlobId) -> Sidecar | None:
        """Return what is known about a kept blob."""
        ...

    def write_sidecar(self, blob: BlobId, sidecar: Sidecar) -> None:
        """Replace the sidecar of a kept blob in one step."""
        ...

    def blobs(self) -> Iterator[tuple[BlobId, int]]:
        """Yield every kept blob with its size."""
        ...
