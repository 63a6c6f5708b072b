"""What a remote is sent, what it is not sent, and what becomes of its answers."""

from __future__ import annotations

import gzip
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from recording_server import Handler, Recorder, cut, hang_up, recording_server, redirect, reply

from jupyter_hf_cache.errors import BadRequest, UpstreamError, UpstreamUnreachable
from jupyter_hf_cache.storage.records import ANONYMOUS, Credential, Remote
from jupyter_hf_cache.upstream.client import MAX_REDIRECTS, TooLarge, UpstreamClient

SECRET = "hf_SeCrEtToKeN"
SIGNED = "Signature=sIgN"
CALLER = Credential(SECRET, "caller")

MakeClient = Callable[..., UpstreamClient]


@pytest.fixture
def hub() -> Iterator[Recorder]:
    with recording_server() as recorder:
        yield recorder


@pytest.fixture
def elsewhere() -> Iterator[Recorder]:
    """Another port of the same host: another origin."""
    with recording_server() as recorder:
        yield recorder


@pytest.fixture
def make_client(hub: Recorder) -> Iterator[MakeClient]:
    clients = []

    def make(environ: dict[str, str] | None = None, **fields: Any) -> UpstreamClient:
        fields.setdefault("url", hub.url)
        remote = Remote(id="1", name="hub", **fields)
        client = UpstreamClient(remote, user_agent="test/1", environ=environ or {})
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> UpstreamClient:
    return make_client()


def get(client: UpstreamClient, path: str = "/x", **options: Any) -> bytes:
    options.setdefault("credential", ANONYMOUS)
    with client.request("GET", path, **options) as response:
        return response.read(10_000_000)


# --- what is sent ---


def test_the_url_is_the_remotes_plus_the_path(make_client: MakeClient, hub: Recorder) -> None:
    client = make_client(url=f"{hub.url}/hub/")
    get(client, "//evil.example/a%2Fb%25?", query="x=%2F&y[]=1")

    assert hub.paths() == ["/hub//evil.example/a%2Fb%25%3F?x=%2F&y%5B%5D=1"]


def test_a_path_must_be_a_path(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamError):
        get(client, "evil.example/x")


def test_only_what_is_needed_is_sent(client: UpstreamClient, hub: Recorder) -> None:
    get(client, headers={"Range": "bytes=0-1", "Cookie": "a=b", "Authorization": "Basic x"})

    assert hub.seen[0].headers == {
        "host": f"127.0.0.1:{hub.port}",
        "user-agent": "test/1",
        "accept": "*/*",
        "accept-encoding": "identity",
        "range": "bytes=0-1",
    }


def test_the_callers_user_agent_wins(client: UpstreamClient, hub: Recorder) -> None:
    get(client, headers={"user-agent": "transformers/5", "Accept-Encoding": "br", "Host": "x"})

    assert hub.seen[0].headers["user-agent"] == "transformers/5"
    assert hub.seen[0].headers["accept-encoding"] == "identity"
    assert hub.seen[0].headers["host"] == f"127.0.0.1:{hub.port}"


@pytest.mark.parametrize("value", ["a\r\nCookie: b", "a\x00", "✓"])
def test_a_header_that_cannot_be_sent_is_left_out(
    client: UpstreamClient, hub: Recorder, value: str
) -> None:
    get(client, headers={"X-HF-Odd": value, "Bad Name": "x"})

    assert not {"x-hf-odd", "cookie", "bad name"} & set(hub.seen[0].headers)


