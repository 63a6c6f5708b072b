"""Nonsense from clients and from upstreams: words and the right status, never a stack trace."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_hub import FakeHub
from recording_server import Handler, Recorder, recording_server, redirect, reply
from serving import BASE_URL, RunningCache

from jupyter_hf_cache.upstream import listings

CONFIG = "/org/large/resolve/main/README.md"
INFO = "/api/models/org/large"
TREE = "/api/models/org/large/tree/main"
SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class RawAnswer:
    status: int
    headers: dict[str, str]
    body: str


def send(cache: RunningCache, method: str, target: str, **headers: str) -> RawAnswer:
    """Send a request line exactly as it stands, which no client library does."""
    connection = http.client.HTTPConnection("127.0.0.1", cache.port, timeout=30)
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]
    connection._encode_request = lambda line: line.encode("latin-1")  # type: ignore[attr-defined]
    connection._validate_host = lambda host: None  # type: ignore[attr-defined]
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return RawAnswer(answer.status, dict(answer.headers), answer.read().decode())
    finally:
        connection.close()


def outside(cache: RunningCache) -> set[Path]:
    """Every file that is not where the cache keeps its own, there and one level up.

    What lies deeper beside it belongs to other tests, whose tables may be closed only now.
    """
    kept = {cache.root / name for name in ("cache", "data", "config")}
    inside = {
        path for path in cache.root.rglob("*") if path not in kept and not kept & set(path.parents)
    }
    return inside | set(cache.root.parent.iterdir())


def assert_words(answer: RawAnswer) -> None:
    message = answer.headers["X-Error-Message"]
    assert len(message) > 15
    for text in (answer.body, message):
        assert "Traceback" not in text
        assert 'File "' not in text
        assert "/work" not in text
    assert "sandbox" in answer.headers["Content-Security-Policy"]


BAD_PATHS = [
    "/org/large/resolve/main/../../../../etc/passwd",
    "/org/large/resolve/main/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/org/large/resolve/main/a/%2E%2e/b",
    "/org/large/resolve/main/..%2f..%2fetc%2fpasswd",
    "/org/large/resolve/..%2f..%2fx/f",
    "/org/large/resolve/main/a%00b",
    "/org/large/resolve/main/a%0d%0aX-Injected:%201",
    "/org/large/resolve/main%0aX/f",
    "/org/large/resolve/main/a%5c..%5cb",
    "/org/large/resolve/main/a\\..\\b",
    "/org/large/resolve/main/%zz",
    "/org/large/resolve/main/%",
    "/org/large/resolve/main/%c3%28",
    "/org/large/resolve/main/a//b",
    "/org/large/resolve/main/./b",
    "/../large/resolve/main/f",
    "/%2e%2e/%2e%2e/resolve/main/f",
    "/org/large%20x/resolve/main/f",
    "/org/" + "a" * 10_000 + "/resolve/main/f",
    "/org/large/resolve/main/" + "a" * 10_000,
    "/org/large/resolve/" + "%61" * 5_000 + "/f",
    "/api/models/org/large/tree/main/../..",
    "/api/models/../../etc",
    "/api/models/org/large/revision/%2e%2e%2f%2e%2e",
    "/api/models/org/large/paths-info/a%0d%0ab",
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: path[:60])
def test_paths_that_could_climb_are_refused(cache: RunningCache, hub: FakeHub, path: str) -> None:
    before = outside(cache)
    for method in ("GET", "HEAD", "POST"):
        prefix = BASE_URL + "pulp/content/hf"
        answer = send(cache, method, prefix + path, Content_Length="0")
        assert answer.status in (400, 401, 404), (method, answer)
        assert_words(answer) if method != "HEAD" else None
        assert "X-Injected" not in answer.headers
    assert hub.counters.requests == []
    assert outside(cache) == before


@pytest.mark.parametrize(
    "query",
    [
        "?x=%0d%0aX-Injected:1",
        "?expand=%00",
        "?cursor=%zz&limit=-1",
        "?limit=99999999999999999999",
        "?recursive=true#frag",
        "?x=\u00e9".encode().decode("latin-1"),
        "?" + "a=b&" * 2000,
    ],
    ids=lambda query: query[:20],
)
def test_queries_stay_queries(cache: RunningCache, hub: FakeHub, query: str) -> None:
    answer = send(cache, "GET", f"{BASE_URL}pulp/content/hf{TREE}{query}")
    assert answer.status in (200, 400)
    assert "X-Injected" not in answer.headers
    assert all("x-injected" not in record.headers for record in hub.counters.requests)


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=" + ",".join(f"{n}-{n}" for n in range(5000))},
        {"Range": "bytes=--1"},
        {"Range": "bytes=999999999999999999999999-"},
        {"If_None_Match": "W/" * 3000},
        {"If_None_Match": ","},
        {"Authorization": "Bearer " + "hf_" + "x" * 20_000},
        {"Authorization": "Bearer hf_\u00e9\u00e9"},
        {"Authorization": "Bearer hf_two words"},
        {"Authorization": "Bearer"},
        {"X_HF_Download_Counter": "1" * 5000},
        {"Accept": ";;;,,,"},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_headers_without_sense(cache: RunningCache, headers: dict[str, str]) -> None:
    for path in (CONFIG, INFO):
        answer = send(cache, "GET", f"{BASE_URL}pulp/content/hf{path}", **headers)
        assert answer.status in (200, 304, 400, 401, 416), answer
        assert "Traceback" not in answer.body


@pytest.mark.parametrize("method", ["PROPFIND", "TRACE", "CONNECT", "OPTIONS"])
def test_other_methods(cache: RunningCache, hub: FakeHub, method: str) -> None:
    answer = send(cache, method, f"{BASE_URL}pulp/content/hf{CONFIG}")
    assert answer.status == 405
    assert hub.counters.requests == []


def test_no_distribution(cache: RunningCache) -> None:
    for path in ("", "nope", "nope/org/x/resolve/main/f", "hfx/org/x/resolve/main/f"):
        answer = send(cache, "GET", f"{BASE_URL}pulp/content/{path}")
        assert answer.status == 404
        assert_words(answer)


@pytest.fixture
def upstream() -> Iterator[Recorder]:
    with recording_server() as recorder:
        yield recorder


@pytest.fixture
def before_recorder(cache: RunningCache, upstream: Recorder) -> RunningCache:
    """The cache with a recording server as its upstream."""
    use_upstream(cache, upstream.url)
    return cache


def use_upstream(cache: RunningCache, url: str) -> None:
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"url": url})


def answer_json(body: bytes) -> Callable[[Handler], None]:
    return lambda handler: reply(handler, 200, body, Content_Type="application/json")


class TestNotAHub:
    """An upstream that is something else says so in the first error a user sees."""

    READS = (CONFIG, INFO, TREE, "/api/models/org/large/refs", "/org/large/raw/main/x.txt")

    def assert_explained(self, cache: RunningCache, words: str) -> None:
        for path in self.READS:
            answer = send(cache, "GET", f"{BASE_URL}pulp/content/hf{path}")
            assert answer.status == 521, path
            assert words in answer.headers["X-Error-Message"], path
            assert_words(answer)

    def test_a_folder_of_files(self, cache: RunningCache) -> None:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0),
            type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": _say_nothing}),
        )
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            use_upstream(cache, f"http://127.0.0.1:{server.server_port}")
            self.assert_explained(cache, "does not behave like a Hub")
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    @pytest.mark.parametrize(
        "default",
        [
            lambda handler: reply(handler, 200, b"<html>Log in</html>", Content_Type="text/html"),
            lambda handler: reply(handler, 404, b"nothing here"),
            lambda handler: reply(handler, 403, b"blocked by the proxy"),
            lambda handler: reply(handler, 200, b""),
            redirect("https://login.example.test/?next=x", 302),
        ],
        ids=["portal", "bare 404", "bare 403", "nothing", "login redirect"],
    )
    def test_a_portal(
        self,
        before_recorder: RunningCache,
        upstream: Recorder,
        default: Callable[[Handler], None],
    ) -> None:
        upstream.default = default
        self.assert_explained(before_recorder, "does not behave like a Hub")

    def test_without_metadata(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.fault("no_metadata", "", times=None)
        answer = send(cache, "GET", f"{BASE_URL}pulp/content/hf{CONFIG}")
        assert answer.status == 521
        assert "does not behave like a Hub" in answer.headers["X-Error-Message"]
        assert "url of the remote" in answer.headers["X-Error-Message"]

    def test_a_name_that_does_not_exist(self, cache: RunningCache) -> None:
        use_upstream(cache, "http://hub.invalid")
        self.assert_explained(cache, "hub.invalid")


class TestJson:
    @pytest.mark.parametrize(
        "body",
        [b"", b"{", b"nonsense", b"\xff\xfe\x00", b'{"sha": "x"', b"[" * 100_000 + b"]" * 100_000],
        ids=["empty", "cut", "words", "bytes", "unfinished", "nested"],
    )
    def test_broken(self, before_recorder: RunningCache, upstream: Recorder, body: bytes) -> None:
        upstream.default = answer_json(body)
        for path in (INFO, TREE, "/api/whoami-v2"):
            answer = before_recorder.get(path, trusted=True)
            assert answer.status_code in (502, 521), path
            assert "Traceback" not in answer.text
            assert len(answer.headers["X-Error-Message"]) > 15

    @pytest.mark.parametrize(
        "body",
        [
            b"[]",
            b"null",
            b"7",
            b'"text"',
            b'{"sha": 7, "gated": [], "private": {}}',
            b'{"sha": "../../x", "private": false, "gated": false}',
            b'{"id": "\\ud800 half a pair"}',
        ],
        ids=["list", "null", "number", "string", "types", "climbing", "surrogate"],
    )
    def test_of_other_shapes(
        self, before_recorder: RunningCache, upstream: Recorder, body: bytes
    ) -> None:
        upstream.default = answer_json(body)
        page = before_recorder.get(INFO)
        assert page.status_code == 200
        assert page.json() == json.loads(body)
        assert before_recorder.get(TREE).status_code == 200
        assert before_recorder.get(CONFIG).status_code == 521
        assert all(".." not in seen.path for seen in upstream.seen)

    def test_without_end(
        self,
        before_recorder: RunningCache,
        upstream: Recorder,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(listings, "MAX_LISTING", 100_000)
        upstream.default = answer_json(b"[" + b"1," * 100_000 + b"1]")
        answer = before_recorder.get(INFO)
        assert answer.status_code == 521
        assert "longer than 100,000 bytes" in answer.headers["X-Error-Message"]

    def test_a_commit_that_is_none_is_not_believed(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        for commit in ("main", "../../x", SHA.upper(), SHA + "0", ""):
            upstream.default = lambda handler, commit=commit: reply(
                handler, 200, b"x", X_Repo_Commit=commit, ETag=f'"{SHA}"'
            )
            answer = before_recorder.get(CONFIG)
            assert answer.status_code == 521
            assert "X-Repo-Commit" in answer.headers["X-Error-Message"]

    def test_headers_of_the_upstream_are_not_believed(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        hostile = {
            "Content_Type": "text/html",
            "Set_Cookie": "a=b",
            "Clear_Site_Data": '"*"',
            "Service_Worker_Allowed": "/",
            "Access_Control_Allow_Origin": "*",
            "Strict_Transport_Security": "max-age=1",
            "Content_Security_Policy": "default-src *",
            "Refresh": "0; url=http://evil.test",
            "X_Error_Message": "no " * 2000,
            "X_Error_Code": "Made-Up",
            "WWW_Authenticate": 'Basic realm="your password please"',
            "Link": '<http://evil.test/>; rel="next"',
        }
        for status in (200, 400, 401, 403, 404, 500):
            upstream.default = lambda handler, status=status: reply(
                handler, status, b"<script>1</script>", **hostile
            )
            for path in ("/api/something", CONFIG, INFO):
                answer = before_recorder.get(path, trusted=True)
                assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
                assert "html" not in answer.headers["Content-Type"]
                assert "your password" not in answer.headers.get("WWW-Authenticate", "")
                assert "evil.test" not in str(answer.headers)
                for name in hostile:
                    if name.startswith(("Set", "Clear", "Service", "Access", "Strict", "Refresh")):
                        assert name.replace("_", "-") not in answer.headers


def _say_nothing(*_: object) -> None:
    """A log_message."""
