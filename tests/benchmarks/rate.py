"""Requests per second for a small kept file.

Responsible for: GET and HEAD on one connection and on 32, beside a bare Tornado handler.
Not responsible for: who makes the requests (`rates`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import requests

from tests.clients.server import StandAloneServer

from .effort import Effort
from .origin import BIG
from .places import CONFIG, url_of
from .rates import requests_per_second
from .report import Row
from .rounds import Figures, interleave
from .servers import Site

_BUSY = 0.9
_TWO = "serve, 2 workers"
_SLOW = 4
"""As many times longer olah is asked, which else would not answer all connections once."""


class _Workers(StandAloneServer):
    """The stand-alone server with two processes."""

    def _command(self) -> Sequence[str]:
        return (*super()._command(), "--workers=2")


def rate(site: Site, effort: Effort) -> Iterator[Row]:
    """Ours, also with two processes, and everybody else's."""
    site.limit()
    urls = {name: place.url(BIG, CONFIG) for name, place in site.places.items()}
    urls["Tornado"] = site.bare_url
    if site.nginx is not None:
        urls["nginx"] = site.nginx.file(CONFIG)
    server = _Workers(site.work / "workers", site.hub, environ=site.environ)
    with server:
        urls[_TWO] = url_of(server.endpoint, BIG, CONFIG)
        for method in ("GET", "HEAD"):
            for connections in (1, 32):
                yield from _rows(urls, method, connections, effort)


def _rows(urls: dict[str, str], method: str, connections: int, effort: Effort) -> Iterator[Row]:
    measures = {
        name: partial(
            _one, method, url, connections, effort.burst * (_SLOW if name == "olah" else 1)
        )
        for name, url in urls.items()
    }
    measured = interleave(effort.few, measures, {"olah": 1})
    what = f"{method}, small warm file, {connections} connection{'s'[: connections > 1]}"
    for name in urls:
        if name == "Tornado":
            continue
        ours = name in ("serve", "jupyter")
        made = measured.row(
            what, name, "requests/s", "rate",
            beside=("bare Tornado", "Tornado"), at_least=0.65 if ours else None,
        )  # fmt: skip
        busy = any(share > _BUSY for share in measured.samples(name, "client"))
        yield replace(made, note="the client was the limit") if busy and not made.note else made


def _one(method: str, url: str, connections: int, seconds: float) -> Figures:
    # Where the Hub, or who is like it, sends a client to.
    final = requests.get(url, timeout=30).url
    found = requests_per_second(method, final, connections, seconds)
    return {"rate": found.per_second, "client": found.client}
