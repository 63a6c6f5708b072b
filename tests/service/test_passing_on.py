"""What goes upstream, byte for byte: to nobody but the upstream, and nothing but what is meant."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from raw_http import OK, RawServer, exchange, raw_server, statuses
from serving import RunningCache

TOKEN = b"hf_alice"
EVIL = b"evil.example"


@pytest.fixture
def upstream() -> Iterator[RawServer]:
    with raw_server() as server:
        yield server


@pytest.fixture
def other() -> Iterator[RawServer]:
    """Who must never be asked."""
    with raw_server() as server:
        yield server


@pytest.fixture
def before(cache: RunningCache, upstream: RawServer) -> RunningCache:
    """The cache with the raw server as its upstream."""
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"url": upstream.url})
    return cache


def send(
    cache: RunningCache,
    target: bytes,
    *,
    method: bytes = b"GET",
    headers: bytes = b"",
    body: bytes = b"",
    host: bytes = b"",
) -> bytes:
    """One request as bytes; `target` follows the endpoint's path unless it is in absolute form."""
    if not target.startswith(b"="):
        target = urlsplit(cache.trusted).path.encode() + target
    host = host or f"127.0.0.1:{cache.port}".encode()
    return exchange(
        cache.port,
        b"%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n%s\r\n%s"
        % (method, target.removeprefix(b"="), host, TOKEN, headers, body),
    )


def line_of(request: bytes) -> bytes:
    return request.partition(b"\r\n")[0]


def head_of(request: bytes) -> dict[bytes, bytes]:
    rows = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (row.partition(b":") for row in rows)}


