"""Sending a body, well or badly.

Responsible for: ranges, conditional answers, pacing, and the faults that happen inside a body.
Not responsible for: which content is meant and whether the client may have it.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tornado.iostream import StreamClosedError

from .content import Content

if TYPE_CHECKING:
    from .handler import OriginHandler

CHUNK = 256 * 1024
_MAKE_GOOD = 0.1
_ONE_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


@dataclass(frozen=True, slots=True)
class Altered:
    """Content with one byte changed, or with every byte changed, under the old size."""

    content: Content
    at: int | None

    @property
    def size(self) -> int:
        return self.content.size

    def read(self, offset: int, length: int) -> bytes:
        data = self.content.read(offset, length)
        if self.at is None:
            return data.translate(_FLIPPED)
        position = self.at - offset
        if not 0 <= position < len(data):
            return data
        return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]

    def sha256(self) -> str:
        return self.content.sha256()


@dataclass(frozen=True, slots=True)
class Shifted:
    """Content whose bytes lie `by` bytes before their place, with zeros behind its end."""

    content: Content
    by: int

    @property
    def size(self) -> int:
        return self.content.size

    def read(self, offset: int, length: int) -> bytes:
        return self.content.read(offset + self.by, length).ljust(length, b"\0")

    def sha256(self) -> str:
        return self.content.sha256()


_FLIPPED = bytes(value ^ 0x5A for value in range(256))


class Meter:
    """Spaces out writes so that all its users together stay at a rate.

    A late wake-up is made good for at the next write, up to a tenth of a second: sleeping alone
    would fall well short of a high rate.
    """

    def __init__(self) -> None:
        self._due: float | None = None

    async def pass_through(self, size: int, rate: float) -> None:
        """Return when `size` bytes are through at `rate` bytes per second."""
        now = time.monotonic()
        start = now if self._due is None else max(self._due, now - _MAKE_GOOD)
        self._due = start + size / rate
        if self._due > now:
            await asyncio.sleep(self._due - now)


class Delivery:
    """One body on one connection. Used on the server's loop only."""

    def __init__(self, handler: OriginHandler) -> None:
        self.handler = handler
        self.fault = handler.fault
        self._own_meter = Meter()

    async def send_file(self, content: Content, headers: Mapping[str, str], etag: str) -> None:
        """Answer 200, 206, 304 or 416 as the request's Range and If-None-Match ask for."""
        handler, request = self.handler, self.handler.request
        if self._is("other_version"):
            etag = '"another-version"'
        handler.begin(200, {**headers, "Accept-Ranges": "bytes", "ETag": etag})
        if matches(request.headers.get("If-None-Match"), etag):
            handler.begin(304)
            await handler.end()
            return
        asked = request.headers.get("Range")
        if_range = request.headers.get("If-Range")
        if asked is None or self._is("ignore_range") or (if_range and if_range != etag):
            await self.send(content, 0, content.size)
            return
        chosen = parse_range(asked, content.size)
        if chosen is None:
            await self.send(content, 0, content.size)
            return
        start, end = chosen
        if start >= end:
            handler.begin(416, {"Content-Range": f"bytes */{content.size}"})
            await self.send(content, 0, 0)
            return
        if self._is("wrong_range") and self.fault is not None:
            start = min(start + self.fault.offset, end - 1)
        handler.begin(206, {"Content-Range": f"bytes {start}-{end - 1}/{content.size}"})
        await self.send(content, start, end)

    async def send_compressed(self, body: bytes) -> None:
        """Send an already compressed body as the Hub does: chunked, with no length, a weak ETag."""
        handler = self.handler
        handler.clear_header("Content-Length")
        handler.begin(handler.get_status(), {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
        if handler.request.method == "HEAD":
            # Without this header tornado would end the answer to a HEAD with an empty chunk.
            handler.set_header("Transfer-Encoding", "chunked")
        else:
            handler.record.bytes_sent += len(body)
        await self._write(body)
        await handler.end()

    async def send(self, content: Content, start: int, end: int) -> None:
        """Send bytes [start, end) of the content under the status and headers set so far."""
        handler, fault = self.handler, self.fault
        if self._is("short") and fault is not None:
            end = min(end, start + fault.offset)
        if self._is("longer") and fault is not None:
            end += fault.offset
        content = self._altered(content)
        handler.set_header("Content-Length", str(end - start))
        if handler.request.method == "HEAD":
            await handler.end()
            return
        if self._is("gzip"):
            await self.send_compressed(gzip.compress(content.read(start, end - start), 1))
            return
        try:
            if self._is("endless"):
                handler.clear_header("Content-Length")
                end = sys.maxsize
            await self._stream(content, start, end)
        except StreamClosedError:
            handler.record.done = True
            return
        await handler.end()

    def _altered(self, content: Content) -> Content:
        """What is sent in place of the content."""
        fault = self.fault
        if fault is None:
            return content
        if fault.kind == "corrupt":
            return Altered(content, fault.offset)
        if fault.kind in ("swap", "other_version"):
            return Altered(content, None)
        if fault.kind in ("false_range", "longer", "endless"):
            return Shifted(content, fault.offset if fault.kind == "false_range" else 0)
        return content

    async def _stream(self, content: Content, start: int, end: int) -> None:
        handler = self.handler
        stop = self._interruption(start, end)
        await handler.flush()
        for low, high in ((start, stop), (stop, end)):
            position = low
            while position < high:
                step = min(self._step(), high - position)
                allowed = handler.allowance(step)
                data = content.read(position, allowed)
                handler.record.bytes_sent += len(data)
                await self._write(data)
                if allowed < step:
                    handler.drop(reset=False)
                    return
                position += len(data)
                await self._pace(len(data))
            if low == start and await self._interrupt():
                return

    def _interruption(self, start: int, end: int) -> int:
        if self.fault is None or not any(map(self._is, ("cut", "stall", "reset"))):
            return end
        return min(end, start + self.fault.offset)

    async def _interrupt(self) -> bool:
        """Carry out a fault in mid-body; True when the connection is gone."""
        if self._is("stall") and self.fault is not None and self.fault.at is not None:
            await self.handler.hub.faults.hang(self.handler.gone)
            return self.handler.gone.is_set()
        if self._is("cut") or self._is("reset"):
            self.handler.drop(reset=self._is("reset"))
            return True
        return False

    async def _write(self, data: bytes) -> None:
        self.handler.write(data)
        await self.handler.flush()

    def _rate(self) -> float | None:
        if self._is("slow") and self.fault is not None:
            return self.fault.rate
        return self.handler.hub.rate if self.handler.host == "cdn" else None

    def _step(self) -> int:
        rates = [r for r in (self._rate(), self.handler.hub.total_rate) if r is not None]
        # A twentieth of a second's worth, so that a paced body flows instead of coming in lumps.
        return max(1, min([CHUNK, *(int(rate / 20) for rate in rates)]))

    async def _pace(self, size: int) -> None:
        rate = self._rate()
        if rate is not None:
            await self._own_meter.pass_through(size, rate)
        total = self.handler.hub.total_rate
        if total is not None and self.handler.host == "cdn":
            await self.handler.hub.cdn_meter.pass_through(size, total)

    def _is(self, kind: str) -> bool:
        return self.fault is not None and self.fault.kind == kind


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match names this ETag, by weak comparison (RFC 9110)."""
    if if_none_match is None:
        return False
    names = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return "*" in names or etag.removeprefix("W/") in names


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The one range asked for as [start, end), empty if unsatisfiable; None to send the whole.

    Like the object stores behind the Hub, several ranges are answered with the whole.
    """
    found = _ONE_RANGE.match(header.strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        return max(0, size - int(last)), size if int(last) else 0
    if last and int(last) < int(first):
        return None
    end = min(size, int(last) + 1) if last else size
    return int(first), end
