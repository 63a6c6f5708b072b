"""Streaming a file through without keeping it.

Responsible for: answers whose bytes cannot be kept now: no room, another process fills the same
blob, or a digest this cache does not know. What has a known digest is verified all the same: its
tail is held back.
Not responsible for: deciding that (`service.bodies`).
"""

from __future__ import annotations

from collections.abc import Iterator

from jupyter_hf_cache.answers import Answer, StreamBody
from jupyter_hf_cache.errors import UpstreamError, VerificationFailed
from jupyter_hf_cache.protocol.digests import Digest, Hasher
from jupyter_hf_cache.protocol.ranges import ByteRange
from jupyter_hf_cache.storage.records import Claim
from jupyter_hf_cache.upstream.client import UpstreamResponse
from jupyter_hf_cache.upstream.fill import HOLD_BACK
from jupyter_hf_cache.upstream.lookup import refusal
from jupyter_hf_cache.upstream.transfer import CHUNK_SIZE, STALL_SECONDS, Source


def stream_unkept(
    source: Source, claim: Claim, headers: dict[str, str], part: ByteRange | None = None
) -> Answer:
    """Answer with bytes straight from the upstream.

    Args:
        part: a bounded range; None for the whole file, which is also the answer to a resume,
        because what
            the client holds cannot be verified.

    Raises:
        UpstreamError, UpstreamAnswer: the upstream refuses before the first byte.
    """
    asked = {} if part is None else {"Range": f"bytes={part.start}-{part.end - 1}"}
    response = source.client.request(
        "GET",
        source.path,
        credential=source.credential,
        headers=asked,
        stream=True,
        follow="all",
        read_timeout=STALL_SECONDS,
    )
    try:
        if response.status not in (200, 206):
            raise refusal(response)
        if part is not None and response.status != 206:
            raise UpstreamError(
                "The upstream does not answer ranges, and the file cannot be kept now."
            )
    except BaseException:
        response.close()
        raise
    chunks = _bounded(response, part) if part is not None else _verified(response, claim)
    if part is None:
        headers.pop("Content-Range", None)
        headers.pop("Content-Length", None)
        if claim.size is not None:
            headers["Content-Length"] = str(claim.size)
    status = 206 if part is not None else 200
    return Answer(status, headers, StreamBody(chunks, response), result="miss")


def _bounded(response: UpstreamResponse, part: ByteRange) -> Iterator[bytes]:
    left = part.end - part.start
    for data in response.iter_bytes(CHUNK_SIZE):
        yield data[:left]
        left -= len(data[:left])
    if left:
        raise UpstreamError("The upstream ended its answer early.")


def _verified(response: UpstreamResponse, claim: Claim) -> Iterator[bytes]:
    """Yield the body, its tail only after the digest matched."""
    digest = Digest.from_etag(claim.etag)
    if digest is None or claim.size is None:
        yield from response.iter_bytes(CHUNK_SIZE)
        return
    hasher = Hasher(digest.algorithm, claim.size)
    held = b""
    for data in response.iter_bytes(CHUNK_SIZE):
        hasher.update(data)
        held += data
        if len(held) > HOLD_BACK:
            yield held[:-HOLD_BACK]
            held = held[-HOLD_BACK:]
    if hasher.hexdigest() != digest.hex:
        raise VerificationFailed("What the upstream sent does not have the digest it promised.")
    yield held
