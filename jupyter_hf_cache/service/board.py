"""The running fills of every process on the cache, for people.

Responsible for: letting the others know what this process fetches, once a second while it does, and
putting together what all of them say.
Not responsible for: fills (`upstream.fills`). Nothing is decided by what stands here.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.fill_report import FillReport
from jupyter_hf_cache.upstream.fills import Fills

logger = logging.getLogger(__name__)

RUNNING = frozenset({"running", "verified"})

_PREFIX = "fills/"
_EVERY_SECONDS = 1.0
# A row lives as long as its process writes it.
_FRESH_SECONDS = 5.0
_RECENT_SECONDS = 600.0
_MOST_RECENT = 10


class Board:
    """What all processes fetch. Thread-safe; blocks on disk, except `note`.

    It needs no thread while nothing is fetched.
    """

    def __init__(self, table: StateTable, fills: Fills) -> None:
        self._table = table
        self._fills = fills
        self._key = _PREFIX + key_of(f"{os.getpid()}-{secrets.token_hex(4)}")
        self._lock = threading.Lock()
        self._noted = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def note(self) -> None:
        """Something began to be fetched here. May be called under a lock of `Fills`."""
        with self._lock:
            self._noted += 1
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(
                    target=self._publish_while_running, name="hf-cache-board", daemon=True
                )
                self._thread.start()

    def reports(self) -> list[FillReport]:
        """Return running fills, then recently ended ones, newest first."""
        running: dict[str, list[FillReport]] = {}
        ended: list[FillReport] = []
        for report in [*self._fills.reports(), *self._of_others()]:
            if report.state in RUNNING:
                running.setdefault(report.blob, []).append(report)
            else:
                ended.append(report)
        ended.sort(key=lambda report: report.started, reverse=True)
        return [*map(_together, running.values()), *ended]

    def stop(self) -> None:
        """Take what this process said away; for shutting down, after its fills have ended."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()
        try:
            self._table.delete(self._key)
        except StorageError as error:
            logger.info("the fills of this process stay listed for a moment: %s", error.message)

    def _publish_while_running(self) -> None:
        while True:
            with self._lock:
                noted = self._noted
            reports = self._fills.reports()
            self._publish(reports)
            if any(report.state in RUNNING for report in reports):
                self._stopping.wait(_EVERY_SECONDS)
            with self._lock:
                idle = self._noted == noted and not any(one.state in RUNNING for one in reports)
                if idle or self._stopping.is_set():
                    self._thread = None
                    return

    def _publish(self, reports: Iterable[FillReport]) -> None:
        running = [one for one in reports if one.state in RUNNING]
        ended = [one for one in reports if one.state not in RUNNING][:_MOST_RECENT]
        row = {"written": time.time(), "fills": [asdict(one) for one in (*running, *ended)]}
        try:
            self._table.set(self._key, row)
            for key, other in list(self._table.items(_PREFIX)):
                if not 0 <= time.time() - other["written"] < _RECENT_SECONDS:
                    self._table.delete(key)
        except StorageError as error:
            logger.info("running fills are not shown to other processes: %s", error.message)

    def _of_others(self) -> Iterable[FillReport]:
        now = time.time()
        for key, row in self._table.items(_PREFIX):
            age = now - row["written"]
            if key == self._key or not 0 <= age < _RECENT_SECONDS:
                continue
            for fields in row["fills"]:
                report = FillReport(**fields)
                if report.state not in RUNNING or age < _FRESH_SECONDS:
                    yield report


def _together(seen: Sequence[FillReport]) -> FillReport:
    """One blob as several processes see it: who fetches it, and who follows."""
    if len(seen) == 1:
        return seen[0]
    return replace(
        seen[0],
        done=max(one.done for one in seen),
        speed=max(one.speed for one in seen),
        # One reader of who fetches it stands for all who follow.
        readers=sum(one.readers for one in seen) - 1,
        started=min(one.started for one in seen),
    )
