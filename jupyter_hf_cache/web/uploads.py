"""Passing a request body on while it arrives.

Responsible for: a bounded pipe from the event loop to the worker thread that sends the body
upstream.
Not responsible for: who may upload.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator

from jupyter_hf_cache.errors import BadRequest

_PIECES = 16


class BodyPipe:
    """An iterator of pieces for a worker thread, filled from the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.Queue[bytes | Exception | None] = queue.Queue(_PIECES)
        self._space = asyncio.Event()
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces; blocks. For one worker thread.

        Raises:
            BadRequest: the client left before the end.
        """
        while True:
            piece = self._queue.get()
            self._loop.call_soon_threadsafe(self._space.set)
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def put(self, piece: bytes) -> None:
        """Hand one piece over, waiting while the upstream is slower than the client."""
        await self._put(piece)

    async def end(self) -> None:
        """The body is complete."""
        await self._put(None)

    def stop(self) -> None:
        """The answer is there, or the client is gone: nobody needs the rest."""
        self._over = True
        self._space.set()
        while True:
            try:
                self._queue.put_nowait(
                    BadRequest("The client left before its upload was complete.")
                )
                return
            except queue.Full:
                self._queue.get_nowait()

    async def _put(self, piece: bytes | None) -> None:
        while not self._over:
            try:
                self._queue.put_nowait(piece)
                return
            except queue.Full:
                self._space.clear()
                await self._space.wait()
