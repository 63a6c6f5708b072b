"""An upstream that cannot be asked: the reason in words, and never a secret among them."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3.exceptions
from certificates import Pair, make_pair, server_context
from recording_server import Handler, Recorder, free_port, hang_up, recording_server, reply

from jupyter_hf_cache.errors import UpstreamUnreachable
from jupyter_hf_cache.storage.records import ANONYMOUS, Credential, Remote
from jupyter_hf_cache.upstream.client import UpstreamClient
from jupyter_hf_cache.upstream.failures import explain

AS_REMOTE = Credential(None, "remote")
PROXY_PASSWORD = "pRoXy/S@cret"


@pytest.fixture(scope="module")
def authority() -> Pair:
    return make_pair("Test Authority")


@pytest.fixture(scope="module")
def server_pair(authority: Pair) -> Pair:
    return make_pair("server", issuer=("Test Authority", authority))


@pytest.fixture
def secure(tmp_path: Path, server_pair: Pair, authority: Pair) -> Iterator[Recorder]:
    with recording_server(server_context(tmp_path, server_pair, clients=authority)) as recorder:
        yield recorder


@pytest.fixture
def server() -> Iterator[Recorder]:
    with recording_server() as recorder:
        yield recorder


def ask(
    url: str,
    *,
    environ: dict[str, str] | None = None,
    credential: Credential = ANONYMOUS,
    read_timeout: float | None = None,
    **fields: Any,
) -> bytes:
    """Ask a remote at `url` once, without retries."""
    fields.setdefault("max_retries", 0)
    remote = Remote(id="1", name="hub", url=url, **fields)
    client = UpstreamClient(remote, user_agent="test/1", environ=environ or {})
    try:
        with client.request("GET", "/x", credential=credential, read_timeout=read_timeout) as found:
            return found.read(1000)
    finally:
        client.close()


def why(url: str, **options: Any) -> str:
    """Why it cannot be asked; fails where it can."""
    with pytest.raises(UpstreamUnreachable) as failed:
        ask(url, **options)
    assert failed.value.status == 521
    assert failed.value.advice
    shown = "".join(traceback.format_exception(failed.value)) + failed.value.text
    assert PROXY_PASSWORD not in shown
    assert requests.utils.quote(PROXY_PASSWORD, safe="") not in shown
    return failed.value.text


# --- no connection ---


def test_a_name_that_does_not_resolve() -> None:
    assert "hub.invalid cannot be resolved (DNS)" in why("https://hub.invalid")


def test_a_port_where_nobody_listens() -> None:
    port = free_port()

    assert f"127.0.0.1:{port} refused the connection" in why(f"http://127.0.0.1:{port}")


def test_an_upstream_that_stays_silent(server: Recorder) -> None:
    done = threading.Event()
    server.default = lambda handler: done.wait(20) and None
    try:
        assert "did not answer within" in why(server.url, read_timeout=0.2)
        assert "did not answer within" in why(server.url, total_timeout=0.2)
        assert "did not answer within" in why(server.url, sock_read_timeout=0.2)
    finally:
        done.set()


def test_an_upstream_that_hangs_up(server: Recorder) -> None:
    server.default = hang_up

    assert "closed the connection" in why(server.url)


def test_an_upstream_that_speaks_no_http(server: Recorder) -> None:
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        hang_up(handler)

    server.default = answer
    assert "valid answer" in why(server.url)


@pytest.mark.parametrize(
    ("error", "words", "transient", "sent"),
    [
        (requests.exceptions.ConnectTimeout("hf_x"), "timed out", True, False),
        (requests.exceptions.ReadTimeout("hf_x"), "did not answer", True, True),
        (
            requests.exceptions.ConnectionError(OSError(101, "hf_x")),
            "no network route",
            True,
            False,
        ),
        (requests.exceptions.InvalidSchema("hf_x"), "SOCKS", False, False),
        (requests.exceptions.InvalidHeader("hf_x"), "InvalidHeader", True, True),
        (urllib3.exceptions.LocationValueError("hf_x"), "LocationValueError", True, True),
    ],
)
def test_the_kind_of_error_is_explained_and_its_text_is_not_quoted(
    error: Exception, words: str, transient: bool, sent: bool
) -> None:
    failure = explain(error, host="hub.example", proxy=None, waited=3.0)

    assert words in failure.message
    assert "hf_x" not in failure.message + failure.advice
    assert (failure.transient, failure.sent) == (transient, sent)


# --- certificates ---


def test_an_unknown_issuer_is_named_as_the_problem(secure: Recorder) -> None:
    message = why(secure.url)

    assert "is not trusted: its issuer is" in message
    assert "unknown here" in message
    assert "ca_cert" in message


def test_a_self_signed_certificate_is_named_as_the_problem(tmp_path: Path) -> None:
    with recording_server(server_context(tmp_path, make_pair("lonely"))) as recorder:
        assert "self-signed, so its issuer is unknown" in why(recorder.url)


def test_an_expired_certificate_is_named_as_the_problem(tmp_path: Path, authority: Pair) -> None:
    pair = make_pair("old", issuer=("Test Authority", authority), days=-1)
    with recording_server(server_context(tmp_path, pair)) as recorder:
        assert "expired" in why(recorder.url, ca_cert=authority.cert)


def test_a_certificate_of_another_host_is_named_as_the_problem(
    secure: Recorder, authority: Pair
) -> None:
    url = f"https://localhost:{secure.port}"

    assert "another host" in why(url, ca_cert=authority.cert)


def test_http_where_tls_was_expected(server: Recorder) -> None:
    assert "speaks no TLS" in why(server.url.replace("http:", "https:"))


def test_the_remotes_authority_is_trusted(secure: Recorder, authority: Pair) -> None:
    assert ask(secure.url, ca_cert=authority.cert) == b"ok"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_authorities_of_the_environment_are_trusted(
    secure: Recorder, authority: Pair, tmp_path: Path, variable: str
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(authority.cert)

    assert ask(secure.url, environ={variable: str(bundle)}) == b"ok"


def test_the_remotes_authority_is_the_only_one(
    secure: Recorder, authority: Pair, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(authority.cert)
    other = make_pair("Another Authority").cert

    message = why(secure.url, ca_cert=other, environ={"SSL_CERT_FILE": str(bundle)})
    assert "issuer" in message


def test_a_bundle_that_is_missing_is_named(secure: Recorder, tmp_path: Path) -> None:
    environ = {"REQUESTS_CA_BUNDLE": str(tmp_path / "none.pem")}

    assert "REQUESTS_CA_BUNDLE" in why(secure.url, environ=environ)


def test_a_broken_authority_is_named(secure: Recorder) -> None:
    assert "ca_cert" in why(secure.url, ca_cert="nonsense")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_validation_can_be_switched_off(secure: Recorder) -> None:
    assert ask(secure.url, tls_validation=False) == b"ok"


@pytest.mark.parametrize("together", [True, False])
def test_the_client_certificate_is_the_remotes_credential(
    secure: Recorder, authority: Pair, together: bool
) -> None:
    pair = make_pair("client", issuer=("Test Authority", authority))
    cert, key = (pair.cert + pair.key, None) if together else (pair.cert, pair.key)
    fields = {"ca_cert": authority.cert, "client_cert": cert, "client_key": key}
    ask(secure.url, credential=AS_REMOTE, **fields)
    ask(secure.url, credential=ANONYMOUS, **fields)
    ask(secure.url, credential=Credential("hf_x", "caller"), **fields)

    assert [seen.peer_cert for seen in secure.seen] == [True, False, False]


def test_the_client_key_never_lies_on_disk_in_clear(
    secure: Recorder, authority: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair("client", issuer=("Test Authority", authority))
    written: list[bytes] = []
    write = Path.write_bytes

    def spy(path: Path, data: bytes) -> int:
        written.append(data)
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", spy)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ask(
        secure.url,
        credential=AS_REMOTE,
        ca_cert=authority.cert,
        client_cert=pair.cert,
        client_key=pair.key,
    )

    assert len(written) == 1
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in written[0]
    assert pair.key.splitlines()[1].encode() not in written[0]
    assert [path.name for path in tmp_path.iterdir()] == ["server.pem"]


@pytest.mark.parametrize("key", ["nonsense", None])
def test_a_client_key_that_does_not_fit_is_named(
    secure: Recorder, authority: Pair, key: str | None
) -> None:
    message = why(
        secure.url,
        credential=AS_REMOTE,
        ca_cert=authority.cert,
        client_cert=authority.cert,
        client_key=key,
    )

    assert "client_cert and client_key" in message


# --- proxies ---


def test_a_proxy_gets_its_login_and_the_whole_url(server: Recorder) -> None:
    ask(
        "http://hub.invalid",
        proxy_url=server.url,
        proxy_username="me",
        proxy_password=PROXY_PASSWORD,
    )

    assert server.paths() == ["http://hub.invalid/x"]
    assert server.seen[0].headers["proxy-authorization"].startswith("Basic ")
    assert "authorization" not in server.seen[0].headers


@pytest.mark.parametrize("url", ["http://hub.invalid", "https://hub.invalid"])
def test_a_proxy_that_wants_a_login_is_named(server: Recorder, url: str) -> None:
    server.default = lambda handler: reply(handler, 407, Proxy_Authenticate="Basic")
    message = why(url, proxy_url=server.url, proxy_username="me", proxy_password=PROXY_PASSWORD)

    assert f"The proxy 127.0.0.1:{server.port}" in message
    assert "407" in message


def test_a_proxy_that_refuses_is_named(server: Recorder) -> None:
    server.default = lambda handler: reply(handler, 403)

    assert "refused the way to hub.invalid (403)" in why(
        "https://hub.invalid", environ={"https_proxy": server.url}
    )


@pytest.mark.parametrize("url", ["http://hub.invalid", "https://hub.invalid"])
def test_a_proxy_that_is_not_there_is_named(url: str) -> None:
    port = free_port()
    proxy = f"http://me:{requests.utils.quote(PROXY_PASSWORD, safe='')}@127.0.0.1:{port}"

    assert f"The proxy 127.0.0.1:{port} cannot be reached" in why(url, environ={"all_proxy": proxy})


# --- who is told ---


class Told:
    """A watch that remembers."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.doubt = False

    def check(self) -> None:
        pass

    def doubted(self) -> bool:
        return self.doubt

    def unreachable(self, error: UpstreamUnreachable, waited: float) -> None:
        self.errors.append(error.message)


