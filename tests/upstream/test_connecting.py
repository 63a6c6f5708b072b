"""Connections: names that hang, addresses that lead nowhere, and how long all that takes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from door import Door
from recording_server import Recorder, recording_server

from jupyter_hf_cache.errors import UpstreamUnreachable
from jupyter_hf_cache.storage.records import ANONYMOUS, Remote
from jupyter_hf_cache.upstream.client import UpstreamClient
from jupyter_hf_cache.upstream.connecting import Names

HOST = "hub.test"
V4, V6 = socket.AF_INET, socket.AF_INET6


class Resolver:
    """The system's resolver, which knows `HOST` too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[tuple[int, str]] = [(V4, "127.0.0.1")]
        self.go_on = threading.Event()
        self.go_on.set()
        self.asked = 0
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != HOST:
            return self._real(host, port, *args, **options)
        self.asked += 1
        assert self.go_on.wait(30)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(kind, socket.SOCK_STREAM, 6, "", (one, 0)) for kind, one in self.addresses]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver(monkeypatch)
    yield resolver
    resolver.go_on.set()


@pytest.fixture
def server() -> Iterator[Recorder]:
    with recording_server() as recorder:
        yield recorder


def ask(port: int, seconds: float = 5.0) -> bytes:
    remote = Remote(id="1", name="hub", url=f"http://{HOST}:{port}", max_retries=0)
    client = UpstreamClient(remote, user_agent="test/1", environ={})
    try:
        with client.request("GET", "/x", credential=ANONYMOUS, connect_timeout=seconds) as response:
            return response.read(1000)
    finally:
        client.close()


def test_a_name_is_looked_up(resolver: Resolver, server: Recorder) -> None:
    assert ask(server.port) == b"ok"
    assert resolver.asked == 1


def test_a_name_that_is_none(resolver: Resolver, server: Recorder) -> None:
    resolver.addresses = []
    with pytest.raises(UpstreamUnreachable, match="cannot be resolved"):
        ask(server.port)


def test_a_resolver_that_hangs_is_not_waited_for(resolver: Resolver, server: Recorder) -> None:
    resolver.go_on.clear()
    for _ in range(3):
        # It returns at all, while the resolver still hangs.
        with pytest.raises(UpstreamUnreachable, match="cannot be resolved"):
            ask(server.port, 0.1)
    assert resolver.asked == 1, "one question hangs, however many wait for it"
    resolver.go_on.set()
    deadline = time.monotonic() + 20
    while resolver.asked == 1:
        assert time.monotonic() < deadline
        assert ask(server.port) == b"ok"


def test_a_dead_address_leaves_time_for_a_living_one(resolver: Resolver, server: Recorder) -> None:
    with Door(server.url) as door:
        # Nobody listens at the others of this machine's own addresses, on this port.
        resolver.addresses = [(V6, "::1"), (V4, "127.0.0.9"), (V4, "127.0.0.1")]
        assert ask(door.port) == b"ok"


def test_addresses_share_the_time(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def create_connection(address: tuple[str, int], timeout: float, **options: Any) -> Any:
        tried.append((address[0], timeout))
        raise TimeoutError

    monkeypatch.setattr("urllib3.util.connection.create_connection", create_connection)
    resolver.addresses = [
        *[(V6, f"2001:db8::{number}") for number in range(4)],
        *[(V4, f"192.0.2.{number}") for number in range(4)],
    ]
    with pytest.raises(UpstreamUnreachable, match="timed out"):
        ask(443, 60.0)
    assert [address for address, _ in tried] == [
        "2001:db8::0",
        "192.0.2.0",
        "2001:db8::1",
        "192.0.2.1",
    ]
    assert 14 < tried[0][1] <= 15, "a quarter of the time"
    # They failed at once, so that the last has nearly all of it.
    assert tried[-1][1] > 40


def test_an_address_needs_no_resolver(resolver: Resolver) -> None:
    names = Names()
    for address in ("127.0.0.1", "::1", "fe80::1%lo"):
        assert names.resolve(address, 0.0) == [address]
    assert resolver.asked == 0


def test_a_name_no_resolver_can_spell() -> None:
    with pytest.raises(socket.gaierror):
        Names().resolve("a" * 70 + ".example", 5.0)
