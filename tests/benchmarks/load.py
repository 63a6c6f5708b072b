"""Clients that cost little themselves.

Responsible for: downloads by curl, and a probe that asks one URL again and again while something
else runs.
Not responsible for: many small requests (`rates`), and what is measured with them.
"""

from __future__ import annotations

import http.client
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from .machine import BenchmarkError

_PROBE_PAUSE = 0.004
_DOWNLOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Downloads:
    """What a set of simultaneous downloads took, in seconds.

    Args:
        seconds: from the start of the first to the end of the last.
        first_byte: of the fastest, redirects included.
        last_first_byte: of the slowest.
    """

    seconds: float
    first_byte: float
    last_first_byte: float


def download(url: str, size: int, clients: int = 1, *, output: Path | None = None) -> Downloads:
    """Download by that many curls at once, to nowhere or (one client) to a file.

    Raises:
        BenchmarkError: one of them did not get all of it.
    """
    command = ["curl", "-sSfL", "--noproxy", "*", "-o", str(output or "/dev/null")]
    command += ["-w", "%{size_download} %{time_starttransfer}", "-m", str(_DOWNLOAD_SECONDS), url]
    started = time.perf_counter()
    running: list[subprocess.Popen[str]] = []
    try:
        for _ in range(clients):
            running.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        said = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    seconds = time.perf_counter() - started
    if any(process.returncode for process in running):
        raise BenchmarkError(f"a download failed: {max(said, key=len).strip()}")
    words = [answer.split() for answer in said]
    if any(int(one[0]) != size for one in words):
        raise BenchmarkError(f"a download has another length than {size}: {said}")
    starts = [float(one[1]) for one in words]
    return Downloads(seconds, min(starts), max(starts))


def begin_and_leave(url: str) -> None:
    """Ask for a file and hang up after the first of its bytes."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read(1):
            raise BenchmarkError(f"{answer.status} for the start of a download")
    finally:
        connection.close()


@dataclass(slots=True)
class Latencies:
    """Seconds that single requests took."""

    seconds: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """The value that this share (0 to 1) of the requests did not exceed, in milliseconds."""
        if not self.seconds:
            raise BenchmarkError("the probe got no answer at all")
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Probe:
    """Asks one URL again and again in a thread of its own, as the browser's page does.

    Args:
        latencies: where to add to.
    """

    def __init__(self, url: str, headers: Mapping[str, str], latencies: Latencies) -> None:
        self._url = urlsplit(url)
        self._headers = dict(headers)
        self._latencies = latencies
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        connection = http.client.HTTPConnection(
            self._url.hostname or "", self._url.port, timeout=60
        )
        try:
            while not self._ended.wait(_PROBE_PAUSE):
                started = time.perf_counter()
                connection.request("GET", self._url.path, headers=self._headers)
                answer = connection.getresponse()
                answer.read()
                self._latencies.seconds.append(time.perf_counter() - started)
                if answer.status != 200:
                    raise BenchmarkError(f"the probe was answered with {answer.status}")
        except (OSError, http.client.HTTPException, BenchmarkError) as error:
            self._failure = error
        finally:
            connection.close()

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise BenchmarkError(f"the probe failed: {self._failure}")
