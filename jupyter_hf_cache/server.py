"""One process of the stand-alone server: from listening sockets to a clean end.

Responsible for: answering on sockets that somebody else bound, and the two ways to stop: running
answers are finished first, or not.
Not responsible for: who tells it to stop (`standalone`, `worker`), or what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterable

from jupyter_hf_cache.web.application import make_server
from jupyter_hf_cache.web.context import WebContext

_POLL_SECONDS = 0.05
# What a service needs to write its counters and let go of its files.
CLOSE_SECONDS = 10.0


class Stop:
    """How a server is told to stop; used on the event loop.

    Attributes:
        asked: take no new connections, and end when the running answers are finished.
        at_once: do not wait for them.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """Stop; the second time, at once."""
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()


class SharedSocket(socket.socket):
    """A listening socket that several processes accept from.

    It yields one connection each time it is found readable. Who takes all that wait, as Tornado
    does, leaves nothing for its neighbours, however busy it is already.
    """

    _may_accept = True

    def accept(self) -> tuple[socket.socket, object]:
        """Accept one connection, then pretend that there is no other.

        Raises:
            BlockingIOError: nothing waits, or the event loop's turn is not over.
        """
        self._may_accept = not self._may_accept
        if self._may_accept:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError:
            self._may_accept = True
            raise


async def serve(
    context: WebContext, sockets: Iterable[socket.socket], stop: Stop, drain_seconds: float
) -> None:
    """Answer until told to stop, then close the service.

    Args:
        context: holds an open service.
        sockets: listening, not blocking; closed at the end.
        drain_seconds: how long running answers get.
    """
    server = make_server(context)
    server.add_sockets(sockets)
    await stop.asked.wait()
    context.log.info("stopping: no new requests, %d still running", len(context.running))
    server.stop()
    # Who keeps a connection open would otherwise go on asking here.
    server.conn_params.no_keep_alive = True
    await _drain(context, stop, drain_seconds)
    await server.close_all_connections()
    await _close(context)


async def _drain(context: WebContext, stop: Stop, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while context.running and not stop.at_once.is_set():
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.at_once.wait(), min(_POLL_SECONDS, left))


async def _close(context: WebContext) -> None:
    service = context.slot.take()
    context.pools.close()
    if service is None:
        return
    closing = asyncio.ensure_future(asyncio.to_thread(service.close))
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    if not done:
        context.log.warning("the cache takes long to close; not waiting for it")
        logging.shutdown()
        # Interpreters wait for their threads, and one of them hangs.
        os._exit(1)
    await closing
