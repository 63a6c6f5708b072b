from __future__ import annotations

from collections.abc import Callable

import pytest
from tornado.httputil import HTTPHeaders

from jupyter_hf_cache.errors import Refused
from jupyter_hf_cache.web import guard
from jupyter_hf_cache.web.guard import HostRules
from jupyter_hf_cache.web.network import identify

OURS = HostRules(names=frozenset({"hub.example.org", "192.168.1.5"}))


def passes(
    method: str = "GET",
    headers: dict[str, str] | None = None,
    *,
    host: str = "localhost:8888",
    rules: HostRules = OURS,
    xsrf_valid: Callable[[], bool] = lambda: False,
) -> bool:
    sender = identify("127.0.0.1", "http", host, headers or {})
    try:
        guard.check(method, HTTPHeaders(headers or {}), sender, rules, xsrf_valid)
    except Refused as refusal:
        assert refusal.status == 403
        assert refusal.advice
        return False
    return True


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8888", True),
        ("127.0.0.1:8888", True),
        ("127.1.2.3", True),
        ("[::1]:8888", True),
        ("hub.example.org", True),
        ("HUB.example.org.:443", True),
        ("192.168.1.5:8888", True),
        ("192.168.1.6:8888", False),
        ("evil.example.org", False),
        ("hub.example.org.evil.org", False),
        ("localhost.evil.org", False),
        ("127.0.0.1.evil.org", False),
        ("evil@localhost", False),
        ("", False),
    ],
)
def test_only_our_own_host_names_are_answered(host: str, ours: bool) -> None:
    assert passes(host=host) is ours


def test_a_server_on_all_interfaces_answers_to_addresses_but_not_to_names() -> None:
    everywhere = HostRules(any_address=True)
    assert passes(host="192.168.7.7:8888", rules=everywhere)
    assert not passes(host="evil.example.org", rules=everywhere)


def test_jupyters_allow_remote_access_admits_every_name() -> None:
    assert passes(host="anything.example.org", rules=HostRules(any_host=True))
    assert not passes(host="any thing", rules=HostRules(any_host=True))


@pytest.mark.parametrize(
    ("site", "allowed"),
    [
        ("same-origin", True),
        ("none", True),
        ("same-site", False),
        ("cross-site", False),
        ("x", False),
    ],
)
@pytest.mark.parametrize("mode", ["navigate", "cors", "no-cors"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_other_sites_pages_are_refused(method: str, mode: str, site: str, allowed: bool) -> None:
    headers = {
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Mode": mode,
        "Content-Type": "application/json",
    }
    assert passes(method, headers) is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8888", True),
        ("https://localhost:8888", True),
        ("HTTP://LOCALHOST:8888", True),
        ("http://localhost:9999", False),
        ("http://localhost", False),
        ("http://evil.example.org", False),
        ("http://localhost:8888.evil.org", False),
        ("http://localhost:8888@evil.org", False),
        ("file://localhost:8888", False),
        ("null", False),
        ("", False),
    ],
)
def test_foreign_origins_are_refused(origin: str, allowed: bool) -> None:
    assert passes("GET", {"Origin": origin}) is allowed


def test_default_ports_do_not_make_an_origin_foreign() -> None:
    assert passes(headers={"Origin": "https://hub.example.org"}, host="hub.example.org:443")
    assert passes(headers={"Origin": "https://hub.example.org:443"}, host="hub.example.org")
    assert not passes(headers={"Origin": "https://hub.example.org:80"}, host="hub.example.org")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/x-www-form-urlencoded", True),
        ("multipart/form-data; boundary=x", True),
        ("Text/Plain", True),
        ("", True),
        ("application/json", False),
        ("application/json; charset=utf-8", False),
    ],
)
def test_a_form_with_cookies_needs_xsrf(method: str, content_type: str, form: bool) -> None:
    headers = {"Content-Type": content_type, "Cookie": "username-localhost-8888=x"}
    assert passes(method, headers) is not form
    assert passes(method, headers, xsrf_valid=lambda: True)
    del headers["Cookie"]
    assert passes(method, headers)


def test_reading_with_cookies_needs_no_xsrf() -> None:
    assert passes("GET", {"Cookie": "a=b"})


def test_fetch_metadata_marks_a_browser() -> None:
    assert guard.is_browser(HTTPHeaders({"Sec-Fetch-Mode": "cors"}))
    assert not guard.is_browser(HTTPHeaders({"User-Agent": "curl"}))
