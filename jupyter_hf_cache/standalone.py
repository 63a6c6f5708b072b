"""`jupyter hf-cache serve`: the cache without a Jupyter server.

Responsible for: its options, its admin password, its port, telling how to use it and where clients
find it, in one process or in several.
Not responsible for: options of the cache (`config`), answering (`server`) or keeping several
processes at work (`workers`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.application import JupyterApp
from jupyter_core.paths import jupyter_runtime_dir
from tornado.netutil import bind_sockets
from traitlets import Float, Integer, TraitError, Unicode, default
from traitlets.config import catch_config_error

from jupyter_hf_cache import __version__, runtime_file
from jupyter_hf_cache.config import PASSWORD_VARIABLE, HfCache
from jupyter_hf_cache.endpoint import Address, connect_host, default_base_path
from jupyter_hf_cache.server import Stop, serve
from jupyter_hf_cache.startup import describe_failure, open_in_thread
from jupyter_hf_cache.web.context import ServiceSlot, WebContext, new_cache_token
from jupyter_hf_cache.web.credentials import PasswordAuthenticator
from jupyter_hf_cache.worker import Assignment
from jupyter_hf_cache.workers import CannotStart, Orders, Supervisor

if TYPE_CHECKING:
    from jupyter_hf_cache.service import CacheService

DEFAULT_PORT = 8484
MOST_WORKERS = 64

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
        jupyter hf-cache serve --workers 4
    """
    classes = [HfCache]  # noqa: RUF012 - traitlets declares it so
    aliases = {  # noqa: RUF012
        "port": "ServeApp.port",
        "ip": "ServeApp.ip",
        "workers": "ServeApp.workers",
        "cache-dir": "HfCache.cache_dir",
        "upstream": "HfCache.default_upstream",
        "cors-origin": "HfCache.cors_origins",
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
    workers = Integer(
        1,
        min=1,
        max=MOST_WORKERS,
        help="""How many processes answer on the port. One is enough for a few people; more use more
        processors, and take about 80 MB each.""",
    ).tag(config=True)
    stop_seconds = Float(
        30.0, min=0, help="Seconds that running answers get to finish when the server is stopped."
    ).tag(config=True)

    @default("log_level")
    def _default_log_level(self) -> int:
        return 20

    @catch_config_error
    def initialize(self, argv: Sequence[str] | None = None) -> None:
        """Read the configuration."""
        super().initialize(argv)
        self.cache = HfCache(parent=self)

    def start(self) -> None:
        """Serve until a signal comes; a second one ends it without waiting.

        Raises:
            SystemExit: 1, with one line on stderr, if the server cannot start or go on.
        """
        super().start()
        try:
            if self.workers > 1 and os.name != "posix":
                raise CannotStart("--workers needs Linux or macOS; leave it at 1 here.")
            password, invented = self._choose_password()
            asyncio.run(self._run(self._bind(), password, password if invented else None))
        except CannotStart as why:
            print(f"jupyter hf-cache serve: {why}", file=sys.stderr)
            self.exit(1)

    def make_context(self, service: CacheService, password: str, cache_token: str) -> WebContext:
        """What the handlers of one process share."""
        return WebContext(
            slot=ServiceSlot(service),
            authenticator=PasswordAuthenticator(password),
            options=self.cache.access_options(ip=self.ip, names=_own_names(self.ip), pages=True),
            cache_token=cache_token,
            log=self.log,
        )

    def _choose_password(self) -> tuple[str, bool]:
        """The admin password, and whether it was made up just now."""
        try:
            password = self.cache.read_admin_password()
        except TraitError as error:
            raise CannotStart(str(error)) from None
        return (password, False) if password else (secrets.token_urlsafe(18), True)

    def _bind(self) -> list[socket.socket]:
        try:
            return bind_sockets(self.port, self.ip)
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {self.ip} port {self.port} ({error.strerror}). "
                "Choose another with --port."
            ) from None

    async def _run(self, sockets: list[socket.socket], password: str, invented: str | None) -> None:
        port = sockets[0].getsockname()[1]
        address = Address(f"http://{connect_host(self.ip)}:{port}", "/")
        token = new_cache_token()
        if self.workers == 1:
            service = await self._open_service()
            context = self.make_context(service, password, token)
            stop = _signalled()
            with self._announced(default_base_path(service), address, token, invented):
                await serve(context, sockets, stop, self.stop_seconds)
            return
        orders, stop = self._orders(sockets, password, token), _signalled()
        supervisor = Supervisor(self.workers, orders, sockets, self.log)
        base_path = await supervisor.start(stop)
        if base_path is not None:
            with self._announced(base_path, address, token, invented):
                await supervisor.run(stop)

    async def _open_service(self) -> CacheService:
        try:
            return await asyncio.wrap_future(open_in_thread(self.cache))
        except Exception as error:
            raise CannotStart(describe_failure(error)) from None

    def _orders(self, sockets: list[socket.socket], password: str, cache_token: str) -> Orders:
        assignment = Assignment(
            number=1,
            argv=list(self.argv),
            password=password,
            cache_token=cache_token,
            sockets=[one.fileno() for one in sockets],
        )
        environ = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE}
        return Orders(assignment, environ, self.stop_seconds)

    @contextmanager
    def _announced(
        self, base_path: str, address: Address, token: str, invented: str | None
    ) -> Iterator[None]:
        """Tell people about the server, and let clients of this user find it while it runs."""
        directory, file = Path(jupyter_runtime_dir()), None
        try:
            runtime_file.sweep(directory)
            file = runtime_file.write(directory, address.url, token, __version__)
        except OSError as error:
            self.log.warning("no runtime file (%s): clients have to be given the URL", error)
        self._tell(base_path, address, invented)
        try:
            yield
        finally:
            if file is not None:
                runtime_file.remove(file)

    def _tell(self, base_path: str, address: Address, password: str | None) -> None:
        endpoint = address.endpoint(base_path or "BASE_PATH")
        text = _USAGE.format(version=__version__, url=address.url, endpoint=endpoint)
        if connect_host(self.ip) != self.ip:
            text += f"From other machines write {socket.gethostname()} for the host.\n"
        if password is not None:
            text += (
                f"The admin password of this run is {password}\n"
                "(JUPYTER_HF_CACHE_ADMIN_PASSWORD or a file sets one that stays.)\n"
            )
        print(text, flush=True)


def _signalled() -> Stop:
    """Asked for by the signals that end a process."""
    loop, stop = asyncio.get_running_loop(), Stop()

    def ask(*_: Any) -> None:
        loop.call_soon_threadsafe(stop.ask)

    for number in (signal.SIGTERM, signal.SIGINT):
        # Handlers of the loop are missing on Windows.
        signal.signal(number, ask)
    return stop


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
