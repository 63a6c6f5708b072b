"""Sending a file's bytes without bringing them into the process.

Responsible for: `os.sendfile` from a file to a client's connection, in short steps of a worker
thread, waiting on the event loop while the client is slow.
Not responsible for: the head of the answer, or whether the bytes may be sent (`web.content`).

The connection stays Tornado's: only the body goes past its buffers, and Tornado is told how long it
was, so that keep-alive, pipelining, the access line and a client that leaves are handled as always.
Duplicates of both descriptors are used, and given back only when no thread uses them any more: a
number that was closed may be somebody else's connection, or another file, a moment later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.web import RequestHandler

STEP = 16 * 1024 * 1024
_PATIENCE_MS = 20


class BodySender:
    """Sends parts of a file as the body of one answer whose head was flushed already.

    Made by `body_sender`; used on the event loop; `close` ends it, also while a thread still sends.
    """

    def __init__(self, connection: Any, stream: IOStream, file: int, pool: Executor) -> None:
        self._connection = connection
        self._stream = stream
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._running: Future[int] | None = None
        self._descriptors = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            self._fd = _duplicate(stream.socket.fileno(), opened)
            self._file = _duplicate(file, opened)
            self._descriptors = opened.pop_all()
        stream.set_nodelay(True)

    async def send(
        self, start: int, end: int, *, first: Callable[[], object] | None = None
    ) -> None:
        """Send bytes [start, end) of the file.

        Args:
            first: called in the worker thread before any byte goes.

        Raises:
            StreamClosedError: the client left.
            OSError: the file cannot be read to `end`.
            What `first` raises.
        """
        offset = start
        while offset < end:
            if self._stream.closed():
                raise StreamClosedError
            step = min(STEP, end - offset)
            self._running = self._pool.submit(self._step, first, offset, step)
            sent = await asyncio.wrap_future(self._running)
            first = None
            offset += sent
            self._connection._expected_content_remaining -= sent
            if offset < end and sent < step:
                await self._writable()

    def _step(self, first: Callable[[], object] | None, offset: int, length: int) -> int:
        if first is not None:
            first()
        return _send_some(self._fd, self._file, offset, length)

    async def _writable(self) -> None:
        """Wait for the client, without a thread."""
        ready = asyncio.Event()
        self._loop.add_writer(self._fd, ready.set)
        try:
            while not ready.is_set():
                if self._stream.closed():
                    raise StreamClosedError
                try:
                    await asyncio.wait_for(ready.wait(), 5.0)
                except asyncio.TimeoutError:
                    # A closed connection is noticed by Tornado's own descriptor; look again.
                    continue
        finally:
            self._loop.remove_writer(self._fd)

    def close(self) -> None:
        """Give the duplicates back, once no thread uses them."""
        descriptors = self._descriptors.pop_all()
        if self._running is None:
            descriptors.close()
        else:
            self._running.add_done_callback(lambda _: descriptors.close())


def body_sender(handler: RequestHandler, file: int, pool: Executor) -> BodySender | None:
    """Return a sender for a handler whose head was flushed.

    Args:
        file: a descriptor that stays open until the sender is closed.

    None where only Tornado can send: TLS, a UNIX socket, a system whose `sendfile` is another or
    missing, or a connection that is not the plain one of its HTTP server.
    """
    connection: Any = handler.request.connection
    stream = getattr(connection, "stream", None)
    if not isinstance(stream, IOStream) or isinstance(stream, SSLIOStream):
        return None
    if not sys.platform.startswith("linux") or not hasattr(os, "sendfile"):
        return None
    if stream.closed() or stream.writing():
        return None
    if stream.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if not isinstance(getattr(connection, "_expected_content_remaining", None), int):
        return None
    try:
        return BodySender(connection, stream, file, pool)
    except (OSError, ValueError):
        return None


def _duplicate(descriptor: int, opened: contextlib.ExitStack) -> int:
    copy = os.dup(descriptor)
    opened.callback(os.close, copy)
    return copy


def _send_some(out: int, file: int, offset: int, length: int) -> int:
    """Send until `length` bytes are gone or the client's buffers stay full; returns the bytes sent.

    Raises:
        StreamClosedError: the client left.
        OSError: the file ends early.
    """
    sent = 0
    poll: Callable[[float], Any] | None = None
    while sent < length:
        try:
            count = os.sendfile(out, file, offset + sent, length - sent)
        except BlockingIOError:
            if poll is None:
                watcher = select.poll()
                watcher.register(out, select.POLLOUT)
                poll = watcher.poll
            if not poll(_PATIENCE_MS):
                return sent
            continue
        except (BrokenPipeError, ConnectionError) as error:
            raise StreamClosedError(real_error=error) from error
        if count == 0:
            raise OSError("the kept file became shorter while it was sent")
        sent += count
    return sent
