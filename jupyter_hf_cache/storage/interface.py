"""What the rest of the product asks of a place where blobs live.

Responsible for: the names of blobs, and the operations on kept and partial ones, block by block,
that a local disk (`blobs`) and an object store can both offer.
Not responsible for: any of them.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.staged import Staged

Span = tuple[int, int]
Answered = Literal["waiting", "taken", "refused"]


class Stage(enum.IntEnum):
    """How a fill stands, as other processes see it.

    - IDLE: nobody works on it.
    - RUNNING: somebody did when last heard of.
    - VERIFIED: the digest matched.
    - DAMAGED: it did not match; what was given out is being noted.
    - SETTLED: that is noted.
    """

    IDLE = 0
    RUNNING = 1
    VERIFIED = 2
    DAMAGED = 3
    SETTLED = 4


class Foreign(Exception):
    """A partial is of another origin, or of another size."""


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


class Exchange(Protocol):
    """What passes between the process that fills a blob, here, and those that follow it.

    Any thread may call any method; those that write raise OSError when the store refuses.
    """

    @property
    def incarnation(self) -> bytes:
        """What tells this partial from an earlier or later one of the same blob."""
        ...

    @property
    def damaged(self) -> bool:
        """Whether the bytes were found not to have their digest, and that is not settled."""
        ...

    @property
    def heard(self) -> int:
        """The followers' last sign of life: while there are any, it changes."""
        ...

    @property
    def given(self) -> int:
        """How far bytes were given out by any process, rounded up."""
        ...

    @property
    def whole_wanted(self) -> bool:
        """Whether a follower wants the whole blob."""
        ...

    def enter(self, stage: Stage) -> None:
        """Say how the fill stands."""
        ...

    def beat(self) -> None:
        """Say that the owner is alive."""
        ...

    def give_out(self, end: int) -> None:
        """Remember, beyond this process's life, that bytes up to `end` go to a client."""
        ...

    def answer_whole(self, *, refused: bool) -> None:
        """Say that the whole blob is being fetched, or will not be."""
        ...

    def wanted(self) -> list[Span]:
        """Return the parts [start, end) that followers want."""
        ...

    def answer(self, start: int, end: int, *, refused: bool) -> None:
        """Say that a wanted part is being fetched, or will not be."""
        ...


class Followed(Protocol):
    """A partial that another process fills. Any thread may call any method.

    What is there is known as of the last `look`. `want`, `want_all`, `live` and `give_out` raise
    OSError when the store refuses.
    """

    size: int
    trusted: bool
    incarnation: bytes
    stage: Stage
    beat: int

    @property
    def present(self) -> int:
        """Bytes present."""
        ...

    @property
    def in_place(self) -> bool:
        """Whether this still is the partial that a fill of the blob would continue."""
        ...

    def look(self) -> bool:
        """Read how things stand; return whether there is more than before."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that are present."""
        ...

    def fileno(self) -> int | None:
        """Return a descriptor of the growing blob, if there is one; it belongs to this object."""
        ...

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset`."""
        ...

    def missing(self, start: int, end: int) -> list[Span]:
        """Return the gaps in [start, end)."""
        ...

    def live(self) -> None:
        """Say that somebody follows."""
        ...

    def want(self, start: int, end: int) -> None:
        """Ask the owner for what is missing of [start, end)."""
        ...

    def want_all(self) -> None:
        """Ask the owner for everything."""
        ...

    def answer(self, part: Span | None) -> Answered:
        """Return what the owner says to a want; `part` is None for everything."""
        ...

    def give_out(self, end: int) -> Stage:
        """Remember that bytes up to `end` go to a client, then return how the fill stands."""
        ...

    def close(self) -> None:
        """Close the files; for when nobody reads any more."""
        ...


class Partial(Protocol):
    """A blob being received, and the lease on doing so. Any thread may call any method."""

    @property
    def exchange(self) -> Exchange | None:
        """What passes to and from other processes; None where they cannot see it."""
        ...

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

    def stage(self) -> Staged | None:
        """Return a new file for a copy that is still to be verified; None where there is no such
        thing. Raises OSError when the store refuses."""
        ...

    def take(self, staged: Staged) -> bool:
        """Let the verified bytes of a staged file be this blob's, all at once; nothing is stored
        any more then. False if bytes that are here already are others. Raises OSError when the
        store refuses; what can be read has not changed then."""
        ...

    def can_link(self, copy: OwnCopy) -> bool:
        """Return whether a file of the user can take this blob's place."""
        ...

    def link(self, copy: OwnCopy, verified: os.stat_result, sidecar: Sidecar) -> None:
        """Let the user's file be the kept blob while it is as it was when it was `verified`.
        Raises OSError when it is not, or cannot be linked."""
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

    def follow(self, blob: BlobId, size: int, owner: str) -> Followed | None:
        """Open the partial that another process fills; None when there is none to be seen.

        Raises:
            Foreign: its bytes are not those of the origin `owner`.
        """
        ...

    def is_idle(self, blob: BlobId) -> bool:
        """Return whether nobody holds the lease on filling `blob` now."""
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
