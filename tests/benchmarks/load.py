"""Clients that cost little themselves.

Responsible for: downloads by curl, many small requests by wrk or a small loop, and a probe that
asks one URL again and again while something else runs.
Not responsible for: what is measured with them (`measures`).
"""

from __future__ import annotations

import http.client
import re
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from .machine import BenchmarkError

_PROBE_PAUSE = 0.004
_DOWNLOAD_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Downloads:
    """What a set of simultaneous downloads took, in seconds.

    Args:
        seconds: from the start of the first to the end of the last.
        first_byte: of the fastest, redirects included.
    """

    seconds: float
    first_byte: float


def download(
    url: str,
    size: int,
    clients: int = 1,
    *,
    output: Path | None = None,
    headers: Mapping[str, str] | None = None,
) -> Downloads:
    """Download by that many curls at once, to nowhere or (one client) to a file.

    Raises:
        BenchmarkError: one of them did not get all of it.
    """
    command = ["curl", "-sSfL", "--noproxy", "*", "-o", str(output or "/dev/null")]
    command += [
        word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")
    ]
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
        said = [process.communicate()[0].split() for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    seconds = time.perf_counter() - started
    if any(process.returncode for process in running) or any(int(w[0]) != size for w in said):
        raise BenchmarkError(f"a download failed: {' '.join(said[0])}")
    return Downloads(seconds, min(float(words[1]) for words in said))


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


def requests_per_second(url: str, connections: int, seconds: float) -> float:
    """How many GETs of a small file are answered with 200.

    Raises:
        BenchmarkError: another status.
    """
    if shutil.which("wrk"):
        return _by_wrk(url, connections, seconds)
    return _Loop(url, connections).run(seconds)


def rate_client() -> str:
    """Who makes the requests of `requests_per_second` on this machine."""
    return "wrk" if shutil.which("wrk") else "a loop in Python (wrk is not installed)"


def _by_wrk(url: str, connections: int, seconds: float) -> float:
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise BenchmarkError(f"wrk: {done.stdout} {done.stderr}")
    return float(found[1])


class _Loop:
    """One thread, many kept connections, one request under way on each."""

    def __init__(self, url: str, connections: int) -> None:
        parts = urlsplit(url)
        self._request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._address = (parts.hostname or "", parts.port or 80)
        self._connections = connections
        self._done = 0

    def run(self, seconds: float) -> float:
        with selectors.DefaultSelector() as selector:
            open_ones = [socket.create_connection(self._address) for _ in range(self._connections)]
            try:
                for sock in open_ones:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    selector.register(sock, selectors.EVENT_READ, bytearray())
                    sock.sendall(self._request)
                started = time.perf_counter()
                while (now := time.perf_counter()) < started + seconds:
                    for key, _ in selector.select(1.0):
                        self._receive(key)
            finally:
                for sock in open_ones:
                    sock.close()
        return self._done / (now - started)

    def _receive(self, key: selectors.SelectorKey) -> None:
        sock = key.fileobj
        assert isinstance(sock, socket.socket)
        received: bytearray = key.data
        data = sock.recv(65536)
        received += data
        head, found, body = bytes(received).partition(b"\r\n\r\n")
        if not data or (found and not head.startswith(b"HTTP/1.1 200")):
            raise BenchmarkError(f"a small request failed: {head[:100]!r}")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if found and length and len(body) >= int(length[1]):
            received.clear()
            self._done += 1
            sock.sendall(self._request)


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
        watch: called now and then, for what else is to be observed meanwhile.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        latencies: Latencies,
        watch: Callable[[], None],
    ) -> None:
        self._url = urlsplit(url)
        self._headers = dict(headers)
        self._latencies = latencies
        self._watch = watch
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
                self._watch()
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


def interleave(rounds: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run each measure once per round, all of them in turn; the order is reversed in every other
    round, so that nobody always comes first."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        names: Sequence[str] = list(measures)
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(measures[name]())
    return found
