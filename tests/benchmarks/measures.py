"""What is measured.

Responsible for: the groups of figures, each from interleaved rounds over a running `Site`.
Not responsible for: servers (`servers`), clients (`load`), how figures are shown (`report`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .load import Latencies, Probe, begin_and_leave, download, interleave, requests_per_second
from .machine import BenchmarkError, anonymous_mib, cpu_seconds
from .origin import MIB
from .report import Goal, Row, row, with_goal
from .servers import Cache, Site

CAP = 300.0
"""MiB/s that the Hub may send in the capped cold rounds."""

_MANY = "org/many-files"
_MANY_FILES = 300
_GIB = 1024 * MIB
_FILL_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done.

    Args:
        rounds: of each figure.
        seconds: of each run of many requests, and at least of each watch over the UI endpoint.
    """

    rounds: int
    seconds: float


Measure = Callable[[Site, Effort], Iterator[Row]]


def warm(site: Site, effort: Effort) -> Iterator[Row]:
    """Throughput and CPU of kept files."""
    urls = _warm_urls(site)
    pids = {name: cache.server.pid for name, cache in site.caches.items()}
    pids |= {"nginx": site.nginx.pid, "nginx proxy_cache": site.nginx.pid}
    for clients in (1, 8):
        cpu: dict[str, list[float]] = {name: [] for name in urls}

        def one(name: str, clients: int = clients, cpu: dict[str, list[float]] = cpu) -> float:
            before = cpu_seconds(pids[name])
            seconds = download(urls[name], site.size, clients).seconds
            used = cpu_seconds(pids[name]) - before
            cpu[name].append(used * _GIB / (site.size * clients))
            return site.size * clients / MIB / seconds

        speed = interleave(effort.rounds, {name: partial(one, name) for name in urls})
        what = f"warm, {clients} client{'s'[: clients > 1]}"
        static = ("nginx", speed["nginx"])
        for name in site.caches:
            yield row(what, name, "MiB/s", speed[name], static, at_least=0.9)
        yield row(what, "nginx proxy_cache", "MiB/s", speed["nginx proxy_cache"], static)
        for name in site.caches:
            beside = ("nginx", cpu["nginx"])
            yield row(f"{what}: CPU", name, "s/GiB", cpu[name], beside, at_most=2.5)


def _warm_urls(site: Site) -> dict[str, str]:
    """Where the big file is kept, once everybody keeps it."""
    site.limit(None)
    for cache in site.caches.values():
        download(cache.big, site.size)
        cache.wait_kept()
    download(site.nginx.cached, site.size)
    urls = {name: cache.big for name, cache in site.caches.items()}
    return {**urls, "nginx": site.nginx.file("model.bin"), "nginx proxy_cache": site.nginx.cached}


def cold(site: Site, effort: Effort) -> Iterator[Row]:
    """Throughput and first byte of files that come from the Hub."""
    yield from _capped(site, effort)
    yield from _uncapped(site, effort)


def _capped(site: Site, effort: Effort) -> Iterator[Row]:
    site.limit(CAP)
    first: dict[str, list[float]] = {}
    transfers: dict[str, list[float]] = {}

    def one(name: str, forget: Callable[[], None], url: str, clients: int) -> float:
        forget()
        os.sync()
        site.count()
        done = download(url, site.size, clients)
        first.setdefault(name, []).append(1000 * done.first_byte)
        transfers.setdefault(name, []).append(site.count()["cdn_bytes"] / site.size)
        return site.size * clients / MIB / done.seconds

    def through(cache: Cache, clients: int) -> float:
        name = f"{cache.name} {clients}"
        speed = one(name, cache.forget, cache.big, clients)
        cache.wait_kept()
        return speed / clients

    speed = interleave(
        effort.rounds,
        {
            "direct": lambda: one("direct", lambda: None, site.direct, 1),
            **{
                f"{name} {clients}": partial(through, cache, clients)
                for name, cache in site.caches.items()
                for clients in (1, 4)
            },
            "proxy_cache": lambda: one("proxy_cache", site.nginx.forget, site.nginx.cached, 1),
        },
    )
    direct = ("direct", speed["direct"])
    for clients in (1, 4):
        for name in site.caches:
            what = f"cold, Hub at {CAP:.0f} MiB/s, {clients} client{'s'[: clients > 1]}"
            label = f"{name} {clients}"
            each = "MiB/s each" if clients > 1 else "MiB/s"
            yield row(what, name, each, speed[label], direct, at_least=0.97)
            sent = row(f"{what}: sent by the Hub", name, "× the file", transfers[label])
            yield with_goal(sent, Goal("≤ 1.01", sent.median <= 1.01))
        if clients == 1:
            yield row(what, "nginx proxy_cache", "MiB/s", speed["proxy_cache"], direct)
    for name in site.caches:
        byte = row("cold, first byte", name, "ms", first[f"{name} 1"], ("direct", first["direct"]))
        late = byte.median - (byte.reference or 0.0)
        yield with_goal(byte, Goal("≤ direct + 30 ms", late <= 30))


