"""Streaming a file through without keeping it.

Responsible for: answers whose bytes cannot be kept now: no room, another process or origin fills
the same blob, or a digest this cache does not know. A broken upstream is asked again for the rest,
and what has a known digest is verified all the same: its tail is held back.
Not responsible for: deciding that (`service.bodies`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator

from jupyter_hf_cache.answers import Answer, StreamBody
from jupyter_hf_cache.errors import (
    Offline,
    UpstreamError,
    UpstreamUnreachable,
    VerificationFailed,
)
from jupyter_hf_cache.protocol.digests import Digest, Hasher
from jupyter_hf_cache.protocol.multipart import Multipart
from jupyter_hf_cache.protocol.ranges import ByteRange
from jupyter_hf_cache.storage.records import Claim
from jupyter_hf_cache.upstream.client import UpstreamResponse
from jupyter_hf_cache.upstream.fill import HOLD_BACK
from jupyter_hf_cache.upstream.lookup import check_no_page, refusal
from jupyter_hf_cache.upstream.transfer import (
    CHUNK_SIZE,
    STALL_SECONDS,
    Source,
    SourceLost,
    pieces,
)

_ATTEMPTS_WITHOUT_PROGRESS = 5
_PAUSE_SECONDS = 0.3

Chunks = Generator[bytes, None, None]


def stream_unkept(
    source: Source,
    claim: Claim,
    headers: dict[str, str],
    part: ByteRange | None = None,
    *,
    on_damage: Callable[[int], None],
) -> Answer:
    """Answer with bytes straight from the upstream.

    Args:
        part: a bounded range; None for the whole file, which is also the answer to a resume,
            because what the client holds cannot be verified.
        on_damage: called with the number of bytes given out when their digest turns out wrong.

    Raises:
        UpstreamError, UpstreamAnswer: the upstream refuses before the first byte.
    """
    digest = Digest.from_etag(claim.etag)
    if digest is None or claim.size is None:
        return _as_it_comes(source, headers)
    if part is not None:
        chunks = _started(_resumed(source, part.start, part.end, claim.size))
        return Answer(206, headers, StreamBody(chunks, chunks), result="miss")
    headers.pop("Content-Range", None)
    headers["Content-Length"] = str(claim.size)
    chunks = _started(_resumed(source, 0, claim.size, claim.size))
    chunks = _verified(chunks, digest, claim.size, on_damage)
    return Answer(200, headers, StreamBody(chunks, chunks), result="miss")


def stream_parts(source: Source, headers: dict[str, str], framing: Multipart) -> Answer:
    """Answer with several ranges straight from the upstream, one after the other.

    Raises:
        UpstreamError, UpstreamAnswer: the upstream refuses before the first byte.
    """
    ranges = [_resumed(source, part.start, part.end, framing.size) for part in framing.parts]
    ranges[0] = _started(ranges[0])

    def framed() -> Chunks:
        try:
            for number, chunks in enumerate(ranges):
                yield framing.before(number)
                yield from chunks
            yield framing.end
        finally:
            for chunks in ranges:
                chunks.close()

    body = framed()
    return Answer(206, headers, StreamBody(body, body), result="miss")


def _resumed(source: Source, start: int, end: int, size: int) -> Chunks:
    """Yield [start, end), asking again for the rest when the upstream breaks off."""
    position, failures = start, 0
    while position < end:
        before = position
        try:
            for _, data in pieces(source, position, end, size):
                position += len(data)
                yield data
        except SourceLost as lost:
            raise lost.error from lost
        except Offline:
            raise
        except UpstreamError as error:
            if position == start and isinstance(error, UpstreamUnreachable):
                # The connection was tried several times already.
                raise
            failures = 1 if position > before else failures + 1
            if failures > (1 if source.elsewhere else _ATTEMPTS_WITHOUT_PROGRESS):
                raise source.given_up(error) from error
            time.sleep(_PAUSE_SECONDS * failures)


def _started(chunks: Chunks) -> Chunks:
    """Wait for the first piece now, while a refusal can still be answered as one."""
    first = next(chunks, b"")

    def again() -> Chunks:
        try:
            yield from itertools.chain([first] if first else [], chunks)
        finally:
            chunks.close()

    return again()


def _verified(
    chunks: Chunks, digest: Digest, size: int, on_damage: Callable[[int], None]
) -> Chunks:
    """Yield the body, its tail only after the digest matched."""
    hasher, held, sent = Hasher(digest.algorithm, size), b"", 0
    try:
        for data in chunks:
            hasher.update(data)
            held += data
            if len(held) > HOLD_BACK:
                sent += len(held) - HOLD_BACK
                yield held[:-HOLD_BACK]
                held = held[-HOLD_BACK:]
    finally:
        chunks.close()
    if hasher.hexdigest() != digest.hex:
        on_damage(sent)
        raise VerificationFailed("What the upstream sent does not have the digest it promised.")
    yield held


def _as_it_comes(source: Source, headers: dict[str, str]) -> Answer:
    """Pass on what has no digest that could be verified, or no length."""
    response = source.client.request(
        "GET",
        source.path,
        credential=source.credential,
        stream=True,
        follow="all",
        read_timeout=STALL_SECONDS,
    )
    if response.status != 200:
        with response:
            raise refusal(response)
    if not source.html:
        check_no_page(response)
    return Answer(200, headers, StreamBody(_body(response), response), result="miss")


def _body(response: UpstreamResponse) -> Chunks:
    yield from response.iter_bytes(CHUNK_SIZE)
