"""`jupyter hf-cache serve`: the cache without a Jupyter server.

Responsible for: the same routes on a Tornado server of their own, its admin password, telling how
to use it, and a clean end: running answers are finished before the service closes.
Not responsible for: options of the cache (`config`).
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.application import JupyterApp
from jupyter_core.paths import jupyter_runtime_dir
from tornado.netutil import bind_sockets
from traitlets import Float, Integer, TraitError, Unicode, default

from jupyter_hf_cache import __version__, runtime_file
from jupyter_hf_cache.config import HfCache
from jupyter_hf_cache.endpoint import Address, connect_host, default_distribution
from jupyter_hf_cache.startup import describe_failure, open_in_thread
from jupyter_hf_cache.web.application import make_server
from jupyter_hf_cache.web.context import ServiceSlot, WebContext
from jupyter_hf_cache.web.credentials import PasswordAuthenticator

if TYPE_CHECKING:
    from jupyter_hf_cache.service import CacheService

DEFAULT_PORT = 8484

_POLL_SECONDS = 0.05

_USAGE = """\
Hugging Face cache {version} at {url}

Use it in a shell:
  export HF_ENDPOINT={endpoint}
  hf download hf-internal-testing/tiny-random-bert
or with curl:
  curl -LO {endpoint}/hf-internal-testing/tiny-random-bert/resolve/main/config.json
Manage it:
  curl -u admin:PASSWORD {url}pulp/api/v3/remotes/hugging_face/hugging-face/
"""


class ServeApp(JupyterApp):
    """The stand-alone server; `c.HfCache.*` options hold here as in Jupyter."""

    name = "jupyter-hf-cache"
    version = __version__
    description = "Run the Hugging Face cache without a Jupyter server."
    examples = """
        jupyter hf-cache serve
        jupyter hf-cache serve --port 8080 --ip 0.0.0.0 --HfCache.allow_anonymous=network
        jupyter hf-cache serve --cache-dir /data/hf --upstream https://hf-mirror.example.org
    """
    classes = [HfCache]  # noqa: RUF012 - traitlets declares it so
    aliases = {  # noqa: RUF012
        "port": "ServeApp.port",
        "ip": "ServeApp.ip",
        "cache-dir": "HfCache.cache_dir",
        "upstream": "HfCache.default_upstream",
        "config": "JupyterApp.config_file",
        "log-level": "Application.log_level",
    }

    ip = Unicode(
        "127.0.0.1",
        help="""The address to listen on; 0.0.0.0 for all. Others then need a login or
        --HfCache.allow_anonymous=network.""",
    ).tag(config=True)
    port = Integer(
        DEFAULT_PORT, min=0, max=65535, help="The port to listen on; 0 for any free one."
    ).tag(config=True)
    stop_seconds = Float(
        30.0, min=0, help="Seconds that running answers get to finish when the server is stopped."
    ).tag(config=True)

    @default("log_level")
    def _default_log_level(self) -> int:
        return 20

    def start(self) -> None:
        """Serve until a signal comes.

        Raises:
            SystemExit: 1, with one line on stderr, if the server cannot start.
        """
        super().start()
        self.cache = HfCache(parent=self)
        try:
            password, invented = self._choose_password()
            sockets = self._bind()
            service = self._open_service()
        except _CannotStart as why:
            print(f"jupyter hf-cache serve: {why}", file=sys.stderr)
            self.exit(1)
        asyncio.run(self._serve(service, sockets, password, invented))

    def _choose_password(self) -> tuple[str, bool]:
        """The admin password, and whether it was made up just now."""
        try:
            password = self.cache.read_admin_password()
        except TraitError as error:
            raise _CannotStart(str(error)) from None
        return (password, False) if password else (secrets.token_urlsafe(18), True)

    def _bind(self) -> list[socket.socket]:
        try:
            return bind_sockets(self.port, self.ip)
        except OSError as error:
            raise _CannotStart(
                f"cannot listen on {self.ip} port {self.port} ({error.strerror}). "
                "Choose another with --port."
            ) from None

    def _open_service(self) -> CacheService:
        opening: Future[CacheService] = open_in_thread(self.cache)
        try:
            return opening.result()
        except Exception as error:
            raise _CannotStart(describe_failure(error)) from None

    async def _serve(
        self,
        service: CacheService,
        sockets: list[socket.socket],
        password: str,
        invented: bool,
    ) -> None:
        stop = _signalled()
        context = WebContext(
            slot=ServiceSlot(service),
            authenticator=PasswordAuthenticator(password),
            options=self.cache.access_options(ip=self.ip, names=_own_names(self.ip)),
            log=self.log,
        )
        server = make_server(context)
        server.add_sockets(sockets)
        address = Address(f"http://{connect_host(self.ip)}:{sockets[0].getsockname()[1]}", "/")
        file = self._write_runtime_file(address, context)
        self._tell(service, address, password if invented else None)
        await stop
        self.log.info("stopping: no new requests, %d still running", len(context.running))
        server.stop()
        await _wait_for(context.running, self.stop_seconds)
        await server.close_all_connections()
        if file is not None:
            runtime_file.remove(file)
        context.slot.take()
        context.pools.close()
        await asyncio.to_thread(service.close)

    def _write_runtime_file(self, address: Address, context: WebContext) -> Path | None:
        directory = Path(jupyter_runtime_dir())
        try:
            runtime_file.sweep(directory)
            return runtime_file.write(directory, address.url, context.cache_token, __version__)
        except OSError as error:
            self.log.warning("no runtime file (%s): clients have to be given the URL", error)
            return None

    def _tell(self, service: CacheService, address: Address, password: str | None) -> None:
        distribution = default_distribution(service)
        endpoint = address.endpoint(distribution.base_path if distribution else "BASE_PATH")
        text = _USAGE.format(version=__version__, url=address.url, endpoint=endpoint)
        if connect_host(self.ip) != self.ip:
            text += f"From other machines write {socket.gethostname()} for the host.\n"
        if password is not None:
            text += (
                f"The admin password of this run is {password}\n"
                "(JUPYTER_HF_CACHE_ADMIN_PASSWORD or a file sets one that stays.)\n"
            )
        print(text, flush=True)


class _CannotStart(Exception):
    """The server cannot start; the text says why and what to do."""


def _signalled() -> asyncio.Future[None]:
    """Done when the process is told to end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not future.done():
            future.set_result(None)

    def finish(*_: Any) -> None:
        loop.call_soon_threadsafe(end)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Handlers of the loop are missing on Windows.
        signal.signal(number, finish)
    return future


async def _wait_for(running: set[object], seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while running and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(_POLL_SECONDS)


def _own_names(ip: str) -> tuple[str, ...]:
    """This machine's names, for a server that others reach."""
    if connect_host(ip) == ip and ip.startswith("127."):
        return ()
    name = socket.gethostname()
    return (name, name.partition(".")[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run `jupyter hf-cache serve`.

    Args:
        argv: options after `serve`; None for those of the process.

    Returns:
        The exit code.
    """
    try:
        ServeApp.launch_instance(list(argv) if argv is not None else None)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