def _uncapped(site: Site, effort: Effort) -> Iterator[Row]:
    site.limit(None)
    cache = site.serve
    target = site.work / "direct.bin"

    def direct() -> float:
        os.sync()  # what others wrote is not to be waited for here
        seconds = download(site.direct, site.size, output=target).seconds
        target.unlink()
        return site.size / MIB / seconds

    def fill_alone() -> float:
        cache.forget()
        site.count()
        os.sync()
        started = time.perf_counter()
        begin_and_leave(cache.big)
        # Verified is enough; making it durable may go on.
        while "running" in cache.fill_states():
            time.sleep(_FILL_POLL)
        seconds = time.perf_counter() - started
        cache.wait_kept()
        _check_came_from_hub(site)
        return site.size / MIB / seconds

    def with_reader() -> float:
        cache.forget()
        site.count()
        os.sync()
        seconds = download(cache.big, site.size).seconds
        cache.wait_kept()
        _check_came_from_hub(site)
        return site.size / MIB / seconds

    speed = interleave(effort.rounds, {"direct": direct, "fill": fill_alone, "reader": with_reader})
    beside = ("curl -o", speed["direct"])
    yield row(
        "cold, Hub uncapped, fill alone", "serve", "MiB/s", speed["fill"], beside, at_least=0.5
    )
    what = "cold, Hub uncapped, 1 client"
    yield row(what, "serve", "MiB/s", speed["reader"], beside, at_least=0.35)


def _check_came_from_hub(site: Site) -> None:
    if site.count()["cdn_bytes"] < site.size:
        raise BenchmarkError("what was to be a cold download was a warm one")


def rate(site: Site, effort: Effort) -> Iterator[Row]:
    """Requests per second of a small kept file."""
    urls = {name: cache.small for name, cache in site.caches.items()}
    urls |= {"Tornado": site.bare_url, "nginx": site.nginx.file("config.json")}
    for connections in (1, 32):
        found = interleave(
            effort.rounds,
            {
                name: partial(requests_per_second, url, connections, effort.seconds)
                for name, url in urls.items()
            },
        )
        what = f"small warm file, {connections} connection{'s'[: connections > 1]}"
        bare = ("bare Tornado", found["Tornado"])
        for name in site.caches:
            yield row(what, name, "requests/s", found[name], bare, at_least=0.65)
        yield row(what, "nginx", "requests/s", found["nginx"], bare)


def ui(site: Site, effort: Effort) -> Iterator[Row]:
    """Latency of a UI endpoint while the same server sends downloads, and its memory."""
    urls = _warm_urls(site)
    watch = _Watch(site)
    warm_round: dict[str, Callable[[], object]] = {
        "idle": lambda: time.sleep(effort.seconds),
        "warm": partial(_downloads_for, effort.seconds, urls["jupyter"], site.size),
        "nginx warm": partial(_downloads_for, effort.seconds, urls["nginx"], site.size),
    }
    for _ in range(effort.rounds):
        for name, work in warm_round.items():
            watch.during(name, work)
    site.limit(CAP)
    for _ in range(effort.rounds):
        site.nginx.forget()
        watch.during("nginx cold", partial(download, site.nginx.cached, site.size, 8))
        site.jupyter.forget()
        watch.during("cold", partial(download, site.jupyter.big, site.size, 8))
        site.jupyter.wait_kept()
    site.limit(None)
    for name in ("idle", "nginx warm", "nginx cold"):
        yield from watch.plain(name)
    for name in ("warm", "cold"):
        yield from watch.compared(name)
    memory = row("memory (RssAnon) with 8 downloads", "jupyter", "MiB", [watch.peak])
    yield with_goal(memory, Goal("≤ 200 MiB", watch.peak <= 200))


def _downloads_for(seconds: float, url: str, size: int) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        download(url, size, 8)


_SITUATIONS = {
    "idle": "nothing else",
    "warm": "8 warm downloads from it",
    "cold": f"8 cold downloads from it at {CAP:.0f} MiB/s",
    "nginx warm": "8 warm downloads from nginx",
    "nginx cold": "8 cold downloads from nginx proxy_cache",
}


