"""Big kept files on their way past Tornado's buffers."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

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


def test_stopped_clients_hold_no_thread(cache: RunningCache) -> None:
    clients = []
    try:
        for _ in range(64):
            client = socket.create_connection(("127.0.0.1", cache.port))
            client.sendall(raw_request(URL))
            clients.append(client)
        cache.wait_until(lambda: len(cache.context.running) == 64)
        small = "/org/big/resolve/main/small.txt"
        for path, length in ((URL, SIZE), (small, 5)):
            assert cache.head(path).headers["Content-Length"] == str(length)
        assert cache.get(small).text == "small"
        assert cache.get(URL).content == BIG.read(0, SIZE)
        cache.wait_until(cache.context.pools.sending._work_queue.empty)
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


def test_who_sends_lets_the_event_loop_go_first(cache: RunningCache) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    sending = cache.context.pools.sending.submit(niceness).result(30)
    assert sending == min(19, niceness() + 5)
    assert cache.context.pools.disk.submit(niceness).result(30) == niceness()


def test_an_old_client_sees_the_connection_end(cache: RunningCache) -> None:
    with socket.create_connection(("127.0.0.1", cache.port)) as client:
        client.sendall(raw_request(URL).replace(b"HTTP/1.1", b"HTTP/1.0"))
        with client.makefile("rb") as reader:
            assert read_answer(reader)[2] == BIG.read(0, SIZE)
            assert reader.read() == b""


def test_it_is_logged_and_counted_like_any_other(
    cache: RunningCache, sent: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> tuple[int, int]:
        today = cache.api("GET", "status").json()["today"]
        return today["hits"], today["bytes_from_cache"]

    hits, size = counted()
    with caplog.at_level(logging.DEBUG, "jupyter_hf_cache"):
        assert cache.get(URL, headers={"Range": "bytes=0-1999999"}).status_code == 206
        cache.wait_until(lambda: not cache.context.running)
    assert sum(sent) == 2_000_000
    assert counted() == (hits + 1, size + 2_000_000)
    (line,) = [r.getMessage() for r in caplog.records if "206 GET" in r.getMessage()]
    assert URL in line


def test_a_server_that_stops_waits_for_no_client(tmp_path: Path) -> None:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "org/big").commit({"model.bin": BIG})
        with RunningCache(tmp_path, hub) as cache:
            cache.get(URL)
            cache.wait_idle()
            client = socket.create_connection(("127.0.0.1", cache.port))
            client.sendall(raw_request(URL))
            cache.wait_until(lambda: bool(cache.context.running))
            assert client.recv(10).startswith(b"HTTP/1.1 2")
        with client:
            client.settimeout(30)
            # Cut off, not completed: the client sees that bytes are missing.
            assert len(rest_of(client)) < SIZE
        assert not cache._thread.is_alive()


def rest_of(client: socket.socket) -> bytes:
    received = b""
    try:
        while data := client.recv(MIB):
            received += data
    except ConnectionError:
        pass
    return received


class TestDescriptors:
    """A thread that still sends when the answer was given up uses what it was given, never another
    connection or file that got the same number."""

    @pytest.fixture
    def running(self) -> Iterator[tuple[sendfile.BodySender, threading.Event, list[bool]]]:
        """A sender whose thread waits for the event, then says whether its descriptors live."""
        go_on, alive = threading.Event(), list[bool]()

        def slow(out: int, file: int, offset: int, length: int) -> int:
            go_on.wait(30)
            for descriptor in (out, file):
                try:
                    os.fstat(descriptor)
                    alive.append(True)
                except OSError:
                    alive.append(False)
            return length

        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs, tempfile.TemporaryFile() as file, ThreadPoolExecutor(1) as pool:
            connection = SimpleNamespace(_expected_content_remaining=10)
            stream = SimpleNamespace(socket=ours, set_nodelay=lambda on: None, closed=lambda: False)

            async def begin() -> sendfile.BodySender:
                sender = sendfile.BodySender(connection, stream, file.fileno(), pool)  # type: ignore[arg-type]
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(sendfile, "_send_some", slow)
                    task = asyncio.ensure_future(sender.send(0, 10))
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return sender

            yield asyncio.run(begin()), go_on, alive
            go_on.set()

    def test_live_as_long_as_a_thread_uses_them(
        self, running: tuple[sendfile.BodySender, threading.Event, list[bool]]
    ) -> None:
        sender, go_on, alive = running
        sender.close()
        os.fstat(sender._fd)
        go_on.set()
        sender._pool.shutdown(wait=True)
        assert alive == [True, True]
        for descriptor in (sender._fd, sender._file):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)

    def test_closing_twice_does_nothing(
        self, running: tuple[sendfile.BodySender, threading.Event, list[bool]]
    ) -> None:
        sender, go_on, _ = running
        go_on.set()
        sender._pool.shutdown(wait=True)
        sender.close()
        with tempfile.TemporaryFile() as other, tempfile.TemporaryFile() as another:
            sender.close()
            os.fstat(other.fileno())
            os.fstat(another.fileno())


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
