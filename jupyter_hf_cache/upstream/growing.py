"""A blob that is arriving, as those who read it see it.

Responsible for: what an answer may ask of it, whichever process brings it in.
Not responsible for: bringing it in (`upstream.fill`), or following another process that does
(`upstream.following`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from jupyter_hf_cache.errors import HfCacheError
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.upstream.transfer import Source


class Readable(Protocol):
    """Where the bytes lie that are there."""

    def fileno(self) -> int | None:
        """Return a descriptor of the growing blob, if there is one. It is valid until the reader
        leaves."""
        ...


class Growing(Protocol):
    """A blob that is arriving. Thread-safe; a reader who was let in must `leave` it."""

    blob: BlobId
    size: int
    started: float
    sources: list[Source]
    error: HfCacheError | None

    @property
    def state(self) -> str:
        """How things stand for readers: running, verified, kept, unkept, failed or paused."""
        ...

    @property
    def partial(self) -> Readable:
        """Where the bytes lie."""
        ...

    @property
    def verified(self) -> bool:
        """Whether the digest matched."""
        ...

    @property
    def readers(self) -> int:
        """How many answers of this process read it."""
        ...

    @property
    def done(self) -> int:
        """Bytes on disk."""
        ...

    def speed(self) -> float:
        """Return the bytes per second that arrive now."""
        ...

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from another thread after each change; returns what ends that."""
        ...

    def available(self, offset: int, *, completing: bool) -> int:
        """Return the end of the bytes from `offset` on that a reader may have now. Never blocks.

        Args:
            completing: the answer would complete the file, so its tail waits for the digest.

        Raises:
            HfCacheError: it will not arrive.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes below `available`, and remember that they were given out.

        Raises:
            HfCacheError: it will not arrive, or the file lost its bytes.
        """
        ...

    def give_out(self, end: int) -> None:
        """Remember that bytes up to `end`, below `available`, go to a client now.

        Raises:
            HfCacheError: they must not.
        """
        ...

    def want_all(self) -> None:
        """Have whatever is missing fetched and verified."""
        ...

    def want(self, start: int, end: int) -> None:
        """Have what is missing of [start, end) fetched ahead of everything else."""
        ...

    def leave(self) -> None:
        """Read no more."""
        ...