def test_the_callers_token_is_sent(client: UpstreamClient, hub: Recorder) -> None:
    get(client, credential=CALLER)

    assert hub.seen[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("token", ["hf_x\r\nX: y", "hf x", "hf_\x00", "", "✓"])
def test_what_cannot_be_a_token_is_refused_without_quoting_it(
    client: UpstreamClient, hub: Recorder, token: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        get(client, credential=Credential(token, "caller"))

    assert not hub.seen
    assert token == "" or token not in refused.value.text


def test_name_and_password_are_the_remotes_credential(
    make_client: MakeClient, hub: Recorder
) -> None:
    client = make_client(username="me", password="päss")
    for credential in (
        Credential(None, "remote"),
        Credential(SECRET, "remote"),
        CALLER,
        ANONYMOUS,
    ):
        get(client, credential=credential)

    assert [seen.headers.get("authorization") for seen in hub.seen] == [
        "Basic bWU6cMOkc3M=",
        f"Bearer {SECRET}",
        f"Bearer {SECRET}",
        None,
    ]


def test_a_remotes_extra_headers_are_sent_to_it(make_client: MakeClient, hub: Recorder) -> None:
    client = make_client(
        headers=[{"X-Gate": "open", "X-Number": 1}, {"Authorization": "Basic x", "Cookie": "a=b"}]
    )
    get(client)

    headers = hub.seen[0].headers
    assert (headers["x-gate"], headers["x-number"]) == ("open", "1")
    assert not {"authorization", "cookie"} & set(headers)


def test_netrc_is_never_read(
    make_client: MakeClient, hub: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    hub.answers["/from"] = redirect("/to")
    get(make_client(), "/from", follow="all")

    assert len(hub.seen) == 2
    assert all("authorization" not in seen.headers for seen in hub.seen)


def test_cookies_are_neither_kept_nor_shown(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = lambda handler: reply(handler, 200, b"x", Set_Cookie="session=1; Path=/")
    with client.request("GET", "/x", credential=CALLER) as response:
        assert response.headers.get("set-cookie") is None
    get(client)

    assert all("cookie" not in seen.headers for seen in hub.seen)


@pytest.mark.parametrize(
    ("body", "headers", "framing"),
    [
        (b"abc", {}, ("content-length", "3")),
        (b"abc", {"Content-Length": "99"}, ("content-length", "3")),
        (b"", {}, ("content-length", "0")),
        (None, {}, ("content-length", "0")),
        (iter([b"a", b"bc"]), {}, ("transfer-encoding", "chunked")),
        (iter([b"a", b"bc"]), {"Content-Length": "3"}, ("content-length", "3")),
    ],
)
def test_bodies_go_up(
    client: UpstreamClient,
    hub: Recorder,
    body: Any,
    headers: dict[str, str],
    framing: tuple[str, str],
) -> None:
    with client.request("POST", "/x", credential=CALLER, body=body, headers=headers):
        pass

    assert hub.seen[0].body == (b"abc" if body else b"")
    name, value = framing
    assert hub.seen[0].headers[name] == value
    other = {"content-length": "transfer-encoding", "transfer-encoding": "content-length"}[name]
    assert other not in hub.seen[0].headers


def test_a_caller_that_hangs_up_is_not_the_upstreams_fault(client: UpstreamClient) -> None:
    def body() -> Iterator[bytes]:
        yield b"a"
        raise ConnectionResetError("the browser went away")

    with pytest.raises(ConnectionResetError, match="browser"):
        client.request("POST", "/x", credential=CALLER, body=body())


# --- redirects ---


def test_redirects_are_answers_unless_followed(client: UpstreamClient, hub: Recorder) -> None:
    hub.answers["/a"] = redirect("/b?q=1", X_Repo_Commit="c")
    with client.request("HEAD", "/a", credential=CALLER) as response:
        assert (response.status, response.headers["location"]) == (307, "/b?q=1")
    with client.request("GET", "/a", credential=CALLER, follow="same-origin") as response:
        assert response.read(10) == b"ok"
        assert response.url == f"{hub.url}/b?q=1"
        [hop] = response.history

    assert (hop.status, hop.url, hop.headers["x-repo-commit"]) == (307, f"{hub.url}/a", "c")
    assert hub.paths() == ["/a", "/a", "/b?q=1"]
    assert all(seen.headers["authorization"] == f"Bearer {SECRET}" for seen in hub.seen)


@pytest.mark.parametrize("location", ["c", "/d/c", "./c", "../d/c", "{hub}/d/c#frag"])
def test_locations_may_be_relative(client: UpstreamClient, hub: Recorder, location: str) -> None:
    hub.answers["/d/a"] = redirect(location.format(hub=hub.url))
    get(client, "/d/a", follow="same-origin")

    assert hub.paths() == ["/d/a", "/d/c"]


def test_same_origin_stops_at_another_port(
    client: UpstreamClient, hub: Recorder, elsewhere: Recorder
) -> None:
    hub.answers["/a"] = redirect(f"{elsewhere.url}/file", X_Linked_Size="3")
    with client.request("GET", "/a", credential=CALLER, follow="same-origin") as response:
        assert response.status == 307
        assert response.headers["x-linked-size"] == "3"

    assert not elsewhere.seen


def test_another_origin_gets_no_credential(
    make_client: MakeClient, hub: Recorder, elsewhere: Recorder
) -> None:
    client = make_client(headers=[{"X-Gate": "open"}], username="me", password="secret")
    hub.answers["/a"] = redirect(f"{elsewhere.url}/file?Signature=s", 302)
    for credential in (CALLER, Credential(None, "remote")):
        get(client, "/a", credential=credential, follow="all", headers={"Range": "bytes=0-1"})

    for seen in elsewhere.seen:
        assert seen.path == "/file?Signature=s"
        assert seen.headers["range"] == "bytes=0-1"
        assert not {"authorization", "x-gate", "cookie"} & set(seen.headers)
    assert len(elsewhere.seen) == 2


def test_what_comes_back_from_elsewhere_is_asked_without_credential(
    client: UpstreamClient, hub: Recorder, elsewhere: Recorder
) -> None:
    hub.answers["/a"] = redirect(f"{elsewhere.url}/b")
    elsewhere.answers["/b"] = redirect(f"{hub.url}/api/whoami-v2")
    get(client, "/a", credential=CALLER, follow="all")

    assert hub.paths() == ["/a", "/api/whoami-v2"]
    assert "authorization" not in hub.seen[1].headers


def test_an_absolute_url_gets_a_credential_only_at_home(
    client: UpstreamClient, hub: Recorder, elsewhere: Recorder
) -> None:
    get(client, f"{hub.url}/x", credential=CALLER)
    get(client, f"{elsewhere.url}/x?a=1", credential=CALLER, query="b=2")

    assert "authorization" in hub.seen[0].headers
    assert "authorization" not in elsewhere.seen[0].headers
    assert elsewhere.paths() == ["/x?a=1&b=2"]


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://user:pass@127.0.0.1/x",
        "https:///x",
        "http://a b/x",
        "http://evil.example\\@127.0.0.1/x",
        "http://[::1/x",
        "http://127.0.0.1:99999/x",
        "/a\x7fb",
    ],
)
def test_doubtful_redirects_are_not_followed(
    client: UpstreamClient, hub: Recorder, location: str
) -> None:
    hub.answers["/a"] = redirect(location)
    with pytest.raises(UpstreamError) as refused:
        get(client, "/a", credential=CALLER, follow="all")

    assert hub.paths() == ["/a"]
    assert "pass" not in refused.value.text


def test_a_circle_of_redirects_ends(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = redirect("/again")
    with pytest.raises(UpstreamError, match="redirects more than"):
        get(client, follow="all")

    assert len(hub.seen) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("status", "body", "followed"),
    [
        (307, b"abc", True),
        (308, b"abc", True),
        (302, b"abc", False),
        (303, b"abc", False),
        (307, iter([b"abc"]), False),
    ],
)
def test_a_write_is_repeated_elsewhere_only_as_it_was(
    client: UpstreamClient, hub: Recorder, status: int, body: Any, followed: bool
) -> None:
    hub.answers["/old"] = redirect("/new", status)
    with client.request("POST", "/old", credential=CALLER, body=body, follow="all") as response:
        assert response.status == (200 if followed else status)

    sent = [(seen.method, seen.path, seen.body) for seen in hub.seen]
    assert sent == [("POST", "/old", b"abc"), ("POST", "/new", b"abc")][: 1 + followed]


# --- answers ---


def test_a_small_piece_does_not_wait_for_more(client: UpstreamClient, hub: Recorder) -> None:
    more = threading.Event()

    def slow(handler: Handler) -> None:
        reply(handler, 200, b"first", length=10)
        handler.wfile.flush()
        more.wait(20)
        handler.wfile.write(b"later")

    hub.default = slow
    with client.request("GET", "/x", credential=ANONYMOUS) as response:
        pieces = response.iter_bytes(1024 * 1024)
        first = next(pieces)
        more.set()
        rest = b"".join(pieces)

    assert (first, rest) == (b"first", b"later")


def test_gzip_is_undone(client: UpstreamClient, hub: Recorder) -> None:
    body = b"hello " * 1000
    hub.default = lambda handler: reply(handler, 200, gzip.compress(body), Content_Encoding="gzip")

    assert get(client) == body


def test_an_unknown_encoding_is_passed_on(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = lambda handler: reply(handler, 200, b"\x00odd", Content_Encoding="odd")

    assert get(client) == b"\x00odd"


def test_broken_gzip_is_an_error(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = lambda handler: reply(handler, 200, b"no gzip", Content_Encoding="gzip")

    with pytest.raises(UpstreamError, match="decompressed"):
        get(client)


def test_a_cut_body_is_an_error(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = cut(100, b"x" * 40)
    with client.request("GET", "/x", credential=ANONYMOUS) as response:
        received = b""
        with pytest.raises(UpstreamError, match="40 bytes"):
            for data in response.iter_bytes():
                received += data

    assert received == b"x" * 40


def test_a_cut_chunked_body_is_an_error(client: UpstreamClient, hub: Recorder) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nhello\r\n9\r\nwor")
        hang_up(handler)

    hub.default = answer
    with pytest.raises(UpstreamError, match="broke off"):
        get(client)


def test_a_stalled_body_is_an_error(client: UpstreamClient, hub: Recorder) -> None:
    done = threading.Event()

    def stall(handler: Handler) -> None:
        reply(handler, 200, b"half", length=8)
        handler.wfile.flush()
        done.wait(20)

    hub.default = stall
    try:
        with pytest.raises(UpstreamError, match="timed out"):
            get(client, read_timeout=0.2)
    finally:
        done.set()


def test_total_timeout_ends_a_body_that_drips(make_client: MakeClient, hub: Recorder) -> None:
    done = threading.Event()

    def drip(handler: Handler) -> None:
        reply(handler, 200, b"", length=10_000)
        while not done.wait(0.05):
            handler.wfile.write(b".")

    hub.default = drip
    try:
        with pytest.raises(UpstreamError, match="total_timeout"):
            get(make_client(total_timeout=1.0))
    finally:
        done.set()


def test_a_body_may_be_too_large(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = lambda handler: reply(
        handler, 200, gzip.compress(b"\0" * 1_000_000), Content_Encoding="gzip"
    )
    with client.request("GET", "/x", credential=ANONYMOUS) as response, pytest.raises(TooLarge):
        response.read(999_999)
    with client.request("GET", "/x", credential=ANONYMOUS) as response:
        assert response.read(1_000_000) == b"\0" * 1_000_000
    with client.request("GET", "/x", credential=ANONYMOUS) as response:
        assert response.read_some(10) == b"\0" * 10


def test_an_unstreamed_answer_can_be_read_again(client: UpstreamClient, hub: Recorder) -> None:
    hub.default = lambda handler: reply(handler, 200, b"abcde")
    response = client.request("GET", "/x", credential=ANONYMOUS, stream=False)

    assert list(response.iter_bytes(2)) == [b"ab", b"cd", b"e"]
    assert response.read(5) == b"abcde"


def test_connections_are_used_again(client: UpstreamClient, hub: Recorder) -> None:
    hub.answers["/a"] = redirect("/b")
    for _ in range(3):
        get(client, "/a", follow="all")
        with client.request("HEAD", "/x", credential=ANONYMOUS):
            pass

    assert hub.connections == 1


# --- retries ---


def test_a_passing_failure_is_asked_again(client: UpstreamClient, hub: Recorder) -> None:
    def flaky(handler: Handler) -> None:
        if len(hub.seen) == 1:
            reply(handler, 503, b"busy")
        elif len(hub.seen) == 2:
            hang_up(handler)
        else:
            reply(handler, 200, b"fine")

    hub.default = flaky
    assert get(client) == b"fine"
    assert len(hub.seen) == 3


def test_what_does_not_pass_is_the_answer(make_client: MakeClient, hub: Recorder) -> None:
    hub.default = lambda handler: reply(handler, 502, b"broken")
    with make_client(max_retries=1).request("GET", "/x", credential=ANONYMOUS) as response:
        assert (response.status, response.read(10)) == (502, b"broken")

    assert len(hub.seen) == 2


@pytest.mark.parametrize(
    ("method", "status", "headers", "fields"),
    [
        ("GET", 503, {}, {"max_retries": 0}),
        ("GET", 500, {}, {}),
        ("GET", 429, {}, {}),
        ("GET", 503, {"Retry_After": "60"}, {}),
        ("POST", 503, {}, {}),
    ],
)
def test_some_answers_are_final(
    make_client: MakeClient,
    hub: Recorder,
    method: str,
    status: int,
    headers: dict[str, str],
    fields: dict[str, Any],
) -> None:
    hub.default = lambda handler: reply(handler, status, **headers)
    with make_client(**fields).request(method, "/x", credential=ANONYMOUS) as response:
        assert response.status == status

    assert len(hub.seen) == 1


def test_a_write_that_may_have_arrived_is_not_sent_again(
    client: UpstreamClient, hub: Recorder
) -> None:
    hub.default = hang_up
    with pytest.raises(UpstreamUnreachable, match="closed the connection"):
        client.request("POST", "/x", credential=CALLER, body=b"once")

    assert len(hub.seen) == 1


# --- secrets ---


def test_no_secret_shows(make_client: MakeClient, hub: Recorder) -> None:
    client = make_client(
        username="me", password="pAsSwOrD", hf_token=SECRET, headers=[{"X-Gate": "gAtE"}]
    )
    hub.answers["/a"] = redirect(f"/b?{SIGNED}")
    with client.request("GET", "/a", credential=CALLER, follow="all") as response:
        shown = [repr(client), repr(response), repr(response.history), repr(CALLER)]
        shown.append(repr(client.remote))
    hub.default = hang_up
    with pytest.raises(UpstreamError) as failed:
        get(client, "/b", query=SIGNED, credential=CALLER)
    shown += traceback.format_exception(failed.value)
    shown += [repr(failed.value), failed.value.text]

    assert failed.value.__context__ is None
    for secret in (SECRET, SIGNED, "pAsSwOrD", "gAtE"):
        assert not any(secret in text for text in shown)
