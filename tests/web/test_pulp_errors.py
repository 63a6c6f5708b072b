"""What the REST API refuses, and in which words."""

from __future__ import annotations

import base64
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pulp_server import ADMIN, API, DISTRIBUTIONS, REMOTES, TASKS, PulpServer, pulp_server

REMOTE: dict[str, Any] = {"name": "r", "url": "https://huggingface.co"}
DISTRIBUTION: dict[str, Any] = {"name": "d", "base_path": "hf"}
HREF = f"{API}repositories/hugging_face/hugging-face/{uuid.UUID(int=1)}/"

REQUIRED = "This field is required."
BLANK = "This field may not be blank."
NULL = "This field may not be null."
URL = "Enter a valid URL."
USER = (
    "The remote url contains username or password. Please use remote username or password instead."
)
FILE = "A file:// URL is not allowed here."
MIRROR_USER = "The url of a mirror may not contain username or password."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulpServer]:
    with pulp_server(tmp_path_factory.mktemp("pulp")) as running:
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[PulpServer]:
    with pulp_server(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({"name": None}, {"name": [NULL]}),
        ({"name": "  "}, {"name": [BLANK]}),
        ({"name": 5}, {"name": ["Not a valid string."]}),
        ({"name": "n" * 256}, {"name": ["Ensure this field has no more than 255 characters."]}),
        ({"name": "a\nb"}, {"name": ["Control characters are not allowed."]}),
        ({"name": "a\0b"}, {"name": ["Null characters are not allowed."]}),
        ({"name": "a\ud800b"}, {"name": ["Not a valid string."]}),
        ({"url": ""}, {"url": [BLANK]}),
        ({"url": "huggingface.co"}, {"url": [URL]}),
        ({"url": "ftp://huggingface.co"}, {"url": [URL]}),
        ({"url": "file:///etc/passwd"}, {"url": ["A file:// URL is not allowed here."]}),
        ({"url": "FILE:///etc/passwd"}, {"url": ["A file:// URL is not allowed here."]}),
        ({"url": "https://user:pass@huggingface.co"}, {"url": [USER]}),
        ({"url": "https://user@huggingface.co"}, {"url": [USER]}),
        ({"url": "https://"}, {"url": [URL]}),
        ({"url": "https://h/a b"}, {"url": [URL]}),
        ({"url": "https://h/\r\nX-Evil: 1"}, {"url": [URL]}),
        ({"url": "https://h\t.example"}, {"url": [URL]}),
        ({"url": "https://h\x7f"}, {"url": [URL]}),
        ({"url": "https://h/?a=b"}, {"url": [URL]}),
        ({"url": "https://h/#a"}, {"url": [URL]}),
        ({"url": "https://h:99999"}, {"url": [URL]}),
        ({"url": "https://h:"}, {"url": [URL]}),
        ({"url": "https://[::1"}, {"url": [URL]}),
        ({"url": "https://h\\@evil"}, {"url": [USER]}),
        ({"url": "https://h\\evil"}, {"url": [URL]}),
        ({"hf_hub_url": "nope"}, {"hf_hub_url": [URL]}),
        ({"hf_hub_url": None}, {"hf_hub_url": [NULL]}),
        ({"policy": "x"}, {"policy": ['"x" is not a valid choice.']}),
        ({"policy": None}, {"policy": [NULL]}),
        ({"tls_validation": "x"}, {"tls_validation": ["Must be a valid boolean."]}),
        ({"tls_validation": []}, {"tls_validation": ["Must be a valid boolean."]}),
        ({"tls_validation": None}, {"tls_validation": [NULL]}),
        ({"max_retries": "x"}, {"max_retries": ["A valid integer is required."]}),
        ({"max_retries": 1.5}, {"max_retries": ["A valid integer is required."]}),
        ({"max_retries": True}, {"max_retries": ["A valid integer is required."]}),
        ({"total_timeout": True}, {"total_timeout": ["A valid number is required."]}),
        (
            {"max_retries": -1},
            {"max_retries": ["Ensure this value is greater than or equal to 0."]},
        ),
        (
            {"max_retries": 2**31},
            {"max_retries": ["Ensure this value is less than or equal to 2147483647."]},
        ),
        (
            {"download_concurrency": 0},
            {"download_concurrency": ["Ensure this value is greater than or equal to 1."]},
        ),
        ({"total_timeout": "x"}, {"total_timeout": ["A valid number is required."]}),
        (
            {"sock_read_timeout": -0.5},
            {"sock_read_timeout": ["Ensure this value is greater than or equal to 0."]},
        ),
        ({"proxy_url": "http://u:p@h"}, {"proxy_url": ["proxy_url must not contain credentials"]}),
        ({"proxy_url": "nope"}, {"proxy_url": [URL]}),
        ({"ca_cert": "x"}, {"ca_cert": ["This is not a certificate in PEM format."]}),
        ({"ca_cert": ""}, {"ca_cert": [BLANK]}),
        ({"client_cert": "x"}, {"client_cert": ["This is not a certificate in PEM format."]}),
        (
            {"hf_token": "hf_a b"},
            {"hf_token": ["A token has no spaces and no characters outside ASCII."]},
        ),
        ({"hf_token": 5}, {"hf_token": ["Not a valid string."]}),
        ({"mirrors": "x"}, {"mirrors": ['Expected a list of items but got type "str".']}),
        ({"mirrors": ["x"]}, {"mirrors": ['Expected a dictionary of items but got type "str".']}),
        ({"mirrors": [{}]}, {"mirrors": ["url: This field is required."]}),
        ({"mirrors": [{"url": "nope"}]}, {"mirrors": [f"url: {URL}"]}),
        ({"mirrors": [{"url": "file:///x"}]}, {"mirrors": [f"url: {FILE}"]}),
        ({"mirrors": [{"url": "http://u:p@m"}]}, {"mirrors": [f"url: {MIRROR_USER}"]}),
        ({"mirrors": [{"url": "http://m", "x": 1}]}, {"mirrors": ["x: Unexpected field"]}),
        (
            {"mirrors": [{"url": "http://m", "send_token": "x"}]},
            {"mirrors": ["send_token: Must be a valid boolean."]},
        ),
        (
            {"mirrors": [{"url": f"http://m{n}"} for n in range(9)]},
            {"mirrors": ["Ensure this field has no more than 8 elements."]},
        ),
        (
            {"mirrors": [{"url": "http://m"}, {"url": "HTTP://M:80/"}]},
            {"mirrors": ["HTTP://M:80/ is named twice."]},
        ),
        (
            {"url": "https://h/a", "mirrors": [{"url": "https://h/a/"}]},
            {"mirrors": ["https://h/a/ is the remote's own address."]},
        ),
        ({"headers": "x"}, {"headers": ['Expected a list of items but got type "str".']}),
        ({"headers": ["x"]}, {"headers": ['Expected a dictionary of items but got type "str".']}),
        (
            {"headers": [{"authorization": "Bearer x"}]},
            {
                "headers": [
                    "authorization is not allowed here. Use hf_token, or username and password."
                ]
            },
        ),
        (
            {"headers": [{"X-A": "1"}, {"Cookie": "x"}]},
            {"headers": ["Cookie is not allowed here. Use hf_token, or username and password."]},
        ),
        ({"headers": [{"Host": "x"}]}, {"headers": ["Host is set by the cache itself."]}),
        ({"headers": [{"a b": "x"}]}, {"headers": ["'a b' is not the name of a header."]}),
        (
            {"headers": [{"X-A": "x\r\nY: z"}]},
            {"headers": ["The value of X-A is not allowed in a header."]},
        ),
        ({"headers": [{"X-A": 5}]}, {"headers": ["Not a valid string."]}),
        (
            {"pulp_labels": []},
            {"pulp_labels": ['Expected a dictionary of items but got type "list".']},
        ),
        (
            {"pulp_labels": {"a/b": "x"}},
            {"pulp_labels": ["Key 'a/b' may only have letters, digits, '_', ' ', '.' and '-'."]},
        ),
        (
            {"pulp_labels": {"a": "(x"}},
            {"pulp_labels": ["A label's value may not have parentheses."]},
        ),
        (
            {"unknown": 1, "token": "x"},
            {"unknown": ["Unexpected field"], "token": ["Unexpected field"]},
        ),
        (
            {"name": "", "max_retries": "x"},
            {"name": [BLANK], "max_retries": ["A valid integer is required."]},
        ),
    ],
)
def test_a_remote_with_bad_values_is_refused_by_field(
    server: PulpServer, changes: dict[str, Any], body: dict[str, Any]
) -> None:
    answer = server.call("POST", REMOTES, REMOTE | changes)
    assert (answer.status_code, answer.json()) == (400, body)
    assert server.store.remotes() == []


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({"base_path": ""}, {"base_path": [BLANK]}),
        ({"base_path": None}, {"base_path": [NULL]}),
        *(
            (
                {"base_path": value},
                {"base_path": [f"Relative path is not in canonical form. {value}"]},
            )
            for value in ("/a", "a/", "a//b", "a/./b", "../a", "a b", "a?b", "a#b", "a\\b")
        ),
        (
            {"base_path": "a\x07b"},
            {"base_path": ["Relative path is not in canonical form. a\ufffdb"]},
        ),
        (
            {"base_path": "~a"},
            {"base_path": ["base_path may not start with '~': capabilities do."]},
        ),
        (
            {"base_path": "a" * 256},
            {"base_path": ["Ensure this field has no more than 255 characters."]},
        ),
        ({"access": "all"}, {"access": ['"all" is not a valid choice.']}),
        ({"hidden": "x"}, {"hidden": ["Must be a valid boolean."]}),
        (
            {"publication": HREF},
            {"publication": ["This is not offered by this server. Leave it out."]},
        ),
        (
            {"repository": HREF},
            {"repository": ["This is not offered by this server. Leave it out."]},
        ),
        (
            {"repository_version": HREF},
            {"repository_version": ["This is not offered by this server. Leave it out."]},
        ),
        (
            {"content_guard": HREF},
            {"content_guard": ["This is not offered by this server. Leave it out."]},
        ),
        (
            {"repository": HREF, "publication": HREF},
            {"non_field_errors": ["Only one of publication and repository may be set."]},
        ),
        (
            {"repository": HREF, "repository_version": HREF},
            {"non_field_errors": ["Only one of repository and repository_version may be set."]},
        ),
        ({"remotes": "x"}, {"remotes": ["Unexpected field"]}),
    ],
)
def test_a_distribution_with_bad_values_is_refused_by_field(
    server: PulpServer, changes: dict[str, Any], body: dict[str, Any]
) -> None:
    answer = server.call("POST", DISTRIBUTIONS, DISTRIBUTION | changes)
    assert (answer.status_code, answer.json()) == (400, body)
    assert server.store.distributions() == []


