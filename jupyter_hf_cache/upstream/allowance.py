"""How many requests an upstream still allows, as it says itself on every answer.

Responsible for: reading `RateLimit`, `RateLimit-Policy` and `Retry-After` per credential and kind
of address; not sending what the upstream would refuse; leaving the last part of an allowance to
requests that somebody waits for; counting what is sent.
Not responsible for: what is answered instead (`service.files`, `service.metadata`), or the pace
that the remote's own `rate_limit` sets (`upstream.rate_limit`).

The Hub counts requests of each user, and of each address of anonymous ones, in windows of five
minutes, separately for its API, for files ("resolvers") and for its pages. What one user has used
up is no reason to refuse another: everything here is kept per origin and credential, in memory.
Other processes learn the same from the next answer they get.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from jupyter_hf_cache.errors import UpstreamFailing
from jupyter_hf_cache.upstream.patience import asked_wait

RESERVE = 0.2
"""The part of an allowance that is left to requests that somebody waits for."""

_MOST_WINDOWS = 10_000
_LONGEST_SECONDS = 3600.0
# After a 429 that does not say how long it holds.
_UNTOLD_SECONDS = 2.0
# Two answers of one window name its end to the second.
_SAME_WINDOW_SECONDS = 2.0
_POLL_SECONDS = 1.0
_ITEM = re.compile(r'"([^"]*)"((?:\s*;\s*[\w-]+=\d+)*)')
_NUMBER = re.compile(r";\s*([\w-]+)=(\d{1,9})")
_QUOTA = re.compile(r";\s*q=(\d{1,9})")

_Who = tuple[str, bytes]


@dataclass(slots=True)
class _Window:
    """One allowance. Guarded by the lock of `Allowances`.

    Attributes:
        left: requests that the upstream said were left, None if it did not say.
        ends: monotonic seconds.
        quota: requests of a whole window, None if unknown.
        under_way: sent and not answered yet: they are not in `left`.
    """

    left: int | None = None
    ends: float = 0.0
    quota: int | None = None
    under_way: int = 0

    def available(self, now: float) -> float:
        """Return how many requests may be sent."""
        if self.left is None or now >= self.ends:
            return math.inf
        return self.left - self.under_way


@dataclass(frozen=True, slots=True)
class Limit:
    """What an answer said of a limit.

    Args:
        name: of the kind of requests.
        left: requests.
        seconds: until there are more.
        quota: requests of a whole window.
    """

    name: str
    left: int
    seconds: float
    quota: int | None = None


class Asking:
    """One request that is being sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Its answer arrived."""
        self.status, self.headers = status, headers


class Allowances:
    """What all upstreams allow, for all credentials. Thread-safe; only background requests wait.

    Args:
        on_asked: called for each request that is sent; must not block.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        on_asked: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_asked = on_asked
        self._clock = clock
        self._salt = secrets.token_bytes(16)
        self._changed = threading.Condition()
        self._closed = False
        self._windows: OrderedDict[tuple[_Who, str], _Window] = OrderedDict()
        self._names: dict[tuple[str, str], str] = {}

    @contextmanager
    def asking(
        self,
        origin: str,
        authorization: str | None,
        path: str,
        *,
        background: Callable[[], bool] = lambda: False,
    ) -> Iterator[Asking]:
        """Guard one request to an origin; whoever sends it tells of its answer.

        Args:
            authorization: the header that is sent, by which the upstream knows who asks.
            path: of the URL.
            background: while it says that nobody waits for the request, that waits for the next
                window if little is left.

        Raises:
            UpstreamFailing: 429, without asking: nothing is left. Its headers are the upstream's.
        """
        who = self._who(origin, authorization)
        kind = _kind_of(path)
        self._wait_for_more(who, kind, background)
        window = self._enter(who, kind)
        self._on_asked()
        asking = Asking()
        try:
            yield asking
        finally:
            with self._changed:
                window.under_way -= 1
                if asking.status:
                    self._note(who, kind, asking)
                self._changed.notify_all()

    def close(self) -> None:
        """Let everybody go who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _who(self, origin: str, authorization: str | None) -> _Who:
        text = (authorization or "").encode("utf-8", "surrogatepass")
        # Not the token itself: it would stay in memory.
        return origin, hashlib.blake2b(text, key=self._salt).digest()

    def _enter(self, who: _Who, kind: str) -> _Window:
        with self._changed:
            name, now = self._name(who, kind), self._clock()
            window = self._window(who, name)
            if window.available(now) <= 0:
                raise _held_back(name, window.ends - now)
            window.under_way += 1
            return window

    def _wait_for_more(self, who: _Who, kind: str, background: Callable[[], bool]) -> None:
        with self._changed:
            while not self._closed and background():
                window, now = self._window(who, self._name(who, kind)), self._clock()
                if window.available(now) > (window.quota or 0) * RESERVE:
                    return
                self._changed.wait(min(window.ends - now, _POLL_SECONDS))

    def _window(self, who: _Who, name: str) -> _Window:
        key = (who, name)
        window = self._windows.setdefault(key, _Window())
        self._windows.move_to_end(key)
        while len(self._windows) > _MOST_WINDOWS:
            self._windows.popitem(last=False)
        return window

    def _name(self, who: _Who, kind: str) -> str:
        return self._names.get((who[0], kind), _USUAL_NAMES.get(kind, kind))

    def _note(self, who: _Who, kind: str, asking: Asking) -> None:
        limits = read_limits(asking.headers)
        if len(limits) == 1 and kind != _OWN_LIMIT:
            self._names[who[0], kind] = limits[0].name
        for limit in limits:
            self._put(self._window(who, kind if kind == _OWN_LIMIT else limit.name), limit)
        if asking.status == 429:
            self._used_up(self._window(who, self._name(who, kind)), asking.headers)

    def _put(self, window: _Window, limit: Limit) -> None:
        ends = self._clock() + limit.seconds
        same = window.left is not None and abs(window.ends - ends) < _SAME_WINDOW_SECONDS
        # Answers may overtake each other.
        window.left = min(window.left or 0, limit.left) if same else limit.left
        window.ends = ends
        window.quota = limit.quota if limit.quota is not None else window.quota

    def _used_up(self, window: _Window, headers: Mapping[str, str]) -> None:
        now, asked = self._clock(), asked_wait(headers)
        told = window.ends - now if window.left == 0 else 0.0
        seconds = max(asked or 0.0, told) or _UNTOLD_SECONDS
        window.left, window.ends = 0, now + min(seconds, _LONGEST_SECONDS)


_OWN_LIMIT = "whoami"
_USUAL_NAMES = {"files": "resolvers", "small files": "resolvers"}


def _kind_of(path: str) -> str:
    """Return which addresses share an allowance, as far as they can be told apart before an answer
    names it."""
    if "/api/resolve-cache/" in path:
        return "small files"
    if "/resolve/" in path:
        return "files"
    if path.endswith("/api/whoami-v2"):
        return _OWN_LIMIT
    return "api" if "/api/" in path else "pages"


def read_limits(headers: Mapping[str, str]) -> list[Limit]:
    """Return the limits that an answer tells of.

    `RateLimit: "api";r=12;t=55` says that 12 requests are left for 55 seconds, `RateLimit-Policy:
    "fixed window";"api";q=500;w=300` that there are 500 in each window of 300 seconds.
    """
    limits = []
    quota = _QUOTA.search(headers.get("RateLimit-Policy", ""))
    for name, parameters in _ITEM.findall(headers.get("RateLimit", "")):
        numbers = {key: int(value) for key, value in _NUMBER.findall(parameters)}
        if "r" in numbers and "t" in numbers:
            seconds = min(float(numbers["t"]), _LONGEST_SECONDS)
            limits.append(Limit(name, numbers["r"], seconds, int(quota[1]) if quota else None))
    return limits


def _held_back(name: str, seconds: float) -> UpstreamFailing:
    left = max(1, math.ceil(seconds))
    return UpstreamFailing(
        f"The upstream allows no more requests of this kind for {left} s.",
        advice="Sign in to the Hub for a larger allowance, or wait.",
        status=429,
        headers={"RateLimit": f'"{name}";r=0;t={left}', "Retry-After": str(left)},
    )