class _Watch:
    """Latencies of the Jupyter server's `/api/status` by situation, and its highest memory."""

    def __init__(self, site: Site) -> None:
        server = site.jupyter.server
        self._pid = server.pid
        self._url = f"{server.host}/api/status"
        self._login = {"Authorization": f"token {server.password}"}
        self._found: dict[str, list[Latencies]] = {}
        self.peak = 0.0

    def during(self, name: str, work: Callable[[], object]) -> None:
        """Watch while something runs."""
        latencies = Latencies()
        self._found.setdefault(name, []).append(latencies)
        own = name in ("warm", "cold")
        with Probe(self._url, self._login, latencies, self._note_memory if own else _nothing):
            work()

    def plain(self, name: str) -> Iterator[Row]:
        """Rows of a situation."""
        for share in (0.5, 0.99):
            yield self._row(name, share)

    def compared(self, name: str) -> Iterator[Row]:
        """Rows of a situation beside the one in which nginx does the work."""
        yield self._row(name, 0.5)
        other = f"nginx {name}"
        late = self._row(name, 0.99, (other, self._samples(other, 0.99)))
        limit = max(10.0, 2 * (late.reference or 0.0))
        yield with_goal(late, Goal("≤ max(10 ms, 2 × beside)", late.median <= limit))

    def _row(
        self, name: str, share: float, beside: tuple[str, Sequence[float]] | None = None
    ) -> Row:
        what = f"UI p{share * 100:.0f}, {_SITUATIONS[name]}"
        return row(what, "jupyter", "ms", self._samples(name, share), beside)

    def _samples(self, name: str, share: float) -> list[float]:
        return [latencies.percentile(share) for latencies in self._found[name]]

    def _note_memory(self) -> None:
        self.peak = max(self.peak, anonymous_mib(self._pid))


def _nothing() -> None:
    """Watch nothing."""


def snapshot(site: Site, effort: Effort) -> Iterator[Row]:
    """A repo of many small files by huggingface_hub, as a notebook loads it."""
    python = _client()
    if python is None:
        print(
            "no client environment hub2 ($HF_CACHE_TEST_CLIENTS): no snapshot rows", file=sys.stderr
        )
        return
    asked: dict[str, list[float]] = {}

    def one(name: str, endpoint: str) -> float:
        site.count()
        with tempfile.TemporaryDirectory(dir=site.work) as folder:
            seconds = _snapshot(python, endpoint, Path(folder))
        asked.setdefault(name, []).append(site.count()["requests"])
        return seconds

    def cold_one(cache: Cache) -> float:
        cache.forget(_MANY)
        return one(f"{cache.name} cold", cache.endpoint)

    found = interleave(
        effort.rounds,
        {
            "direct": lambda: one("direct", site.hub),
            **{f"{name} cold": partial(cold_one, cache) for name, cache in site.caches.items()},
            **{
                f"{name} warm": partial(one, f"{name} warm", cache.endpoint)
                for name, cache in site.caches.items()
            },
        },
    )
    direct = ("direct", found["direct"])
    for name in site.caches:
        yield row("300 small files, cold", name, "s", found[f"{name} cold"], direct)
        what = "300 small files, cold: requests to the Hub"
        yield row(what, name, "", asked[f"{name} cold"], ("direct", asked["direct"]))
        seconds = row("300 small files, warm", name, "s", found[f"{name} warm"], direct)
        yield with_goal(seconds, Goal("≤ 2.0 s", seconds.median <= 2.0))
        again = row("300 small files, warm: requests to the Hub", name, "", asked[f"{name} warm"])
        yield with_goal(again, Goal("≤ 1", again.median <= 1))


def _client() -> Path | None:
    ours = Path(__file__).parents[2] / ".venvs/clients"
    folder = Path(os.environ.get("HF_CACHE_TEST_CLIENTS") or ours)
    python = folder / "hub2/bin/python"
    return python if python.exists() else None


def _snapshot(python: Path, endpoint: str, folder: Path) -> float:
    script = Path(__file__).with_name("snapshot_client.py")
    done = subprocess.run(
        # Isolated, so that no module of this folder is taken for another.
        [str(python), "-I", str(script), _MANY, str(folder / "hub")],
        env={
            "HOME": str(folder),
            "PATH": os.environ.get("PATH", ""),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    with suppress(ValueError):
        seconds, files = done.stdout.split()
        if int(files) == _MANY_FILES:
            return float(seconds)
    raise BenchmarkError(f"the snapshot is not complete: {done.stdout} {done.stderr[-2000:]}")


GROUPS: dict[str, Measure] = {
    "warm": warm,
    "rate": rate,
    "ui": ui,
    "cold": cold,
    "snapshot": snapshot,
}