@pytest.mark.parametrize(("path", "field"), [(REMOTES, "url"), (DISTRIBUTIONS, "base_path")])
def test_what_is_missing_is_required(server: PulpServer, path: str, field: str) -> None:
    assert server.call("POST", path, {}).json() == {"name": [REQUIRED], field: [REQUIRED]}
    assert server.call("POST", path).json() == {"name": [REQUIRED], field: [REQUIRED]}


def test_a_mirror_is_another_address_also_after_a_change(fresh: PulpServer) -> None:
    mirrors = [{"url": "https://mirror.example", "send_token": True}, {"url": "https://m2/hf"}]
    remote = fresh.remote(mirrors=mirrors)
    assert remote["mirrors"] == [mirrors[0], {"url": "https://m2/hf", "send_token": False}]
    href = remote["pulp_href"]
    own = "is the remote's own address."
    for change, url in [
        ({"mirrors": [{"url": "https://HUGGINGFACE.co:443/"}]}, "https://HUGGINGFACE.co:443/"),
        ({"url": "https://mirror.example/"}, "https://mirror.example"),
        ({"hf_hub_url": "https://m2/hf"}, "https://m2/hf"),
    ]:
        answer = fresh.call("PATCH", href, change)
        assert (answer.status_code, answer.json()) == (400, {"mirrors": [f"{url} {own}"]})
    assert fresh.call("PATCH", href, {"mirrors": None}).json()["mirrors"] is None


