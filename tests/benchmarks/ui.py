"""Latency of a UI endpoint while the same server sends downloads, and its memory meanwhile.

Responsible for: `GET /api/status` of the Jupyter server idle, under warm and under cold downloads,
and the same while nginx does the downloads.
Not responsible for: the downloads' own speed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from .effort import Effort
from .load import Latencies, Probe, download
from .machine import Watch
from .origin import BIG
from .places import MODEL, Place
from .report import Row
from .rounds import Figures, Measured, interleave
from .servers import Site

_CLIENTS = 8


def ui(site: Site, effort: Effort) -> Iterator[Row]:
    """All situations, the warm ones first."""
    jupyter = site.jupyter
    site.limit()
    jupyter.keep(BIG, site.size)
    kept = partial(_downloads_for, effort.seconds, jupyter.url(BIG), site.size)
    situations: dict[str, Callable[[], object]] = {
        "idle": lambda: time.sleep(effort.seconds),
        "warm": kept,
    }
    if site.nginx is not None:
        url = site.nginx.file(MODEL)
        situations["nginx warm"] = partial(_downloads_for, effort.seconds, url, site.size)
    warm = interleave(
        effort.rounds, {name: partial(_watched, site, work) for name, work in situations.items()}
    )
    site.limit(total=effort.usual_cap)
    proxy = site.peers.get("nginx proxy_cache")
    places: dict[str, Place] = {"cold": jupyter}
    if proxy is not None:
        places["nginx cold"] = proxy
    cold = interleave(
        effort.rounds, {name: partial(_cold, site, place) for name, place in places.items()}
    )
    site.limit()
    yield from _rows(warm, ["idle", "warm", "nginx warm"], effort)
    yield from _rows(cold, ["cold", "nginx cold"], effort)


def _rows(measured: Measured, names: Sequence[str], effort: Effort) -> Iterator[Row]:
    texts = {
        "idle": "nothing else",
        "warm": f"{_CLIENTS} warm downloads from it",
        "nginx warm": f"{_CLIENTS} warm downloads from nginx",
        "cold": f"{_CLIENTS} cold downloads from it at {effort.usual_cap} MiB/s",
        "nginx cold": f"{_CLIENTS} cold downloads from nginx proxy_cache",
    }
    for name in names:
        if not measured.took_part(name):
            continue
        other, held = f"nginx {name}", name in ("warm", "cold")
        most = max(10.0, 2 * measured.median(other, "p99"))
        yield measured.row(f"UI p50, {texts[name]}", "jupyter", "ms", "p50", name=name)
        yield measured.row(
            f"UI p99, {texts[name]}", "jupyter", "ms", "p99", name=name,
            beside=(other, other) if measured.took_part(other) else None,
            limit=("≤ max(10 ms, 2 × beside)", most) if held else None,
        )  # fmt: skip
        if held:
            yield measured.row(
                f"memory (RssAnon), {texts[name]}", "jupyter", "MiB", "memory",
                name=name, limit=("≤ 200 MiB", 200.0),
            )  # fmt: skip


def _watched(site: Site, work: Callable[[], object]) -> Figures:
    """Ask the Jupyter server all the time while something runs."""
    server = site.jupyter.server
    login = {"Authorization": f"token {server.password}"}
    latencies = Latencies()
    with Watch(server.pid) as watch, Probe(f"{server.host}/api/status", login, latencies):
        work()
    return {
        "p50": latencies.percentile(0.5),
        "p99": latencies.percentile(0.99),
        "memory": watch.peak,
    }


def _cold(site: Site, place: Place) -> Figures:
    place.forget(BIG)
    os.sync()
    found = _watched(site, partial(download, place.url(BIG), site.size, _CLIENTS))
    place.settle()
    return found


def _downloads_for(seconds: float, url: str, size: int) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        download(url, size, _CLIENTS)
