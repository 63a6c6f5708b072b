"""The server: two origins on their own loop in their own thread.

Responsible for: `FakeHub`, its switches, start, stop, pause and resume.
Not responsible for: answers (`routes`, `cdn`), default content (`defaults`).

All public methods may be called from any thread. Both origins listen on loopback only.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from .accounts import Accounts, User
from .catalogue import Catalogue, Repo
from .cdn import CdnHandler, SignedUrls
from .community import Collection
from .counters import Counters
from .delivery import Meter
from .faults import Fault, Faults
from .handler import OriginHandler
from .limits import Limits
from .routes import HubHandler
from .streams import Streams

T = TypeVar("T")
_BODY_LIMIT = 512 << 20
_START_TIMEOUT = 10.0


class FakeHub:
    """A Hugging Face Hub for tests.

    The CDN is named `localhost` where the Hub is named by number, so that it is another host to
    every client, not merely another port.

    Attributes:
        catalogue, accounts, counters, faults, limits, urls, streams: the parts, for tests to work
            with.
        page_size, expand_page_size, list_page_size, commits_page_size: entries per page.
        private_direct: small files of private and gated repos come with a direct 200, not the 307.
        renamed_resolve_redirects: an old id's files redirect; otherwise they are served at once.
        gated_tree_open: `tree` and `paths-info` of a gated repo answer everybody.
        url_lifetime: seconds a CDN URL is good for: requests that come later are refused with 403.
        url_bytes: body bytes a CDN URL is good for, all its requests together: what is under way
            then is cut, and requests that come later are refused with 403. None for any number.
        part_size: bytes of each part in which large files are uploaded; None for one piece.
        latency: seconds before any answer begins.
        rate: bytes per second of each CDN answer by itself, as of one connection; None for as fast
            as possible.
        total_rate: bytes per second of all CDN connections together.
    """

    def __init__(self, port: int = 0, cdn_port: int = 0) -> None:
        self.catalogue = Catalogue()
        self.accounts = Accounts()
        self.counters = Counters()
        self.faults = Faults()
        self.limits = Limits()
        self.urls = SignedUrls(self)
        self.cdn_meter = Meter()
        self.page_size = 1000
        self.expand_page_size = 100
        self.list_page_size = 1000
        self.commits_page_size = 50
        self.private_direct = True
        self.renamed_resolve_redirects = True
        self.gated_tree_open = True
        self.url_lifetime = 3600.0
        self.url_bytes: int | None = None
        self.latency = 0.0
        self.rate: float | None = None
        self.total_rate: float | None = None
        self._ports = [port, cdn_port]
        self._servers: list[HTTPServer] = []
        self._held: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._logins: dict[str, User | None] = {}
        self._public_url: str | None = None
        self._folder: Path | None = None
        self.parts: dict[str, dict[int, tuple[str, bytes]]] = {}
        self.part_size: int | None = None
        self.collections: dict[str, Collection] = {}
        self.buckets: dict[str, dict[str, int]] = {}
        self.streams = Streams()

    @classmethod
    def with_defaults(cls, port: int = 0, cdn_port: int = 0) -> FakeHub:
        """A Hub with the content described in `defaults`, not started yet."""
        from .defaults import fill

        hub = cls(port, cdn_port)
        fill(hub)
        return hub

    @property
    def url(self) -> str:
        """The Hub's origin, without a slash at the end."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def folder(self) -> Path:
        """Where this Hub may put files, until it stops."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="fake-hub-"))
        return self._folder

    @property
    def public_url(self) -> str:
        """What answers name the Hub by: its origin, unless a test gave it a name."""
        return self._public_url or self.url

    @public_url.setter
    def public_url(self, url: str | None) -> None:
        self._public_url = url

    @property
    def cdn_url(self) -> str:
        """The CDN's origin."""
        return f"http://localhost:{self._ports[1]}"

    @property
    def cas_url(self) -> str:
        """Where Xet clients are sent; it knows nothing, but its requests are counted."""
        return f"{self.cdn_url}/cas"

    def __enter__(self) -> FakeHub:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> FakeHub:
        """Listen; the ports are known afterwards."""
        if self._thread is not None:
            raise RuntimeError("already started")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-hub", daemon=True)
        self._thread.start()
        self._call(self._listen)
        return self

    def stop(self) -> None:
        """Close everything and end the thread. Safe to call twice."""
        if self._thread is None or self._loop is None:
            return
        self.faults.clear()
        self._let_go()
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_TIMEOUT)
        self._thread = self._loop = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def pause(self) -> None:
        """Refuse connections, and end those that are open, until `resume`."""
        self._wait(self._close())
        self._held = [_bound(port) for port in self._ports]

    def resume(self) -> None:
        """Listen on the same ports again."""
        self._let_go()
        self._call(self._listen)

    def _let_go(self) -> None:
        held, self._held = self._held, []
        for one in held:
            one.close()

    def repo(
        self,
        type: str,
        id: str,
        *,
        private: bool = False,
        gated: bool | str = False,
        disabled: bool = False,
        xet: bool = False,
    ) -> Repo:
        """Create a repo, see `Catalogue.create`."""
        return self.catalogue.create(
            type, id, private=private, gated=gated, disabled=disabled, xet=xet
        )

    def user(
        self,
        name: str,
        token: str,
        *,
        orgs: Iterable[str] = (),
        reads: Iterable[str] = (),
        accepted: Iterable[str] = (),
        role: str = "write",
    ) -> User:
        """Create a user who signs in with `token`."""
        return self.accounts.add(token, User(name, set(orgs), set(reads), set(accepted), role))

    def fault(self, kind: Any, path_contains: str = "", **rest: Any) -> Fault:
        """Arm a fault, see `Fault`."""
        return self.faults.add(Fault(kind, path_contains, **rest))

    def start_device_login(self) -> str:
        """A new device code that nobody approved yet."""
        code = secrets.token_hex(8)
        self._logins[code] = None
        return code

    def approve_device_logins(self, user: User) -> None:
        """What the user does in the browser: every waiting login becomes theirs."""
        self._logins = dict.fromkeys(self._logins, user)

    def device_login(self, code: str) -> tuple[bool, User | None]:
        """Whether the code is known, and who approved it."""
        return code in self._logins, self._logins.get(code)

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)  # bodies still being paced, say
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    def _listen(self) -> None:
        if self._servers:
            return
        handlers: tuple[type[OriginHandler], ...] = (HubHandler, CdnHandler)
        for index, handler in enumerate(handlers):
            sockets = bind_sockets(self._ports[index], "127.0.0.1", family=socket.AF_INET)
            self._ports[index] = sockets[0].getsockname()[1]
            application = Application(
                [(r".*", handler, {"hub": self})], log_function=lambda handler: None
            )
            server = HTTPServer(application, max_body_size=_BODY_LIMIT, max_buffer_size=_BODY_LIMIT)
            server.add_sockets(sockets)
            self._servers.append(server)

    async def _close(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.stop()
        for server in servers:
            await server.close_all_connections()

    def _call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return self._wait(run())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("not started")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(_START_TIMEOUT)


def _bound(port: int) -> socket.socket:
    """A socket that refuses connections, and keeps the system from giving its port to another."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held
