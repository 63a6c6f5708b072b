"""Answers from memory: given again without a thread or a disk, and never longer than they hold."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import BigFile, FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.service.ready import ReadyAnswers
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.web.entrance import Entrance

TEXT = b'{"architectures": ["BertModel"]}'
URL = "/org/small/resolve/main/config.json"
WEIGHTS = "/org/small/resolve/main/model.bin"
BEARER = {"Authorization": "Bearer hf_reader"}
OTHER = {"Authorization": "Bearer hf_other"}
PRIVATE = "/org/secret/resolve/main/config.json"
"""A repo that the tokens `hf_reader` and `hf_other` may read, and nobody else."""

COUNTED = ("hits", "bytes_from_cache", "calls_saved")


@pytest.fixture
def long_way(cache: RunningCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that took a thread."""
    asked: list[str] = []
    answer = cache.service.answer

    def noted(method: str, query: str, headers: Any, asker: Any, path: str, body: Any) -> Answer:
        asked.append(f"{method} /{path.partition('/')[2]}")
        return answer(method, query, headers, asker, path, body)

    monkeypatch.setattr(cache.service, "answer", noted)
    return asked


@pytest.fixture(autouse=True)
def small(hub: FakeHub) -> Repo:
    """The public repo; beside it the private one."""
    small = hub.repo("models", "org/small")
    small.commit({"config.json": TEXT, "model.bin": BigFile(3_000_000, seed=5), "empty.txt": b""})
    hub.repo("models", "org/secret", private=True).commit({"config.json": TEXT})
    for token in ("hf_reader", "hf_other"):
        hub.user(token.removeprefix("hf_"), token=token, reads={"org/secret"})
    return small


class TestWhatIsGivenAgain:
    def test_a_small_file(self, cache: RunningCache, long_way: list[str]) -> None:
        first = cache.get(URL)
        cache.wait_idle()
        kept, again = cache.get(URL), cache.get(URL)
        assert len(long_way) == 2
        assert first.content == kept.content == again.content == TEXT
        assert {**kept.headers, "Date": ""} == {**again.headers, "Date": ""}
        assert again.headers["X-HF-Cache-Result"] == "hit"

    def test_the_head_of_any_file(self, cache: RunningCache, long_way: list[str]) -> None:
        first = cache.head(WEIGHTS)
        again = cache.head(WEIGHTS)
        assert long_way == [f"HEAD {WEIGHTS}"]
        assert {**first.headers, "Date": ""} == {**again.headers, "Date": ""}
        assert again.headers["Content-Length"] == "3000000"

    def test_a_get_knows_what_a_head_says(self, cache: RunningCache, long_way: list[str]) -> None:
        cache.get(URL)
        cache.wait_idle()
        got = cache.get(URL)
        del long_way[:]
        head = cache.head(URL)
        assert not long_way
        assert {**head.headers, "Date": ""} == {**got.headers, "Date": ""}
        assert head.content == b""

    def test_a_head_does_not_stand_for_a_get(
        self, cache: RunningCache, long_way: list[str]
    ) -> None:
        cache.get(URL)
        cache.wait_idle()
        cache.head(URL)
        assert cache.get(URL).content == TEXT
        cache.head(URL)
        del long_way[:]
        assert cache.get(URL).content == TEXT, "nor does it take the body's place"
        assert not long_way

    def test_an_empty_file(self, cache: RunningCache, long_way: list[str]) -> None:
        answers = [cache.get("/org/small/resolve/main/empty.txt") for _ in range(3)]
        assert [answer.headers["Content-Length"] for answer in answers] == ["0"] * 3
        assert len(long_way) == 1

    def test_what_has_not_changed(self, cache: RunningCache, long_way: list[str]) -> None:
        etag = cache.head(URL).headers["ETag"]
        answers = [cache.get(URL, headers={"If-None-Match": tag}) for tag in (etag, "*")]
        assert len(long_way) == 1
        assert [answer.status_code for answer in answers] == [304, 304]
        assert all("Content-Length" not in answer.headers for answer in answers)
        assert cache.get(URL, headers={"If-None-Match": '"other"'}).content == TEXT

    def test_a_capability_works_each_time_it_is_renewed(
        self, cache: RunningCache, long_way: list[str]
    ) -> None:
        cache.get(URL, trusted=True)
        cache.wait_idle()
        cache.get(URL, trusted=True)
        del long_way[:]
        assert cache.get(URL, trusted=True).content == TEXT
        assert not long_way

    def test_big_bodies_parts_and_fresh_looks_go_the_long_way(
        self, cache: RunningCache, long_way: list[str]
    ) -> None:
        for url in (URL, WEIGHTS):
            cache.get(url)
        cache.wait_idle()
        for url in (URL, WEIGHTS):
            cache.get(url)
        del long_way[:]
        assert cache.get(URL, headers={"Range": "bytes=1-3"}).content == TEXT[1:4]
        cache.get(URL, headers={"Cache-Control": "no-cache"})
        cache.get(WEIGHTS)
        cache.get(URL + "?download=true")
        assert len(long_way) == 4

    def test_it_is_counted_like_any_other(self, cache: RunningCache, long_way: list[str]) -> None:
        def counted(ask: Callable[[], object]) -> list[int]:
            before = cache.api("GET", "status").json()["today"]
            ask()
            after = cache.api("GET", "status").json()["today"]
            return [after[name] - before[name] for name in COUNTED]

        cache.get(URL)
        cache.wait_idle()
        for ask in (lambda: cache.get(URL), lambda: cache.head(URL)):
            cache.service.generations.advance("content")
            del long_way[:]
            the_long_way = counted(ask)
            assert len(long_way) == 1
            cache.get(URL)
            del long_way[:]
            assert counted(ask) == the_long_way
            assert not long_way

    def test_it_was_used_when_it_was_given(self, cache: RunningCache, long_way: list[str]) -> None:
        def used() -> float:
            cache.service.ready.settle()
            cache.service.budget.flush()
            (repo,) = cache.service.inventory.repos()
            return repo.used

        cache.get(URL)
        cache.wait_idle()
        cache.get(URL)
        before = used()
        del long_way[:]
        cache.get(URL)
        assert not long_way
        assert used() > before


