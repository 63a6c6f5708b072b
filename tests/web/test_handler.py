"""What every handler does before and after its verb, over a real connection."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from jupyter_hf_cache.errors import OutOfSpace, RangeNotSatisfiable, UpstreamAnswer
from jupyter_hf_cache.web.application import make_server
from jupyter_hf_cache.web.context import AccessOptions, ServiceSlot, WebContext
from jupyter_hf_cache.web.credentials import PasswordAuthenticator
from jupyter_hf_cache.web.handler import CacheHandler
from jupyter_hf_cache.web.network import parse_networks

PASSWORD = "correct horse"
BASIC = {"Authorization": "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()}


class Content(CacheHandler):
    surface = "content"

    def get(self, path: str) -> None:
        errors = {
            "full": OutOfSpace("The disk is full.", advice="Delete something."),
            "range": RangeNotSatisfiable(7),
            "upstream": UpstreamAnswer(
                404, "Repository not found", code="RepoNotFound", body=b'{"error": "no"}'
            ),
            "strange": OutOfSpace("Zwölf\r\nX-Injected: 1 " + "x" * 3000),
            "bug": ZeroDivisionError("s3cret in the message"),
        }
        name = path.rpartition("/")[2]
        if name in errors:
            raise errors[name]
        self.json({"query": self.request.query, "path": self.entrance.path})

    head = get

    def post(self, path: str) -> None:
        self.finish(self.request.body)


class Breaking(CacheHandler):
    surface = "content"

    async def get(self) -> None:
        self.set_header("Content-Length", "1000")
        self.write(b"x" * 10)
        await self.flush()
        raise OutOfSpace("in the middle")


class Api(CacheHandler):
    def get(self) -> None:
        self.json({"url": self.full_url("x/y")})

    def put(self) -> None:
        self.json({"got": self.json_body()})

    def post(self) -> None:
        self.json({"name": self.get_body_argument("name", "")})


class Open(CacheHandler):
    surface = "open"

    def get(self) -> None:
        self.json({"open": True})


class Uploads(CacheHandler):
    surface = "content"
    body_limit = None
    seen = 0

    def data_received(self, chunk: bytes) -> None:
        self.seen += len(chunk)

    def put(self) -> None:
        self.json({"seen": self.seen})


HANDLERS = [
    (r"pulp/content/breaking", Breaking),
    (r"pulp/content/uploads", Uploads),
    (r"pulp/content/(.*)", Content),
    (r"api", Api),
    (r"open", Open),
]


class Server:
    """The handlers in a thread of their own."""

    def __init__(self) -> None:
        service: Any = SimpleNamespace(secrets=SimpleNamespace(derive=lambda _: b"k" * 32))
        self.context = WebContext(
            slot=ServiceSlot(service),
            authenticator=PasswordAuthenticator(PASSWORD),
            options=AccessOptions(trusted_proxies=parse_networks(["127.0.0.2"])),
        )
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        self.port = self._started.result(20)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server: HTTPServer = make_server(self.context, HANDLERS)
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        self._started.set_result(sockets[0].getsockname()[1])
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self.context.pools.close()

    def ask(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: Any = None,
        peer: str = "127.0.0.1",
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(peer, 0)
        )
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


# -- errors


@pytest.mark.parametrize(
    ("name", "status", "code", "message"),
    [
        ("full", 507, None, "The disk is full. Delete something."),
        ("range", 416, None, "The requested range is outside the file, which has 7 bytes."),
        ("upstream", 404, "RepoNotFound", "Repository not found"),
        ("bug", 500, None, "The cache failed to answer this. The server's log says why."),
    ],
)
def test_errors_on_content_have_the_hubs_shape(
    server: Server, name: str, status: int, code: str | None, message: str
) -> None:
    for method in ("GET", "HEAD"):
        found, headers, body = server.ask(f"/pulp/content/hf/{name}", method=method)
        assert (found, headers["X-Error-Code"]) == (status, code)
        assert headers["X-Error-Message"] == message
        assert headers["Content-Security-Policy"].startswith("sandbox")
        assert b"Traceback" not in body
        assert b"s3cret" not in body
    if name == "range":
        assert headers["Content-Range"] == "bytes */7"
    if name == "upstream":
        assert server.ask(f"/pulp/content/hf/{name}")[2] == b'{"error": "no"}'


def test_a_message_cannot_add_headers_or_grow_without_end(server: Server) -> None:
    _, headers, _ = server.ask("/pulp/content/hf/strange")
    assert "X-Injected" not in headers
    assert headers["X-Error-Message"].startswith("Zw?lf X-Injected: 1")
    assert len(headers["X-Error-Message"]) <= 1024


def test_errors_on_the_api_are_json(server: Server) -> None:
    status, headers, body = server.ask("/api")
    assert (status, headers["Content-Type"]) == (401, "application/json")
    assert set(json.loads(body)) == {"message", "advice"}
    status, _, body = server.ask("/api", BASIC, method="DELETE")
    assert (status, json.loads(body)["message"]) == (405, "DELETE is not supported here.")
    status, _, body = server.ask("/api", BASIC, method="PUT", body="{nope")
    assert (status, json.loads(body)["message"]) == (400, "The body is not valid JSON.")


def test_an_answer_that_breaks_off_does_not_look_complete(server: Server) -> None:
    with pytest.raises(http.client.IncompleteRead):
        server.ask("/pulp/content/breaking")


def test_only_surprises_get_a_traceback_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    ticket = server.context.capabilities.issue(60) if server.context.capabilities else ""
    server.ask(f"/pulp/content/~{ticket}/hf/full")
    assert not any(record.exc_info for record in caplog.records)
    server.ask(f"/pulp/content/~{ticket}/hf/bug")
    assert [r.levelno for r in caplog.records if r.exc_info] == [logging.ERROR]
    assert ticket not in caplog.text
    assert "~…/hf/bug" in caplog.text


# -- bodies


def test_bodies_are_collected_up_to_a_limit(server: Server) -> None:
    as_json = BASIC | {"Content-Type": "application/json"}
    status, _, body = server.ask("/api", as_json, method="PUT", body="[1]")
    assert (status, json.loads(body)) == (200, {"got": [1]})
    long = b" " * (1 << 20) + b"1"
    assert server.ask("/api", as_json, method="PUT", body=long)[0] == 413
    chunks = iter([long[: 1 << 19], long[1 << 19 :]])
    assert server.ask("/api", as_json, method="PUT", body=chunks)[0] == 413


def test_forms_are_read(server: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = server.ask("/api", BASIC | form, method="POST", body="name=a%20b")
    assert (status, json.loads(body)) == (200, {"name": "a b"})


def test_forms_with_a_foreign_cookie_are_refused(server: Server) -> None:
    headers = BASIC | {"Content-Type": "text/plain", "Cookie": "_xsrf=1"}
    assert server.ask("/api", headers, method="POST", body="name=x")[0] == 403
    assert (
        server.ask("/api", headers | {"Content-Type": "application/json"}, method="PUT", body="1")[
            0
        ]
        == 200
    )


def test_nobody_without_entrance_can_make_us_read(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            b"PUT /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000000\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"100 (Continue)" not in answer


def test_uploads_are_handed_on_piece_by_piece_and_without_limit(server: Server) -> None:
    pieces = iter([b"x" * (1 << 20)] * 20)
    status, _, body = server.ask("/pulp/content/uploads", method="PUT", body=pieces)
    assert (status, json.loads(body)) == (200, {"seen": 20 << 20})


def test_a_client_that_leaves_in_the_middle_is_not_waited_for(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(
            b"PUT /pulp/content/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nx"
        )
        wait_until(lambda: len(server.context.running) == 1)
    wait_until(lambda: not server.context.running)


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- what handlers see


def test_jupyters_token_is_cut_out_of_the_query(server: Server) -> None:
    _, _, body = server.ask("/pulp/content/hf/x?a=1&token=s3cret&b=%202&Token=t")
    assert json.loads(body)["query"] == "a=1&b=%202"


def test_the_path_stays_as_the_client_wrote_it(server: Server) -> None:
    _, _, body = server.ask("/pulp/content/hf/a%2Fb/refs%2Fpr%2F1/%C3%A4%20b?x=~y")
    assert json.loads(body)["path"] == "hf/a%2Fb/refs%2Fpr%2F1/%C3%A4%20b"


def test_urls_are_as_the_client_saw_the_host(server: Server) -> None:
    def url(headers: dict[str, str], peer: str = "127.0.0.1") -> str:
        return str(json.loads(server.ask("/api", BASIC | headers, peer=peer)[2])["url"])

    forwarded = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "localhost",
        "X-Forwarded-Prefix": "/cache",
    }
    assert url({"Host": "localhost:1234"}) == "http://localhost:1234/x/y"
    assert url({"Host": "localhost:1234"} | forwarded) == "http://localhost:1234/x/y"
    assert url(forwarded, peer="127.0.0.2") == "https://localhost/cache/x/y"


def test_open_routes_need_no_login_but_pass_the_guard(server: Server) -> None:
    assert server.ask("/open")[0] == 200
    assert server.ask("/open", {"Host": "evil.example.org"})[0] == 403


def test_other_addresses_are_404(server: Server) -> None:
    status, _, body = server.ask("/nope")
    assert status == 404
    assert "pulp/content/" in json.loads(body)["advice"]


def test_a_missing_service_is_503_with_the_reason(server: Server) -> None:
    slot = ServiceSlot()
    slot.fail("The disk is read-only. Set c.HfCache.cache_dir.")
    context = WebContext(slot=slot, authenticator=PasswordAuthenticator())
    with pytest.raises(Exception, match="read-only") as error:
        _ = context.service
    assert error.value.status == 503  # type: ignore[attr-defined]
    assert context.capabilities is None
    context.pools.close()
