"""A line to a server that breaks.

Responsible for: passing bytes between a client and a server on this machine, and breaking one
answer off where it is told to.
Not responsible for: what they say.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

_PIECE = 64 * 1024


class CuttingRelay:
    """A relay on loopback; a context manager.

    Args:
        port: of the server.
        after: the first answer that is longer than so many bytes is broken off there.
        on_cut: called once, in the relay's thread, before the client can notice.
    """

    def __init__(self, port: int, *, after: int, on_cut: Callable[[], object]) -> None:
        self._target = ("127.0.0.1", port)
        self._after = after
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.was_cut = False

    def __enter__(self) -> CuttingRelay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for one, other, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pass, args=(one, other, answers), daemon=True
                    ).start()

    def _pass(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := one.recv(_PIECE):
                passed += len(data)
                other.sendall(data)
                if answers and passed > self._after and self._may_cut():
                    break
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if answers:
            self._close(one, other)

    @staticmethod
    def _close(*ends: socket.socket) -> None:
        for end in ends:
            end.close()

    def _may_cut(self) -> bool:
        with self._lock:
            if self.was_cut:
                return False
            self.was_cut = True
        self._on_cut()
        return True
