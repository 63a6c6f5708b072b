"""Which proxy a connection takes."""

from __future__ import annotations

import pytest

from jupyter_hf_cache.storage.records import Remote
from jupyter_hf_cache.upstream.proxies import proxy_rules

REMOTE = Remote(id="1", name="hub", url="https://hub.example")
ENVIRON = {"http_proxy": "http://plain:1", "HTTPS_PROXY": "secure:2"}


@pytest.mark.parametrize(
    ("environ", "origin", "expected"),
    [
        ({}, "https://hub.example", None),
        (ENVIRON, "https://hub.example", "http://secure:2"),
        (ENVIRON, "http://hub.example", "http://plain:1"),
        ({"ALL_PROXY": "http://any:3"}, "https://hub.example", "http://any:3"),
        ({**ENVIRON, "https_proxy": "http://lower:4"}, "https://hub.example", "http://lower:4"),
        ({"https_proxy": " "}, "https://hub.example", None),
        (ENVIRON, "http://127.0.0.1:8080", None),
        (ENVIRON, "http://localhost:8080", None),
        (ENVIRON, "http://[::1]:8080", None),
    ],
)
def test_the_environment_names_proxies(
    environ: dict[str, str], origin: str, expected: str | None
) -> None:
    assert proxy_rules(REMOTE, environ).choose(origin) == expected


@pytest.mark.parametrize(
    ("no_proxy", "origin", "direct"),
    [
        ("*", "https://hub.example", True),
        ("hub.example", "https://hub.example", True),
        ("HUB.example", "https://hub.example", True),
        ("example", "https://hub.example", True),
        (".example", "https://hub.example", True),
        ("*.example", "https://hub.example", True),
        ("other, hub.example", "https://hub.example", True),
        ("other hub.example", "https://hub.example", True),
        ("hub.example:443", "https://hub.example", True),
        ("hub.example:8443", "https://hub.example", False),
        ("hub.example:8443", "https://hub.example:8443", True),
        ("ub.example", "https://hub.example", False),
        ("hub.example.com", "https://hub.example", False),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://hub.example", False),
        ("nonsense/8", "https://10.1.2.3", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("2.3", "https://10.1.2.3", False),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("fd00::1", "https://[fd00::1]", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("", "https://hub.example", False),
        (",,", "https://hub.example", False),
        ("*,", "https://hub.example", True),
        (".", "https://hub.example", False),
    ],
)
def test_no_proxy_names_who_is_asked_directly(no_proxy: str, origin: str, direct: bool) -> None:
    rules = proxy_rules(REMOTE, {**ENVIRON, "NO_PROXY": no_proxy})

    assert (rules.choose(origin) is None) is direct


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"proxy_url": "http://p:3128"}, "http://p:3128"),
        ({"proxy_url": "p:3128"}, "http://p:3128"),
        ({"proxy_url": "http://p:3128", "proxy_username": "me"}, "http://me@p:3128"),
        (
            {"proxy_url": "http://p:3128", "proxy_username": "m:e", "proxy_password": "p@/s"},
            "http://m%3Ae:p%40%2Fs@p:3128",
        ),
    ],
)
def test_the_remotes_own_proxy_is_for_everything(fields: dict[str, str], expected: str) -> None:
    remote = Remote(id="1", name="hub", url="https://hub.example", **fields)  # type: ignore[arg-type]
    rules = proxy_rules(remote, {**ENVIRON, "NO_PROXY": "*"})

    assert rules.choose("https://hub.example") == expected
    assert rules.choose("http://127.0.0.1") == expected
    assert expected not in repr(rules)
