"""Without the Hub: what was loaded once is answered again, what was not is refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import urllib3.exceptions
from fake_hub import FakeHub
from serving import ADMIN, RunningCache
from wall_clock import Clock

TINY = "hf-internal-testing/tiny-random-bert"
ALICE = {"Authorization": "Bearer hf_alice"}
RETRIED = (408, 429, 500, 502, 503, 504)
"""Statuses that clients repeat for up to half a minute."""

READS = [
    ("GET", f"/api/models/{TINY}", {}),
    ("GET", f"/api/models/{TINY}/revision/main", {}),
    ("GET", f"/api/models/{TINY}/revision/feature%2Fslash?expand=sha", {}),
    ("GET", f"/api/models/{TINY}/tree/main?recursive=true&expand=false", {}),
    ("GET", f"/api/models/{TINY}/tree/main/additional_chat_templates", {}),
    ("GET", f"/api/models/{TINY}/refs", {}),
    ("GET", f"/api/models/{TINY}/commits/main", {}),
    ("POST", f"/api/models/{TINY}/paths-info/main", {"data": {"paths": ["config.json"]}}),
    ("HEAD", f"/{TINY}/resolve/main/config.json", {}),
    ("GET", f"/{TINY}/resolve/main/config.json", {}),
    ("GET", f"/{TINY}/resolve/main/model.safetensors", {}),
    ("GET", f"/{TINY}/resolve/v1.0/vocab.txt", {"headers": {"Range": "bytes=0-4"}}),
    ("GET", f"/{TINY}/resolve/refs%2Fpr%2F1/notes.txt", {}),
    ("HEAD", f"/{TINY}/resolve/main/added_tokens.json", {}),
    ("GET", f"/{TINY}/raw/main/config.json", {}),
    ("GET", "/datasets/org/tables/resolve/main/csv/train.csv", {}),
    ("GET", "/org/old-name/resolve/main/model.bin", {}),
    ("GET", "/org/strange-names/resolve/main/empty.txt", {}),
]
ABSENT = [
    ("GET", "/org/large/resolve/main/model.bin"),
    ("HEAD", "/org/large/resolve/main/model.bin"),
    ("GET", f"/{TINY}/resolve/never/config.json"),
    ("GET", "/api/models/org/large"),
    ("GET", "/api/models/org/large/tree/main"),
]


def answers(cache: RunningCache) -> list[tuple[object, ...]]:
    found = []
    for method, url, options in READS:
        answer = cache.request(method, url, **options)
        facts = [answer.headers.get(n) for n in ("X-Repo-Commit", "ETag", "X-Error-Code", "Link")]
        found.append((answer.status_code, answer.content, *facts))
    cache.wait_idle()
    return found


def assert_refused_at_once(cache: RunningCache, reason: str) -> None:
    for method, url in ABSENT:
        answer = cache.request(method, url)
        assert answer.status_code == 521
        assert reason in answer.headers["X-Error-Message"]
        assert "X-Error-Code" not in answer.headers


def test_everything_loads_again_after_a_restart(tmp_path: Path, hub: FakeHub, clock: Clock) -> None:
    with RunningCache(tmp_path, hub) as cache:
        before = answers(cache)
    hub.pause()
    clock.advance(30 * 24 * 3600)
    with RunningCache(tmp_path, hub) as cache:
        assert answers(cache) == before
        assert_refused_at_once(cache, "refused the connection")
        never_asked = cache.head(f"/{TINY}/resolve/main/never-asked.json")
        assert never_asked.headers["X-Error-Code"] == "EntryNotFound", "the page names all files"
        statuses = [status for status, *_ in before]
        assert set(statuses) == {200, 206, 404}


def test_everything_loads_again_when_told_to_be_offline(
    tmp_path: Path, hub: FakeHub, clock: Clock
) -> None:
    with RunningCache(tmp_path, hub) as cache:
        before = answers(cache)
    clock.advance(3600)
    hub.counters.reset()
    with RunningCache(tmp_path, hub, offline=True) as cache:
        assert answers(cache) == before
        assert_refused_at_once(cache, "This cache is offline")
    assert hub.counters.requests == []


FAILURES = {
    "paused": {},
    "500": {"kind": "status", "status": 500},
    "502": {"kind": "status", "status": 502},
    "503": {"kind": "status", "status": 503, "headers": {"Retry-After": "7"}},
    "429": {"kind": "status", "status": 429},
    "reset": {"kind": "reset"},
    "close": {"kind": "close"},
    "portal": {"kind": "html"},
    "bare 403": {"kind": "status", "status": 403, "message": ""},
}


@pytest.fixture(params=FAILURES)
def failing(request: pytest.FixtureRequest, hub: FakeHub) -> Iterator[str]:
    """A way in which the Hub fails from `break_hub` on."""
    yield request.param
    hub.faults.clear()


def break_hub(hub: FakeHub, failing: str) -> None:
    if failing == "paused":
        hub.pause()
    else:
        options = dict(FAILURES[failing])
        hub.fault(options.pop("kind"), "", times=None, **options)  # type: ignore[arg-type]


def test_stale_answers_are_given_and_say_so(
    cache: RunningCache, hub: FakeHub, clock: Clock, failing: str
) -> None:
    before = answers(cache)
    clock.advance(3600)
    break_hub(hub, failing)
    assert answers(cache) == before
    answer = cache.get(f"/{TINY}/resolve/main/config.json")
    assert answer.headers["X-HF-Warning"].startswith("Stale; ")
    answer = cache.get(f"/api/models/{TINY}")
    assert answer.headers["X-HF-Warning"].startswith("Stale; ")
    hub.faults.clear()


def test_what_is_absent_is_not_retried(cache: RunningCache, hub: FakeHub, failing: str) -> None:
    break_hub(hub, failing)
    for method, url in ABSENT:
        answer = cache.request(method, url)
        if failing == "429":
            assert answer.status_code == 429, "clients wait as long as the Hub says"
            assert answer.headers["RateLimit"].endswith('";r=0;t=1')
            continue
        assert answer.status_code == 521
        assert answer.status_code not in RETRIED
        assert len(answer.headers["X-Error-Message"]) > 20


def test_a_dead_hub_is_spared(cache: RunningCache, hub: FakeHub, clock: Clock) -> None:
    """300 files of a snapshot must not cost 300 time-outs."""
    answers(cache)
    clock.advance(3600)
    fault = hub.fault("status", "", status=503, times=None)
    for _ in range(10):
        answers(cache)
    # Three questions, each repeated three times by the client, then rest.
    assert fault.hits <= 24


def test_a_silent_hub_costs_one_time_out(
    cache: RunningCache, hub: FakeHub, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(cache)
    clock.advance(3600)
    monkeypatch.setattr("jupyter_hf_cache.upstream.lookup.METADATA_TIMEOUT", 0.3)
    monkeypatch.setattr("jupyter_hf_cache.service.metadata.METADATA_TIMEOUT", 0.3)
    monkeypatch.setattr("jupyter_hf_cache.upstream.client.DEFAULT_RETRIES", 0)
    monkeypatch.setattr("jupyter_hf_cache.service.breaker._SHORTEST_REST", 1000.0)
    fault = hub.fault("stall", "", times=None)
    for _ in range(3):
        answers(cache)
    assert fault.hits == 1


def test_a_hub_that_is_back_is_asked_again(
    cache: RunningCache, hub: FakeHub, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "/org/large/resolve/main/README.md"
    hub.pause()
    assert cache.get(url).status_code == 521
    hub.resume()
    cache.wait_until(lambda: cache.get(url).status_code == 200)
    assert "X-HF-Warning" not in cache.get(url).headers


def test_a_missing_body_is_refused_at_the_head(
    cache: RunningCache, hub: FakeHub, clock: Clock
) -> None:
    """Otherwise a client would begin a download that cannot succeed."""
    url = "/org/large/resolve/main/shard.bin"
    assert cache.head(url).status_code == 200
    clock.advance(61)
    hub.pause()
    for method in ("HEAD", "GET"):
        assert cache.request(method, url).status_code == 521


def test_private_content_is_the_owners_own(tmp_path: Path, hub: FakeHub, clock: Clock) -> None:
    read = "/org/private/resolve/main/config.json"
    tree = "/api/models/org/private/tree/main"
    with RunningCache(tmp_path, hub) as cache:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"hf_token": "hf_reader"})
        assert cache.get(read, trusted=True).status_code == 200
        assert cache.get(tree, trusted=True).status_code == 200
        assert cache.get(read, headers=ALICE).status_code == 200
    hub.pause()
    clock.advance(30 * 24 * 3600)
    with RunningCache(tmp_path, hub) as cache:
        assert cache.get(read, trusted=True).status_code == 200, "a single-user server's owner"
        assert cache.get(tree, trusted=True).status_code == 200
        assert cache.get(read, headers=ALICE).status_code == 521, "anybody with loopback"
        assert cache.get(read, headers=ALICE, trusted=True).status_code == 200
        assert cache.get(read).status_code == 521
        assert cache.get(tree).status_code == 521


class TestSetOffline:
    """A remote, or the cache, that is told never to ask."""

    COLD = [
        ("HEAD", "/org/large/resolve/main/model.bin"),
        ("GET", "/org/large/resolve/main/model.bin"),
        ("GET", "/api/models/org/large"),
        ("GET", "/api/models?search=never"),
        ("GET", "/api/whoami-v2"),
        ("GET", "/api/models/org/large/auth-check"),
        ("POST", "/api/repos/create"),
        ("HEAD", "/api/telemetry/x"),
    ]

    @staticmethod
    def switch(cache: RunningCache, offline: bool) -> None:
        remote = cache.service.config.remotes()[0]
        url = f"{cache.host}/pulp/api/v3/remotes/hugging_face/hugging-face/{remote.id}/"
        answer = requests.patch(url, json={"offline": offline}, auth=ADMIN, timeout=30)
        assert answer.status_code == 200

    def test_nobody_is_asked_from_the_next_request_on(
        self, cache: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        before = answers(cache)
        cache.service.config.update_remote(
            cache.service.config.remotes()[0].id, {"hf_token": "hf_alice"}
        )
        self.switch(cache, True)
        hub.counters.reset()
        clock.advance(30 * 24 * 3600)
        assert answers(cache) == before
        for method, url in self.COLD:
            answer = cache.request(method, url, trusted=True)
            assert answer.status_code == 521, url
            assert "The remote 'default' is offline." in answer.headers["X-Error-Message"]
        test = cache.api("POST", "tokens/default/test").json()
        assert (test["ok"], test["error"]) == (False, "The remote 'default' is offline.")
        assert cache.api("GET", "status").json()["upstreams"][0]["state"] == "offline"
        assert hub.counters.requests == [], hub.counters.summary()
        self.switch(cache, False)
        assert cache.get("/org/large/resolve/main/README.md").status_code == 200
        assert "X-HF-Warning" not in cache.get(f"/{TINY}/resolve/main/config.json").headers

    def test_a_fresh_look_is_not_taken_either(self, cache: RunningCache, hub: FakeHub) -> None:
        url = f"/{TINY}/resolve/main/config.json"
        assert cache.get(url).status_code == 200
        self.switch(cache, True)
        hub.counters.reset()
        for path in (url, f"/api/models/{TINY}/tree/main"):
            cache.get(path, headers={"Cache-Control": "no-cache"})
        assert cache.get(url, headers={"Cache-Control": "no-cache"}).status_code == 200
        assert hub.counters.requests == []

    def test_the_remotes_own_switch_spares_the_others(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        config = cache.service.config
        other = config.create_remote({"name": "other", "url": hub.url})
        config.create_distribution({"name": "other", "base_path": "other", "remote": other.id})
        self.switch(cache, True)
        url = f"{cache.host}/pulp/content/other/org/large/resolve/main/README.md"
        assert requests.get(url, timeout=30).status_code == 200
        assert cache.get("/org/large/resolve/main/README.md").status_code == 521

    def test_a_running_download_ends_and_goes_on_later(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        url = "/org/large/resolve/main/model.bin"
        hub.total_rate = 4 << 20
        with cache.get(url, stream=True) as answer:
            size = int(answer.headers["Content-Length"])
            assert answer.raw.read(1 << 16)
            cache.wait_until(lambda: hub.counters.bytes("cdn") > 2 << 20)
            self.switch(cache, True)
            with pytest.raises((urllib3.exceptions.HTTPError, OSError)):
                while answer.raw.read(1 << 20):
                    pass
        cache.wait_idle()
        hub.total_rate = None
        asked = len(hub.counters.requests)
        assert cache.get(url).status_code == 521
        assert len(hub.counters.requests) == asked
        self.switch(cache, False)
        assert len(cache.get(url).content) == size
        assert hub.counters.bytes("cdn") < size + (8 << 20), "it went on where it was"

    def test_no_other_origin_is_asked_for_a_proof(self, cache: RunningCache, hub: FakeHub) -> None:
        url = "/org/large/resolve/main/shard.bin"
        assert cache.get(url).status_code == 200
        config = cache.service.config
        there = hub.url.replace("127.0.0.1", "localhost")
        other = config.create_remote({"name": "other", "url": there})
        config.create_distribution({"name": "other", "base_path": "other", "remote": other.id})
        elsewhere = f"{cache.host}/pulp/content/other{url}"
        assert requests.head(elsewhere, timeout=30).status_code == 200
        config.update_remote(other.id, {"offline": True})
        hub.counters.reset()
        for method in ("HEAD", "GET"):
            assert requests.request(method, elsewhere, timeout=30).status_code == 521
        assert hub.counters.requests == []


class TestSharedServer:
    """Several people's right to private files while nobody can be asked."""

    READ = "/org/private/resolve/main/config.json"
    PAGES = ("/api/models/org/private/tree/main", "/api/models/org/private")

    @pytest.fixture
    def cache(self, tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
        with RunningCache(tmp_path, hub, single_user=False, access_grace=3600.0) as cache:
            assert cache.get(self.READ, headers=ALICE).status_code == 200
            for page in self.PAGES:
                assert cache.get(page, headers=ALICE).status_code == 200
            assert cache.get(f"/{TINY}/resolve/main/config.json").status_code == 200
            yield cache

    def test_it_holds_for_the_grace_time_and_then_fails_closed(
        self, cache: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        hub.pause()
        clock.advance(3500)
        for trusted in (False, True):
            for url in (self.READ, *self.PAGES):
                answer = cache.get(url, headers=ALICE, trusted=trusted)
                assert answer.status_code == 200
                assert answer.headers["X-HF-Warning"]
        clock.advance(200)
        for trusted in (False, True):
            for url in (self.READ, *self.PAGES):
                assert cache.get(url, headers=ALICE, trusted=trusted).status_code == 521
        message = cache.get(self.READ, headers=ALICE).headers["X-Error-Message"]
        assert "too long ago" in message
        assert "refused the connection" in message
        assert cache.get(f"/{TINY}/resolve/main/config.json").status_code == 200, "public"

    def test_a_remote_may_have_a_grace_time_of_its_own(
        self, cache: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"access_grace": 10.0})
        hub.pause()
        clock.advance(9)
        assert cache.get(self.READ, headers=ALICE).status_code == 200
        clock.advance(100)
        assert cache.get(self.READ, headers=ALICE).status_code == 521

    def test_who_was_never_allowed_learns_nothing_of_what_is_kept(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.pause()
        never = "/org/never-heard-of/resolve/main/config.json"
        for headers in ({}, {"Authorization": "Bearer hf_bob"}):
            told = {cache.get(url, headers=headers).text for url in (self.READ, never)}
            assert len(told) == 1
            pages = ("/api/models/org/private", "/api/models/org/never-heard-of")
            assert len({cache.get(url, headers=headers).text for url in pages}) == 1

    def test_nobody_is_the_owner(self, cache: RunningCache, hub: FakeHub, clock: Clock) -> None:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"hf_token": "hf_alice"})
        hub.pause()
        clock.advance(4000)
        assert cache.get(self.READ, trusted=True).status_code == 521


