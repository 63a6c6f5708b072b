"""Memory of the server: the same whatever the size of a file and however many follow it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from benchmarks.machine import Watch, memory_mib
from clients.server import BareJupyterServer, JupyterServer, StandAloneServer, wait_for
from fake_hub import BigFile, FakeHub

MIB = 1 << 20
SMALL, LARGE = 64 * MIB, 1024 * MIB
# What buffers, stacks and the allocator may add. Far less than the large file, and than one copy of
# the small one for each of sixteen followers.
LEEWAY_MIB = 160
AT_REST_MIB = 80

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True, slots=True)
class Site:
    """A server and its Hub, with a repo for each size."""

    hub: FakeHub
    server: StandAloneServer

    def forget(self, size: int) -> None:
        """Make the next download a cold one."""
        answer = self.server.api("DELETE", f"hf-cache/v1/repos/models/org/of-{size}")
        assert answer.status_code in (200, 404)

    def peak(self, size: int, followers: int) -> float:
        """Highest anonymous memory in MiB while that many download the file at once."""
        url = f"{self.server.endpoint}/org/of-{size}/resolve/main/model.bin"
        with Watch(self.server.pid) as watch, ThreadPoolExecutor(followers) as pool:
            assert list(pool.map(_length, [url] * followers)) == [size] * followers
        wait_for(lambda: None if self._fill_states() - {"done"} else True, "end of the fill")
        return watch.peak

    def _fill_states(self) -> set[str]:
        fills = self.server.api("GET", "hf-cache/v1/fills").json()["results"]
        return {fill["state"] for fill in fills}


def _length(url: str) -> int:
    """Download without keeping anything; bytes of the body."""
    parts = urlsplit(url)
    buffer, received = bytearray(MIB), bytearray()
    with socket.create_connection((parts.hostname, parts.port), timeout=120) as sock:
        head = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode())
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += sock.recv(MIB)
        assert received.startswith(b"HTTP/1.1 200"), bytes(received[:100])
        length = len(received) - end - 4
        while count := sock.recv_into(buffer):
            length += count
        return length


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root: Path = tmp_path_factory.mktemp("memory")
    with FakeHub() as hub:
        for size in (SMALL, LARGE):
            hub.repo("models", f"org/of-{size}").commit({"model.bin": BigFile(size, seed=size)})
        with StandAloneServer(root, hub.url) as server:
            assert isinstance(server, StandAloneServer)
            yield Site(hub, server)


@pytest.mark.parametrize("followers", [1, 16])
@pytest.mark.parametrize("state", ["cold", "warm"])
def test_memory_does_not_grow_with_the_file(site: Site, state: str, followers: int) -> None:
    at_rest = memory_mib(site.server.pid)
    peaks = {}
    for size in (SMALL, LARGE):
        if state == "cold":
            site.forget(size)
        else:
            site.peak(size, 1)
        peaks[size] = site.peak(size, followers)
    assert peaks[LARGE] < peaks[SMALL] + LEEWAY_MIB / 2, (at_rest, peaks)
    assert peaks[LARGE] < at_rest + LEEWAY_MIB, (at_rest, peaks)


def test_the_extension_takes_little_memory_at_rest(tmp_path: Path) -> None:
    at_rest = []
    with FakeHub() as hub:
        for name, kind in (("bare", BareJupyterServer), ("with", JupyterServer)):
            with kind(tmp_path / name, hub.url) as server:
                at_rest.append((memory_mib(server.pid), memory_mib(server.pid, "VmRSS")))
        assert hub.counters.requests == []
    bare, with_it = at_rest
    assert with_it[0] < bare[0] + AT_REST_MIB, at_rest
    assert with_it[1] < bare[1] + AT_REST_MIB, at_rest
