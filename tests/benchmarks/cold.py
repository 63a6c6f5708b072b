"""Downloads of what comes from the Hub.

Responsible for: throughput, first byte and upstream transfers, with a line of some speed and with
one that is as fast as it goes; and with a Hub that limits each connection.
Not responsible for: many small files (`snapshot`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

from .effort import Effort
from .load import begin_and_leave, download
from .machine import BenchmarkError, Watch
from .origin import BIG, HALF, MIB
from .places import Place
from .report import Row
from .rounds import Figures, Measured, interleave
from .servers import Site

_FILL_POLL = 0.02
_GIB = 1024 * MIB


def cold(site: Site, effort: Effort) -> Iterator[Row]:
    """All of it; afterwards the Hub is as fast as it can be."""
    for cap, rounds in effort.caps.items():
        yield from _capped(site, effort, cap, rounds)
    yield from _uncapped(site, effort)
    site.limit()


def _capped(site: Site, effort: Effort, cap: int, rounds: int) -> Iterator[Row]:
    """Direct and ours at each speed; proxy_cache at high ones; everybody else at one of them."""
    site.limit(total=cap)
    everybody = cap == effort.usual_cap
    ours = [p for p in site.caches.values() if everybody or p is site.serve]
    peers = [
        p for p in site.peers.values() if everybody or (cap > effort.usual_cap and p.name != "olah")
    ]
    measured = interleave(
        rounds,
        {
            "direct": partial(_direct, site, BIG, site.size),
            **{
                f"{p.name} {clients}": partial(_through, site, p, BIG, site.size, clients)
                for p in ours
                for clients in (1, 4)
            },
            **{p.name: partial(_through, site, p, BIG, site.size, 1) for p in peers},
        },
        {p.name: 1 for p in peers},
    )
    direct = ("direct", "direct")
    for clients in (1, 4):
        what = _capped_title(effort, cap, clients)
        unit = "MiB/s each" if clients > 1 else "MiB/s"
        for place in ours:
            name = f"{place.name} {clients}"
            yield measured.row(
                what, place.name, unit, "speed", name=name, beside=direct, at_least=0.97
            )
            yield _sent(measured, what, place.name, name)
        if clients == 1:
            for peer in peers:
                yield measured.row(what, peer.name, unit, "speed", beside=direct)
    if everybody:
        yield from _cpu(measured, _capped_title(effort, cap, 1), ours, peers)
        yield from _first_bytes(measured, [p.name for p in ours], [p.name for p in peers])
        for place in ours:
            yield measured.row(
                f"cold {effort.mib} MiB, 4 clients: RssAnon", place.name, "MiB", "memory",
                name=f"{place.name} 4", limit=("≤ 200 MiB", 200.0),
            )  # fmt: skip


def _capped_title(effort: Effort, cap: int, clients: int) -> str:
    return f"cold {effort.mib} MiB, Hub at {cap} MiB/s, {_clients(clients)}"


def _cpu(
    measured: Measured, what: str, ours: Sequence[Place], peers: Sequence[Place]
) -> Iterator[Row]:
    """What receiving, checking, writing and sending cost the server; nginx checks nothing."""
    proxy = "nginx proxy_cache"
    beside = (proxy, proxy) if measured.took_part(proxy) else None
    for place in (*ours, *peers):
        name = f"{place.name} 1" if place in ours else place.name
        yield measured.row(
            f"{what}: CPU", place.name, "s/GiB", "cpu", name=name,
            beside=None if place.name == proxy else beside,
        )  # fmt: skip


def _first_bytes(measured: Measured, ours: list[str], peers: list[str]) -> Iterator[Row]:
    what = "cold, first byte"
    direct = ("direct", "direct")
    limit = ("≤ direct + 30 ms", measured.median("direct", "first") + 30)
    for name in ours:
        yield measured.row(what, name, "ms", "first", name=f"{name} 1", beside=direct, limit=limit)
    for name in peers:
        yield measured.row(what, name, "ms", "first", beside=direct)
    for name in ours:
        yield measured.row(
            "cold, first byte of the last of 4 clients", name, "ms", "last", name=f"{name} 4"
        )


def _sent(measured: Measured, what: str, server: str, name: str) -> Row:
    """How much the Hub sent: one transfer for everybody."""
    limit = ("≤ 1.01", 1.01)
    title = f"{what}: sent by the Hub"
    return measured.row(title, server, "× the file", "sent", name=name, limit=limit)


def _uncapped(site: Site, effort: Effort) -> Iterator[Row]:
    site.limit()
    cache = site.serve
    measures = {
        "curl -o": partial(_to_disk, site),
        "fill": partial(_fill_alone, site),
        **{str(n): partial(_through, site, cache, BIG, site.size, n) for n in (1, 4)},
        **{p.name: partial(_through, site, p, BIG, site.size, 1) for p in site.peers.values()},
    }
    measured = interleave(effort.few, measures, {"olah": 1})
    beside = ("curl -o", "curl -o")
    what = f"cold {effort.mib} MiB, Hub uncapped"
    yield measured.row(
        f"{what}, fill alone", cache.name, "MiB/s", "speed",
        name="fill", beside=beside, at_least=0.5,
    )  # fmt: skip
    yield measured.row(
        f"{what}, 1 client", cache.name, "MiB/s", "speed", name="1", beside=beside, at_least=0.35
    )
    for peer in site.peers:
        yield measured.row(f"{what}, 1 client", peer, "MiB/s", "speed", beside=beside)
    four = f"{what}, 4 clients"
    yield measured.row(four, cache.name, "MiB/s each", "speed", name="4", beside=beside)
    for clients in (1, 4):
        title = f"{what}, {_clients(clients)}"
        yield _sent(measured, title, cache.name, str(clients))


def lines(site: Site, effort: Effort) -> Iterator[Row]:
    """A Hub that sends so much on a connection and no more. Peers get the smaller file: they have
    one connection too, and would take as long as the direct download does."""
    site.limit(connection=effort.connection_cap)
    serve, peers = site.serve, list(site.peers.values())
    measured = interleave(
        effort.few,
        {
            "direct": partial(_direct, site, BIG, site.size),
            serve.name: partial(_through, site, serve, BIG, site.size, 1),
            **{p.name: partial(_through, site, p, HALF, site.size // 2, 1) for p in peers},
        },
        dict.fromkeys(("direct", *site.peers), 1),
    )
    site.limit()
    line = f"Hub at {effort.connection_cap} MiB/s per connection"
    what = f"cold {effort.mib} MiB, {line}"
    one = ("one connection", "direct")
    yield measured.row(what, serve.name, "MiB/s", "speed", beside=one, at_least=4.0)
    for peer in peers:
        title = f"cold {effort.mib // 2} MiB, {line}"
        yield measured.row(title, peer.name, "MiB/s", "speed", beside=one)
    yield _sent(measured, what, serve.name, serve.name)
    title = f"{what}: transfers from the Hub"
    yield measured.row(title, serve.name, "", "transfers", beside=one)


def _direct(site: Site, repo: str, size: int) -> Figures:
    site.count()
    done = download(site.direct(repo), size)
    return {
        "speed": size / MIB / done.seconds,
        "first": 1000 * done.first_byte,
        "transfers": site.count()["transfers"],
    }


def _through(site: Site, place: Place, repo: str, size: int, clients: int) -> Figures:
    place.forget(repo)
    os.sync()  # what others wrote is not to be waited for here
    site.count()
    with Watch(place.pid) as watch:
        done = download(place.url(repo), size, clients)
    sent = site.count()
    if sent["cdn_bytes"] < size:
        raise BenchmarkError("what was to be a cold download was a warm one")
    place.settle()
    return {
        "speed": size / MIB / done.seconds,
        "cpu": watch.cpu * _GIB / size,
        "first": 1000 * done.first_byte,
        "last": 1000 * done.last_first_byte,
        "sent": sent["cdn_bytes"] / size,
        "transfers": sent["transfers"],
        "memory": watch.peak,
    }


def _to_disk(site: Site) -> Figures:
    target = site.work / "direct.bin"
    os.sync()
    seconds = download(site.direct(BIG), site.size, output=target).seconds
    target.unlink()
    return {"speed": site.size / MIB / seconds}


def _fill_alone(site: Site) -> Figures:
    """A client that leaves at once; the fill goes on without it."""
    cache = site.serve
    cache.forget(BIG)
    site.count()
    os.sync()
    started = time.perf_counter()
    begin_and_leave(cache.url(BIG))
    # Verified is enough; making it durable may go on.
    while "running" in cache.fill_states():
        time.sleep(_FILL_POLL)
    seconds = time.perf_counter() - started
    cache.settle()
    if site.count()["cdn_bytes"] < site.size:
        raise BenchmarkError("what was to be a cold download was a warm one")
    return {"speed": site.size / MIB / seconds}


def _clients(number: int) -> str:
    return f"{number} client{'s'[: number > 1]}"
