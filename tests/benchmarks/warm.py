"""Downloads of what is kept.

Responsible for: throughput, CPU and memory with one client and with eight.
Not responsible for: small files (`rate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from .effort import Effort
from .load import download
from .machine import Watch
from .origin import BIG, EIGHTH, MIB
from .places import MODEL, Place
from .report import Row
from .rounds import Figures, Measured, interleave
from .servers import Site

_GIB = 1024 * MIB
_OURS = ("serve", "jupyter")


def warm(site: Site, effort: Effort) -> Iterator[Row]:
    """Everybody with one client and with eight; olah's eight get smaller files, for it is slow."""
    site.limit()
    for clients in (1, 8):
        places = [p for p in site.places.values() if p.name != "olah" or clients == 1]
        measures = {p.name: partial(_of_place, p, BIG, site.size, clients) for p in places}
        if site.nginx is not None:
            url, pid = site.nginx.file(MODEL), site.nginx.pid
            measures["nginx"] = partial(_of_url, url, pid, site.size, clients)
        if clients > 1 and "olah" in site.peers:
            olah = site.peers["olah"]
            measures["olah"] = partial(_of_place, olah, EIGHTH, site.size // 8, clients)
        measured = interleave(effort.rounds, measures, {"olah": 1})
        what = f"warm {effort.mib} MiB, {clients} client{'s'[: clients > 1]}"
        yield from _rows(what, measured, effort, clients)


def _rows(what: str, measured: Measured, effort: Effort, clients: int) -> Iterator[Row]:
    beside = ("nginx", "nginx")
    peers = [n for n in ("nginx proxy_cache", "olah") if measured.took_part(n)]
    smaller = f"warm {effort.mib // 8} MiB, {clients} clients"
    for name in (*_OURS, *peers):
        goal = 0.9 if name in _OURS else None
        title = smaller if name == "olah" and clients > 1 else what
        yield measured.row(title, name, "MiB/s", "speed", beside=beside, at_least=goal)
    for name in (*_OURS, *peers):
        ratio = 2.5 if name in _OURS else None
        yield measured.row(f"{what}: CPU", name, "s/GiB", "cpu", beside=beside, at_most=ratio)
    for name in (*_OURS, "nginx", *peers):
        if measured.took_part(name):
            limit = ("≤ 200 MiB", 200.0) if name in _OURS else None
            yield measured.row(f"{what}: RssAnon", name, "MiB", "memory", limit=limit)


def _of_place(place: Place, repo: str, size: int, clients: int) -> Figures:
    place.keep(repo, size)
    return _of_url(place.url(repo), place.pid, size, clients)


def _of_url(url: str, pid: int, size: int, clients: int) -> Figures:
    with Watch(pid) as watch:
        seconds = download(url, size, clients).seconds
    return {
        "speed": size * clients / MIB / seconds,
        "cpu": watch.cpu * _GIB / (size * clients),
        "memory": watch.peak,
    }
