"""How long a start takes, and how much memory a server at rest has.

Responsible for: the stand-alone server from its start to its first answers; what the extension adds
to a Jupyter server's start and to its memory.
Not responsible for: the servers that the other rows ask; these are servers of their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import requests

from tests.clients.server import BareJupyterServer, JupyterServer, ServerProcess, StandAloneServer

from .effort import Effort
from .machine import BenchmarkError, memory_mib
from .origin import BIG
from .places import CONFIG, url_of
from .report import Row, row
from .rounds import Figures, Measured, interleave
from .servers import Site

_LOOK_SECONDS = 0.005
_START_SECONDS = 60.0
_REST_SECONDS = 1.0


def startup(site: Site, effort: Effort) -> Iterator[Row]:
    """Starts on directories that hold a small file already."""
    site.limit()
    serve = StandAloneServer(site.work / "start-serve", site.hub, environ=site.environ)
    jupyter = JupyterServer(site.work / "start-jupyter", site.hub, environ=site.environ)
    bare = BareJupyterServer(site.work / "start-bare", site.hub, environ=site.environ)
    commit = _keep_small_file(serve, lambda: serve.endpoint)
    _keep_small_file(jupyter, lambda: jupyter.endpoint)
    measured = interleave(
        effort.rounds,
        {
            "serve": partial(_serve, site, serve, commit),
            "bare": partial(_jupyter, bare),
            "jupyter": partial(_jupyter, jupyter),
        },
    )
    yield measured.row("start to first small file", "serve", "s", "first")
    yield measured.row("start: requests to the Hub", "serve", "", "asked", limit=("0", 0.0))
    yield measured.row("at rest: RssAnon", "serve", "MiB", "anonymous")
    yield from _compared(measured)


def _compared(measured: Measured) -> Iterator[Row]:
    """The Jupyter server with the extension beside the one without."""
    without = ("without it", "bare")
    yield measured.row("start to first answer", "jupyter", "s", "first", beside=without)
    yield measured.row("start to kernels use the cache", "jupyter", "s", "ready")
    for what, figure in (("RssAnon", "anonymous"), ("RSS", "resident")):
        before = measured.median("bare", figure)
        added = [value - before for value in measured.samples("jupyter", figure)]
        yield row(
            f"at rest: {what} above a Jupyter server without it", "jupyter", "MiB", added,
            limit=("≤ 80 MiB", 80.0), note=measured.failures.get("bare", ""),
        )  # fmt: skip


def _keep_small_file(server: ServerProcess, endpoint: Callable[[], str]) -> str:
    """Download it once; the commit it belongs to."""
    with server:
        answer = requests.get(url_of(endpoint(), BIG, CONFIG), timeout=30)
        answer.raise_for_status()
        return answer.headers["X-Repo-Commit"]


def _serve(site: Site, server: StandAloneServer, commit: str) -> Figures:
    site.count()
    # By its commit: whether a branch has moved would be asked of the Hub after a while.
    url = url_of(server.endpoint, BIG, CONFIG, commit)
    first = _start(server, lambda: requests.get(url, timeout=30))
    try:
        asked = site.count()["requests"]
        time.sleep(_REST_SECONDS)
        return {"first": first, "asked": asked, "anonymous": memory_mib(server.pid)}
    finally:
        server.stop()


def _jupyter(server: JupyterServer) -> Figures:
    started = time.perf_counter()
    first = _start(server, server.ask_jupyter)
    try:
        ready = time.perf_counter() - started
        time.sleep(_REST_SECONDS)
        return {
            "first": first,
            "ready": ready,
            "anonymous": memory_mib(server.pid),
            "resident": memory_mib(server.pid, "VmRSS"),
        }
    finally:
        server.stop()


def _start(server: ServerProcess, ask: Callable[[], requests.Response]) -> float:
    """Start, and ask all the time; seconds until the first answer."""
    problems: list[BaseException] = []

    def start() -> None:
        try:
            server.start()
        except BaseException as problem:
            problems.append(problem)

    starting = threading.Thread(target=start)
    started = time.perf_counter()
    starting.start()
    try:
        while time.perf_counter() < started + _START_SECONDS and not problems:
            with suppress(requests.ConnectionError):
                if ask().ok:
                    return time.perf_counter() - started
            time.sleep(_LOOK_SECONDS)
    finally:
        starting.join()
    server.stop()
    raise BenchmarkError(f"no first answer: {problems}")
