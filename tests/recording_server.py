"""A small HTTP server on loopback that records what it is asked and answers as a test says.

Answers are functions of the request handler, so that a test can also misbehave: cut a body, stall,
close without a word.
"""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = Callable[["Handler"], None]


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer_cert: bool = False


@dataclass
class Recorder:
    """What a server answers (by path, or `default`) and what it saw."""

    answers: dict[str, Answer] = field(default_factory=dict)
    default: Answer = lambda handler: reply(handler, 200, b"ok")
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def setup(self) -> None:
        super().setup()
        self.recorder.connections += 1

    def answer(self) -> None:
        self.recorder.seen.append(
            Seen(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.read_body(),
                isinstance(self.connection, ssl.SSLSocket) and bool(self.connection.getpeercert()),
            )
        )
        path = self.path.partition("?")[0]
        self.recorder.answers.get(path, self.recorder.default)(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_CONNECT = answer

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what these tests are about."""


@contextmanager
def recording_server(context: ssl.SSLContext | None = None) -> Iterator[Recorder]:
    """Serve on a free port of 127.0.0.1, with TLS if a context is given."""
    recorder = Recorder(scheme="https" if context else "http")
    server = _Server(("127.0.0.1", 0), type("H", (Handler,), {"recorder": recorder}))
    if context is not None:
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    recorder.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(
    handler: Handler, status: int, body: bytes = b"", *, length: int | None = None, **headers: str
) -> None:
    """Answer with a body; `length` is announced in its place. `_` in header names means `-`."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def redirect(location: str, status: int = 307, **headers: str) -> Answer:
    """Answer with a redirect."""
    return lambda handler: reply(handler, status, b"moved", Location=location, **headers)


def cut(announced: int, sent: bytes) -> Answer:
    """Announce more than is sent, then close."""

    def answer(handler: Handler) -> None:
        reply(handler, 200, sent, length=announced)
        hang_up(handler)

    return answer


def hang_up(handler: Handler) -> None:
    """Close the connection without another word."""
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
