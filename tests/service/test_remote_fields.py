"""Each field of a remote acts on what is asked, and a change of it with the next request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from door import Door
from fake_hub import BigFile, FakeHub
from pulp_server import REMOTES
from serving import ADMIN, RunningCache

REPO = "org/fields"
MODEL = BigFile(3 << 20, seed=51)
FILES: dict[str, bytes | BigFile] = {
    **{f"part-{number}.json": b'{"n": %d}' % number for number in range(12)},
    "model.bin": MODEL,
    "other.bin": BigFile(3 << 20, seed=52),
}
READ = f"/{REPO}/resolve/main"
ALICE = {"Authorization": "Bearer hf_alice"}


@pytest.fixture(autouse=True)
def repo(hub: FakeHub) -> str:
    return hub.repo("models", REPO).commit(FILES)


@pytest.fixture
def door(hub: FakeHub) -> Iterator[Door]:
    with Door(hub.url) as door:
        yield door


def patch(cache: RunningCache, **changes: Any) -> None:
    """Change the remote over the REST API."""
    remote = cache.service.config.remotes()[0]
    url = f"{cache.host}{REMOTES}{remote.id}/"
    answer = requests.patch(url, json=changes, auth=ADMIN, timeout=30)
    assert answer.status_code == 200, answer.text


def reason(cache: RunningCache, path: str) -> str:
    answer = cache.get(path)
    assert answer.status_code == 521
    return str(answer.headers["X-Error-Message"])


# --- where ---


def test_hf_hub_url_wins_over_url_unless_it_is_the_default(
    cache: RunningCache, hub: FakeHub
) -> None:
    with FakeHub.with_defaults() as other:
        patch(cache, hf_hub_url=other.url)
        assert cache.get("/gpt2/resolve/main/none").status_code in (401, 404)
        assert other.counters.requests
        assert not hub.counters.requests
        patch(cache, hf_hub_url="https://huggingface.co")
        assert cache.get(f"{READ}/part-1.json").status_code == 200
        assert hub.counters.requests


def test_an_upstream_may_lie_below_a_path(
    tmp_path: Path, hub: FakeHub, cache: RunningCache
) -> None:
    """Such as another cache."""
    hub.page_size = 5
    for name in ("front", "back"):
        (tmp_path / name).mkdir()
    with RunningCache(tmp_path / "back", hub) as back:
        patch(cache, url=back.endpoint + "/")
        info = cache.get(f"/api/models/{REPO}")
        assert info.json()["id"] == REPO
        seen, page = 0, cache.get(f"/api/models/{REPO}/tree/main?recursive=true")
        while True:
            seen += len(page.json())
            link = page.links.get("next")
            if link is None:
                break
            assert link["url"].startswith(cache.endpoint), "the next page is asked of us"
            page = cache.get(link["url"].removeprefix(cache.endpoint))
        assert seen == len(FILES)
        for file, content in FILES.items():
            wanted = content if isinstance(content, bytes) else content.read(0, content.size)
            assert cache.get(f"{READ}/{file}").content == wanted
        missing = cache.get(f"{READ}/none.json")
        assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
        renamed = cache.get("/org/old-name/resolve/main/model.bin")
        assert renamed.status_code == 200
    assert hub.counters.count(host="cdn") > 0


# --- how long and how often ---


@pytest.mark.parametrize("retries", [0, 2])
def test_max_retries(cache: RunningCache, hub: FakeHub, retries: int) -> None:
    patch(cache, max_retries=retries)
    fault = hub.fault("status", "part-1.json", status=503, times=None)
    assert cache.head(f"{READ}/part-1.json").status_code == 521
    assert fault.hits == 1 + retries


@pytest.mark.parametrize("field", ["sock_read_timeout", "total_timeout"])
def test_time_outs_end_what_stays_silent(cache: RunningCache, hub: FakeHub, field: str) -> None:
    patch(cache, max_retries=0, **{field: 0.5})
    hub.fault("stall", times=None)
    assert "did not answer within" in reason(cache, f"{READ}/part-1.json")


def test_a_longer_read_time_out_is_a_longer_patience(
    cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's own limit is for clients that wait ten seconds; an operator may know better."""
    monkeypatch.setattr("jupyter_hf_cache.upstream.lookup.METADATA_TIMEOUT", 0.2)
    hub.latency = 1.0
    patch(cache, max_retries=0)
    assert "did not answer within" in reason(cache, f"{READ}/part-1.json")
    patch(cache, sock_read_timeout=30)
    assert cache.get(f"{READ}/part-1.json").status_code == 200


