"""Many small requests, by a client that costs little itself.

Responsible for: requests per second by wrk, or by a loop in a process of its own where there is no
wrk, for HEAD (it waits for the bodies) and for less than its shortest run of a second; and how much
of a core that client used.
Not responsible for: which servers are asked (`rate`).

`python -m tests.benchmarks.rates METHOD URL CONNECTIONS SECONDS` is the loop.
"""

from __future__ import annotations

import json
import re
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .machine import BenchmarkError

_ROOT = Path(__file__).parents[2]
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rate:
    """What a run of many requests found.

    Args:
        per_second: requests answered with 200.
        client: share of one core that the client used; near 1 it measured itself.
    """

    per_second: float
    client: float


def requests_per_second(method: str, url: str, connections: int, seconds: float) -> Rate:
    """Ask for a small file again and again on that many kept connections.

    Raises:
        BenchmarkError: an answer other than 200.
    """
    before = _children_seconds()
    started = time.perf_counter()
    if method == "GET" and seconds >= 1 and shutil.which("wrk"):
        found = _by_wrk(url, connections, round(seconds))
    else:
        found = _by_loop(method, url, connections, seconds)
    elapsed = time.perf_counter() - started
    return Rate(found, (_children_seconds() - before) / elapsed)


def rate_client() -> str:
    """Who makes the GET requests on this machine."""
    return "wrk" if shutil.which("wrk") else "a loop in Python (wrk is not installed)"


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _by_wrk(url: str, connections: int, seconds: int) -> float:
    said = _run(
        ["wrk", "-t1", "--timeout", "30s", f"-c{connections}", f"-d{seconds}s", url], seconds
    )
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None or "Non-2xx" in said or "Socket errors" in said:
        raise BenchmarkError(f"wrk: {said}")
    return float(found[1])


def _by_loop(method: str, url: str, connections: int, seconds: float) -> float:
    module = [sys.executable, "-m", "tests.benchmarks.rates"]
    return float(json.loads(_run([*module, method, url, str(connections), str(seconds)], seconds)))


def _run(command: list[str], seconds: float) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=_ROOT, timeout=seconds + 60, check=False
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [str(done.returncode)]
        raise BenchmarkError(f"many requests: {words[-1]}")
    return done.stdout


class _Loop:
    """One thread, many kept connections, one request under way on each."""

    def __init__(self, method: str, url: str, connections: int) -> None:
        parts = urlsplit(url)
        self._bodies = method != "HEAD"
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        self._request = f"{method} {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
        self._address = (parts.hostname or "", parts.port or 80)
        self._connections = connections
        self._done = 0

    def run(self, seconds: float) -> float:
        """Requests per second."""
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
        end = received.find(_END_OF_HEAD)
        if not data or (end >= 0 and not received.startswith(b"HTTP/1.1 200")):
            raise BenchmarkError(f"a small request failed: {bytes(received[:100])!r}")
        if end >= 0 and len(received) >= end + len(_END_OF_HEAD) + self._length(received, end):
            received.clear()
            self._done += 1
            sock.sendall(self._request)

    def _length(self, received: bytearray, end: int) -> int:
        if not self._bodies:
            return 0
        length = _LENGTH.search(received, 0, end)
        if length is None:
            raise BenchmarkError("a small answer has no length")
        return int(length[1])


if __name__ == "__main__":
    print(_Loop(sys.argv[1], sys.argv[2], int(sys.argv[3])).run(float(sys.argv[4])))