def fail(url: str, watch: Told, *, brief: bool = False) -> None:
    remote = Remote(id="1", name="hub", url=url, max_retries=2)
    client = UpstreamClient(remote, user_agent="test/1", environ={}, watch=watch)
    try:
        with pytest.raises(UpstreamUnreachable):
            client.request("GET", "/x", credential=ANONYMOUS, read_timeout=0.2, brief=brief)
    finally:
        client.close()


def test_who_watches_is_told_once_of_all_tries(server: Recorder) -> None:
    server.default = hang_up
    watch = Told()
    fail(server.url, watch)
    assert (len(watch.errors), len(server.seen)) == (1, 3)


def test_who_is_in_doubt_gets_one_try(server: Recorder) -> None:
    server.default = hang_up
    watch = Told()
    watch.doubt = True
    fail(server.url, watch)
    assert (len(watch.errors), len(server.seen)) == (1, 1)


def test_a_brief_question_says_nothing_by_silence(server: Recorder) -> None:
    done = threading.Event()
    server.default = lambda handler: done.wait(20) and None
    watch = Told()
    try:
        fail(server.url, watch, brief=True)
        assert (watch.errors, len(server.seen)) == ([], 1)
    finally:
        done.set()
    fail(f"http://127.0.0.1:{free_port()}", watch, brief=True)
    assert len(watch.errors) == 1, "who refuses the connection is gone all the same"
