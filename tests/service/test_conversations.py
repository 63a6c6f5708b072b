"""One commit per conversation: head, body, and the rest of a body of a branch that moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.service.conversations import Conversations
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.storage.state import StateTable

REPO = "org/moving"
SIZE = 3_000_000
URL = f"/{REPO}/resolve/main/model.bin"
SMALL = f"/{REPO}/resolve/main/config.json"
CURL = {"User-Agent": "curl/8"}
OTHER = {"User-Agent": "wget/1"}
CUT = 1_000_000

ONE, TWO, THREE = (BigFile(SIZE, seed=seed) for seed in (1, 2, 3))


def whole(file: BigFile) -> bytes:
    return file.read(0, file.size)


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    repo = hub.repo("models", REPO)
    repo.commit({"model.bin": ONE, "config.json": '{"version": 1}'})
    return repo


@pytest.fixture
def push(repo: Repo, clock: Clock) -> Callable[[BigFile], str]:
    """Push another version of the file, and let the lifetime of the branch end."""

    def push(file: BigFile) -> str:
        sha = repo.commit({"model.bin": file, "config.json": f'{{"version": "{file.seed}"}}'})
        clock.advance(61)
        return sha

    return push


def begin(cache: RunningCache, **headers: str) -> tuple[requests.Response, bytes]:
    """What a client has when its download is cut: HEAD, then a part of GET."""
    sent = {**CURL, **headers}
    head = cache.head(URL, headers=sent)
    with cache.get(URL, headers=sent, stream=True) as body:
        assert body.headers["ETag"] == head.headers["ETag"]
        assert body.headers["X-Repo-Commit"] == head.headers["X-Repo-Commit"]
        received = body.raw.read(CUT)
    return head, received


def resume(cache: RunningCache, start: int = CUT, **headers: str) -> requests.Response:
    return cache.get(URL, headers={**CURL, "Range": f"bytes={start}-", **headers})


class TestAResume:
    def test_gets_the_rest_of_what_was_begun(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        head, received = begin(cache)
        push(TWO)
        answer = resume(cache)
        assert answer.status_code == 206
        assert received + answer.content == whole(ONE)
        assert answer.headers["ETag"] == head.headers["ETag"]
        assert answer.headers["X-Repo-Commit"] == head.headers["X-Repo-Commit"]

    def test_also_when_others_saw_the_branch_move(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        _, received = begin(cache)
        second = push(TWO)
        assert cache.head(URL, headers=OTHER).headers["X-Repo-Commit"] == second
        assert received + resume(cache).content == whole(ONE)

    def test_also_after_a_restart_and_in_another_process(
        self, tmp_path: Path, hub: FakeHub, push: Callable[[BigFile], str], clock: Clock
    ) -> None:
        with RunningCache(tmp_path, hub) as cache, RunningCache(tmp_path, hub) as beside:
            _, received = begin(cache)
            port = cache.port
            push(TWO)
            # Both stand for workers behind one address.
            answer = requests.get(
                f"{beside.endpoint}{URL}",
                headers={**CURL, "Range": f"bytes={CUT}-", "Host": f"127.0.0.1:{port}"},
                timeout=60,
            )
            assert received + answer.content == whole(ONE)

    def test_costs_no_look_at_the_branch(
        self, cache: RunningCache, hub: FakeHub, push: Callable[[BigFile], str], clock: Clock
    ) -> None:
        begin(cache)
        cache.wait_idle()
        clock.advance(-50)
        push(TWO)
        hub.counters.reset()
        assert resume(cache).status_code == 206
        assert hub.counters.select(path_contains="/main/") == []

    def test_of_a_client_that_looks_different_gets_the_whole_new_file(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        begin(cache)
        push(TWO)
        answer = resume(cache, **OTHER)
        assert answer.status_code == 200
        assert answer.content == whole(TWO)

    def test_of_one_that_was_given_two_versions_gets_the_whole_new_file(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        begin(cache)
        push(TWO)
        begin(cache)
        push(THREE)
        answer = resume(cache)
        assert answer.status_code == 200
        assert answer.content == whole(THREE)

    def test_after_an_hour_gets_the_whole_new_file(
        self,
        cache: RunningCache,
        push: Callable[[BigFile], str],
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        over, note = threading.Event(), Conversations._ended

        def ended(*args: Any) -> None:
            note(*args)
            over.set()

        monkeypatch.setattr(Conversations, "_ended", ended)
        begin(cache)
        assert over.wait(20), "the hour begins when the server has seen the client leave"
        push(TWO)
        clock.advance(3600)
        answer = resume(cache)
        assert answer.status_code == 200
        assert answer.content == whole(TWO)

    def test_an_hour_is_counted_from_the_last_answer(
        self, cache: RunningCache, push: Callable[[BigFile], str], clock: Clock
    ) -> None:
        _, received = begin(cache)
        push(TWO)
        for _ in range(3):
            clock.advance(3000)
            assert received + resume(cache).content == whole(ONE)

    def test_a_body_may_take_longer_than_an_hour(
        self, cache: RunningCache, push: Callable[[BigFile], str], clock: Clock, hub: FakeHub
    ) -> None:
        hub.fault("stall", host="cdn", at=2_000_000)
        started = time.time()
        with cache.get(URL, headers=CURL, stream=True) as body:
            received = body.raw.read(CUT)
            clock.advance(7200)
            hub.faults.release()
        push(TWO)

        def is_over() -> bool:
            rows = cache.service.conversations._table.items("talk/")
            return any(told["used"] > started + 7000 for _, versions in rows for told in versions)

        cache.wait_until(is_over)
        assert received + resume(cache).content == whole(ONE)

    def test_of_a_file_that_did_not_change_goes_on(
        self, cache: RunningCache, repo: Repo, clock: Clock
    ) -> None:
        _, received = begin(cache)
        repo.commit({"README.md": "more"})
        clock.advance(61)
        for headers in (CURL, OTHER):
            answer = resume(cache, **headers)
            assert answer.status_code == 206
            assert received + answer.content == whole(ONE)

    def test_of_a_commit_that_is_no_more_gets_the_whole_new_file(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, push: Callable[[BigFile], str]
    ) -> None:
        head, _ = begin(cache)
        second = push(TWO)
        del repo.commits[head.headers["X-Repo-Commit"]]
        answer = resume(cache)
        assert (answer.status_code, answer.headers["X-Repo-Commit"]) == (200, second)
        assert answer.content == whole(TWO)

    def test_of_a_small_file_that_changed_gets_the_whole_new_file(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        cache.get(SMALL, headers=CURL)
        push(TWO)
        answer = cache.get(SMALL, headers={**CURL, "Range": "bytes=3-"})
        assert (answer.status_code, answer.json()) == (200, {"version": "2"})

    def test_needs_the_right_like_any_other_read(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, push: Callable[[BigFile], str]
    ) -> None:
        begin(cache)
        push(TWO)
        repo.private = True
        answer = resume(cache)
        assert answer.status_code == 401
        assert whole(ONE)[CUT : CUT + 100] not in answer.content

    def test_of_another_identity_is_another_conversation(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        begin(cache, Authorization="Bearer hf_alice")
        second = push(TWO)
        answer = resume(cache, Authorization="Bearer hf_bob")
        assert answer.headers["X-Repo-Commit"] == second


class TestIfRange:
    def test_names_the_version_that_is_gone_on_with(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        first, received = begin(cache)
        push(TWO)
        second, other = begin(cache)
        for head, had, file in ((first, received, ONE), (second, other, TWO)):
            answer = resume(cache, **{"If-Range": head.headers["ETag"]})
            assert answer.status_code == 206
            assert had + answer.content == whole(file)

    def test_of_a_version_nobody_was_told_of_gives_the_whole_file(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        begin(cache)
        push(TWO)
        answer = resume(cache, **{"If-Range": '"' + "0" * 64 + '"'})
        assert (answer.status_code, answer.content) == (200, whole(TWO))


class TestPartsOfAFile:
    """Readers of parts ask for many, and put them together by what they were told first."""

    PARTS = ("bytes=100-199", "bytes=-100", "bytes=0-99,500-599")

    @pytest.mark.parametrize("part", PARTS)
    def test_come_from_the_commit_of_the_head(
        self, cache: RunningCache, push: Callable[[BigFile], str], part: str
    ) -> None:
        head = cache.head(URL, headers=CURL)
        push(TWO)
        answer = cache.get(URL, headers={**CURL, "Range": part})
        assert answer.status_code == 206
        assert answer.headers["ETag"] == head.headers["ETag"]
        told = cache.head(URL, headers=CURL)
        assert told.headers["ETag"] != head.headers["ETag"], "a new head is of the new commit"
        answer = cache.get(URL, headers={**CURL, "Range": part})
        assert answer.headers["ETag"] == told.headers["ETag"], "and so are the parts after it"

    def test_come_from_where_the_branch_is_where_nothing_was_told(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        part = {**CURL, "Range": "bytes=100-199"}
        assert cache.get(URL, headers=part).content == whole(ONE)[100:200]
        push(TWO)
        assert cache.get(URL, headers=part).content == whole(TWO)[100:200]

    @pytest.mark.parametrize("listed", ["paths-info", "tree"])
    def test_come_from_the_commit_of_the_list_that_named_them(
        self, cache: RunningCache, push: Callable[[BigFile], str], listed: str
    ) -> None:
        part = {**CURL, "Range": "bytes=100-199"}
        path = f"/api/models/{REPO}/{listed}/main"

        def look() -> str:
            method = "POST" if listed == "paths-info" else "GET"
            data = {"paths": "model.bin"} if method == "POST" else None
            answer = cache.request(method, path, headers=CURL, data=data)
            return str(answer.headers["X-Repo-Commit"])

        first = look()
        second = push(TWO)
        for _ in range(2):
            assert cache.get(URL, headers=part).headers["X-Repo-Commit"] == first
        assert cache.get(URL, headers=part).content == whole(ONE)[100:200]
        assert look() == second
        assert cache.get(URL, headers=part).content == whole(TWO)[100:200]
        assert cache.get(URL, headers=CURL).headers["X-Repo-Commit"] == second

    def test_the_first_byte_is_a_beginning(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        probe = {**CURL, "Range": "bytes=0-0"}
        first = cache.get(URL, headers=probe)
        second = push(TWO)
        assert cache.get(URL, headers=probe).headers["X-Repo-Commit"] == second
        assert first.headers["X-Repo-Commit"] != second


class TestABeginning:
    def test_is_always_of_the_newest_commit(
        self, cache: RunningCache, push: Callable[[BigFile], str]
    ) -> None:
        begin(cache)
        second = push(TWO)
        for method in ("GET", "HEAD"):
            answer = cache.request(method, URL, headers=CURL)
            assert answer.headers["X-Repo-Commit"] == second

    @pytest.mark.parametrize("url", [URL, SMALL])
    def test_a_body_right_after_its_head_is_of_one_commit(
        self, cache: RunningCache, repo: Repo, clock: Clock, url: str
    ) -> None:
        """Clients name what they download by the ETag of the head."""
        cache.get(url, headers=CURL)
        cache.wait_idle()
        for _ in range(3):
            cache.head(url, headers=CURL)
        clock.advance(58)
        head = cache.head(url, headers=CURL)
        repo.commit({"model.bin": TWO, "config.json": '{"version": 2}'})
        clock.advance(4)
        cache.head(url, headers=OTHER)
        body = cache.get(url, headers=CURL)
        assert body.headers["ETag"] == head.headers["ETag"]
        clock.advance(30)
        assert cache.get(url, headers=CURL).headers["ETag"] != head.headers["ETag"]

    @pytest.mark.parametrize("agent", ["a; hf_hub/2.4.0; python/3", "a; hf-hub/0.4.3; rust/x"])
    def test_libraries_of_the_hub_repeat_a_body_for_the_head_they_know(
        self, cache: RunningCache, push: Callable[[BigFile], str], agent: str
    ) -> None:
        library = {"User-Agent": agent}
        head = cache.head(URL, headers=library)
        second = push(TWO)
        for _ in range(2):
            assert cache.get(URL, headers=library).headers["ETag"] == head.headers["ETag"]
        small = cache.get(SMALL, headers=library)
        assert small.headers["X-Repo-Commit"] == second
        assert cache.head(URL, headers=library).headers["X-Repo-Commit"] == second
        assert cache.get(URL, headers=library).content == whole(TWO)

    def test_unless_it_asks_for_the_newest(
        self, cache: RunningCache, repo: Repo, clock: Clock
    ) -> None:
        cache.head(URL, headers=CURL)
        second = repo.commit({"model.bin": TWO})
        fresh = {**CURL, "Cache-Control": "no-cache"}
        assert cache.get(URL, headers=fresh).headers["X-Repo-Commit"] == second

    def test_or_pushed_in_between(self, cache: RunningCache, repo: Repo) -> None:
        cache.head(URL, headers=CURL)
        second = repo.commit({"model.bin": TWO})
        cache.service.refresh(RepoRef("models", REPO))
        assert cache.get(URL, headers=CURL).headers["X-Repo-Commit"] == second


def test_two_downloads_at_once_are_each_of_one_commit(
    cache: RunningCache, hub: FakeHub, repo: Repo, push: Callable[[BigFile], str]
) -> None:
    """The old one is still being sent while the new one begins."""
    with cache.get(URL, headers=CURL, stream=True) as old:
        beginning = old.raw.read(CUT)
        push(TWO)
        assert cache.get(URL, headers=OTHER).content == whole(TWO)
        assert beginning + old.raw.read() == whole(ONE)


def test_small_files_cost_no_row(
    cache: RunningCache, monkeypatch: pytest.MonkeyPatch, repo: Repo
) -> None:
    cache.head(SMALL, headers=CURL)
    cache.get(SMALL, headers=CURL)
    cache.wait_idle()
    written: list[str] = []
    monkeypatch.setattr(StateTable, "set", lambda self, key, value: written.append(key))
    for number in range(10):
        agent = {"User-Agent": f"client/{number}"}
        assert cache.head(SMALL, headers=agent).status_code == 200
        assert cache.get(SMALL, headers=agent).status_code == 200
    assert [key for key in written if not key.startswith("day")] == []


def test_nothing_that_lets_somebody_in_is_written(
    cache: RunningCache, hub: FakeHub, repo: Repo
) -> None:
    base = cache.trusted
    capability = base.split("~")[1].split("/")[0]
    with requests.get(f"{base}{URL}", headers=CURL, timeout=60) as answer:
        assert answer.status_code == 200
    rows = list(cache.service.conversations._table.items("talk/"))
    assert rows
    assert capability not in repr(rows) and "curl" not in repr(rows)
