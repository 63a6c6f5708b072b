"""An answer of the upstream, read as a stream.

Responsible for: status, headers without cookies, the body decoded and checked for its full length,
and giving the connection back.
Not responsible for: what the answer means (`protocol.headers`) or how it was asked for (`client`).
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict
from urllib3.util import wait_for_read

from jupyter_hf_cache.errors import UpstreamError
from jupyter_hf_cache.protocol.headers import DECODED_ENCODINGS

CHUNK_SIZE = 256 * 1024
_WORTH_HANDING_ON = 256 * 1024
_GATHER_SECONDS = 0.002
_LONGEST_GATHERING_SECONDS = 0.02
_DRAINED = 16 * 1024


class TooLarge(UpstreamError):
    """The body is longer than the reader is ready to hold (502)."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One redirect that was followed; its URL and headers may hold a signature.

    Args:
        status: 301, 302, 303, 307 or 308.
        headers: case-insensitive, without cookies.
        url: what was asked.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    url: str = field(repr=False)


class UpstreamResponse:
    """One answer; a context manager. For one thread at a time, except `close`.

    Attributes:
        status: HTTP status.
        headers: case-insensitive; `Set-Cookie` is never among them.
        url: what was asked last; may hold a signature.
        history: the redirects that were followed on the way, oldest first.
    """

    def __init__(
        self,
        response: requests.Response,
        *,
        history: tuple[Hop, ...] = (),
        deadline: float | None = None,
    ) -> None:
        self._raw: urllib3.HTTPResponse = response.raw
        self._response = response
        self._deadline = deadline
        self._preloaded: bytes | None = None
        self.status = int(response.status_code)
        self.headers = CaseInsensitiveDict(
            (name, value)
            for name, value in response.headers.items()
            if name.lower() not in ("set-cookie", "set-cookie2")
        )
        self.url = str(response.url)
        self.history = history

    def __repr__(self) -> str:
        return f"<UpstreamResponse {self.status}>"

    def __enter__(self) -> UpstreamResponse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def iter_bytes(self, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """The body as it arrives, in pieces of at most `chunk_size` bytes.

        gzip and deflate are undone. A piece is handed on as soon as there is one, however small.

        Raises:
            UpstreamError: the body ends before its length, stalls, or cannot be decoded.
        """
        if self._preloaded is not None:
            for start in range(0, len(self._preloaded), chunk_size):
                yield self._preloaded[start : start + chunk_size]
            return
        while data := self._read(chunk_size):
            yield data

    def iter_gathered(self, chunk_size: int) -> Iterator[bytes]:
        """As `iter_bytes`, but what arrives in small pieces is gathered into larger ones.

        The first piece is handed on at once. Behind it each is given a moment to grow: a line that
        brings many small pieces would otherwise cost much work for each of them. What is here is
        never kept waiting for what is not.
        """
        if self._preloaded is not None:
            yield from self.iter_bytes(chunk_size)
            return
        data = self._read(chunk_size)
        while data:
            yield data
            pieces = [self._read(chunk_size)]
            held = len(pieces[0])
            until = time.monotonic() + _LONGEST_GATHERING_SECONDS
            try:
                while pieces[-1] and held < chunk_size and self._grows(until, held):
                    pieces.append(self._read(chunk_size))
                    held += len(pieces[-1])
            except UpstreamError:
                yield b"".join(pieces)
                raise
            data = b"".join(pieces)

    def _grows(self, until: float, held: int) -> bool:
        """Whether more of the body is here, to be handed on together with `held` bytes."""
        if self._raw.length_remaining == 0 or time.monotonic() > until:
            return False
        if self._is_readable():
            return True
        if held >= _WORTH_HANDING_ON:
            return False
        time.sleep(_GATHER_SECONDS)
        return self._is_readable()

    def _is_readable(self) -> bool:
        try:
            return bool(wait_for_read(cast("Any", self._raw), timeout=0))
        except (OSError, ValueError, AttributeError):
            return False

    def preload(self, limit: int = 64 * 1024 * 1024) -> None:
        """Read the whole body now, which frees the connection; it can then be read repeatedly."""
        self._preloaded = self.read(limit)
        self.close()

    def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            TooLarge: it has more than `limit` bytes (after decoding).
            UpstreamError: as `iter_bytes`.
        """
        body = bytearray()
        for data in self.iter_bytes():
            body += data
            if len(body) > limit:
                self.close()
                raise TooLarge(f"The upstream's answer is longer than {limit:,} bytes.")
        return bytes(body)

    def read_some(self, limit: int) -> bytes:
        """The first `limit` bytes of the body, or all of a shorter one, e.g. an error's text."""
        body = bytearray()
        for data in self.iter_bytes(limit):
            body += data
            if len(body) >= limit:
                break
        return bytes(body[:limit])

    def close(self) -> None:
        """Give the connection back if the body was read, else close it."""
        if self._raw.length_remaining == 0:
            self._raw.drain_conn()
        self._response.close()

    def stop(self) -> None:
        """End the wait of a thread that reads, from another one; `close` has to follow there."""
        # Nothing to shut down: the body has ended, or urllib3 is older than 2.3.
        with contextlib.suppress(ValueError, RuntimeError, OSError, AttributeError):
            self._raw.shutdown()

    def discard(self) -> None:
        """Close an answer that is not wanted, and keep the connection if its body is short."""
        remaining = self._raw.length_remaining
        if remaining is not None and remaining <= _DRAINED:
            self._raw.drain_conn()
        self.close()

    def as_hop(self) -> Hop:
        """This answer as an entry of `history`."""
        return Hop(self.status, self.headers, self.url)

    def _read(self, size: int) -> bytes:
        if self._deadline is not None and time.monotonic() > self._deadline:
            self.close()
            raise UpstreamError("The upstream took longer than the remote's total_timeout.")
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        try:
            # read1 and not read: the latter waits until `size` bytes are there.
            return self._raw.read1(size, decode_content=encoding in DECODED_ENCODINGS)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as e:
            reason = _why_broken(e, self._raw.tell())
        raise UpstreamError(reason)


def _why_broken(error: Exception, received: int) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return f"The upstream sent nothing more after {received:,} bytes: it timed out."
    if isinstance(error, urllib3.exceptions.DecodeError):
        return "The upstream's answer cannot be decompressed."
    return f"The upstream broke off its answer after {received:,} bytes."
