from __future__ import annotations

import pytest

from jupyter_hf_cache.web.network import identify, parse_networks, split_host

PROXIES = parse_networks(["10.0.0.0/8", "127.0.0.1"])


@pytest.mark.parametrize(
    ("peer", "headers", "same_machine"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("127.8.8.8", {}, True),
        ("192.168.1.5", {}, False),
        ("", {}, False),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, False),
        ("127.0.0.1", {"x-forwarded-proto": "http"}, False),
        ("127.0.0.1", {"X-Forwarded-Context": "/x"}, False),
        ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, False),
        ("127.0.0.1", {"X-Scheme": "http"}, False),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, False),
        ("127.0.0.1", {"Via": "1.1 squid"}, False),
        ("127.0.0.1", {"CF-Connecting-IP": "127.0.0.1"}, False),
    ],
)
def test_only_a_direct_loopback_peer_is_on_this_machine(
    peer: str, headers: dict[str, str], same_machine: bool
) -> None:
    sender = identify(peer, "http", "localhost:8888", headers)
    assert sender.same_machine is same_machine
    assert sender.direct_loopback is same_machine


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("localhost", True),
        ("LOCALHOST:8888", True),
        ("127.0.0.1:8888", True),
        ("[::1]:8888", True),
        ("rebound.example.org:8888", False),
        ("localhost.example.org", False),
        ("192.168.1.5:8888", False),
        ("user@localhost", False),
        ("localhost:8888/x", False),
    ],
)
def test_loopback_needs_a_host_that_cannot_be_rebound(host: str, direct: bool) -> None:
    assert identify("127.0.0.1", "http", host, {}).direct_loopback is direct


def test_forwarding_headers_of_a_stranger_change_nothing() -> None:
    headers = {
        "X-Forwarded-For": "10.9.9.9",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example.org",
        "X-Forwarded-Prefix": "/x",
    }
    sender = identify("192.168.1.5", "http", "here:8888", headers, PROXIES)
    assert (sender.scheme, sender.host, sender.prefix) == ("http", "here:8888", "")
    assert (sender.client, sender.believable) == ("192.168.1.5", False)


def test_a_trusted_proxy_is_believed() -> None:
    headers = {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.1.1.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "hub.example.org",
        "X-Forwarded-Prefix": "/cache/",
    }
    sender = identify("10.0.0.1", "http", "backend:8888", headers, PROXIES)
    assert (sender.scheme, sender.host, sender.prefix) == ("https", "hub.example.org", "/cache")
    assert sender.client == "203.0.113.9"
    assert sender.believable
    assert not sender.same_machine


def test_a_trusted_proxy_on_loopback_is_not_this_machine() -> None:
    sender = identify("127.0.0.1", "http", "localhost", {"X-Forwarded-For": "127.0.0.1"}, PROXIES)
    assert sender.believable
    assert not sender.same_machine


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "", "X-Forwarded-Host": "a b", "X-Forwarded-Proto": "gopher"},
        {"X-Forwarded-For": "nobody", "X-Forwarded-Host": "x/y", "X-Forwarded-Prefix": "//x"},
        {"X-Forwarded-For": "10.1.1.1", "X-Forwarded-Prefix": "x"},
        {"X-Scheme": "javascript", "X-Forwarded-Prefix": "/a/../b"},
    ],
)
def test_nonsense_of_a_trusted_proxy_is_ignored(headers: dict[str, str]) -> None:
    sender = identify("10.0.0.1", "http", "here", headers, PROXIES)
    assert (sender.scheme, sender.host, sender.prefix) == ("http", "here", "")
    assert sender.client == "10.0.0.1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.example.org", ("a.example.org", "")),
        ("A.example.org.:80", ("a.example.org", "80")),
        ("[::1]:8888", ("::1", "8888")),
        ("a:b:c", None),
        ("a@b", None),
        ("a b", None),
        ("a,b", None),
        ("", None),
        ("a:999999", None),
    ],
)
def test_host_headers_are_read_strictly(value: str, expected: tuple[str, str] | None) -> None:
    assert split_host(value) == expected


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="hub"):
        parse_networks(["hub.example.org"])
