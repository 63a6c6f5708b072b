"""Misbehaviour to order.

Responsible for: what can go wrong with an answer, which request it befalls, and how often.
Not responsible for: carrying it out (`handler`, `delivery`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .counters import Host

Kind = Literal[
    "cut",  # the connection ends after `at` body bytes, though more were announced
    "short",  # a well-formed answer that holds only the first `at` bytes
    "corrupt",  # the byte at file offset `at` is another
    "swap",  # another body of the same size
    "stall",  # after `at` body bytes (None: before the answer) nothing more until released
    "reset",  # TCP reset after `at` body bytes (None: instead of an answer)
    "close",  # the connection is closed instead of an answer
    "status",  # another status: `status`, `message`, `headers`
    "html",  # a captive portal: 200 and a page
    "slow",  # `rate` bytes per second
    "ignore_range",  # 200 with the whole file
    "wrong_range",  # 206 whose Content-Range and bytes start `at` bytes later than asked for
    "false_range",  # the bytes start `at` bytes later than the answer says
    "longer",  # `at` bytes more than there are, announced and sent
    "endless",  # no length, and no end
    "gzip",  # compressed, though nobody allowed it
    "other_version",  # another body of the same size with another ETag
    "no_metadata",  # X-Repo-Commit, X-Linked-* and ETag are missing: not a Hub
]
_BODY = (
    "cut", "short", "corrupt", "swap", "slow", "ignore_range", "wrong_range", "false_range",
    "longer", "endless", "gzip", "other_version",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Fault:
    """One kind of misbehaviour.

    Attributes:
        kind: see `Kind`.
        path_contains: part of the path or query as received (still quoted) of the requests it
        befalls. times: how many requests; None for all. skip: how many matching requests pass
        unharmed first. host: which of the two origins. at: a byte offset; for cut, short, stall and
        reset counted from the start of this answer's body,
            for corrupt from the start of the file.
        method: only this method; None means GET for kinds that change a body, else any.
        status, message, headers: for "status".
        rate: bytes per second, for "slow".
        hits: how many requests it befell so far.
    """

    kind: Kind
    path_contains: str = ""
    times: int | None = 1
    host: Host = "hub"
    at: int | None = None
    skip: int = 0
    method: str | None = None
    status: int = 503
    message: str = "Service Unavailable"
    headers: Mapping[str, str] = field(default_factory=dict)
    rate: int = 1 << 16
    hits: int = 0

    @property
    def offset(self) -> int:
        return self.at or 0

    def fits(self, host: Host, method: str, uri: str) -> bool:
        """Whether a request is one this fault waits for."""
        if self.host != host or self.path_contains not in uri:
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.method is not None:
            return method == self.method
        body_only = self.kind in _BODY or (self.kind in ("stall", "reset") and self.at is not None)
        return method == "GET" or not body_only


class Faults:
    """The faults waiting for their requests. Safe to change from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting: list[Fault] = []
        self._stalled: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def add(self, fault: Fault) -> Fault:
        """Arm a fault; it is returned so that a test can look at `hits`."""
        with self._lock:
            self._waiting.append(fault)
        return fault

    def clear(self) -> None:
        """Disarm all and let stalled answers go on."""
        with self._lock:
            self._waiting = []
        self.release()

    def take(self, host: Host, method: str, uri: str) -> Fault | None:
        """The fault that befalls this request, if any; it counts as used."""
        with self._lock:
            for fault in self._waiting:
                if not fault.fits(host, method, uri):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.hits += 1
                return fault
        return None

    def wait_until_stalled(self, count: int = 1, timeout: float = 10.0) -> bool:
        """Block the calling thread until exactly `count` answers hang; False after `timeout`."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._stalled) == count, timeout)

    def release(self) -> None:
        """Let every stalled answer go on."""
        with self._changed:
            stalled, self._stalled = self._stalled, []
            self._changed.notify_all()
        for loop, event in stalled:
            loop.call_soon_threadsafe(event.set)

    async def hang(self, gone: asyncio.Event) -> None:
        """Wait until released, or until `gone` says that the connection is."""
        released = asyncio.Event()
        mine = (asyncio.get_running_loop(), released)
        with self._changed:
            self._stalled.append(mine)
            self._changed.notify_all()
        waits = [asyncio.ensure_future(released.wait()), asyncio.ensure_future(gone.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            with self._changed:
                if mine in self._stalled:
                    self._stalled.remove(mine)
                    self._changed.notify_all()
