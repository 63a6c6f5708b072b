"""The policies of a remote: what `streamed` leaves behind, and what `immediate` fetches."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fake_hub import BigFile, FakeHub
from serving import RunningCache
from wall_clock import Clock

MODEL = BigFile(5 << 20, seed=21)
REPO = "org/whole"
FILES: dict[str, bytes | BigFile] = {
    "config.json": b"{}",
    "model.bin": MODEL,
    "deep/er/model.bin": BigFile(3 << 20, seed=22),
    "copy.bin": MODEL,
    "empty.txt": b"",
    "notes.txt": b"notes",
}
SIZES = {"config.json": 2, "model.bin": 5 << 20, "deep/er/model.bin": 3 << 20, "notes.txt": 5}
ALICE = {"Authorization": "Bearer hf_alice"}


@pytest.fixture
def commit(hub: FakeHub) -> str:
    return hub.repo("models", REPO).commit(FILES)


def set_policy(cache: RunningCache, policy: str, **fields: object) -> None:
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"policy": policy, **fields})


def left_behind(cache: RunningCache) -> list[Path]:
    """Every file below the cache's directories for bytes; locks hold none."""
    return [
        path
        for folder in ("blobs", "partial", "quarantine", "linked")
        for path in (cache.root / "cache" / folder).rglob("*")
        if path.is_file() and path.suffix != ".lock"
    ]


def snapshot(cache: RunningCache) -> dict[str, object]:
    [report] = cache.api("GET", "snapshots").json()["results"]
    return dict(report)


def wait_for(cache: RunningCache, state: str) -> dict[str, object]:
    """Wait until the one snapshot is in this state."""

    def is_there() -> bool:
        reports = cache.service.snapshots.reports()
        return bool(reports) and reports[0].state == state

    cache.wait_until(is_there, 60)
    return snapshot(cache)


# --- streamed ---


def test_streamed_keeps_no_bytes(cache: RunningCache, hub: FakeHub, commit: str) -> None:
    set_policy(cache, "streamed")
    for headers in (
        {},
        {"Range": "bytes=5-99"},
        {"Range": "bytes=5-9,20-29"},
        {"Range": "bytes=7-"},
    ):
        for file in ("model.bin", "config.json", "notes.txt"):
            cache.get(f"/{REPO}/resolve/main/{file}", headers=headers)
    answer = cache.get(f"/{REPO}/resolve/main/model.bin")

    assert hashlib.sha256(answer.content).hexdigest() == MODEL.sha256()
    assert answer.headers["X-HF-Cache-Result"] == "miss"
    assert left_behind(cache) == []
    assert list(cache.service.budget.rows()) == []
    assert cache.service.budget.used() == 0
    assert cache.service.fills.reports() == []


def test_streamed_asks_for_the_bytes_each_time(
    cache: RunningCache, hub: FakeHub, commit: str
) -> None:
    set_policy(cache, "streamed")
    for _ in range(3):
        assert cache.get(f"/{REPO}/resolve/{commit}/model.bin").status_code == 200
    assert hub.counters.bytes("cdn") == 3 * MODEL.size


def test_streamed_completes_no_damaged_file(cache: RunningCache, hub: FakeHub, commit: str) -> None:
    set_policy(cache, "streamed")
    hub.fault("corrupt", "", host="cdn", at=1000, times=None)
    try:
        received = cache.get(f"/{REPO}/resolve/main/model.bin", stream=True).raw.read(MODEL.size)
    except OSError:
        received = b""
    assert len(received) < MODEL.size
    assert left_behind(cache) == []


def test_what_was_kept_before_is_still_used(cache: RunningCache, hub: FakeHub, commit: str) -> None:
    assert cache.get(f"/{REPO}/resolve/main/model.bin").status_code == 200
    cache.wait_idle()
    before = hub.counters.bytes("cdn")
    set_policy(cache, "streamed")
    assert cache.get(f"/{REPO}/resolve/main/model.bin").headers["X-HF-Cache-Result"] == "hit"
    assert hub.counters.bytes("cdn") == before


