"""Everything that runs while a benchmark does.

Responsible for: starting the Hub, the cache in both its forms, the bare handler and, where they are
there, nginx and olah, in an order in which each finds what it needs; stopping all of them whatever
happens.
Not responsible for: what is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.clients.server import JupyterServer, StandAloneServer

from .effort import Effort
from .load import download
from .machine import BenchmarkError
from .nginx import Nginx, ProxyCache
from .olah import Olah
from .origin import BIG, MIB, SMALL_TEXT
from .places import CONFIG, MODEL, Cache, Place, url_of

_ROOT = Path(__file__).parents[2]


class Child:
    """A Python module as a process that talks in lines and ends with its standard input."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.greeting = self._read()
        except BaseException:
            self._process.kill()
            self.__exit__()
            raise

    def ask(self, command: dict[str, Any]) -> Any:
        """Say one thing, return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self._module} ended")
        return json.loads(line)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Site:
    """All servers, running inside `with`.

    Args:
        work: an empty folder; everything is written there.
        effort: how large the files are.
        without: peers that take no part, of "nginx" and "olah".

    Attributes:
        hub: URL of the Hub.
        caches: the cache in its forms, by name.
        peers: others like it, by name.
        nginx: for static files; None where there is none.
        missing: why a peer takes no part, by name.
    """

    def __init__(self, work: Path, effort: Effort, without: Collection[str] = ()) -> None:
        self.work = work
        self.size = effort.size
        self._without = without
        self._stack = ExitStack()
        self.caches: dict[str, Cache] = {}
        self.peers: dict[str, Place] = {}
        self.nginx: Nginx | None = None
        self.missing: dict[str, str] = {}

    def __enter__(self) -> Site:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        self.origin = stack.enter_context(Child("origin", "--big", str(self.size // MIB)))
        self.hub, cdn = self.origin.greeting["url"], self.origin.greeting["cdn_url"]
        small = self.work / CONFIG
        small.write_text(SMALL_TEXT, encoding="utf-8")
        self._bare = stack.enter_context(Child("bare", str(small)))
        for name, server in self._own_servers():
            # Before the start, which may be interrupted half-way.
            stack.callback(server.stop)
            server.start()
            self.caches[name] = Cache(name, server)
        if "nginx" not in self._without:
            self._start_nginx(stack, cdn)
        if "olah" not in self._without:
            self._start_olah(stack, cdn)

    def _own_servers(self) -> tuple[tuple[str, JupyterServer | StandAloneServer], ...]:
        environ = self.environ
        return (
            ("serve", StandAloneServer(self.work / "serve", self.hub, environ=environ)),
            ("jupyter", JupyterServer(self.work / "jupyter", self.hub, environ=environ)),
        )

    @property
    def environ(self) -> dict[str, str]:
        """What servers need beside a clean environment: where the package itself was found by
        PYTHONPATH, they find it there too."""
        path = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": path} if path else {}

    def _start_nginx(self, stack: ExitStack, cdn: str) -> None:
        try:
            nginx = Nginx(self.work / "nginx", self.hub, cdn)
            stack.callback(nginx.stop)
            (nginx.static / CONFIG).write_text(SMALL_TEXT, encoding="utf-8")
            download(self.direct(BIG), self.size, output=nginx.static / MODEL)
            nginx.start()
        except BenchmarkError as why:
            self.missing["nginx"] = self.missing["nginx proxy_cache"] = f"nginx: {why}"
            return
        self.nginx = nginx
        self.peers["nginx proxy_cache"] = ProxyCache(nginx)

    def _start_olah(self, stack: ExitStack, cdn: str) -> None:
        try:
            olah = Olah(self.work / "olah", self.hub, cdn)
            stack.callback(olah.stop)
            olah.start()
        except (BenchmarkError, OSError) as why:
            self.missing["olah"] = f"olah: {why}"
            return
        self.peers["olah"] = olah

    @property
    def serve(self) -> Cache:
        return self.caches["serve"]

    @property
    def jupyter(self) -> Cache:
        return self.caches["jupyter"]

    @property
    def places(self) -> dict[str, Place]:
        """The caches, then the peers."""
        return {**self.caches, **self.peers}

    @property
    def bare_url(self) -> str:
        """A small file from a bare Tornado handler."""
        return f"http://127.0.0.1:{self._bare.greeting}/{CONFIG}"

    def direct(self, repo: str, file: str = MODEL) -> str:
        """A file at the Hub itself."""
        return url_of(self.hub, repo, file)

    def limit(self, total: float | None = None, connection: float | None = None) -> None:
        """Let the Hub send this many MiB/s, all downloads together and on each connection; None
        for all it can."""
        self.origin.ask({"limit": [total, connection]})

    def count(self) -> dict[str, int]:
        """What the Hub was asked since the last call."""
        found: dict[str, int] = self.origin.ask({"count": True})
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