class TestHowLong:
    def warm(self, cache: RunningCache, url: str = URL, **options: Any) -> None:
        cache.get(url, **options)
        cache.wait_idle()
        cache.get(url, **options)

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_until_the_right_has_aged(
        self,
        tmp_path: Path,
        hub: FakeHub,
        small: Repo,
        clock: Clock,
        method: str,
    ) -> None:
        assert small.head is not None
        url = URL.replace("main", small.head.sha)
        with RunningCache(tmp_path, hub, access_ttl=50, revision_ttl=500) as cache:
            self.warm(cache, url)
            hub.counters.reset()
            clock.advance(49)
            cache.request(method, url)
            assert hub.counters.count() == 0
            clock.advance(2)
            cache.request(method, url)
            assert hub.counters.count() == 1

    def test_until_the_branch_has_aged(
        self, tmp_path: Path, hub: FakeHub, small: Repo, clock: Clock
    ) -> None:
        with RunningCache(tmp_path, hub, access_ttl=500, revision_ttl=50) as cache:
            self.warm(cache)
            small.commit({"config.json": b"{}"})
            clock.advance(49)
            assert cache.get(URL).content == TEXT
            clock.advance(2)
            assert cache.get(URL).content == b"{}"

    def test_a_clock_that_was_put_back_ends_it(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, long_way: list[str]
    ) -> None:
        self.warm(cache)
        del long_way[:]
        clock.advance(-3600)
        assert cache.get(URL).content == TEXT
        assert long_way

    def test_until_somebody_looks_again(self, cache: RunningCache, small: Repo) -> None:
        self.warm(cache)
        small.commit({"config.json": b"{}"})
        assert cache.get(URL).content == TEXT
        fresh = cache.get(URL, headers={"Cache-Control": "no-cache"})
        assert fresh.content == cache.get(URL).content == b"{}"
        assert cache.head(URL).headers["ETag"] == fresh.headers["ETag"]

    def test_what_is_served_stale_is_asked_about_each_time(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, long_way: list[str]
    ) -> None:
        self.warm(cache)
        clock.advance(100)
        hub.pause()
        del long_way[:]
        for _ in range(2):
            assert "X-HF-Warning" in cache.get(URL).headers
        assert len(long_way) == 2
        hub.resume()

    def test_nothing_is_ready_offline(self, tmp_path: Path, hub: FakeHub) -> None:
        with RunningCache(tmp_path, hub) as cache:
            self.warm(cache)
        with RunningCache(tmp_path, hub, offline=True) as cache:
            for _ in range(2):
                assert cache.get(URL).content == TEXT
            assert len(cache.service.ready) == 0