def test_a_change_of_policy_acts_with_the_next_request(
    cache: RunningCache, hub: FakeHub, commit: str
) -> None:
    set_policy(cache, "streamed")
    assert cache.get(f"/{REPO}/resolve/main/config.json").status_code == 200
    set_policy(cache, "on_demand")
    assert cache.get(f"/{REPO}/resolve/main/config.json").status_code == 200
    cache.wait_idle()
    assert len(list(cache.service.budget.rows())) == 1
    assert cache.service.snapshots.reports() == [], "on demand means what is asked for"


# --- immediate ---


def test_the_first_touch_fetches_all_files(
    tmp_path: Path, cache: RunningCache, hub: FakeHub, commit: str, clock: Clock
) -> None:
    set_policy(cache, "immediate")
    assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
    report = wait_for(cache, "done")

    assert (report["type"], report["repo"], report["commit"]) == ("models", REPO, commit)
    assert (report["files_total"], report["files_done"]) == (len(FILES), len(FILES))
    assert report["bytes_total"] == report["bytes_done"] == sum(SIZES.values())
    assert report["error"] is None
    assert hub.counters.bytes("cdn") == SIZES["model.bin"] + SIZES["deep/er/model.bin"]
    hub.pause()
    clock.advance(3600)
    for file in FILES:
        assert cache.get(f"/{REPO}/resolve/{commit}/{file}").status_code == 200


def test_a_snapshot_is_fetched_once(cache: RunningCache, hub: FakeHub, commit: str) -> None:
    set_policy(cache, "immediate")
    for revision in ("main", commit, "main"):
        assert cache.get(f"/{REPO}/resolve/{revision}/config.json").status_code == 200
    wait_for(cache, "done")
    before = len(hub.counters.requests)
    assert cache.get(f"/{REPO}/resolve/{commit}/model.bin").status_code == 200
    assert snapshot(cache)["state"] == "done"
    assert len(hub.counters.requests) == before


def test_a_page_is_no_touch(cache: RunningCache, hub: FakeHub, commit: str) -> None:
    """A list of models would otherwise load them all."""
    set_policy(cache, "immediate")
    assert cache.get(f"/api/models/{REPO}").status_code == 200
    assert cache.get(f"/{REPO}/resolve/main/none.txt").status_code == 404
    assert cache.service.snapshots.reports() == []


def test_all_pages_of_the_tree_are_read(cache: RunningCache, hub: FakeHub) -> None:
    hub.page_size = 7
    files = {f"part-{number}.json": b"%d" % number for number in range(30)}
    commit = hub.repo("models", "org/many").commit(files)
    set_policy(cache, "immediate")
    assert cache.get(f"/org/many/resolve/{commit}/part-3.json").status_code == 200
    assert wait_for(cache, "done")["files_done"] == 30


def test_somebody_who_reads_meanwhile_shares_the_download(
    cache: RunningCache, hub: FakeHub, commit: str
) -> None:
    set_policy(cache, "immediate")
    hub.rate = 4 << 20
    assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
    cache.wait_until(lambda: hub.counters.bytes("cdn") > 0)
    answer = cache.get(f"/{REPO}/resolve/main/model.bin")
    assert hashlib.sha256(answer.content).hexdigest() == MODEL.sha256()
    wait_for(cache, "done")
    assert hub.counters.bytes("cdn") == SIZES["model.bin"] + SIZES["deep/er/model.bin"]


def test_what_does_not_fit_is_refused_in_words(tmp_path: Path, hub: FakeHub, commit: str) -> None:
    with RunningCache(tmp_path, hub, cache_size_limit=6 << 20) as cache:
        set_policy(cache, "immediate")
        assert cache.get(f"/{REPO}/resolve/main/config.json").status_code == 200
        report = wait_for(cache, "refused")
        assert "more than the cache may hold" in str(report["error"])
        assert hub.counters.bytes("cdn") == 0


