"""HTTP as bytes: a client that sends exactly what it is told, a server that keeps what it got.

Responsible for: what no HTTP library would send or show, for tests of what passes through.
Not responsible for: anything a library does well.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)\s*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked\s*\r\n", re.IGNORECASE)


class RawServer:
    """Answers every request alike and keeps each as the bytes it came in.

    Attributes:
        seen: the requests, bodies included, oldest first.
        answer: what is sent, once the head of a request is there.
        early: the answer is sent without reading a body.
    """

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.answer: Callable[[bytes], bytes] = lambda request: OK
        self.early = False
        self.ended = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Take no more connections."""
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(SECONDS)
        data = b""
        with contextlib.suppress(OSError), connection:
            while True:
                while b"\r\n\r\n" not in data:
                    data += _more(connection)
                length = data.index(b"\r\n\r\n") + 4
                if not self.early:
                    length = self._body_end(connection, data, length)
                    data = self._data
                self.seen.append(data[:length])
                connection.sendall(self.answer(data[:length]))
                if self.early:
                    connection.close()
                    return
                data = data[length:]
        self.ended.set()

    def _body_end(self, connection: socket.socket, data: bytes, start: int) -> int:
        head = data[:start]
        self._data = data
        if _CHUNKED.search(head):
            while b"0\r\n\r\n" not in self._data[start:]:
                self._data += _more(connection)
            return self._data.index(b"0\r\n\r\n", start) + 5
        announced = _LENGTH.search(head)
        end = start + (int(announced[1]) if announced else 0)
        while len(self._data) < end:
            self._data += _more(connection)
        return end


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the other side has closed")
    return data


@contextmanager
def raw_server() -> Iterator[RawServer]:
    """A `RawServer` on loopback."""
    server = RawServer()
    try:
        yield server
    finally:
        server.close()


def exchange(port: int, data: bytes) -> bytes:
    """Send bytes to a port of this machine and read to the end of the connection, which the request
    has to ask for (`Connection: close`) or the server to make."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                got += piece
    return got


def statuses(answer: bytes) -> list[int]:
    """The status of each answer on a connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
