"""A server with nothing but the REST API, for tests.

Responsible for: running the real handlers and a real configuration in a thread of their own.
Not responsible for: content, or the rest of the service.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import requests
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from jupyter_hf_cache.storage.config_store import ConfigStore
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.secrets import SecretBox
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.web import pulp_api
from jupyter_hf_cache.web.context import ServiceSlot, WebContext
from jupyter_hf_cache.web.credentials import PasswordAuthenticator
from jupyter_hf_cache.web.routes import routes

API = "/pulp/api/v3/"
REMOTES = f"{API}remotes/hugging_face/hugging-face/"
DISTRIBUTIONS = f"{API}distributions/hugging_face/hugging-face/"
TASKS = f"{API}tasks/"
ADMIN = ("admin", "password")


@dataclass
class PulpServer:
    """A running server.

    Args:
        host: scheme, host, port and base URL without the slash at the end.
        root: everything that it writes.
    """

    host: str
    port: int
    root: Path
    store: ConfigStore
    session: requests.Session = field(default_factory=requests.Session)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request as the admin; `body` is sent as JSON."""
        options.setdefault("auth", ADMIN)
        if body is not None:
            options["json"] = body
        return self.session.request(method, self.host + path, timeout=30, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET as the admin."""
        return self.call("GET", path, **options)

    def remote(self, **fields: Any) -> dict[str, Any]:
        """Create a remote and return the answer."""
        body = {"name": "r", "url": "https://huggingface.co", **fields}
        answer = self.call("POST", REMOTES, body)
        assert answer.status_code == 201, answer.text
        return cast("dict[str, Any]", answer.json())

    def distribution(self, **fields: Any) -> dict[str, Any]:
        """Create a distribution and return the answer."""
        answer = self.call("POST", DISTRIBUTIONS, {"name": "d", "base_path": "hf", **fields})
        assert answer.status_code == 202, answer.text
        return cast("dict[str, Any]", answer.json())


@contextmanager
def pulp_server(root: Path, base_url: str = "/", *, is_open: bool = True) -> Iterator[PulpServer]:
    """Run a server on a free port until the block ends."""
    table = StateTable(root / "state" / "config")
    secrets = SecretBox(b"k" * 32)
    counters = Generations(root / "generations")
    store = ConfigStore(table, secrets, root / "config-copy.json", counters)
    service: Any = SimpleNamespace(
        config=store, secrets=secrets, options=SimpleNamespace(cache_dir=root)
    )
    (socket,) = bind_sockets(0, "127.0.0.1")
    port = socket.getsockname()[1]
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        context = WebContext(
            slot=ServiceSlot(service if is_open else None),
            authenticator=PasswordAuthenticator(ADMIN[1]),
            base_url=base_url,
        )
        rules = [(base_url + pattern, *rest) for pattern, *rest in routes(context, pulp_api.ROUTES)]
        server = HTTPServer(Application(cast("Any", rules)))
        server.add_sockets([socket])
        ready.set()
        await stop.wait()
        server.stop()
        await server.close_all_connections()
        context.pools.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        server = PulpServer(f"http://127.0.0.1:{port}{base_url.rstrip('/')}", port, root, store)
        with server.session:
            yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()
        table.close()