def test_a_gated_repo_is_not_fetched_for_who_may_not_read_it(
    cache: RunningCache, hub: FakeHub
) -> None:
    repo = hub.repo("models", "org/shut", private=True)
    commit = repo.commit(FILES)
    set_policy(cache, "immediate")
    assert cache.get(f"/org/shut/resolve/{commit}/config.json").status_code == 401
    assert cache.service.snapshots.reports() == []
    assert cache.get(f"/org/shut/resolve/{commit}/config.json", headers=ALICE).status_code == 200
    wait_for(cache, "done")
    assert {r.headers.get("authorization") for r in hub.counters.requests if r.host == "hub"} <= {
        None,
        "Bearer hf_alice",
    }


def test_it_goes_on_at_the_next_touch_after_a_restart(
    tmp_path: Path, hub: FakeHub, commit: str
) -> None:
    hub.fault("stall", "", host="cdn", at=1 << 20, times=None)
    with RunningCache(tmp_path, hub) as cache:
        set_policy(cache, "immediate")
        assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
        cache.wait_until(lambda: hub.counters.bytes("cdn") > 1 << 20)
        assert snapshot(cache)["state"] == "running"
        hub.faults.clear()
        hub.fault("stall", "", host="cdn", at=0, times=None)
    hub.faults.clear()
    with RunningCache(tmp_path, hub) as cache:
        assert snapshot(cache)["state"] == "paused"
        assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
        assert wait_for(cache, "done")["files_done"] == len(FILES)


def test_two_processes_fetch_it_once(tmp_path: Path, hub: FakeHub, commit: str) -> None:
    with RunningCache(tmp_path, hub) as cache, RunningCache(tmp_path, hub) as other:
        set_policy(cache, "immediate")
        hub.rate = 4 << 20
        for one in (cache, other):
            assert one.head(f"/{REPO}/resolve/main/config.json").status_code == 200
        wait_for(other, "done")
        assert hub.counters.bytes("cdn") == SIZES["model.bin"] + SIZES["deep/er/model.bin"]
        assert len(cache.service.snapshots.reports()) == 1


@pytest.mark.parametrize("change", [{"policy": "on_demand"}, {"offline": True}, {"url": "x"}])
def test_a_changed_remote_ends_it(
    cache: RunningCache, hub: FakeHub, commit: str, change: dict[str, object]
) -> None:
    set_policy(cache, "immediate")
    hub.fault("stall", "", host="cdn", at=1 << 20, times=None)
    assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
    cache.wait_until(lambda: hub.counters.bytes("cdn") > 1 << 20)
    remote = cache.service.config.remotes()[0]
    if "url" in change:
        change = {"url": hub.url + "/elsewhere"}
    cache.service.config.update_remote(remote.id, change)
    assert wait_for(cache, "paused")["error"] == "The remote was changed."


def test_some_files_can_be_chosen_and_the_rest_canceled(
    cache: RunningCache, hub: FakeHub, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a prefetch builds on."""
    snapshots, touched = cache.service.snapshots, []
    monkeypatch.setattr(snapshots, "touch", lambda *what: touched.append(what))
    assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
    [what] = touched
    snapshots.fetch(*what, include=["*.json", "deep/", "*.txt"], exclude=["no*"])
    assert wait_for(cache, "done")["files_total"] == 3
    assert len(list(cache.service.budget.rows())) == 2, "an empty file takes no room"

    hub.fault("stall", "", host="cdn", at=1 << 20, times=None)
    whole = snapshots.fetch(*what)

    def state() -> str | None:
        return {report.id: report.state for report in snapshots.reports()}.get(whole)

    cache.wait_until(lambda: state() == "running")
    assert snapshots.cancel(whole)
    cache.wait_until(lambda: state() == "canceled")
    assert not snapshots.cancel(whole)


def test_a_file_that_fails_does_not_hold_up_the_others(
    cache: RunningCache, hub: FakeHub, commit: str
) -> None:
    set_policy(cache, "immediate")
    hub.fault("corrupt", "", host="cdn", at=1000, times=4)
    assert cache.head(f"/{REPO}/resolve/main/config.json").status_code == 200
    report = wait_for(cache, "failed")
    assert "digest" in str(report["error"])
    assert report["files_done"] != len(FILES)
    assert cache.get(f"/{REPO}/resolve/main/notes.txt").status_code == 200