def test_what_is_lacking_is_said(cache: RunningCache, hub: FakeHub, clock: Clock) -> None:
    known = "/org/large/resolve/main/shard.bin"
    assert cache.head(known).status_code == 200
    clock.advance(3600)
    hub.pause()
    for url, words in (
        (known, "its bytes are not kept"),
        ("/org/large/resolve/main/model.bin", "It is not kept here."),
        ("/api/models/org/large", "It is not kept here."),
    ):
        message = cache.head(url).headers["X-Error-Message"]
        assert words in message
        assert "refused the connection" in message


def test_a_portal_is_no_answer_to_what_is_passed_on(cache: RunningCache, hub: FakeHub) -> None:
    hub.fault("html", "", times=None)
    for _ in range(2):
        answer = cache.get("/api/whoami-v2", headers=ALICE)
        assert answer.status_code == 521
        assert "web page" in answer.headers["X-Error-Message"]
    hub.faults.clear()
    assert cache.get(f"/{TINY}/resolve/main/config.json").status_code == 200, (
        "reads judge for themselves"
    )


def test_writes_say_why_they_fail(cache: RunningCache, hub: FakeHub) -> None:
    hub.pause()
    answer = requests.post(
        f"{cache.trusted}/api/repos/create", json={"name": "x"}, headers=ALICE, timeout=30
    )
    assert answer.status_code == 521
    assert "refused the connection" in answer.headers["X-Error-Message"]
