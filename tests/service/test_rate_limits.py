"""A Hub that limits is obeyed: per caller, and with what is kept."""

from __future__ import annotations

import re

import pytest
import requests
from fake_hub import FakeHub
from serving import RunningCache
from wall_clock import Clock

TINY = "hf-internal-testing/tiny-random-bert"
FILE = f"/{TINY}/resolve/main/config.json"
ALICE = {"Authorization": "Bearer hf_alice"}
BOB = {"Authorization": "Bearer hf_bob"}


@pytest.fixture(autouse=True)
def enforced(hub: FakeHub) -> None:
    hub.limits.enforced = True


def heads(cache: RunningCache, names: list[str], **options: object) -> list[requests.Response]:
    return [cache.head(f"/{TINY}/resolve/main/{name}", **options) for name in names]


def test_nothing_is_asked_once_nothing_is_left(cache: RunningCache, hub: FakeHub) -> None:
    hub.limits.allowed["resolvers"], hub.limits.allowed["api"] = 1, 0
    first, second = heads(cache, ["config.json", "vocab.txt"], headers=ALICE)
    assert (first.status_code, second.status_code) == (200, 429)
    assert re.fullmatch('"resolvers";r=0;t=(29[0-9]|300)', second.headers["RateLimit"])
    assert 290 <= int(second.headers["Retry-After"]) <= 300
    assert "allows no more requests" in second.headers["X-Error-Message"]
    assert hub.counters.count() == 1
    for answer in heads(cache, ["vocab.txt", "README.md", "nope.json"], headers=ALICE):
        assert answer.status_code == 429
    assert hub.counters.count("HEAD") == 1
    assert hub.counters.count() == 2, "the tree, which has a limit of its own, might have helped"


def test_others_and_other_kinds_go_on(cache: RunningCache, hub: FakeHub) -> None:
    hub.limits.allowed["resolvers"] = 1
    for _ in range(5):
        cache.head(FILE, headers=ALICE)
        cache.head(f"/{TINY}/resolve/v1.0/vocab.txt", headers=ALICE)
    assert cache.get(f"/api/models/{TINY}", headers=ALICE).status_code == 200
    assert cache.head(FILE, headers=BOB).status_code == 200
    assert cache.head(FILE).status_code == 200
    assert cache.service.breaker.state(cache.service.config.remotes()[0].id)[0] == "reachable"


def test_what_is_kept_is_given_and_says_so(cache: RunningCache, hub: FakeHub, clock: Clock) -> None:
    urls = [FILE, f"/api/models/{TINY}", f"/api/models/{TINY}/tree/main?recursive=true"]
    before = [cache.get(url).content for url in urls]
    cache.wait_idle()
    hub.limits.allowed = dict.fromkeys(hub.limits.allowed, 0)
    clock.advance(3600)
    for _ in range(2):
        hub.counters.reset()
        for url, body in zip(urls, before, strict=True):
            answer = cache.get(url)
            assert (answer.status_code, answer.content) == (200, body)
            assert answer.headers["X-HF-Warning"].startswith("Stale; ")
    assert hub.counters.requests == [], "the first refusal said for how long"


def test_a_new_window_is_used(cache: RunningCache, hub: FakeHub) -> None:
    hub.limits.allowed["resolvers"], hub.limits.seconds = 1, 2.0
    assert cache.head(FILE, headers=ALICE).status_code == 200
    other = f"/{TINY}/resolve/v1.0/vocab.txt"
    assert cache.head(other, headers=ALICE).status_code == 429
    cache.wait_until(lambda: cache.head(other, headers=ALICE).status_code == 200)
    assert hub.counters.count("HEAD", status=429) == 0


def test_a_limit_that_others_used_up_is_met_once(cache: RunningCache, hub: FakeHub) -> None:
    """The allowance of anonymous callers is that of the machine."""
    hub.limits.allowed["resolvers"] = 1
    assert requests.head(hub.url + FILE, timeout=30).status_code == 307
    for answer in heads(cache, ["config.json", "vocab.txt", "README.md"]):
        assert answer.status_code == 429
        assert answer.headers["RateLimit"].startswith('"resolvers";r=0;t=')
    assert hub.counters.count(status=429) == 1


def test_forwarded_requests_are_held_back_too(cache: RunningCache, hub: FakeHub) -> None:
    hub.limits.allowed["api"] = 1
    url = f"/api/models/{TINY}/discussions"
    assert cache.get(url, trusted=True, headers=ALICE).status_code == 200
    answer = cache.get(url, trusted=True, headers=ALICE)
    assert (answer.status_code, hub.counters.count()) == (429, 1)
    assert answer.headers["RateLimit"].startswith('"api";r=0;t=')
