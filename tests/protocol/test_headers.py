"""Headers: what is believed, what goes up, what comes down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_hf_cache.protocol.headers import (
    FileMetadata,
    answer_headers,
    error_headers,
    file_metadata,
    forward_request_headers,
    sandbox_headers,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA = "a" * 64
GIT = "b" * 40


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_describes_the_file_in_linked_headers_only(status: int) -> None:
    found = file_metadata(
        status,
        {
            "location": "https://cdn.example/x?Signature=s3cret",
            "x-repo-commit": COMMIT,
            "X-Linked-ETag": f'"{SHA}"',
            "X-Linked-Size": "123",
            "ETag": '"of-the-redirect"',
            "Content-Length": "7",
            "Content-Type": "text/plain",
        },
    )

    assert found == FileMetadata(
        commit=COMMIT, etag=SHA, size=123, location="https://cdn.example/x?Signature=s3cret"
    )
    assert "s3cret" not in repr(found)


def test_a_redirect_without_linked_headers_tells_nothing() -> None:
    found = file_metadata(307, {"Location": "/new/name", "ETag": GIT, "Content-Length": "7"})

    assert found == FileMetadata(location="/new/name")


def test_linked_headers_win_on_a_direct_answer() -> None:
    found = file_metadata(
        200, {"X-Linked-Etag": SHA, "X-Linked-Size": "5", "ETag": GIT, "Content-Length": "9"}
    )

    assert (found.etag, found.size) == (SHA, 5)


@pytest.mark.parametrize(
    ("status", "headers", "etag", "size"),
    [
        (200, {"ETag": f'W/"{GIT}"', "Content-Length": "9"}, GIT, 9),
        (200, {"ETag": GIT, "Content-Length": "9", "Content-Encoding": "gzip"}, GIT, None),
        (200, {"ETag": GIT, "Content-Length": "9", "Content-Encoding": "identity"}, GIT, 9),
        (200, {"ETag": GIT, "Content-Length": "-1"}, GIT, None),
        (200, {"ETag": GIT, "Content-Length": "9" * 5000}, GIT, None),
        (200, {"ETag": GIT, "Content-Length": "٣"}, GIT, None),
        (200, {"ETag": '""'}, None, None),
        (206, {"ETag": GIT, "Content-Length": "1", "Content-Range": "bytes 0-0/77"}, GIT, 77),
        (206, {"ETag": GIT, "Content-Length": "1"}, GIT, None),
        (304, {"ETag": GIT, "Content-Length": "0"}, GIT, None),
        (404, {"ETag": GIT, "Content-Length": "15"}, None, None),
        (503, {"X-Linked-Etag": SHA, "X-Linked-Size": "5"}, None, None),
    ],
)
def test_etag_and_size_are_those_of_the_file(
    status: int, headers: dict[str, str], etag: str | None, size: int | None
) -> None:
    found = file_metadata(status, headers)

    assert (found.etag, found.size) == (etag, size)
    assert found.location is None


@pytest.mark.parametrize("status", [200, 206, 304, 307, 404])
def test_the_commit_is_on_every_answer(status: int) -> None:
    assert file_metadata(status, {"X-Repo-Commit": COMMIT}).commit == COMMIT


@pytest.mark.parametrize("commit", ["", "main", COMMIT[:7], "../x", COMMIT.upper()])
def test_a_commit_is_forty_hex_digits(commit: str) -> None:
    assert file_metadata(200, {"X-Repo-Commit": commit}).commit is None


def test_request_headers_are_an_allow_list() -> None:
    sent = {
        "Host": "localhost:8888",
        "User-Agent": "transformers/5",
        "accept": "application/json",
        "Accept-Encoding": "gzip",
        "Accept-Language": "de",
        "Authorization": "token jupyter",
        "Connection": "keep-alive",
        "Content-Type": "application/json",
        "content-length": "12",
        "Cookie": "_xsrf=1",
        "Forwarded": "for=1",
        "Git-Protocol": "version=2",
        "If-None-Match": '"x"',
        "Origin": "http://localhost",
        "Proxy-Authorization": "Basic x",
        "Range": "bytes=0-1",
        "Referer": "http://localhost/lab?token=secret",
        "Sec-Fetch-Site": "same-origin",
        "Transfer-Encoding": "chunked",
        "X-Amzn-Trace-Id": "t",
        "X-Forwarded-For": "10.0.0.1",
        "X-HF-Download-Counter": "1",
        "X-Hf-Bill-To": "org",
        "X-XSRFToken": "1",
    }

    assert forward_request_headers(sent, bearer=None) == {
        "User-Agent": "transformers/5",
        "Accept": "application/json",
        "Accept-Language": "de",
        "Content-Type": "application/json",
        "Content-Length": "12",
        "Git-Protocol": "version=2",
        "If-None-Match": '"x"',
        "Range": "bytes=0-1",
        "X-Amzn-Trace-Id": "t",
        "X-HF-Download-Counter": "1",
        "X-Hf-Bill-To": "org",
    }


def test_authorization_comes_from_the_bearer_alone() -> None:
    sent = {"authorization": "Basic amZv"}

    assert forward_request_headers(sent, bearer="hf_x") == {"Authorization": "Bearer hf_x"}


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/vnd.xet-fileinfo+json, */*", "*/*"),
        ("*/*,Application/Vnd.Xet-FileInfo+JSON;q=0.9", "*/*"),
        ("application/vnd.git-lfs+json", "application/vnd.git-lfs+json"),
        ("text/html;q=0.8, */*;q=0.1", "text/html;q=0.8, */*;q=0.1"),
    ],
)
def test_xet_file_info_is_never_asked_for(accept: str, expected: str) -> None:
    assert forward_request_headers({"Accept": accept}, bearer=None) == {"Accept": expected}


def test_an_accept_of_xet_alone_is_dropped() -> None:
    headers = {"Accept": "application/vnd.xet-fileinfo+json"}

    assert forward_request_headers(headers, bearer=None) == {}


def test_request_header_values_cannot_break_out() -> None:
    headers = {"User-Agent": "x\r\nCookie: y", "Range": "bytes=0-\x00"}

    assert forward_request_headers(headers, bearer=None) == {}


def test_answers_lose_what_acts_on_an_origin() -> None:
    upstream = {
        "Access-Control-Allow-Origin": "https://huggingface.co",
        "Alt-Svc": "h3",
        "Clear-Site-Data": "*",
        "Connection": "close, X-Named",
        "Content-Security-Policy": "none",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Keep-Alive": "5",
        "Refresh": "0; url=http://x",
        "Service-Worker-Allowed": "/",
        "Set-Cookie": "token=1",
        "SourceMap": "/x",
        "Strict-Transport-Security": "max-age=1",
        "Trailer": "x",
        "Transfer-Encoding": "chunked",
        "WWW-Authenticate": 'Basic realm="x"',
        "X-Bad": "a\r\nb",
        "X-Frame-Options": "ALLOWALL",
        "X-Named": "1",
        "X-Xet-Hash": "h",
        "x-xet-refresh-route": "/r",
        "Content-Type": "application/json",
        "Content-Length": "12",
        "ETag": '"e"',
        "RateLimit": '"api";r=0;t=55',
        "X-Error-Code": "RepoNotFound",
        "X-Error-Message": "no",
        "X-HF-Warning": "a; b",
        "X-Linked-Size": "1",
        "X-Repo-Commit": COMMIT,
        "X-Request-Id": "r",
        "X-Total-Count": "3",
    }

    assert set(answer_headers(upstream)) == {
        "Content-Type",
        "Content-Length",
        "ETag",
        "RateLimit",
        "X-Error-Code",
        "X-Error-Message",
        "X-HF-Warning",
        "X-Linked-Size",
        "X-Repo-Commit",
        "X-Request-Id",
        "X-Total-Count",
    }


@pytest.mark.parametrize(
    ("encoding", "kept"),
    [
        ("gzip", set()),
        ("Deflate", set()),
        ("identity", {"Content-Length"}),
        ("zstd", {"Content-Encoding", "Content-Length"}),
    ],
)
def test_a_decoded_body_has_neither_encoding_nor_length(encoding: str, kept: set[str]) -> None:
    assert set(answer_headers({"Content-Encoding": encoding, "Content-Length": "5"})) == kept


def test_a_bearer_challenge_stays() -> None:
    assert answer_headers({"WWW-Authenticate": "Bearer"}) == {"WWW-Authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ('<https://h/t>; rel="xet-auth", <https://c/r>; rel="xet-reconstruction-info"', None),
        (
            '<https://h/t,x>; rel="xet-auth", <https://h/api?cursor=a,b>; rel="next"',
            '<https://h/api?cursor=a,b>; rel="next"',
        ),
    ],
)
def test_links_to_xet_vanish(link: str, kept: str | None) -> None:
    assert answer_headers({"Link": link}).get("Link") == kept


def test_hostile_answers_are_sandboxed() -> None:
    assert sandbox_headers("application/json; charset=utf-8", "a.json") == {
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Type": "application/json; charset=utf-8",
    }


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", "application/json"),
        ("Application/JSON;charset=UTF-8", "application/json; charset=utf-8"),
        ("application/vnd.git-lfs+json", "application/vnd.git-lfs+json"),
        ("text/plain", "text/plain"),
        ("text/plain; charset=utf-7", "text/plain"),
        ('text/plain; charset="utf-8"; x=y', "text/plain; charset=utf-8"),
    ],
)
def test_json_and_plain_text_may_be_shown(content_type: str, expected: str) -> None:
    headers = sandbox_headers(content_type, "x")

    assert headers["Content-Type"] == expected
    assert "Content-Disposition" not in headers


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/html",
        "TEXT/HTML; charset=utf-8",
        "text/plain, text/html",
        "text/plain\r\nX: y",
        "text",
        "image/svg+xml",
        "image/svg",
        "text/xml",
        "application/xml",
        "application/xhtml+xml",
        "application/rdf+xml",
        "application/javascript",
        "text/javascript",
        "text/ecmascript",
        "text/css",
        "application/pdf",
        "multipart/related",
        "message/rfc822",
        "application/x-shockwave-flash",
        "application/wasm",
        "x/y",
    ],
)
def test_what_a_browser_may_run_is_a_download_of_octets(content_type: str | None) -> None:
    headers = sandbox_headers(content_type, "x.bin")

    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Disposition"] == 'attachment; filename="x.bin"'


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "audio/flac",
        "application/zip",
        "text/csv",
        "application/x-git-upload-pack-result",
    ],
)
def test_inert_types_keep_their_name_and_are_downloads(content_type: str) -> None:
    headers = sandbox_headers(content_type, None)

    assert headers["Content-Type"] == content_type
    assert headers["Content-Disposition"] == "attachment"


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("dir/model.safetensors", 'attachment; filename="model.safetensors"'),
        ("a b.bin", 'attachment; filename="a b.bin"'),
        ('a".bin', "attachment; filename=\"a_.bin\"; filename*=UTF-8''a%22.bin"),
        ("ü.bin", "attachment; filename=\"_.bin\"; filename*=UTF-8''%C3%BC.bin"),
        ("a;b%41.bin", "attachment; filename=\"a;b_41.bin\"; filename*=UTF-8''a%3Bb%2541.bin"),
        ("a\r\nX: y", "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ("dir/", 'attachment; filename="dir"'),
        ("", "attachment"),
        (None, "attachment"),
    ],
)
def test_file_names_are_quoted(filename: str | None, expected: str) -> None:
    assert sandbox_headers("image/png", filename)["Content-Disposition"] == expected


@given(st.text(), st.text())
def test_no_name_or_type_breaks_the_header(content_type: str, filename: str) -> None:
    for value in sandbox_headers(content_type, filename).values():
        assert value.isascii()
        assert value.isprintable()


@pytest.mark.parametrize(
    ("status", "headers", "anonymous", "code"),
    [
        (401, {"X-Error-Message": "Invalid username or password."}, True, "RepoNotFound"),
        (401, {"X-Error-Code": "GatedRepo"}, True, "GatedRepo"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, False, None),
        (403, {}, True, None),
        (404, {"x-error-code": "EntryNotFound"}, True, "EntryNotFound"),
        (404, {}, True, None),
    ],
)
def test_an_anonymous_refusal_gets_its_code(
    status: int, headers: dict[str, str], anonymous: bool, code: str | None
) -> None:
    assert error_headers(status, headers, anonymous=anonymous).get("X-Error-Code") == code


def test_errors_keep_their_explanation_only() -> None:
    upstream = {
        "x-error-message": "Invalid credentials in Authorization header",
        "X-Request-Id": "r",
        "Retry-After": "3",
        "RateLimit-Policy": "p",
        "X-Repo-Commit": COMMIT,
        "WWW-Authenticate": 'Basic realm="x"',
        "Set-Cookie": "a=b",
        "Content-Length": "5",
    }

    assert error_headers(401, upstream, anonymous=False) == {
        "X-Error-Message": "Invalid credentials in Authorization header",
        "X-Request-Id": "r",
        "Retry-After": "3",
        "RateLimit-Policy": "p",
        "X-Repo-Commit": COMMIT,
    }
