"""One HTTP exchange with either origin.

Responsible for: recording the request, the faults that act before an answer, and the plain forms of
an answer (JSON, text, redirect, refusal).
Not responsible for: what is asked (`routes`, `cdn`) and the body of a file (`delivery`).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from .content import SmallFile
from .counters import Host, Record
from .delivery import Delivery
from .errors import HubError
from .faults import Fault

if TYPE_CHECKING:
    from .app import FakeHub

GZIP_FROM = 1000  # bytes; shorter text is not worth compressing to the Hub
METADATA = ("X-Repo-Commit", "X-Linked-ETag", "X-Linked-Size", "ETag")
PORTAL = b"<!doctype html><html><head><title>Sign in to this network</title></head></html>"


class OriginHandler(RequestHandler):
    """Base of the Hub's and the CDN's handler."""

    host: ClassVar[Host]
    bucket = ""
    hub: FakeHub
    record: Record
    fault: Fault | None
    gone: asyncio.Event

    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def compute_etag(self) -> None:
        """Only the ETags set on purpose exist."""

    def check_etag_header(self) -> bool:
        """304 is decided by the routes that know it."""
        return False

    async def prepare(self) -> None:
        """Record the request; carry out faults that leave no room for an answer."""
        request = self.request
        headers = {name.lower(): value for name, value in request.headers.get_all()}
        self.gone = asyncio.Event()
        self.record = Record(self.host, request.method, request.path, request.query, headers)
        self.hub.counters.add(self.record)
        self.clear_header("Server")
        self.set_common_headers()
        self.fault = self.hub.faults.take(self.host, request.method, request.uri)
        if self.hub.latency:
            await asyncio.sleep(self.hub.latency)
        if self.fault is not None:
            await self._befall(self.fault)

    def set_common_headers(self) -> None:
        """What this origin puts on every answer."""

    async def _befall(self, fault: Fault) -> None:
        if fault.kind == "stall" and fault.at is None:
            await self.hub.faults.hang(self.gone)
        elif fault.kind == "close" or (fault.kind == "reset" and fault.at is None):
            self.drop(reset=fault.kind == "reset")
        elif fault.kind == "status":
            if fault.status == 429 and self.host == "hub":
                self.set_header("RateLimit", f'"{self.bucket}";r=0;t=1')
            for name, value in fault.headers.items():
                self.set_header(name, value)
            await self.refuse(HubError(fault.status, fault.message))
        elif fault.kind == "html":
            await self.answer(PORTAL, "text/html; charset=utf-8")
        if fault.kind in ("status", "html"):
            await self.end()

    def drop(self, *, reset: bool) -> None:
        """End the connection without a word more."""
        stream: Any = self.detach()
        if reset and stream.socket is not None:
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream.close()
        self.record.done = True

    def allowance(self, size: int) -> int:
        """How many of the next `size` body bytes may be sent before the connection is cut."""
        return size

    async def end(self) -> None:
        """Finish the answer, if the client is still there to read it."""
        try:
            if not self._finished:
                await self.finish()
        except StreamClosedError:
            pass
        self.record.done = True

    def on_connection_close(self) -> None:
        self.gone.set()
        self.record.done = True

    def on_finish(self) -> None:
        self.record.done = True

    def begin(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Set status and headers; the record knows the status before the client does."""
        self.set_status(status)
        self.record.status = status
        bare = self.fault is not None and self.fault.kind == "no_metadata"
        for name, value in (headers or {}).items():
            if not (bare and name in METADATA):
                self.set_header(name, value)

    async def answer(
        self,
        body: bytes,
        content_type: str,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a short body, compressed as the Hub compresses text for those who allow it."""
        self.begin(status, headers)
        self.set_header("Content-Type", content_type)
        delivery = Delivery(self)
        if self.allows_gzip() and len(body) >= GZIP_FROM and self.host == "hub":
            await delivery.send_compressed(gzip.compress(body, compresslevel=1))
        else:
            await delivery.send(SmallFile(body), 0, len(body))

    async def answer_json(
        self, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send JSON."""
        await self.answer(
            json.dumps(body, ensure_ascii=False).encode(),
            "application/json; charset=utf-8",
            status=status,
            headers=headers,
        )

    async def redirect_to(
        self, status: int, location: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a redirect with the short text body the Hub gives it."""
        word = {302: "Found", 307: "Temporary Redirect"}[status]
        await self.answer(
            f"{word}. Redirecting to {location}".encode(),
            "text/plain; charset=utf-8",
            status=status,
            headers={"Location": location, **(headers or {})},
        )

    async def refuse(self, error: HubError) -> None:
        """Answer with a refusal in the Hub's shape: JSON under /api, text elsewhere."""
        # Header text is Latin-1; what the message quotes from a URL may not be.
        message = error.message.encode("latin-1", "replace").decode("latin-1")
        headers = {"X-Error-Message": message, **error.headers}
        if error.code is not None:
            headers["X-Error-Code"] = error.code
        if self.request.path.startswith("/api/"):
            await self.answer_json({"error": error.message}, status=error.status, headers=headers)
        else:
            await self.answer(
                error.text.encode(),
                "text/plain; charset=utf-8",
                status=error.status,
                headers=headers,
            )

    def allows_gzip(self) -> bool:
        return "gzip" in self.request.headers.get("Accept-Encoding", "")

    def json_body(self) -> Any:
        """The request body as JSON.

        Raises:
            HubError: it is none.
        """
        try:
            return json.loads(self.request.body)
        except ValueError as error:
            raise HubError(400, "Invalid JSON") from error
