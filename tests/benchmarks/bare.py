"""The bare Tornado handler that requests per second are compared with.

`python -m tests.benchmarks.bare FILE` serves the bytes of a small file from memory, prints its port
and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


class Bare(RequestHandler):
    """Answers every GET with the same bytes, and every HEAD with their length."""

    def initialize(self, body: bytes) -> None:
        self.body = body

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.write(self.body)

    def head(self) -> None:
        self.get()


async def serve(body: bytes) -> None:
    """Listen on a free loopback port until the standard input ends."""
    sockets = bind_sockets(0, "127.0.0.1")
    application = Application([(r".*", Bare, {"body": body})], log_function=lambda handler: None)
    HTTPServer(application).add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(serve(Path(sys.argv[1]).read_bytes()))