class TestTargets:
    """No path leads anywhere but below the upstream."""

    # What may follow the endpoint; OTHER is the address of a server that listens.
    TARGETS = (
        b"//OTHER/api/x",
        b"///OTHER/api/x",
        b"/\\OTHER/api/x",
        b"/%5cOTHER/api/x",
        b"/%2f%2fOTHER/api/x",
        b"/http://OTHER/api/x",
        b"/http:%2f%2fOTHER/api/x",
        b"@OTHER/api/x",
        b"/@OTHER/api/x",
        b"/%40OTHER/api/x",
        b":80@OTHER/api/x",
        b"/../../../../OTHER/api/x",
        b"/..%2f..%2fOTHER",
        b"/%2e%2e/%2e%2e/lab",
        b"/api/..%5c..%5cOTHER",
        b"/api/%252e%252e/x",
        b"/api/x%0d%0aHost:%20OTHER%0d%0aX: y",
        b"/api/x%0aX-Injected: 1",
        b"/api/x%00",
        b"/api/x%E2%80%AE",
        b"/api/x%u000a",
        b"/api/x?y=1%0d%0aX-Injected:%201",
        b"/api/x?url=http://OTHER/&redirect=//OTHER",
        b"/api/x#@OTHER/",
        b"/api/x;//OTHER/",
        b"/api/x\tHTTP/1.1",
        b"=http://OTHER/api/x",
        b"=https://OTHER/api/x",
        b"=//OTHER/api/x",
        b"=OTHER:443",
        b"=*",
        b"=/pulp/content/hf@OTHER/api/x",
    )

    @pytest.mark.parametrize("method", [b"GET", b"POST"])
    def test_nobody_but_the_upstream_is_asked(
        self, before: RunningCache, upstream: RawServer, other: RawServer, method: bytes
    ) -> None:
        length = b"Content-Length: 0\r\n" if method == b"POST" else b""
        for target in self.TARGETS:
            upstream.seen.clear()
            target = target.replace(b"OTHER", b"127.0.0.1:%d" % other.port)
            answer = send(before, target, method=method, headers=length)
            assert other.seen == [], target
            assert len(upstream.seen) <= 1, target
            assert statuses(answer)[:1] != [200] or upstream.seen, target
            for request in upstream.seen:
                path = line_of(request).split(b" ")[1]
                assert line_of(request) == b"%s %s HTTP/1.1" % (method, path), target
                assert path.startswith(b"/") and not path.startswith(b"//"), target
                assert b".." not in path.partition(b"?")[0].split(b"/"), target
                assert head_of(request)[b"host"] == b"127.0.0.1:%d" % upstream.port, target
                assert b"x-injected" not in head_of(request), target

    def test_what_is_no_verb_of_the_hub_goes_nowhere(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        for method in (b"CONNECT", b"TRACE", b"OPTIONS", b"PROPFIND"):
            for target in (b"/api/x", b"=127.0.0.1:%d" % upstream.port):
                (status,) = statuses(send(before, target, method=method))
                assert status >= 400, method
        assert upstream.seen == []

    def test_a_path_arrives_as_it_was_meant(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        for sent, arrived in (
            (b"/api/models/o/n/discussions/1?diff=1", b"/api/models/o/n/discussions/1?diff=1"),
            (b"/api/x%20y/%c3%a9?q=%2F+a%26b", b"/api/x%20y/%C3%A9?q=%2F+a%26b"),
            (b"//api/x?token=secret&y=1", b"/api/x?y=1"),
            (b"/api/a%2Fb/x", b"/api/a%2Fb/x"),
        ):
            send(before, sent)
            assert line_of(upstream.seen[-1]) == b"GET %s HTTP/1.1" % arrived


class TestHeaders:
    """Headers go up by a list of what may; what names a person or this server does not."""

    JUPYTER = (
        b"Cookie: username-127-0-0-1=secret; _xsrf=secret",
        b"X-XSRFToken: secret",
        b"Referer: http://127.0.0.1/lab?token=secret",
        b"Proxy-Authorization: Basic secret",
        b"X-Original-URL: /secret",
        b"X-Rewrite-URL: /secret",
        b"X-HTTP-Method-Override: DELETE-secret",
        b"X-Jupyterhub-User: secret",
        b"X-Real-Server: secret",
        b"TE: trailers, secret",
        b"Upgrade: secret",
        b"Keep-Alive: secret",
        b"If-Secret: secret",
        b"X-Amz-Security-Token: secret",
        b"X-Custom: secret",
        b"Accept-Encoding: gzip, secret",
    )

    def test_only_what_the_hub_needs_arrives(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        sent = b"\r\n".join(self.JUPYTER) + b"\r\nUser-Agent: hf_hub/2.4.0\r\nX-HF-Bill-To: org\r\n"
        assert statuses(send(before, b"/api/x?token=secret", headers=sent)) == [200]
        (request,) = upstream.seen
        assert b"secret" not in request
        assert request.startswith(b"GET /api/x HTTP/1.1\r\n")
        assert set(head_of(request)) - {b"connection"} == {
            b"host",
            b"user-agent",
            b"accept",
            b"accept-encoding",
            b"authorization",
            b"x-hf-bill-to",
        }
        assert head_of(request)[b"authorization"] == b"Bearer " + TOKEN

    def test_callers_on_the_same_connections_are_never_taken_for_each_other(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        upstream.answer = lambda request: OK.replace(
            b"\r\n\r\n", b'\r\nSet-Cookie: session=secret\r\nETag: "x"\r\n\r\n'
        )

        def ask(number: int) -> None:
            headers = {"Authorization": f"Bearer hf_{number % 5}"} if number % 5 else {}
            before.get(f"/api/settings/of-{number % 5}", trusted=True, headers=headers)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(ask, range(60)))
        assert len(upstream.seen) == 60
        for request in upstream.seen:
            number = line_of(request).split(b" ")[1].rpartition(b"-")[2]
            own = None if number == b"0" else b"Bearer hf_" + number
            assert head_of(request).get(b"authorization") == own
            assert b"secret" not in request

    def test_a_forwarding_header_makes_a_capability_worthless(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        for name in (b"X-Forwarded-For", b"X-Forwarded-Host", b"Forwarded", b"X-Real-IP"):
            (status,) = statuses(send(before, b"/api/x", headers=name + b": 192.0.2.1\r\n"))
            assert status == 401, name
        assert upstream.seen == []

    @pytest.mark.parametrize(
        "host",
        [EVIL, b"127.0.0.1:1@" + EVIL, b"127.0.0.1, " + EVIL, EVIL + b":80", b"[::1", b"a b"],
    )
    def test_another_host_is_refused(
        self, before: RunningCache, upstream: RawServer, host: bytes
    ) -> None:
        (status,) = statuses(send(before, b"/api/x", host=host)) or [400]
        assert status in (400, 403)
        assert upstream.seen == []

    def test_two_hosts_are_refused(self, before: RunningCache, upstream: RawServer) -> None:
        answer = send(before, b"/api/x", headers=b"Host: " + EVIL + b"\r\n")
        assert statuses(answer) in ([], [400], [403])
        assert upstream.seen == []

    def test_endless_headers_are_not_read(self, before: RunningCache, upstream: RawServer) -> None:
        answer = send(before, b"/api/x", headers=b"X-HF-Long: %s\r\n" % (b"x" * 200_000))
        assert statuses(answer) in ([], [400], [431])
        answer = send(before, b"/api/x/" + b"y" * 20_000)
        assert statuses(answer) == [400]
        assert upstream.seen == []

    def test_a_folded_or_torn_header_injects_nothing(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        for header in (
            b"X-HF-A: 1\r\n X-Injected: 1\r\n",
            b"X-HF-A: 1\rX-Injected: 1\r\n",
            b"X-HF-A: 1\nX-Injected: 1\r\n",
            b"X-HF-A\0: 1\r\n",
            b"X-HF-A : 1\r\n",
            b"X-HF-\xff: 1\r\n",
        ):
            send(before, b"/api/x", headers=header)
        for request in upstream.seen:
            assert not any(name.startswith(b"x-injected") for name in head_of(request))
            assert b"\r\nX-Injected" not in request

    def test_the_password_of_git_becomes_a_bearer(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        upstream.answer = lambda request: (
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nSet-Cookie: a=b\r\n"
            b"X-Error-Message: Invalid username or password.\r\nX-Request-Id: 1\r\n"
            b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nno"
        )
        login = base64.b64encode(b"alice:" + TOKEN)
        path = urlsplit(before.trusted).path.encode()
        answer = exchange(
            before.port,
            b"GET %s/o/n/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"Authorization: Basic %s\r\nConnection: close\r\n\r\n" % (path, before.port, login),
        )
        assert head_of(upstream.seen[0])[b"authorization"] == b"Bearer " + TOKEN
        assert statuses(answer) == [401]
        assert head_of(answer)[b"www-authenticate"].startswith(b"Basic realm=")
        assert b"set-cookie" not in head_of(answer)
        browser = b"Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: none\r\n"
        told = send(before, b"/o/n/info/refs?service=git-upload-pack", headers=browser)
        assert b"www-authenticate" not in head_of(told)


class TestFraming:
    """Where one request ends is the same for everybody on the way."""

    HIDDEN = b"GET /user/a%40b/pulp/content/hf/api/hidden HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    AMBIGUOUS = (
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 60\r\n",
        b"Content-Length: 5, 60\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n",
    )

    def test_what_two_could_read_in_two_ways_is_refused(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        for headers in self.AMBIGUOUS:
            answer = send(
                before,
                b"/api/models/o/n/discussions",
                method=b"POST",
                headers=headers,
                body=b"0\r\n\r\n" + self.HIDDEN,
            )
            assert statuses(answer)[:1] != [200], headers
        for request in upstream.seen:
            assert b"hidden" not in line_of(request)
            # What got that far is framed anew, and once.
            head = head_of(request)
            assert (b"content-length" in head) != (b"transfer-encoding" in head)

    def test_a_body_is_framed_anew(self, before: RunningCache, upstream: RawServer) -> None:
        body = b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Injected: 1\r\n\r\n"
        send(
            before,
            b"/api/models/o/n/discussions",
            method=b"POST",
            headers=b"Transfer-Encoding: chunked\r\nTrailer: X-Injected\r\n",
            body=body,
        )
        for request in upstream.seen:
            assert b"X-Injected" not in request
            assert b";x=y" not in request

    def test_a_client_that_asks_before_it_sends_is_answered(
        self, before: RunningCache, upstream: RawServer
    ) -> None:
        answer = send(
            before,
            b"/api/models/o/n/discussions",
            method=b"POST",
            headers=b"Expect: 100-continue\r\nContent-Length: 5\r\n",
            body=b"hello",
        )
        assert statuses(answer) == [100, 200]
        (request,) = upstream.seen
        assert request.endswith(b"\r\n\r\nhello")
        assert b"expect" not in head_of(request)
