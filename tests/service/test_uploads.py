"""Bodies on their way up: passed on while they come in, given up with the client, sent once."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from raw_http import SECONDS, RawServer, exchange, raw_server, statuses
from recording_server import recording_server, redirect
from serving import RunningCache

from jupyter_hf_cache.upstream.response import UpstreamResponse

ALICE = {"Authorization": "Bearer hf_alice"}
COMMIT = "/api/models/o/n/commit/main"
MIB = 1 << 20


@pytest.fixture
def upstream() -> Iterator[RawServer]:
    with raw_server() as server:
        yield server


@pytest.fixture
def before(cache: RunningCache, upstream: RawServer) -> RunningCache:
    """The cache with the raw server as its upstream."""
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"url": upstream.url})
    return cache


def begin(cache: RunningCache, length: int) -> socket.socket:
    """A connection on which an upload of `length` bytes has been announced."""
    path = urlsplit(cache.trusted).path + COMMIT
    connection = socket.create_connection(("127.0.0.1", cache.port), SECONDS)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{cache.port}\r\n"
        f"Authorization: Bearer hf_alice\r\nContent-Length: {length}\r\n\r\n".encode()
    )
    return connection


def is_answered(cache: RunningCache) -> bool:
    """Whether an upload that still comes in was answered by the upstream."""
    answers = [getattr(handler, "_forwarded", None) for handler in list(cache.context.running)]
    return any(answer is not None and answer.done() for answer in answers)


def test_a_client_that_leaves_ends_the_upload_upstream(
    before: RunningCache, upstream: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    with begin(before, 8 * MIB) as connection:
        connection.sendall(b"x" * MIB)
    assert upstream.ended.wait(SECONDS)
    assert upstream.seen == [], "no half of a body is taken for the whole"
    before.wait_until(lambda: not before.context.running)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_an_answer_that_nobody_waits_for_is_given_up(
    before: RunningCache, upstream: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.early = True
    upstream.answer = lambda request: (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nhalf"
    )
    closed = threading.Event()
    given_up = UpstreamResponse.close

    def close(response: UpstreamResponse) -> None:
        given_up(response)
        closed.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(UpstreamResponse, "close", close)
        with begin(before, 1 << 40) as connection:
            deadline = time.monotonic() + SECONDS
            while not is_answered(before):
                assert time.monotonic() < deadline
                connection.sendall(b"x" * 65536)
        assert closed.wait(SECONDS)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_an_early_refusal_reaches_a_client_that_still_sends(
    before: RunningCache, upstream: RawServer
) -> None:
    upstream.early = True
    upstream.answer = lambda request: (
        b"HTTP/1.1 413 Too large\r\nContent-Type: application/json\r\nContent-Length: 18\r\n"
        b"Connection: close\r\nX-Error-Message: too large\r\n\r\n"
        b'{"error": "large"}'
    )
    answer = before.request(
        "POST", COMMIT, trusted=True, headers=ALICE, data=(b"x" * 65536 for _ in range(256))
    )
    assert answer.status_code == 413
    assert answer.headers["X-Error-Message"] == "too large"
    assert answer.json() == {"error": "large"}


@pytest.mark.parametrize("body", ["whole", "in pieces", "none"])
def test_a_change_is_sent_once_whatever_comes_back(
    before: RunningCache, upstream: RawServer, body: str
) -> None:
    upstream.answer = lambda request: (
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\nContent-Type: text/plain\r\n\r\nbusy"
    )
    data = {"whole": b"x", "in pieces": iter([b"x", b"y"]), "none": None}[body]
    answer = before.request("POST", COMMIT, trusted=True, headers=ALICE, data=data)
    assert answer.status_code == 503
    assert len(upstream.seen) == 1


def test_a_change_whose_answer_is_lost_is_sent_once(
    before: RunningCache, upstream: RawServer
) -> None:
    upstream.answer = lambda request: b""
    upstream.early = True
    answer = before.request("DELETE", "/api/models/o/n/branch/x", trusted=True, headers=ALICE)
    assert answer.status_code >= 500
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_change_is_not_taken_elsewhere(cache: RunningCache, status: int) -> None:
    with recording_server() as own, recording_server() as other:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"url": own.url})
        own.default = redirect(f"{other.url}{COMMIT}", status)
        answer = cache.request("POST", COMMIT, trusted=True, headers=ALICE, data=b"{}")
        assert (answer.status_code, other.seen) == (status, [])
        assert "Location" not in answer.headers
        own.default = redirect("/api/models/o/new/commit/main", status)
        answer = cache.request("POST", COMMIT, trusted=True, headers=ALICE, data=b"{}")
        assert answer.headers["Location"].startswith(cache.host)
        assert len(own.seen) == 2


def test_what_was_refused_is_still_read_to_its_end(
    cache: RunningCache,
) -> None:
    with begin(cache, 4 * MIB) as connection:
        for _ in range(4):
            connection.sendall(b"x" * MIB)
        answer = connection.recv(65536)
    assert statuses(answer) == [404]


def test_pieces_keep_their_bytes(before: RunningCache, upstream: RawServer) -> None:
    path = urlsplit(before.trusted).path + COMMIT
    exchange(
        before.port,
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{before.port}\r\nConnection: close\r\n"
        f"Authorization: Bearer hf_alice\r\nContent-Encoding: gzip\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3\r\n\x1f\x8b\x00\r\n2\r\nde\r\n0\r\n\r\n".encode(
            "latin-1"
        ),
    )
    (request,) = upstream.seen
    sent = b"".join(request.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
    assert sent == b"\x1f\x8b\x00de"
    assert b"Content-Encoding: gzip" in request
