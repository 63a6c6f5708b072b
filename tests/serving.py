"""A running cache before the suite's own Hub, for tests of the whole path.

Responsible for: the real service behind the real handlers, in a thread of its own, stopped and
started again on the same directories.
Not responsible for: Jupyter (`tests/test_app.py`), or other processes (`tests/clients`).
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from fake_hub import FakeHub
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from jupyter_hf_cache.service import CacheService, ServiceOptions
from jupyter_hf_cache.web.context import AccessOptions, ServiceSlot, WebContext
from jupyter_hf_cache.web.credentials import PasswordAuthenticator
from jupyter_hf_cache.web.routes import routes

BASE_URL = "/user/a%40b/"
ADMIN = ("admin", "password")


def lose(directory: Path) -> None:
    """Remove a directory of tables.

    A thread that ends late closes its connection late, and its SQLite files vanish with that.
    """
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


class RunningCache:
    """A cache with distribution `default` at `hf`, before `hub`.

    Args:
        root: directories are made below it and found again by the next one.
        options: of `ServiceOptions`; access options are those of `AccessOptions`.
    """

    def __init__(
        self, root: Path, hub: FakeHub, *, access: AccessOptions | None = None, **options: Any
    ) -> None:
        options = {"min_free_space": 0, "cache_size_limit": 10**11, **options}
        self.root = root
        self.hub = hub
        self.service = CacheService.open(
            ServiceOptions(
                cache_dir=root / "cache",
                data_dir=root / "data",
                config_dir=root / "config",
                default_upstream=hub.url,
                **options,
            )
        )
        self.context = WebContext(
            slot=ServiceSlot(self.service),
            authenticator=PasswordAuthenticator(ADMIN[1]),
            base_url=BASE_URL,
            options=access or AccessOptions(),
        )
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            app = Application(
                [(BASE_URL + path, cls, kwargs) for path, cls, kwargs in routes(self.context)]
            )
            server = self._serve(app)
            ready.set()
            await self._stopping.wait()
            server.stop()
            await server.close_all_connections()

        asyncio.run(main())

    def _serve(self, app: Application) -> HTTPServer:
        """Listen; sub-classes do so in other ways."""
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        server = HTTPServer(app)
        server.add_sockets(sockets)
        return server

    @property
    def host(self) -> str:
        """Scheme, host, port and base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}{BASE_URL.rstrip('/')}"

    @property
    def endpoint(self) -> str:
        """What a client sets HF_ENDPOINT to, without a capability: an anonymous entrance."""
        return f"{self.host}/pulp/content/hf"

    @property
    def trusted(self) -> str:
        """The endpoint with a capability."""
        capabilities = self.context.capabilities
        assert capabilities is not None
        return f"{self.host}/pulp/content/~{capabilities.issue(3600.0)}/hf"

    def get(self, path: str, *, trusted: bool = False, **options: Any) -> requests.Response:
        """GET below the endpoint."""
        return self.request("GET", path, trusted=trusted, **options)

    def head(self, path: str, *, trusted: bool = False, **options: Any) -> requests.Response:
        """HEAD below the endpoint."""
        return self.request("HEAD", path, trusted=trusted, **options)

    def request(
        self, method: str, path: str, *, trusted: bool = False, **options: Any
    ) -> requests.Response:
        """Any request below the endpoint, redirects not followed."""
        base = self.trusted if trusted else self.endpoint
        options.setdefault("allow_redirects", False)
        return requests.request(method, base + path, timeout=60, **options)

    def api(self, method: str, path: str, **options: Any) -> requests.Response:
        """Call the cache API as the admin."""
        url = f"{self.host}/hf-cache/v1/{path}"
        return requests.request(method, url, auth=ADMIN, timeout=60, **options)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for something that happens in another thread."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    def wait_idle(self) -> None:
        """Wait until no fill runs."""
        self.wait_until(
            lambda: all(
                fill.state not in ("running", "verified") for fill in self.service.fills.reports()
            )
        )

    def close(self) -> None:
        """Stop the server and the service."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        self.service.close()
        self.context.pools.close()

    def __enter__(self) -> RunningCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
