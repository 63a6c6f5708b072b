"""Everything that runs while a benchmark does.

Responsible for: starting the Hub, the cache in both its forms, nginx and the bare handler, in an
order in which each finds what it needs, and stopping all of them whatever happens.
Not responsible for: what is measured (`measures`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.clients.server import JupyterServer, ServerProcess, StandAloneServer, wait_for

from .load import download
from .machine import BenchmarkError
from .nginx import Nginx
from .origin import BIG, MIB, SMALL_TEXT

_ROOT = Path(__file__).parents[2]
_BIG_FILE = f"{BIG}/resolve/main/model.bin"
_SMALL_FILE = f"{BIG}/resolve/main/config.json"


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


class Cache:
    """The cache in one of its forms.

    Args:
        name: what the table calls it.
        server: the running process.
    """

    def __init__(self, name: str, server: JupyterServer | StandAloneServer) -> None:
        self.name = name
        self.server: ServerProcess = server
        # By number: curl would try ::1 first.
        self.endpoint = server.endpoint.replace("//localhost:", "//127.0.0.1:")
        self.big = f"{self.endpoint}/{_BIG_FILE}"
        self.small = f"{self.endpoint}/{_SMALL_FILE}"

    def forget(self, repo: str = BIG) -> None:
        """Make the next download of the repo a cold one."""
        answer = self.server.api("DELETE", f"hf-cache/v1/repos/models/{repo}")
        if answer.status_code not in (200, 404):
            raise BenchmarkError(f"the cache did not forget {repo}: {answer.text}")

    def fill_states(self) -> set[str]:
        """The states of all fills that the cache knows of.

        Raises:
            BenchmarkError: one failed.
        """
        fills = self.server.api("GET", "hf-cache/v1/fills").json()["results"]
        states = {fill["state"] for fill in fills}
        if "failed" in states:
            raise BenchmarkError(f"a fill failed: {fills}")
        return states

    def wait_kept(self) -> None:
        """Wait until every fill is durable: only then is it there to be forgotten."""
        wait_for(lambda: self.fill_states() <= {"done"} or None, "end of the fills")


class Site:
    """All servers, running inside `with`.

    Args:
        work: an empty folder; everything is written there.
        big: size of the big file in bytes.
    """

    def __init__(self, work: Path, big: int) -> None:
        self.work = work
        self.size = big
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        self.origin = stack.enter_context(Child("origin", "--big", str(self.size // MIB)))
        url, cdn = self.origin.greeting["url"], self.origin.greeting["cdn_url"]
        self.direct = f"{url}/{_BIG_FILE}"
        self.hub = url
        self.nginx = Nginx(self.work / "nginx", self._signed_url(cdn))
        (self.nginx.static / "config.json").write_text(SMALL_TEXT, encoding="utf-8")
        download(self.direct, self.size, output=self.nginx.static / "model.bin")
        stack.callback(self.nginx.stop)
        self.nginx.start()
        self.bare = stack.enter_context(Child("bare", str(self.nginx.static / "config.json")))
        # Where the package itself was found by PYTHONPATH, the servers find it there too.
        path = os.environ.get("PYTHONPATH")
        environ = {"PYTHONPATH": path} if path else {}
        servers = (
            ("serve", StandAloneServer(self.work / "serve", url, environ=environ)),
            ("jupyter", JupyterServer(self.work / "jupyter", url, environ=environ)),
        )
        self.caches: dict[str, Cache] = {}
        for name, server in servers:
            # Before the start, which may be interrupted half-way.
            stack.callback(server.stop)
            server.start()
            self.caches[name] = Cache(name, server)

    def _signed_url(self, cdn: str) -> str:
        curl = ["curl", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{redirect_url}"]
        done = subprocess.run(
            [*curl, self.direct], capture_output=True, text=True, timeout=60, check=True
        )
        if not done.stdout.startswith(cdn):
            raise BenchmarkError(f"the Hub redirects to {done.stdout!r}")
        return done.stdout

    @property
    def serve(self) -> Cache:
        return self.caches["serve"]

    @property
    def jupyter(self) -> Cache:
        return self.caches["jupyter"]

    @property
    def bare_url(self) -> str:
        return f"http://127.0.0.1:{self.bare.greeting}/config.json"

    def limit(self, rate: float | None) -> None:
        """Let the Hub send this many MiB/s, all downloads together; None for all it can."""
        self.origin.ask({"rate": rate})

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