@pytest.mark.parametrize(
    "limits",
    [{"connect_timeout": 0.5}, {"sock_connect_timeout": 0.5, "connect_timeout": 60}],
)
def test_connect_time_outs(cache: RunningCache, door: Door, limits: dict[str, float]) -> None:
    patch(cache, url=door.url, max_retries=0, **limits)
    door.shut("black hole")
    message = reason(cache, f"{READ}/part-1.json")
    assert "timed out" in message
    assert "within 0 s" in message or "within 1 s" in message


# --- how much ---


def test_rate_limit_is_for_all_callers_together(cache: RunningCache, hub: FakeHub) -> None:
    patch(cache, rate_limit=5, hf_token="hf_reader")
    began = time.monotonic()
    for number in range(4):
        assert cache.head(f"{READ}/none-{number}.json", trusted=True).status_code == 404
        assert cache.head(f"{READ}/none-{number}.json", headers=ALICE).status_code == 404
    took = time.monotonic() - began
    asked = len([record for record in hub.counters.requests if record.host == "hub"])
    assert asked >= 2
    assert took >= (asked - 1) / 5 - 0.01


def test_download_concurrency_is_for_all_callers_together(
    cache: RunningCache, hub: FakeHub
) -> None:
    patch(cache, download_concurrency=1, hf_token="hf_reader")
    hub.fault("stall", "", host="cdn", at=1 << 20)
    answers: list[int] = []

    def get(file: str, **options: Any) -> None:
        answers.append(cache.get(f"{READ}/{file}", **options).status_code)

    first = threading.Thread(target=get, args=("model.bin",), kwargs={"trusted": True})
    first.start()
    assert hub.faults.wait_until_stalled()
    second = threading.Thread(target=get, args=("other.bin",), kwargs={"headers": ALICE})
    second.start()
    remote = cache.service.config.remotes()[0]
    clients = [
        cache.service.client(remote, with_credentials=credentials) for credentials in (True, False)
    ]
    cache.wait_until(lambda: all(client.downloads.crowded for client in clients))
    assert hub.counters.count(host="cdn") == 1
    hub.faults.release()
    for thread in (first, second):
        thread.join(60)
    assert answers == [200, 200]


# --- what is sent ---


def test_headers_go_to_the_remote_itself_only(cache: RunningCache, hub: FakeHub) -> None:
    patch(cache, headers=[{"X-Gate": "open"}, {"X-Team": "seven"}])
    assert cache.get(f"{READ}/model.bin").status_code == 200
    on_the_hub = [record for record in hub.counters.requests if record.host == "hub"]
    elsewhere = [record for record in hub.counters.requests if record.host == "cdn"]
    assert all(record.headers["x-gate"] == "open" for record in on_the_hub)
    assert all(record.headers["x-team"] == "seven" for record in on_the_hub)
    assert elsewhere
    assert not any({"x-gate", "x-team"} & set(record.headers) for record in elsewhere)

    hub.counters.reset()
    patch(cache, headers=None)
    assert cache.get(f"{READ}/part-2.json").status_code == 200
    assert not any("x-gate" in record.headers for record in hub.counters.requests)


def test_a_new_token_is_used_by_the_next_request(cache: RunningCache, hub: FakeHub) -> None:
    path = "/org/private/resolve/main/config.json"
    assert cache.get(path, trusted=True).status_code == 401
    patch(cache, hf_token="hf_reader")
    assert cache.get(path, trusted=True).status_code == 200
    patch(cache, hf_token=None)
    assert cache.get(path, trusted=True).status_code == 401
