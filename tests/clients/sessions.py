"""Kernels and terminals of a Jupyter server, used over its own API as a browser does.

Responsible for: starting one, running code or a command in it, and what it printed.
Not responsible for: the server (`server`).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import websocket
from clients.server import JupyterServer

ANSWER_SECONDS = 60.0


class Session:
    """A websocket of a server."""

    def __init__(self, server: JupyterServer, path: str) -> None:
        parts = urlsplit(server.host)
        self._socket = websocket.create_connection(
            f"ws://{parts.netloc}{parts.path}/{path}?session_id={uuid.uuid4().hex}",
            header=[f"Authorization: token {server.password}"],
            timeout=ANSWER_SECONDS,
            http_no_proxy=["*"],
        )

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Any) -> None:
        self._socket.send(json.dumps(message))

    def until(self, done: Callable[[Any], bool]) -> None:
        """Receive messages until `done` says that one was the last."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not done(json.loads(self._socket.recv())):
            assert time.monotonic() < deadline, "no answer"


class Kernel(Session):
    """A running kernel."""

    def run(self, code: str) -> str:
        """Execute code; what it printed.

        Raises:
            AssertionError: it raised.
        """
        own = uuid.uuid4().hex
        header = {"msg_id": own, "msg_type": "execute_request", "session": own, "username": ""}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        self.send(
            {
                "header": {**header, "version": "5.3", "date": ""},
                "parent_header": {},
                "metadata": {},
                "channel": "shell",
                "content": content,
            }
        )
        printed: list[str] = []

        def take(message: dict[str, Any]) -> bool:
            if message["parent_header"].get("msg_id") != own:
                return False
            kind, content = message["header"]["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                printed.append(content["text"])
            assert kind != "error", "\n".join(content["traceback"])
            return bool(kind == "status" and content["execution_state"] == "idle")

        self.until(take)
        return "".join(printed)


class Terminal(Session):
    """A running terminal."""

    def run(self, command: str) -> str:
        """Type a command line; what it printed."""
        end = uuid.uuid4().hex
        # Written so that the echo of the typed line does not look like the end.
        self.send(["stdin", f"{command}; echo {end[:9]}''{end[9:]}\r"])
        printed: list[str] = []

        def take(message: list[str]) -> bool:
            if message[0] == "stdout":
                printed.append(message[1])
            return end in "".join(printed)

        self.until(take)
        return "".join(printed)


@contextmanager
def kernel(server: JupyterServer, name: str) -> Iterator[Kernel]:
    """Start a kernel of a kernelspec."""
    answer = server.api("POST", "api/kernels", **_as_token(server), json={"name": name})
    assert answer.status_code == 201, answer.text
    id = answer.json()["id"]
    session = Kernel(server, f"api/kernels/{id}/channels")
    try:
        yield session
    finally:
        session.close()
        server.api("DELETE", f"api/kernels/{id}", **_as_token(server))


@contextmanager
def terminal(server: JupyterServer) -> Iterator[Terminal]:
    """Start a terminal."""
    answer = server.api("POST", "api/terminals", **_as_token(server))
    assert answer.status_code == 200, answer.text
    name = answer.json()["name"]
    session = Terminal(server, f"terminals/websocket/{name}")
    try:
        yield session
    finally:
        session.close()
        server.api("DELETE", f"api/terminals/{name}", **_as_token(server))


def _as_token(server: JupyterServer) -> dict[str, Any]:
    return {"auth": None, "headers": {"Authorization": f"token {server.password}"}}
