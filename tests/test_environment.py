from __future__ import annotations

from pathlib import Path

import pytest

from jupyter_hf_cache.environment import (
    OWN_UPSTREAM,
    OWN_URL,
    RUNTIME_FILE,
    Injection,
    inherited_upstream,
    with_host,
)

OURS = "http://127.0.0.1:8888/pulp/content/~1.k.e.mac/hf"
RENEWED = "http://127.0.0.1:8888/pulp/content/~1.k.f.mac/hf"


@pytest.mark.parametrize(
    ("environ", "upstream"),
    [
        ({}, None),
        ({"HF_ENDPOINT": ""}, None),
        ({"HF_ENDPOINT": "https://hub.example.org"}, "https://hub.example.org"),
        ({"HF_ENDPOINT": " https://hub.example.org/x/ "}, "https://hub.example.org/x"),
        ({"HF_ENDPOINT": "hub.example.org"}, None),
        ({"HF_ENDPOINT": "ftp://hub.example.org"}, None),
        ({"HF_ENDPOINT": "https://"}, None),
        ({"HF_ENDPOINT": "https://[bad"}, None),
        ({"HF_ENDPOINT": "https://user:secret@hub.example.org"}, None),
        ({"HF_ENDPOINT": OURS, OWN_URL: OURS}, None),
        ({"HF_ENDPOINT": OURS + "/", OWN_URL: OURS}, None),
        (
            {"HF_ENDPOINT": OURS, OWN_URL: OURS, OWN_UPSTREAM: "https://hub.example.org"},
            "https://hub.example.org",
        ),
        ({"HF_ENDPOINT": "https://new.example.org", OWN_URL: OURS}, "https://new.example.org"),
        ({OWN_URL: OURS}, None),
        ({OWN_URL: OURS, OWN_UPSTREAM: "https://old.example.org"}, None),
    ],
)
def test_the_hub_that_the_user_chose(environ: dict[str, str], upstream: str | None) -> None:
    assert inherited_upstream(environ) == upstream


def test_a_jupyter_in_our_terminal_does_not_chain_to_us() -> None:
    environ = {"HF_ENDPOINT": "https://hub.example.org"}
    Injection(environ).offer(OURS)
    inner = dict(environ)
    assert inherited_upstream(inner) == "https://hub.example.org"
    injection = Injection(inner)
    injection.offer("http://127.0.0.1:9999/pulp/content/~x/hf")
    assert inner[OWN_UPSTREAM] == "https://hub.example.org"
    injection.restore()
    assert inner == environ


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "h"),
        ("a", "a,h"),
        ("a, b,", "a,b,h"),
        ("h", "h"),
        ("*", "*"),
        ("a.h", "a.h,h"),
    ],
)
def test_the_host_is_added_once_to_no_proxy(before: str, after: str) -> None:
    assert with_host(before, "h") == after


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"HF_ENDPOINT": "https://hub.example.org", "NO_PROXY": "a", "PATH": "/bin"},
        {"no_proxy": "b"},
        {"NO_PROXY": "a", "no_proxy": "b", RUNTIME_FILE: "/old", OWN_UPSTREAM: "x", OWN_URL: "y"},
    ],
)
def test_restore_brings_everything_back(before: dict[str, str]) -> None:
    environ = dict(before)
    injection = Injection(environ)
    injection.announce(Path("/run/hf-cache-1.json"))
    injection.offer(OURS)
    assert environ["HF_ENDPOINT"] == environ[OWN_URL] == OURS
    injection.offer(RENEWED)
    assert environ["HF_ENDPOINT"] == environ[OWN_URL] == RENEWED
    injection.switch(False)
    injection.switch(True)
    injection.restore()
    assert environ == before
    assert injection.endpoint is None


def test_neither_spelling_of_no_proxy_hides_the_other() -> None:
    environ = {"NO_PROXY": "intern.example.org"}
    Injection(environ).offer(OURS)
    assert environ["NO_PROXY"] == environ["no_proxy"] == "intern.example.org,127.0.0.1"
    environ = {"NO_PROXY": "a", "no_proxy": "b"}
    Injection(environ).offer(OURS)
    assert (environ["NO_PROXY"], environ["no_proxy"]) == ("a,127.0.0.1", "b,127.0.0.1")


def test_what_somebody_else_changed_stays() -> None:
    environ = {"HF_ENDPOINT": "https://old.example.org"}
    injection = Injection(environ)
    injection.offer(OURS)
    environ["HF_ENDPOINT"] = "https://chosen.example.org"
    injection.restore()
    assert environ["HF_ENDPOINT"] == "https://chosen.example.org"


def test_it_can_be_switched_for_new_kernels() -> None:
    environ = {"HF_ENDPOINT": "https://hub.example.org"}
    injection = Injection(environ)
    assert injection.state() == {"on": False, "reason": "The cache is still starting."}
    injection.announce(Path("/run/x.json"))
    injection.offer(OURS)
    assert injection.state() == {"on": True, "reason": None}
    assert injection.switch(False) == {"on": False, "reason": "Switched off."}
    assert environ == {"HF_ENDPOINT": "https://hub.example.org", RUNTIME_FILE: "/run/x.json"}
    injection.offer(RENEWED)
    assert environ["HF_ENDPOINT"] == "https://hub.example.org"
    assert injection.switch(True) == {"on": True, "reason": None}
    assert environ["HF_ENDPOINT"] == RENEWED


def test_off_by_configuration_until_somebody_switches_it_on() -> None:
    environ: dict[str, str] = {}
    injection = Injection(environ, [])
    injection.offer(OURS)
    assert environ == {}
    assert injection.state()["on"] is False
    assert "inject_env" in str(injection.state()["reason"])
    injection.switch(True)
    assert environ["HF_ENDPOINT"] == OURS


def test_without_an_endpoint_there_is_nothing_to_switch_on() -> None:
    environ: dict[str, str] = {}
    injection = Injection(environ)
    injection.refuse("The disk is full.")
    assert injection.switch(True) == {"on": False, "reason": "The disk is full."}
    assert environ == {}


def test_other_variables_can_be_named() -> None:
    environ: dict[str, str] = {}
    Injection(environ, ["HF_ENDPOINT", "MY_HUB"]).offer(OURS)
    assert environ["MY_HUB"] == environ["HF_ENDPOINT"] == OURS