def test_a_name_is_taken_once(fresh: PulpServer) -> None:
    taken = {"name": ["This field must be unique."]}
    fresh.remote()
    answer = fresh.call("POST", REMOTES, REMOTE)
    assert (answer.status_code, answer.json()) == (400, taken)
    href = fresh.remote(name="other")["pulp_href"]
    assert fresh.call("PATCH", href, {"name": "r"}).json() == taken
    fresh.distribution()
    answer = fresh.call("POST", DISTRIBUTIONS, {"name": "d", "base_path": "e"})
    assert (answer.status_code, answer.json()) == (400, taken)


def test_base_paths_that_overlap_are_refused(fresh: PulpServer) -> None:
    fresh.distribution(base_path="a/b")
    answer = fresh.call("POST", DISTRIBUTIONS, {"name": "e", "base_path": "a/b"})
    assert answer.status_code == 400
    assert answer.json() == {"base_path": ["This field must be unique."]}
    for nested in ("a", "a/b/c"):
        answer = fresh.call("POST", DISTRIBUTIONS, {"name": "e", "base_path": nested})
        assert answer.status_code == 400
        assert answer.json() == {
            "base_path": {"base_path": "Overlaps with existing distribution 'd'"}
        }
    fresh.distribution(name="e", base_path="a/bc")


