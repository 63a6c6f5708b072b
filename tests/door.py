"""A way to an upstream that can be shut in the manners in which networks fail.

Responsible for: one address that leads to a server of the suite while it is open, and behaves like
a dead, silent, lying or wrongly certified one while it is shut.
Not responsible for: what is behind it, or names that do not resolve (an address has none).
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from certificates import Pair, make_pair, server_context

PLAIN_OUTAGES = ("refused", "black hole", "silent", "hangs up", "portal", "portal elsewhere")
"""How a door can be shut, with TLS or without."""
TLS_OUTAGES = ("unknown issuer", "expired", "no tls")
"""How one with TLS can be shut besides."""

_PAGE = b"<!DOCTYPE html><title>Sign in</title>To use this network, please sign in."
_PORTAL = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
    % (len(_PAGE))
)
_ELSEWHERE = (
    b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n"
)
_CHUNK = 1 << 16


class Door:
    """Open until `shut`. Safe from any thread.

    Args:
        url: the origin of what is behind it, which speaks plain HTTP.
        folder: makes it a door with TLS; certificates are written there.

    Attributes:
        authority: the certificate of who certified it.
        tries: connections since it was opened or shut, where they can be seen: not those that are
            refused or fall into a black hole.
    """

    def __init__(self, url: str, folder: Path | None = None) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._folder = folder
        self._issuer = make_pair("Authority of the suite") if folder else None
        self.authority = self._issuer.cert if self._issuer else ""
        self.tries = 0
        self._close = contextlib.ExitStack()
        self.port = _port_to_keep()
        self.open()

    @property
    def url(self) -> str:
        """The origin, without a slash at the end."""
        return f"{'https' if self._folder else 'http'}://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Lead to the target."""
        self._answer(self._relay, self._context(days=1))

    def shut(self, how: str) -> None:
        """Fail in the manner `how` from the next connection on; what is open is cut."""
        trusted = self._context(days=1)
        if how == "refused":
            self._close.close()
        elif how == "black hole":
            self._swallow()
        elif how == "silent":
            self._answer(_wait, trusted)
        elif how == "hangs up":
            self._answer(lambda connection: None, trusted)
        elif how == "portal":
            self._answer(lambda connection: _say(connection, _PORTAL + _PAGE), trusted)
        elif how == "portal elsewhere":
            self._answer(lambda connection: _say(connection, _ELSEWHERE), trusted)
        elif how == "unknown issuer":
            self._answer(self._relay, self._context(days=1, issuer=make_pair("Somebody")))
        elif how == "expired":
            self._answer(self._relay, self._context(days=-1))
        elif how == "no tls":
            self._answer(_refuse_the_handshake, None)
        else:
            raise ValueError(how)

    def close(self) -> None:
        """End everything."""
        self._close.close()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _context(self, *, days: int, issuer: Pair | None = None) -> ssl.SSLContext | None:
        if self._folder is None or self._issuer is None:
            return None
        pair = make_pair(
            "server", issuer=("Authority of the suite", issuer or self._issuer), days=days
        )
        return server_context(self._folder, pair)

    def _answer(
        self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None
    ) -> None:
        """Listen, and let `answer` deal with each connection in a thread of its own."""
        self._close.close()
        self.tries = 0
        listener = self._listener(128)
        connections: set[socket.socket] = set()

        def stop() -> None:
            # Closing alone does not wake who waits in accept.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            accepting.join(10)
            for connection in list(connections):
                _cut(connection)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                self.tries += 1
                connections.add(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), connection:
                # With a time-out, reading one way keeps no lock from writing the other.
                connection.settimeout(120)
                if context is None:
                    answer(connection)
                    return
                with context.wrap_socket(connection, server_side=True) as wrapped:
                    connections.add(wrapped)
                    answer(wrapped)

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        self._close.callback(stop)

    def _swallow(self) -> None:
        """Let the system drop what asks for a connection: those that wait are too many already."""
        self._close.close()
        listener = self._listener(0)
        self._close.callback(listener.close)
        for _ in range(8):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", self.port))
            self._close.callback(waiting.close)

    def _listener(self, backlog: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(backlog)
        return listener

    def _relay(self, connection: socket.socket) -> None:
        with socket.create_connection(self._target, timeout=10) as target:
            target.settimeout(None)
            back = threading.Thread(target=_pump, args=(target, connection), daemon=True)
            back.start()
            _pump(connection, target)
            back.join()


def _port_to_keep() -> int:
    """A free port of those that the system gives nobody by itself: nobody takes it while the door
    is shut."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _requests(connection: socket.socket) -> Iterator[bytes]:
    """Read up to the end of each request's head."""
    head = b""
    while data := connection.recv(_CHUNK):
        head += data
        while b"\r\n\r\n" in head:
            request, _, head = head.partition(b"\r\n\r\n")
            yield request


def _say(connection: socket.socket, answer: bytes) -> None:
    for request in _requests(connection):
        whole = not request.startswith(b"HEAD")
        connection.sendall(answer if whole else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")


def _refuse_the_handshake(connection: socket.socket) -> None:
    connection.recv(_CHUNK)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _wait(connection: socket.socket) -> None:
    while connection.recv(_CHUNK):
        pass


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