class TestWhoMayHaveIt:
    def test_each_token_for_itself(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, long_way: list[str]
    ) -> None:
        for headers in (BEARER, OTHER):
            cache.get(PRIVATE, headers=headers)
            cache.wait_idle()
            cache.get(PRIVATE, headers=headers)
        del long_way[:]
        for headers in (BEARER, OTHER):
            assert cache.get(PRIVATE, headers=headers).content == TEXT
        assert not long_way
        for headers in ({}, {"Authorization": "Bearer hf_unknown"}):
            for method in ("GET", "HEAD"):
                answer = cache.request(method, PRIVATE, headers=headers)
                assert answer.status_code == 401 and TEXT not in answer.content

        revoked = hub.accounts.identify(OTHER["Authorization"])
        assert revoked is not None
        revoked.reads.discard("org/secret")
        clock.advance(61)
        for _ in range(2):
            assert cache.get(PRIVATE, headers=BEARER).content == TEXT
            for method in ("GET", "HEAD"):
                assert cache.request(method, PRIVATE, headers=OTHER).status_code == 404

    def test_anonymous_after_trusted(self, cache: RunningCache, long_way: list[str]) -> None:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"hf_token": "hf_reader"})
        for _ in range(2):
            assert cache.get(PRIVATE, trusted=True).content == TEXT
            cache.wait_idle()
        del long_way[:]
        assert cache.get(PRIVATE, trusted=True).content == TEXT
        assert not long_way
        for method in ("GET", "HEAD"):
            assert cache.request(method, PRIVATE).status_code == 401

    def test_a_gated_file_after_somebody_who_accepted(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.repo("models", "org/my-gated", gated="auto").commit({"config.json": TEXT})
        reader = hub.accounts.identify(BEARER["Authorization"])
        assert reader is not None
        reader.accepted.add("org/my-gated")
        url = "/org/my-gated/resolve/main/config.json"
        for _ in range(2):
            assert cache.get(url, headers=BEARER).content == TEXT
            cache.wait_idle()
        for headers, status in (({}, 401), (OTHER, 403)):
            for method in ("GET", "HEAD"):
                answer = cache.request(method, url, headers=headers)
                assert answer.status_code == status and TEXT not in answer.content

    def test_a_refusal_ends_what_was_ready(self, cache: RunningCache, hub: FakeHub) -> None:
        for _ in range(2):
            cache.get(PRIVATE, headers=BEARER)
            cache.wait_idle()
        hub.accounts.revoke("hf_reader")
        fresh = {**BEARER, "Cache-Control": "no-cache"}
        assert cache.get(PRIVATE, headers=fresh).status_code == 401
        assert cache.get(PRIVATE, headers=BEARER).status_code == 401


class TestChanges:
    @pytest.fixture(autouse=True)
    def ready(self, cache: RunningCache, long_way: list[str]) -> Iterator[None]:
        for _ in range(2):
            cache.get(URL)
            cache.wait_idle()
        cache.get(URL)
        assert len(long_way) == 2
        del long_way[:]
        yield

    def test_of_the_remote(self, cache: RunningCache, hub: FakeHub) -> None:
        remote = cache.service.config.remotes()[0]
        with FakeHub.with_defaults() as other:
            other.repo("models", "org/small").commit({"config.json": b"{}"})
            cache.service.config.update_remote(remote.id, {"url": other.url})
            assert cache.get(URL).content == b"{}"

    def test_of_the_distribution(self, cache: RunningCache) -> None:
        distribution = cache.service.config.distributions()[0]
        cache.service.config.update_distribution(distribution.id, {"base_path": "elsewhere"})
        assert cache.get(URL).status_code == 404

    def test_of_the_token(self, cache: RunningCache) -> None:
        cache.service.tokens.set("default", "hf_reader")
        assert cache.get(PRIVATE, trusted=True).content == TEXT
        cache.wait_idle()
        assert cache.get(PRIVATE, trusted=True).content == TEXT
        cache.service.tokens.forget("default")
        assert cache.get(PRIVATE, trusted=True).status_code == 401

    def test_pushed_through_the_cache(self, cache: RunningCache) -> None:
        content = base64.b64encode(b"{}").decode()
        value = {"path": "config.json", "content": content, "encoding": "base64"}
        lines: list[dict[str, Any]] = [
            {"key": "header", "value": {"summary": "push"}},
            {"key": "file", "value": value},
        ]
        pushed = cache.request(
            "POST",
            "/api/models/org/small/commit/main",
            trusted=True,
            data="\n".join(map(json.dumps, lines)),
            headers={"Authorization": "Bearer hf_alice", "Content-Type": "application/x-ndjson"},
        )
        assert pushed.status_code == 200
        assert cache.head(URL).headers["Content-Length"] == "2"
        assert cache.get(URL).content == b"{}"

    def test_a_deletion(self, cache: RunningCache, hub: FakeHub, long_way: list[str]) -> None:
        hub.counters.reset()
        assert cache.api("DELETE", "repos/models/org/small").status_code == 200
        assert cache.get(URL).content == TEXT
        assert len(long_way) == 1
        assert hub.counters.count() > 0

    def test_an_eviction(self, cache: RunningCache, long_way: list[str]) -> None:
        ((blob, _),) = cache.service.store.blobs()
        cache.service.budget.forget(blob)
        assert cache.get(URL).headers["X-HF-Cache-Result"] == "miss"
        assert long_way

    @pytest.mark.parametrize("what", ["config", "access", "content"])
    def test_made_by_another_process(
        self, cache: RunningCache, long_way: list[str], what: Any
    ) -> None:
        (path,) = cache.root.rglob("generations")
        Generations(path).advance(what)
        assert cache.get(URL).content == TEXT
        assert len(long_way) == 1


class Shelf:
    """Ready answers without a service."""

    def __init__(self, tmp_path: Path, **limits: int) -> None:
        self.generations = Generations(tmp_path / "generations")
        self.usage = Usage(StateTable(tmp_path / "usage"))
        self.ready = ReadyAnswers(
            self.generations,
            self.usage,
            None,
            **limits,  # type: ignore[arg-type]
        )
        self.asker = Entrance("anonymous", "loopback", None, True)

    def put(self, path: str, size: int | None, epoch: tuple[int, ...] | None = None) -> None:
        answer = Answer(200, {"ETag": f'"{path}"'}, until=time.time() + 60)
        answer.body = None if size is None else BytesBody(b"x" * size)
        self.ready.remember(epoch or self.ready.epoch(), path, "", {}, self.asker, answer)

    def has(self, path: str, method: str = "GET") -> bool:
        return self.ready.find(method, path, "", {}, self.asker) is not None


class TestMemory:
    def test_the_longest_unused_go_first(self, tmp_path: Path) -> None:
        shelf = Shelf(tmp_path, most_bytes=40_000)
        for path in ("a", "b", "c"):
            shelf.put(path, 10_000)
        assert shelf.has("a")
        shelf.put("d", 10_000)
        assert [shelf.has(path) for path in "abcd"] == [True, False, True, True]

    def test_the_number_of_answers_is_bounded(self, tmp_path: Path) -> None:
        shelf = Shelf(tmp_path, most_answers=10)
        for number in range(100):
            shelf.put(str(number), None)
        assert len(shelf.ready) == 10
        assert shelf.has("99", "HEAD")

    def test_what_is_longer_than_all_the_room_is_left_out(self, tmp_path: Path) -> None:
        shelf = Shelf(tmp_path, most_bytes=20_000)
        shelf.put("short", 10_000)
        shelf.put("long", 20_000)
        assert (shelf.has("short"), shelf.has("long")) == (True, False)

    def test_room_is_given_back(self, tmp_path: Path) -> None:
        shelf = Shelf(tmp_path, most_bytes=40_000)
        for _ in range(20):
            shelf.put("a", 10_000)
            shelf.generations.advance("content")
            assert not shelf.has("a")
        for path in ("a", "b", "c"):
            shelf.put(path, 10_000)
        assert [shelf.has(path) for path in "abc"] == [True] * 3

    def test_what_changed_while_it_was_made_is_not_given(self, tmp_path: Path) -> None:
        shelf = Shelf(tmp_path)
        epoch = shelf.ready.epoch()
        shelf.generations.advance("access")
        shelf.put("a", 10, epoch)
        assert not shelf.has("a")

    def test_a_token_is_not_kept(self, tmp_path: Path) -> None:
        shelf = Shelf(tmp_path)
        shelf.asker = Entrance("own-token", "loopback", "hf_very_secret", True)
        shelf.put("a", 10)
        assert shelf.has("a")
        assert "hf_very_secret" not in str(vars(shelf.ready))
