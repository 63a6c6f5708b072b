"""Where Tornado has to send big files itself: TLS, UNIX sockets, systems without `sendfile`.

It does so in chunks, each followed by a turn of the event loop, and holds no more than one of them
for a client that does not read.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import os
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fake_hub import BigFile, FakeHub
from serving import BASE_URL, RunningCache
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application

from jupyter_hf_cache.web import sendfile
from jupyter_hf_cache.web.content import CHUNK_SIZE, ContentHandler

MIB = 1 << 20
BIG = BigFile(24 * MIB + 7, seed=31)
FILE = "/org/big/resolve/main/model.bin"
SMALL = "/org/big/resolve/main/small.txt"
# A chunk that is being sent, and what frames it.
MOST_HELD = CHUNK_SIZE + 4096


class TlsCache(RunningCache):
    """Listens with TLS."""

    def _serve(self, app: Application) -> HTTPServer:
        server = HTTPServer(app, ssl_options=own_certificate(self.root))
        server.listen(0, "127.0.0.1")
        (listening,) = server._sockets.values()
        self.port = listening.getsockname()[1]
        return server

    def connect(self) -> socket.socket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.root / "cert.pem")
        return context.wrap_socket(connect_slowly(self.port), server_hostname="127.0.0.1")


class UnixCache(RunningCache):
    """Listens on a UNIX socket."""

    def _serve(self, app: Application) -> HTTPServer:
        server = HTTPServer(app)
        server.add_socket(bind_unix_socket(str(self.root / "socket")))
        self.port = 0
        return server

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(str(self.root / "socket"))
        return connection


class PlainCache(RunningCache):
    """Listens as usual."""

    def connect(self) -> socket.socket:
        return connect_slowly(self.port)


def connect_slowly(port: int) -> socket.socket:
    """A connection of which the kernel takes up little that is not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    return connection


def own_certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a new certificate, which lies in `folder` as cert.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


Cache = TlsCache | UnixCache | PlainCache


@pytest.fixture(params=[TlsCache, UnixCache, PlainCache], ids=["TLS", "UNIX", "no sendfile"])
def cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cache]:
    if request.param is UnixCache and not hasattr(socket, "AF_UNIX"):
        pytest.skip("no UNIX sockets here")
    if request.param is PlainCache and hasattr(os, "sendfile"):
        monkeypatch.delattr(os, "sendfile")

    def never(*_: Any) -> int:
        raise AssertionError("only Tornado may send here")

    monkeypatch.setattr(sendfile, "_send_some", never)
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "org/big").commit({"model.bin": BIG, "small.txt": b"small"})
        with request.param(tmp_path, hub) as cache:
            with Client(cache) as client:
                assert client.ask(FILE)[2] == BIG.read(0, BIG.size), "while it arrives"
                client.ask(SMALL)
            cache.wait_idle()
            yield cache


