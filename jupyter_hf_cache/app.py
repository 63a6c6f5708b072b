"""The Jupyter server extension.

Responsible for: wiring, start and stop. Whatever happens to the cache, Jupyter starts, and starts
in time: the service is opened in a thread, and kernels are pointed at it only after a request
through it has succeeded.
Not responsible for: what is wired together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.extension.manager import ExtensionManager
from jupyter_server.serverapp import ServerApp
from tornado.httpserver import HTTPServer

from jupyter_hf_cache import __version__, runtime_file
from jupyter_hf_cache.config import HfCache
from jupyter_hf_cache.endpoint import (
    Address,
    connect_host,
    default_distribution,
    open_content_port,
    self_test,
)
from jupyter_hf_cache.environment import Injection, inherited_upstream
from jupyter_hf_cache.jupyter_web import JupyterAuthenticator, jupyter_routes
from jupyter_hf_cache.startup import close_when_open, describe_failure, open_in_thread
from jupyter_hf_cache.web.context import ServiceSlot, WebContext
from jupyter_hf_cache.web.credentials import PasswordAuthenticator

if TYPE_CHECKING:
    from jupyter_hf_cache.service import CacheService

_START_HOOK_SECONDS = 5.0
_CLOSE_SECONDS = 10.0
_HEARTBEAT_SECONDS = 30.0
_DAY = 86400.0


class NoEndpoint(Exception):
    """Kernels cannot be pointed at the cache; the text says why."""


class HfCacheApp(ExtensionApp):
    """The Hugging Face cache inside a Jupyter server; its options are `c.HfCache.*`."""

    name = "hf_cache"
    description = "A Hugging Face cache for every kernel and terminal of this server."
    classes = [ServerApp, HfCache]  # noqa: RUF012 - traitlets declares it so
    load_other_extensions = True

    def initialize_settings(self) -> None:
        """Build the shared objects and begin to open the service."""
        server = self._server
        self.options = HfCache(parent=self)
        self._password = self.options.read_admin_password()
        self.authenticator = JupyterAuthenticator(server.identity_provider, self._password)
        self._own_hub = inherited_upstream(os.environ)
        self.injection = Injection(os.environ, self.options.injected_names())
        self.context = WebContext(
            slot=ServiceSlot(),
            authenticator=self.authenticator,
            options=self.options.access_options(
                ip=server.ip,
                any_host=server.allow_remote_access,
                names=tuple(server.local_hostnames),
            ),
            base_url=server.base_url,
            injection=self.injection,
            log=self.log,
        )
        self.context.on_activity.append(self._note_activity)
        self.settings["hf_cache_context"] = self.context
        self._tasks: list[asyncio.Task[None]] = []
        self._content_port: HTTPServer | None = None
        self._runtime_file: Path | None = None
        self._opening: Future[CacheService] = open_in_thread(self.options)

    def initialize_handlers(self) -> None:
        """Register the routes; they answer 503 until the service is open."""
        self.handlers.extend(jupyter_routes(self.context))
        if not hasattr(ExtensionManager, "start_all_extensions"):
            # Older releases of jupyter_server call no start hook. They bind the port in the loop's
            # first turn, so this takes the second.
            loop = self._server.io_loop
            loop.add_callback(loop.add_callback, self._start_jupyter_server_extension, self._server)

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        """The port is bound and the loop runs. Waits a moment, so that a kernel which is started
        together with the server finds the endpoint; a slow disk does not hold anybody up."""
        if not self._tasks:
            self._tasks.append(asyncio.create_task(self._start_up()))
        await asyncio.wait({self._tasks[0]}, timeout=_START_HOOK_SECONDS)

    async def stop_extension(self) -> None:
        """Put the environment back and close everything; runs on SIGTERM, but not on a kill."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.injection.restore()
        if self._runtime_file is not None:
            runtime_file.remove(self._runtime_file)
        if self._content_port is not None:
            self._content_port.stop()
            await self._content_port.close_all_connections()
        await self._close_service()
        self.context.pools.close()

    def current_activity(self) -> dict[str, int] | None:
        """How many answers are on their way; counts for `shutdown_no_activity_timeout`."""
        running = self._count_transfers()
        return {"transfers": running} if running else None

    @property
    def _server(self) -> ServerApp:
        if self.serverapp is None:
            raise RuntimeError("the extension has not been linked to a server")
        return self.serverapp

    async def _start_up(self) -> None:
        try:
            self._write_runtime_file()
            service = await asyncio.wrap_future(self._opening)
            self.context.slot.fill(service)
            await self.context.run(self._tell_about_own_hub, service)
            address = self._address()
            endpoint = await self._make_endpoint(service, address)
        except NoEndpoint as why:
            self._give_up(str(why))
        except Exception as error:
            problem = describe_failure(error)
            if self.context.slot.service is None:
                self.context.slot.fail(problem)
            self._give_up(problem)
        else:
            self.injection.offer(endpoint)
            self._tasks.append(asyncio.create_task(self._renew(service, address)))
            self._tasks.append(asyncio.create_task(self._beat()))
            self.log.info("Hugging Face cache: %s", self._describe(address))

    def _tell_about_own_hub(self, service: CacheService) -> None:
        """The user had an HF_ENDPOINT: it is the upstream now, unless an earlier start made
        another.
        """
        wanted = self._own_hub
        distribution = default_distribution(service)
        if wanted is None or distribution is None or not distribution.remote:
            return
        remote = service.config.remote(distribution.remote)
        if remote is None:
            return
        if remote.upstream_url == wanted:
            self.log.info("Hugging Face cache: the upstream is %s, from HF_ENDPOINT", wanted)
            return
        problem = (
            f"HF_ENDPOINT was set to {wanted}, but the remote {remote.name} goes to "
            f"{remote.upstream_url}. Change the url of the remote if that is not wanted."
        )
        service.problems.append(problem)
        self.log.warning("Hugging Face cache: %s", problem)

    def _give_up(self, problem: str) -> None:
        self.injection.refuse(problem)
        self.log.warning("Hugging Face cache: kernels do not use it. %s", problem)

    def _write_runtime_file(self) -> None:
        server = self._server
        if server.sock:
            # Clients of the API speak TCP.
            return
        directory = Path(jupyter_runtime_dir())
        scheme = "https" if server.certfile else "http"
        url = f"{scheme}://{connect_host(server.ip)}:{server.port}{server.base_url}"
        try:
            runtime_file.sweep(directory)
            self._runtime_file = runtime_file.write(
                directory, url, self.context.cache_token, __version__
            )
        except OSError as error:
            self.log.warning("Hugging Face cache: no runtime file (%s)", error.strerror)
            return
        self.injection.announce(self._runtime_file)

    def _address(self) -> Address:
        server = self._server
        if not (server.sock or server.certfile):
            return Address(f"http://{connect_host(server.ip)}:{server.port}", server.base_url)
        authenticator = PasswordAuthenticator(self._password, lambda: (self.authenticator.token,))
        self._content_port, address = open_content_port(self.context, authenticator)
        return address

    async def _make_endpoint(self, service: CacheService, address: Address) -> str:
        """A tested endpoint with a fresh capability.

        Raises:
            NoEndpoint: with the reason.
        """
        distribution = await self.context.run(default_distribution, service)
        if distribution is None:
            raise NoEndpoint("There is no distribution named default to point kernels at.")
        remote = service.config.remote(distribution.remote) if distribution.remote else None
        if remote is not None and address.leads_here(remote.upstream_url):
            raise NoEndpoint(
                f"The upstream of the remote {remote.name} is this cache. Set its url to a Hub."
            )
        capability = self._new_capability()
        endpoint = address.endpoint(distribution.base_path, capability)
        problem = await self.context.run(self_test, endpoint)
        if problem is not None:
            raise NoEndpoint(problem)
        return endpoint

    def _new_capability(self) -> str:
        capabilities = self.context.capabilities
        if capabilities is None:
            raise NoEndpoint(self.context.problem or "The cache is not open.")
        return capabilities.issue(self.context.options.capability_ttl)

    async def _renew(self, service: CacheService, address: Address) -> None:
        """New kernels get an endpoint that is good for long."""
        while True:
            await asyncio.sleep(min(self.context.options.capability_ttl / 2, _DAY))
            with contextlib.suppress(NoEndpoint):
                self.injection.offer(await self._make_endpoint(service, address))

    async def _beat(self) -> None:
        """A long download has no events of its own, but must count as activity all the time."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            if self._count_transfers() or self._is_filling():
                self.context.touch()

    def _is_filling(self) -> bool:
        """A download goes on, whether or not somebody still waits for it."""
        service = self.context.slot.service
        return service is not None and any(
            report.state in ("running", "verifying") for report in service.fills.reports()
        )

    def _note_activity(self, now: datetime) -> None:
        # Jupyter looks at every setting with this ending; hub cullers and its own ask for the
        # latest.
        self._server.web_app.settings["hf_cache_last_activity"] = now

    def _count_transfers(self) -> int:
        running: Sequence[Any] = list(self.context.running)
        return sum(getattr(handler, "surface", "") == "content" for handler in running)

    async def _close_service(self) -> None:
        service = self.context.slot.take()
        if service is None:
            close_when_open(self._opening)
            return
        closing = asyncio.create_task(asyncio.to_thread(service.close))
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_SECONDS)
        if not done:
            self.log.warning("Hugging Face cache: it takes long to close; not waiting for it")

    def _describe(self, address: Address) -> str:
        state = self.injection.state()
        where = f"served at {address.url}pulp/content/"
        return where if state["on"] else f"{where}; not used by kernels: {state['reason']}"