def test_of_eight_requests_with_overlapping_paths_one_wins(fresh: PulpServer) -> None:
    statuses: list[int] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        body = {"name": f"d{number}", "base_path": "/".join(["a"] * (number + 1))}
        statuses.append(fresh.call("POST", DISTRIBUTIONS, body).status_code)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [202] + [400] * 7


@pytest.mark.parametrize(
    ("body", "kind"),
    [("[]", "list"), ('"x"', "str"), ("5", "int"), ("true", "bool"), ("null", "NoneType")],
)
def test_a_body_that_is_no_object_is_refused(server: PulpServer, body: str, kind: str) -> None:
    answer = server.call(
        "POST", REMOTES, data=body, headers={"Content-Type": "application/json; charset=utf-8"}
    )
    message = f"Invalid data. Expected a dictionary, but got {kind}."
    assert (answer.status_code, answer.json()) == (400, {"non_field_errors": [message]})


@pytest.mark.parametrize(
    "body", ["{", "", "{'a': 1}", '{"a": NaN}', "[" * 100_000, b"\xff\xfe{}", '{"a": Infinity}']
)
def test_malformed_json_is_refused(server: PulpServer, body: str | bytes) -> None:
    answer = server.call(
        "POST", REMOTES, data=body or " ", headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("JSON parse error - ")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", ""])
def test_other_media_types_are_refused(server: PulpServer, content_type: str) -> None:
    answer = server.call("POST", REMOTES, data="{}", headers={"Content-Type": content_type})
    message = f'Unsupported media type "{content_type}" in request.'
    assert (answer.status_code, answer.json()) == (415, {"detail": message})


def test_a_form_that_makes_no_sense_is_refused(server: PulpServer) -> None:
    answer = server.call("POST", REMOTES, data={**REMOTE, "pulp_labels": "{"})
    assert answer.status_code == 400
    assert answer.json() == {"pulp_labels": ["Value must be valid JSON."]}
    answer = server.call("POST", REMOTES, data={**REMOTE, "max_retries": "x"})
    assert answer.json() == {"max_retries": ["A valid integer is required."]}
    answer = server.call("POST", REMOTES, data="x", headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, list(answer.json())) == (400, ["detail"])


def test_without_credentials_a_login_is_asked_for(server: PulpServer) -> None:
    for path in (REMOTES, DISTRIBUTIONS, TASKS, f"{API}nothing/"):
        answer = server.get(path, auth=None)
        assert answer.status_code == 401
        assert answer.json()["detail"] == "Authentication credentials were not provided."
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="api"'
    # The connection is kept: a client that sends a body must not see a reset instead of the answer.
    for _ in range(20):
        answer = server.call("POST", REMOTES, {**REMOTE, "client_key": "x" * 500_000}, auth=None)
        assert answer.status_code == 401
    assert server.store.remotes() == []


def test_a_wrong_password_is_said_to_be_wrong(fresh: PulpServer) -> None:
    answer = fresh.get(REMOTES, auth=("admin", "wrong"))
    assert (answer.status_code, answer.json()["detail"]) == (401, "Invalid username/password.")


@pytest.mark.parametrize(
    "headers", [{"X-Requested-With": "XMLHttpRequest"}, {"Sec-Fetch-Mode": "cors"}]
)
def test_a_page_does_not_make_the_browser_ask(server: PulpServer, headers: dict[str, str]) -> None:
    answer = server.get(REMOTES, auth=None, headers=headers)
    assert answer.status_code == 401
    assert "WWW-Authenticate" not in answer.headers


def test_a_foreign_page_is_not_allowed(server: PulpServer) -> None:
    answer = server.get(REMOTES, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert answer.json()["detail"] == "You do not have permission to perform this action."
    assert "Origin" in answer.json()["reason"]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_what_is_missing_is_not_found(server: PulpServer, method: str) -> None:
    for path in (f"{REMOTES}{uuid.UUID(int=1)}/", f"{DISTRIBUTIONS}{uuid.UUID(int=1)}/"):
        body = None if method in ("GET", "DELETE") else {}
        answer = server.call(method, path, body)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


@pytest.mark.parametrize(
    "path", [f"{API}nothing/", f"{REMOTES}no-uuid/", f"{API}remotes/rpm/rpm/", API]
)
def test_an_unknown_address_is_not_found(server: PulpServer, path: str) -> None:
    for method in ("GET", "POST"):
        answer = server.call(method, path)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Not found."})


def test_a_label_of_nothing_is_not_found(server: PulpServer) -> None:
    for action in ("set_label", "unset_label"):
        path = f"{REMOTES}{uuid.UUID(int=1)}/{action}/"
        assert server.call("POST", path, {"key": "a", "value": "b"}).status_code in (400, 404)
    path = f"{REMOTES}{uuid.UUID(int=1)}/set_label/"
    assert server.call("POST", path, {"key": "a", "value": "b"}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", REMOTES, "GET, HEAD, POST"),
        ("DELETE", TASKS, "GET, HEAD"),
        ("POST", f"{API}status/", "GET, HEAD"),
        ("POST", f"{REMOTES}{uuid.UUID(int=1)}/", "GET, HEAD, PUT, PATCH, DELETE"),
        ("GET", f"{REMOTES}{uuid.UUID(int=1)}/set_label/", "POST"),
    ],
)
def test_other_methods_are_not_allowed(
    server: PulpServer, method: str, path: str, allowed: str
) -> None:
    answer = server.call(method, path)
    assert answer.status_code == 405
    assert answer.json() == {"detail": f'Method "{method}" not allowed.'}
    assert answer.headers["Allow"] == allowed


def test_a_body_over_one_mebibyte_is_refused_with_words(server: PulpServer) -> None:
    body = {**REMOTE, "client_key": "x" * (1 << 20)}
    answer = server.call("POST", REMOTES, body)
    assert answer.status_code == 413
    assert "1048576 bytes" in answer.json()["detail"]
    chunks = iter([b"x" * 65536] * 20)
    answer = server.call("POST", REMOTES, data=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert server.store.remotes() == []


def test_two_gigabytes_are_refused_before_they_are_sent(server: PulpServer) -> None:
    credentials = base64.b64encode(":".join(ADMIN).encode()).decode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            f"POST {REMOTES} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            f"Authorization: Basic {credentials}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {2 << 30}\r\n\r\n".encode()
        )
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'{"detail": ' in received


def test_nothing_unexpected_is_shown(
    fresh: PulpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("hf_SECRET at /etc/passwd")

    monkeypatch.setattr(fresh.store, "remotes", fail)
    answer = fresh.get(REMOTES)
    assert (answer.status_code, answer.json()) == (500, {"detail": "A server error occurred."})