class Client:
    """One connection."""

    def __init__(self, cache: Cache) -> None:
        capabilities = cache.context.capabilities
        assert capabilities is not None
        self._prefix = f"{BASE_URL}pulp/content/~{capabilities.issue(600.0)}/hf"
        self.socket = cache.connect()
        self.reader = self.socket.makefile("rb")

    def send(self, path: str, *headers: str, method: str = "GET") -> None:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", "Host: localhost", *headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())

    def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        status = int(self.reader.readline().split()[1])
        headers = {}
        while (line := self.reader.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.reader.read(int(headers["content-length"])) if body else b""

    def ask(self, path: str, *headers: str) -> tuple[int, dict[str, str], bytes]:
        self.send(path, *headers)
        return self.answer()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.socket.close()


def held(cache: Cache) -> list[int]:
    """Bytes that wait in Tornado's buffers, for each answer that is not over."""
    streams = [handler.request.connection.stream for handler in list(cache.context.running)]  # type: ignore[attr-defined]
    return [len(stream._write_buffer) for stream in streams]


def stalled(cache: Cache) -> bool:
    """Whether every answer waits for its client."""
    return all(size > 0 for size in held(cache))


def test_whole_files_and_parts_on_one_connection(cache: Cache) -> None:
    with Client(cache) as client:
        for _ in range(2):
            assert client.ask(FILE)[2] == BIG.read(0, BIG.size)
            assert client.ask(SMALL)[2] == b"small"
            part = client.ask(FILE, f"Range: bytes=5-{9 * MIB}")
            assert (part[0], part[2]) == (206, BIG.read(5, 9 * MIB - 4))
            client.send(FILE, method="HEAD")
            assert client.answer(body=False)[1]["content-length"] == str(BIG.size)
            several = client.ask(FILE, f"Range: bytes=0-{2 * MIB},-{3 * MIB}")
            assert BIG.read(0, 2 * MIB + 1) in several[2]
            assert BIG.read(BIG.size - 3 * MIB, 3 * MIB) in several[2]


def test_clients_that_do_not_read_cost_one_chunk_each(cache: Cache) -> None:
    clients = [Client(cache) for _ in range(8)]
    try:
        for client in clients:
            client.send(FILE)
        cache.wait_until(lambda: len(cache.context.running) == 8 and stalled(cache))
        with Client(cache) as other:
            for _ in range(50):
                other.send(FILE, method="HEAD")
                assert other.answer(body=False)[0] == 200
                assert other.ask(SMALL)[2] == b"small"
                assert max(held(cache)) <= MOST_HELD
        assert clients[0].answer()[2] == BIG.read(0, BIG.size), "and may go on any time"
    finally:
        for client in clients:
            client.__exit__()
    cache.wait_until(lambda: not cache.context.running)


def test_the_loop_turns_between_two_chunks(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, ended = 0, False
    chunks: dict[ContentHandler, list[tuple[int, int]]] = defaultdict(list)
    write = ContentHandler.write

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not ended:
            cache._loop.call_soon(turn)

    def noted(self: ContentHandler, chunk: Any) -> None:
        chunks[self].append((turns, len(chunk)))
        write(self, chunk)

    monkeypatch.setattr(ContentHandler, "write", noted)
    cache._loop.call_soon_threadsafe(turn)
    received = []

    def download() -> None:
        with Client(cache) as client:
            received.append(client.ask(FILE)[2] == BIG.read(0, BIG.size))

    threads = [threading.Thread(target=download) for _ in range(8)]
    for thread in threads:
        thread.start()
    with Client(cache) as other:
        while any(thread.is_alive() for thread in threads):
            assert other.ask(SMALL)[2] == b"small"
    for thread in threads:
        thread.join()
    ended = True
    assert received == [True] * 8
    big = [one for one in chunks.values() if len(one) > 1]
    assert len(big) == 8
    for one in big:
        assert max(size for _, size in one) <= CHUNK_SIZE
        assert all(later > earlier for (earlier, _), (later, _) in itertools.pairwise(one))


def test_a_client_that_leaves_leaves_nothing_behind(cache: Cache) -> None:
    for _ in range(5):
        with Client(cache) as client:
            client.send(FILE)
            assert client.reader.read(1000)
    cache.wait_until(lambda: not cache.context.running)
    with Client(cache) as client:
        assert client.ask(FILE)[2] == BIG.read(0, BIG.size)


def test_a_growing_file_comes_in_chunks_too(cache: Cache) -> None:
    growing = BigFile(12 * MIB + 3, seed=41)
    cache.hub.repo("models", "org/growing").commit({"model.bin": growing})
    cache.hub.fault("stall", "", host="cdn", at=6 * MIB)
    with Client(cache) as client:
        client.send("/org/growing/resolve/main/model.bin")
        assert cache.hub.faults.wait_until_stalled()
        cache.wait_until(lambda: bool(held(cache)) and max(held(cache)) <= MOST_HELD)
        cache.hub.faults.release()
        assert client.answer()[2] == growing.read(0, growing.size)
