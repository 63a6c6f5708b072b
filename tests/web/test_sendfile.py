"""Big kept files on their way past Tornado's buffers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import BASE_URL, RunningCache

from jupyter_hf_cache.web import sendfile

MIB = 1 << 20
SIZE = 24 * MIB + 7
BIG = BigFile(SIZE, seed=3)
URL = "/org/big/resolve/main/model.bin"

pytestmark = pytest.mark.skipif(not hasattr(os, "sendfile"), reason="no sendfile here")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCache]:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "org/big").commit({"model.bin": BIG, "small.txt": b"small"})
        with RunningCache(tmp_path_factory.mktemp("cache"), hub) as cache:
            cache.get(URL)
            cache.get("/org/big/resolve/main/small.txt")
            cache.wait_idle()
            yield cache


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that went by sendfile, step by step."""
    steps: list[int] = []
    send_some = sendfile._send_some

    def counted(*args: int) -> int:
        count = send_some(*args)
        steps.append(count)
        return count

    monkeypatch.setattr(sendfile, "_send_some", counted)
    return steps


def raw_request(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {BASE_URL}pulp/content/hf{path} HTTP/1.1", "Host: localhost", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_answer(reader: socket.SocketIO) -> tuple[int, dict[str, str], bytes]:
    status = int(reader.readline().split()[1])
    headers = {}
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return status, headers, reader.read(int(headers["content-length"]))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_whole_file_and_nothing_else(cache: RunningCache, sent: list[int]) -> None:
    assert cache.get(URL).content == BIG.read(0, SIZE)
    assert sum(sent) == SIZE


@pytest.mark.parametrize(("first", "last"), [(0, MIB - 1), (5, 20 * MIB), (SIZE - MIB, SIZE - 1)])
def test_a_range(cache: RunningCache, sent: list[int], first: int, last: int) -> None:
    answer = cache.get(URL, headers={"Range": f"bytes={first}-{last}"})
    assert answer.status_code == 206
    assert answer.content == BIG.read(first, last - first + 1)
    assert sum(sent) == last - first + 1


def test_the_connection_is_used_again(cache: RunningCache) -> None:
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(cache.endpoint + URL).content == BIG.read(0, SIZE)
            assert session.get(cache.endpoint + "/org/big/resolve/main/small.txt").text == "small"
            assert session.head(cache.endpoint + URL).headers["Content-Length"] == str(SIZE)
        (pool,) = session.get_adapter(cache.endpoint).poolmanager.pools._container.values()
        assert pool.num_connections == 1


def test_pipelined_requests_are_answered_in_order(cache: RunningCache) -> None:
    with socket.create_connection(("127.0.0.1", cache.port)) as client:
        client.sendall(
            raw_request(URL)
            + raw_request("/org/big/resolve/main/small.txt")
            + raw_request(URL, "Range: bytes=1-2000000")
        )
        with client.makefile("rb") as reader:
            assert read_answer(reader)[2] == BIG.read(0, SIZE)
            assert read_answer(reader)[2] == b"small"
            status, headers, body = read_answer(reader)
    assert (status, body) == (206, BIG.read(1, 2_000_000))
    assert headers["content-range"] == f"bytes 1-2000000/{SIZE}"


def test_a_stopped_client_holds_no_thread(cache: RunningCache) -> None:
    clients = []
    try:
        for _ in range(24):
            client = socket.create_connection(("127.0.0.1", cache.port))
            client.sendall(raw_request(URL))
            clients.append(client)
        assert cache.get(URL).content == BIG.read(0, SIZE)
        with clients[0].makefile("rb") as reader:
            assert read_answer(reader)[2] == BIG.read(0, SIZE), "and may go on any time"
    finally:
        for client in clients:
            client.close()


def test_clients_that_leave_leave_nothing_behind(cache: RunningCache) -> None:
    cache.get(URL)
    cache.wait_until(lambda: not cache.context.running)
    before = descriptors()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", cache.port)) as client:
            client.sendall(raw_request(URL))
            assert client.recv(1000)
    cache.wait_until(lambda: not cache.context.running)
    # Threads that touch a table for the first time open it: a few more are no leak, 20 would be.
    cache.wait_until(lambda: descriptors() < before + 10)
    assert cache.get(URL).content == BIG.read(0, SIZE)


def test_a_growing_file_goes_the_same_way(cache: RunningCache, sent: list[int]) -> None:
    growing = BigFile(12 * MIB + 3, seed=11)
    cache.hub.repo("models", "org/growing").commit({"model.bin": growing})
    cache.hub.fault("stall", "", host="cdn", at=6 * MIB)
    with requests.get(
        cache.endpoint + "/org/growing/resolve/main/model.bin", stream=True, timeout=30
    ) as response:
        start = response.raw.read(5 * MIB)
        assert cache.hub.faults.wait_until_stalled()
        cache.hub.faults.release()
        assert start + response.raw.read() == growing.read(0, growing.size)
    assert sum(sent) >= 8 * MIB


def test_where_it_is_missing_tornado_sends(
    cache: RunningCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sendfile")
    assert cache.get(URL).content == BIG.read(0, SIZE)


def test_a_file_cut_behind_our_back_breaks_the_answer_off(
    cache: RunningCache, tmp_path: Path
) -> None:
    # Not a kept blob of the cache, but one that is opened and then cut: what a failing disk does.
    whole = tmp_path / "blob"
    whole.write_bytes(b"x" * 4096)
    ours, theirs = socket.socketpair()
    with ours, theirs, whole.open("rb") as file, pytest.raises(OSError, match="shorter"):
        sendfile._send_some(ours.fileno(), file.fileno(), 0, 8192)
