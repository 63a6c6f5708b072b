"""The Hub endpoint: everything below `/pulp/content/`.

Responsible for: taking a request to the service and sending its answer, whatever kind of body that
has, without ever blocking the event loop or ending a broken body as if it were whole.
Not responsible for: what the answer is (`service`), or who may ask (`web.entrance`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import ClassVar, Literal, cast
from urllib.parse import unquote

from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from jupyter_hf_cache import __version__
from jupyter_hf_cache.answers import (
    Answer,
    BlobBody,
    BytesBody,
    FillBody,
    PartsBody,
    StreamBody,
)
from jupyter_hf_cache.errors import (
    BadRequest,
    FillInterrupted,
    Refused,
    StorageError,
    UpstreamAnswer,
    VerificationFailed,
)
from jupyter_hf_cache.protocol.headers import sandbox_headers
from jupyter_hf_cache.web.context import WebContext
from jupyter_hf_cache.web.handler import CacheHandler
from jupyter_hf_cache.web.sendfile import BodySender, body_sender
from jupyter_hf_cache.web.uploads import BodyPipe

# Shorter bodies are not worth a way of their own past Tornado's buffers.
_BIG = 1024 * 1024
CHUNK_SIZE = 256 * 1024
"""Bytes that are read and given to Tornado at once, where it sends: what a client that stopped
costs in memory, and about the time for which encrypting holds up everybody else."""
_MAX_QUESTION = 4 * 1024 * 1024
_ATTEMPTS = 3
# Between two steps behind a growing file: enough for megabytes to arrive on a fast line, and short
# for whoever waits at the end of it. Each step costs the event loop the same, however long it is.
_PACE_SECONDS = 0.016


class ContentHandler(CacheHandler):
    """One request of a client of the Hub."""

    surface: ClassVar[Literal["content", "api", "open"]] = "content"
    body_limit: ClassVar[int | None] = None

    def set_default_headers(self) -> None:
        """Say on every answer that it came through the cache; clients ignore it, people look for
        it."""
        super().set_default_headers()
        self.set_header("X-HF-Cache", __version__)

    def initialize(self, context: WebContext) -> None:
        """Take the route's context."""
        super().initialize(context)
        self._gone = False
        self._anew = False
        self._changed: asyncio.Event | None = None
        self._question: bytearray | None = None
        self._question_size = 0
        self._pipe: BodyPipe | None = None
        self._stream: StreamBody | None = None
        self._forwarded: asyncio.Future[Answer] | None = None
        self._awaited = False
        self._closing: asyncio.Future[None] | None = None

    async def prepare(self) -> None:
        """Start passing an upload on before it is complete."""
        if self.request.method == "OPTIONS":
            # Browsers ask this without any credential, so there is nobody to let in.
            self.pass_guard()
            return
        await super().prepare()
        service, run = self.context.service, self.context.run
        method, path = self.request.method or "", self.entrance.path
        if self.from_page and not await run(service.only_asks, method, path):
            raise Refused(
                "Pages of other origins may read here, and change nothing.",
                advice="Send changes from a program, or straight to the Hub.",
            )
        if method in ("GET", "HEAD"):
            return
        if await run(service.needs_body, method, path):
            self._question = bytearray()
        elif self.has_body():
            self._pipe = BodyPipe()
            self._forwarded = asyncio.ensure_future(self._ask(self._pipe))
            self._forwarded.add_done_callback(lambda _: self._settle())

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Collect a question's body, or pass an upload on; the awaitable slows the client down."""
        if self._question is not None:
            # What is too long is read to its end all the same: a client that is still sending when
            # the connection closes does not see the answer.
            self._question_size += len(chunk)
            if self._question_size <= _MAX_QUESTION:
                self._question += chunk
        elif self._pipe is not None:
            return self._pipe.put(chunk)
        return None

    def on_connection_close(self) -> None:
        """The client left: wake whoever waits for bytes to send it."""
        super().on_connection_close()
        self._gone = True
        if self._changed is not None:
            self._changed.set()
        if self._pipe is not None:
            self._pipe.stop()
        self._settle()
        if self._stream is not None:
            self._stream.stop()

    def _settle(self) -> None:
        """An upload was answered, or its client has left; where both are so before anybody waits
        for the answer, it is given up."""
        forwarded = self._forwarded
        if forwarded is None or not forwarded.done() or forwarded.cancelled():
            return
        if self._pipe is not None:
            # Who is refused before the body is read would otherwise never come to its end.
            self._pipe.stop()
        if forwarded.exception() is None and self._gone and not self._awaited:
            self._awaited = True
            closing = self.context.run_disk(forwarded.result().close)
            self._closing = asyncio.ensure_future(closing)

    async def get(self, _: str) -> None:
        """Answer a read."""
        await self._respond()

    async def head(self, _: str) -> None:
        """Answer a read without its body."""
        await self._respond()

    async def post(self, _: str) -> None:
        """Answer paths-info, or what is passed on."""
        await self._respond()

    async def put(self, _: str) -> None:
        """Pass on."""
        await self._respond()

    async def patch(self, _: str) -> None:
        """Pass on."""
        await self._respond()

    async def delete(self, _: str) -> None:
        """Pass on."""
        await self._respond()

    def options(self, _: str) -> None:
        """Tell a browser what a page of an allowed origin may send; anybody else gets 405."""
        headers = self.request.headers
        allowed = self.context.options.cors.preflight(headers.get("Origin"), headers)
        if allowed is None:
            raise HTTPError(405)
        for name, value in allowed.items():
            self.set_header(name, value)
        self.clear_header("Content-Type")
        self.set_status(204)
        self.finish()

    # -- from memory

    def _give_ready(self) -> bool:
        """Answer from memory, if the answer is there."""
        service = self.context.service
        request = self.request
        found = service.ready.find(
            request.method or "",
            self.entrance.path,
            request.query,
            request.headers,
            self.entrance,
        )
        if found is None:
            return False
        status, ready = found
        if ready.rendered is None:
            ready.rendered = _rendered(ready.headers, "hit", request.path)
        self.set_status(status)
        for name, value in cast("list[tuple[str, str]]", ready.rendered):
            self.set_header(name, value)
        if status == 304:
            self.clear_header("Content-Length")
            self.finish()
        else:
            self.finish(ready.body if request.method == "GET" else None)
        self.context.settle_soon(service.ready)
        return True

    # -- asking

    async def _respond(self) -> None:
        if self._give_ready():
            return
        for attempt in range(1, _ATTEMPTS + 1):
            answer = await self._answer()
            try:
                await self._send(answer)
                return
            except UpstreamAnswer as gone:
                # The bytes were asked for at the commit that a branch was at. If it was moved by
                # force since, they are no more, and it has to be looked at again.
                again = self._anew or self._headers_written or self._forwarded is not None
                if gone.code != "RevisionNotFound" or again:
                    raise
                self._anew = True
                self.clear()
            except (FillInterrupted, StorageError, VerificationFailed):
                # Another download is under way already, or can be; who was sent nothing yet simply
                # follows that one. What the disk refuses streams through.
                if self._headers_written or attempt == _ATTEMPTS:
                    raise
                self.clear()
            finally:
                if answer.body is not None and not isinstance(answer.body, BytesBody):
                    await self.context.run_disk(answer.close)

    async def _answer(self) -> Answer:
        if self._question_size > _MAX_QUESTION:
            raise BadRequest(
                f"The body of this question is longer than {_MAX_QUESTION:,} bytes.",
                advice="Ask for fewer paths at once.",
                status=413,
            )
        if self._forwarded is None:
            question = bytes(self._question) if self._question is not None else None
            return await self._ask(question)
        self._awaited = True
        pipe = self._pipe
        if pipe is not None:
            await pipe.end()
        try:
            return await self._forwarded
        finally:
            if pipe is not None:
                pipe.stop()

    async def _ask(self, body: bytes | BodyPipe | None) -> Answer:
        run = self.context.run_through if isinstance(body, BodyPipe) else self.context.run
        return await run(self._ask_in_thread, body)

    def _ask_in_thread(self, body: bytes | BodyPipe | None) -> Answer:
        return self.context.service.answer(
            self.request.method or "",
            self.request.query,
            self._headers_of_question(),
            self.entrance,
            self.entrance.path,
            body,
        )

    def _headers_of_question(self) -> HTTPHeaders:
        headers = self.request.headers
        if self._anew:
            headers = headers.copy()
            headers["Cache-Control"] = "no-cache"
            # It would be of another file.
            headers.pop("Range", None)
        return headers

    # -- sending

    async def _send(self, answer: Answer) -> None:
        self._set_head(answer)
        body = answer.body
        try:
            if isinstance(body, StreamBody):
                await self._send_stream(body)
            elif isinstance(body, PartsBody):
                for piece in body.pieces:
                    await self._send_piece(piece)
            elif isinstance(body, (BytesBody, BlobBody, FillBody)):
                await self._send_piece(body)
            await self.finish()
        except StreamClosedError:
            # The client left; nothing is wrong on this side.
            return

    def _set_head(self, answer: Answer) -> None:
        self.set_status(answer.status)
        for name, value in _rendered(answer.headers, answer.result, self.request.path):
            self.set_header(name, value)
        if answer.status == 304:
            self.clear_header("Content-Length")

    async def _send_piece(self, body: BytesBody | BlobBody | FillBody) -> None:
        if isinstance(body, FillBody):
            await self._send_fill(body)
        elif isinstance(body, BlobBody):
            await self._send_blob(body)
        else:
            self.write(body.data)
            if self._headers_written:
                # What follows may go past Tornado's buffers.
                await self.flush()

    async def _send_blob(self, body: BlobBody) -> None:
        offset = body.start
        if body.end - offset >= _BIG:
            await self.flush()
            sender = self._sender(body.reader.fileno())
            if sender is not None:
                try:
                    await sender.send(offset, body.end)
                finally:
                    sender.close()
                return
        while offset < body.end:
            length = min(CHUNK_SIZE, body.end - offset)
            data = await self.context.run_disk(body.reader.read, offset, length)
            if len(data) != length:
                raise BadRequest("The kept file became shorter while it was read.", status=500)
            offset += length
            self.write(data)
            await self.flush()

    def _sender(self, file: int | None) -> BodySender | None:
        """A way past Tornado's buffers for what lies in a file, where there is one."""
        return None if file is None else body_sender(self, file, self.context.pools.sending)

    async def _send_fill(self, body: FillBody) -> None:
        """Follow the growing file; the head is sent with the first bytes, so that an upstream
        which fails before them is answered with a proper error."""
        fill, loop = body.fill, asyncio.get_running_loop()
        changed = self._changed = asyncio.Event()
        waiting = True

        def wake() -> None:
            if waiting and not changed.is_set() and not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        unwatch = fill.watch(wake)
        sender: BodySender | None = None
        try:
            offset = body.start
            while offset < body.end:
                changed.clear()
                # Before the look, so that what arrives after it wakes this one.
                waiting = True
                ready = min(fill.available(offset, completing=body.completing), body.end)
                if self._gone:
                    raise StreamClosedError
                if ready <= offset:
                    await changed.wait()
                    continue
                waiting = False
                if self._headers_written and sender is None:
                    sender = self._sender(fill.partial.fileno())
                if sender is not None:
                    await sender.send(offset, ready, first=partial(fill.give_out, ready))
                    offset = ready
                    if ready < body.end and not fill.verified:
                        await asyncio.sleep(_PACE_SECONDS)
                    continue
                length = min(CHUNK_SIZE, ready - offset)
                data = await self.context.run_disk(fill.read, offset, length)
                offset += len(data)
                self.write(data)
                await self.flush()
            if body.start == body.end:
                await self._wait_verified(body, changed)
        finally:
            unwatch()
            if sender is not None:
                sender.close()

    async def _wait_verified(self, body: FillBody, changed: asyncio.Event) -> None:
        """An empty file has no bytes to wait for, but a digest all the same."""
        while not body.fill.verified:
            changed.clear()
            body.fill.available(0, completing=True)
            if self._gone:
                raise StreamClosedError
            if not body.fill.verified:
                await changed.wait()

    async def _send_stream(self, body: StreamBody) -> None:
        self._stream = body
        if self._headers.get("Content-Type", "").startswith("text/event-stream"):
            # The first event may be long in coming, and who waits for it wants to know it waits.
            await self.flush()
        while not self._gone:
            data = await self.context.run_through(next, body.chunks, b"")
            if not data:
                return
            self.write(data)
            await self.flush()
        raise StreamClosedError


def _rendered(headers: Mapping[str, str], result: str, path: str) -> list[tuple[str, str]]:
    """The head of an answer, made harmless for browsers."""
    name = unquote(path.rsplit("/", 1)[-1])
    safe = {**headers, **sandbox_headers(headers.get("Content-Type"), name)}
    if result:
        safe["X-HF-Cache-Result"] = result
    return list(safe.items())


ROUTES: list[tuple[str, type[CacheHandler]]] = [(r"pulp/content/(.*)", ContentHandler)]
