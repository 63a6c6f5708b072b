"""What the service answers a request with, before any web framework sees it.

Responsible for: the head of an answer and the kinds of body it can have, each saying how a sender
gets its bytes and how it is given up.
Not responsible for: sending (`web.content`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from jupyter_hf_cache.storage.interface import BlobId, BlobReader
from jupyter_hf_cache.upstream.growing import Growing


class Body(Protocol):
    """The body of an answer. `close` may be called from any thread, once, whatever happened."""

    def close(self) -> None:
        """Give up what the body holds."""
        ...


@dataclass(slots=True)
class BytesBody:
    """A body that is in memory."""

    data: bytes

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class BlobBody:
    """Bytes [start, end) of a kept blob."""

    reader: BlobReader
    start: int
    end: int

    def close(self) -> None:
        """Release the blob."""
        self.reader.close()


@dataclass(slots=True)
class FillBody:
    """Bytes [start, end) of a blob that is arriving.

    Args:
        completing: the answer reaches the end of a whole file, so its tail waits for the digest.
    """

    fill: Growing
    start: int
    end: int
    completing: bool

    def close(self) -> None:
        """Stop following the fill."""
        self.fill.leave()


@dataclass(slots=True)
class PartsBody:
    """Several bodies, one behind the other: ranges and the text between them.

    Args:
        held: what has to be closed; the pieces themselves are not.
    """

    pieces: list[BytesBody | BlobBody | FillBody]
    held: list[Closable]

    def close(self) -> None:
        """Give up whatever the pieces are read from."""
        for one in self.held:
            one.close()


class StreamBody:
    """Bytes that come straight from the upstream. `chunks` blocks and is read in a worker thread.

    Args:
        chunks: the pieces; raising ends the answer as broken.
        give_up: closes the upstream's answer.
        stop: ends the wait for a piece in another thread, without blocking.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        give_up: Closable,
        stop: Callable[[], None] | None = None,
    ) -> None:
        self.chunks = chunks
        self._give_up = give_up
        self._stop = stop

    def stop(self) -> None:
        """The client has gone: end the wait for a piece that may never come."""
        if self._stop is not None:
            self._stop()

    def close(self) -> None:
        """Close the upstream's answer."""
        self._give_up.close()


class Closable(Protocol):
    """Anything with `close`."""

    def close(self) -> None:
        """Close."""
        ...


class Spoken(Protocol):
    """What an answer tells a client, who may ask for the rest of it. Neither method blocks.

    Clients are told apart by `base`, the URL of their entrance, and `agent`, their `User-Agent`.
    """

    def head(self, base: str, agent: str) -> None:
        """Another client is told the same in answer to a HEAD."""
        ...

    def contradicts(self, base: str, agent: str) -> bool:
        """Whether a client was told something else a moment ago, and wants the body of that."""
        ...


@dataclass(slots=True)
class Answer:
    """An answer to one request.

    Args:
        headers: complete but for what the connection itself needs; `Content-Length` where it is
        known.
        result: "hit", "miss", "stale", "forwarded" or "": for the log and the counters.
        until: Unix time in seconds up to which the same caller gets the same answer without anybody
            being asked; 0 where that cannot be said.
        blob: the kept blob that `body` is made of.
        ended: called when the body was given up or is sent.
        spoken: of a file of a moving ref.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Body | None = None
    result: str = ""
    until: float = 0.0
    blob: BlobId | None = None
    ended: Callable[[], None] | None = field(default=None, repr=False)
    spoken: Spoken | None = field(default=None, repr=False)

    def close(self) -> None:
        """Give up the body."""
        if self.body is not None:
            self.body.close()
        if self.ended is not None:
            self.ended()
