"""Files over 50 GB: left to Xet, past the cache, and bytes for those who ask plainly all the same.

Nothing here loads one: the suite's Hub announces sizes, and hands out any part.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub, HugeFile, Repo
from serving import RunningCache

from jupyter_hf_cache.protocol.xet import LARGEST_OVER_HTTP
from jupyter_hf_cache.upstream import transfer
from jupyter_hf_cache.web.context import AccessOptions

HUGE = HugeFile(60 * 10**9, seed=9)
EDGE = HugeFile(LARGEST_OVER_HTTP, seed=8)
ALICE = {"Authorization": "Bearer hf_alice"}
BOB = {"Authorization": "Bearer hf_bob"}
AFAR = {"X-Forwarded-For": "192.0.2.7"}
PYTHON = {"User-Agent": "unknown/None; hf_hub/2.4.0; python/3.12"}
REPO = "org/huge"
FILE = f"/{REPO}/resolve/main/model.safetensors"
TOKEN = f"/api/models/{REPO}/xet-read-token/main"


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    repo = hub.repo("models", REPO, xet=True)
    repo.commit(
        {
            "config.json": "{}",
            "model.safetensors": HUGE,
            "edge.bin": EDGE,
            "small.bin": BigFile(2_000_000, seed=7),
        }
    )
    return repo


@pytest.fixture
def off(tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path, hub, pass_through_large_files=False) as cache:
        yield cache


def xet_headers(answer: requests.Response) -> dict[str, str]:
    names = ("x-xet-hash", "x-xet-refresh-route", "link")
    return {name: value for name, value in answer.headers.items() if name.lower() in names}


def hashes(answer: requests.Response) -> dict[str, Any]:
    """The paths and hashes that a listing shows."""
    body = answer.json()
    rows = body["siblings"] if isinstance(body, dict) else body
    return {row["path"]: row["xetHash"] for row in rows if "xetHash" in row}


class TestAdvertisement:
    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    def test_of_a_large_file_stays_and_leads_here(
        self, cache: RunningCache, repo: Repo, method: str
    ) -> None:
        assert repo.head is not None
        answer = cache.request(method, FILE, trusted=True, headers={"Range": "bytes=5-9"})
        assert answer.status_code == 206
        assert answer.headers["X-Linked-Size"] == str(HUGE.size)
        assert answer.headers["X-Xet-Hash"] == repo.head.files["model.safetensors"].xet_hash
        route = f"{cache.trusted.partition('/~')[0]}/~"
        for url in (answer.headers["X-Xet-Refresh-Route"], answer.links["xet-auth"]["url"]):
            assert url.startswith(route)
            assert url.endswith(f"/hf/api/models/{REPO}/xet-read-token/{repo.head.sha}")
            token = requests.get(url, timeout=30)
            assert token.headers["X-Xet-Cas-Url"] == cache.hub.cas_url == token.json()["casUrl"]

    def test_is_there_warm_and_after_a_restart(
        self, tmp_path: Path, hub: FakeHub, repo: Repo
    ) -> None:
        for _ in range(2):
            with RunningCache(tmp_path, hub) as cache:
                first, again = (cache.head(FILE, trusted=True) for _ in range(2))
                assert len(xet_headers(first)) == len(xet_headers(again)) == 3
        assert hub.counters.count("HEAD", path_contains="model.safetensors") == 1

    def test_names_the_endpoint_of_each_caller(self, cache: RunningCache, repo: Repo) -> None:
        """An answer from memory would hand one caller's key to another."""
        endpoints = {cache.trusted, cache.trusted}
        for base in endpoints:
            answer = requests.head(base + FILE, timeout=30)
            assert answer.headers["X-Xet-Refresh-Route"].startswith(base)

    @pytest.mark.parametrize("file", ["edge.bin", "small.bin", "config.json"])
    def test_of_every_other_file_vanishes(self, cache: RunningCache, repo: Repo, file: str) -> None:
        answer = cache.head(f"/{REPO}/resolve/main/{file}", trusted=True, headers=PYTHON)
        assert answer.status_code == 200
        assert xet_headers(answer) == {}

    def test_in_listings_is_of_the_large_file_alone(self, cache: RunningCache, repo: Repo) -> None:
        assert repo.head is not None
        expected = {"model.safetensors": repo.head.files["model.safetensors"].xet_hash}
        tree = f"/api/models/{REPO}/tree/main"
        for _ in range(2):
            assert hashes(cache.get(tree, trusted=True)) == expected
            assert hashes(cache.get(f"{tree}?recursive=true&expand=true", trusted=True)) == expected
            paths = {"paths": ["model.safetensors", "edge.bin"]}
            url = f"/api/models/{REPO}/paths-info/main"
            assert hashes(cache.request("POST", url, trusted=True, json=paths)) == expected

    def test_of_a_public_file_needs_no_login(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        assert hashes(cache.get(f"/api/models/{REPO}/tree/main"))
        answer = cache.head(FILE, headers=PYTHON)
        token = requests.get(answer.headers["X-Xet-Refresh-Route"], timeout=30)
        assert token.headers["X-Xet-Cas-Url"] == hub.cas_url
        assert hub.counters.requests[-1].authorization is None

    def test_is_not_made_where_everybody_may_read(
        self, tmp_path: Path, hub: FakeHub, repo: Repo
    ) -> None:
        """They get no token either, so their clients would end in a refusal of that."""
        access = AccessOptions(allow_anonymous="network")
        with RunningCache(tmp_path, hub, access=access) as cache:
            assert hashes(cache.get(f"/api/models/{REPO}/tree/main", headers=AFAR)) == {}
            assert xet_headers(cache.head(FILE, headers=AFAR)) == {}
            refused = cache.head(FILE, headers={**PYTHON, **AFAR})
            assert refused.status_code == 403
            assert "60.0 GB" in refused.headers["X-Error-Message"]
            assert "your own token" in refused.headers["X-Error-Message"]
            assert hashes(cache.get(f"/api/models/{REPO}/tree/main", trusted=True))
            assert xet_headers(cache.head(FILE, trusted=True))

    def test_masked_by_the_hub_is_none(self, cache: RunningCache, hub: FakeHub) -> None:
        repo = hub.repo("models", "org/gated-huge", gated="auto", xet=True)
        repo.commit({"model.safetensors": HUGE})
        tree = "/api/models/org/gated-huge/tree/main"
        assert hashes(cache.get(tree, trusted=True, headers=BOB)) == {}
        assert hashes(cache.get(tree, trusted=True, headers=ALICE))
        file = "/org/gated-huge/resolve/main/model.safetensors"
        assert xet_headers(cache.head(file, trusted=True, headers=ALICE))
        refused = cache.head(file, trusted=True, headers=BOB)
        assert refused.headers["X-Error-Code"] == "GatedRepo"
        assert xet_headers(refused) == {}


class TestToken:
    def test_is_asked_for_with_the_caller_s_own_right(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, caplog: pytest.LogCaptureFixture
    ) -> None:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"hf_token": "hf_reader"})
        caplog.set_level(logging.INFO, logger="jupyter_hf_cache")
        cache.head(FILE, trusted=True, headers=PYTHON)
        for headers, sent in ((ALICE, "Bearer hf_alice"), ({}, None)):
            hub.counters.reset()
            answer = cache.get(TOKEN, trusted=True, headers=headers)
            assert answer.headers["X-Xet-Access-Token"] == "xet_fake_token"
            assert {record.authorization for record in hub.counters.requests} == {sent}
            assert hub.counters.count(path_contains="xet-read-token") == 1
        assert cache.service.usage.today()["passed_through"] == 2
        assert cache.api("GET", "status").json()["today"]["passed_through"] == 2
        told = [r.getMessage() for r in caplog.records if "not cached" in r.getMessage()]
        assert f"models/{REPO}@" in told[0]
        assert "model.safetensors (60.0 GB): passed through, not cached" in told[0]
        assert len(told) == 3

    def test_is_never_kept(self, cache: RunningCache, hub: FakeHub, repo: Repo) -> None:
        for _ in range(2):
            cache.get(TOKEN, trusted=True, headers=ALICE)
        assert hub.counters.count(path_contains="xet-read-token") == 2

    def test_of_an_absent_hub_is_refused_at_once(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        assert cache.get(TOKEN, trusted=True).status_code == 200
        hub.pause()
        answer = cache.get(TOKEN, trusted=True)
        assert answer.status_code == 521
        assert answer.headers["X-Error-Message"]

    def test_offline_asks_nobody(self, tmp_path: Path, hub: FakeHub, repo: Repo) -> None:
        with RunningCache(tmp_path, hub, offline=True) as cache:
            answer = cache.get(TOKEN, trusted=True)
        assert answer.status_code == 521
        assert "offline" in answer.headers["X-Error-Message"]
        assert hub.counters.requests == []

    def test_where_everybody_may_read_is_for_nobody(
        self, tmp_path: Path, hub: FakeHub, repo: Repo
    ) -> None:
        """Who came in over the network gets files and pages only, whatever token they send."""
        access = AccessOptions(allow_anonymous="network")
        with RunningCache(tmp_path, hub, access=access) as cache:
            assert cache.get(TOKEN, headers=AFAR).status_code == 401


class TestSwitchedOff:
    def test_a_python_client_is_told_why(self, off: RunningCache, repo: Repo) -> None:
        answer = off.head(FILE, trusted=True, headers=PYTHON)
        assert answer.status_code == 403
        message = answer.headers["X-Error-Message"]
        assert "model.safetensors (60.0 GB)" in message
        assert "pass_through_large_files is off" in message
        assert f"HF_ENDPOINT={off.hub.url}" in message
        for file in ("edge.bin", "small.bin", "config.json"):
            url = f"/{REPO}/resolve/main/{file}"
            assert off.head(url, trusted=True, headers=PYTHON).status_code == 200

    def test_others_load_it_plainly(self, off: RunningCache, repo: Repo) -> None:
        head = off.head(FILE, trusted=True)
        assert head.status_code == 200
        assert xet_headers(head) == {}
        part = off.get(FILE, trusted=True, headers={"Range": "bytes=70-79"})
        assert part.content == HUGE.read(70, 10)
        assert xet_headers(part) == {}

    def test_no_token_is_given_out(self, off: RunningCache, hub: FakeHub, repo: Repo) -> None:
        answer = off.get(TOKEN, trusted=True, headers=ALICE)
        assert answer.status_code == 403
        assert "pass_through_large_files is off" in answer.headers["X-Error-Message"]
        assert hub.counters.requests == []

    def test_what_was_kept_before_shows_nothing(
        self, tmp_path: Path, hub: FakeHub, repo: Repo
    ) -> None:
        tree = f"/api/models/{REPO}/tree/main?recursive=true"
        for allowed in (True, False, True):
            with RunningCache(tmp_path, hub, pass_through_large_files=allowed) as cache:
                assert bool(hashes(cache.get(tree, trusted=True))) is allowed
                assert bool(xet_headers(cache.head(FILE, trusted=True))) is allowed
        assert hub.counters.count(path_contains="/tree/") == 1


class TestPlainly:
    """curl and JavaScript load such files over plain HTTP."""

    def test_parts_come_and_are_kept(self, cache: RunningCache, hub: FakeHub, repo: Repo) -> None:
        start = HUGE.size - 100
        for _ in range(2):
            answer = cache.get(FILE, headers={"Range": f"bytes={start}-{HUGE.size - 1}"})
            assert answer.status_code == 206
            assert answer.headers["Content-Range"] == f"bytes {start}-{HUGE.size - 1}/{HUGE.size}"
            assert answer.content == HUGE.read(start, 100)
            middle = cache.get(FILE, headers={"Range": "bytes=49999999990-50000000009"})
            assert middle.content == HUGE.read(49_999_999_990, 20)

    def test_the_whole_begins_at_once(self, cache: RunningCache, repo: Repo) -> None:
        with cache.get(FILE, stream=True) as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Length"] == str(HUGE.size)
            assert next(answer.iter_content(100_000)) == HUGE.read(0, 100_000)

    def test_never_is_one_answer_too_long_for_the_hub_asked_for(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(transfer, "LARGEST_ANSWER", 300_000)
        end = 1_000_000
        answer = cache.get(FILE, headers={"Range": f"bytes=0-{end - 1}"})
        assert answer.content == HUGE.read(0, end)
        asked = [r.headers.get("range", "") for r in hub.counters.select("GET", host="cdn")]
        spans = [value.removeprefix("bytes=").split("-") for value in asked]
        assert spans
        assert all(int(last) - int(first) < 300_000 for first, last in spans)
