"""JSON about repos: right, consistent with the files, and asked for as seldom as possible."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.upstream import listings

TINY = "hf-internal-testing/tiny-random-bert"
BOB = {"Authorization": "Bearer hf_bob"}


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    repo = hub.repo("models", "org/moving")
    repo.commit({"config.json": '{"version": 1}', "model.bin": BigFile(100_000, seed=40)})
    return repo


def next_page(answer: requests.Response) -> str | None:
    match = re.fullmatch(r'<(http://[^<>]+)>; rel="next"', answer.headers.get("Link", ""))
    assert match or "Link" not in answer.headers
    return match[1] if match else None


def test_info(cache: RunningCache, hub: FakeHub) -> None:
    sha = hub.catalogue.get("models", TINY).head.sha
    for url in (f"/api/models/{TINY}", f"/api/models/{TINY}/revision/main"):
        answer = cache.get(url)
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert answer.json()["sha"] == sha
        assert {"rfilename": "config.json"} in answer.json()["siblings"]
        assert cache.head(url).headers["Content-Length"] == str(len(answer.content))
    fields = cache.get(f"/api/models/{TINY}?expand=sha&expand=gated&expand%5B%5D=tags").json()
    assert fields.keys() == {"_id", "id", "sha", "gated", "tags"}
    blobs = cache.get("/api/models/org/large?blobs=true").json()["siblings"]
    large = next(row for row in blobs if row["rfilename"] == "model.bin")
    entry = hub.catalogue.get("models", "org/large").head.files["model.bin"]
    assert large["lfs"]["sha256"] == entry.etag


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "first",
    [
        "/api/models/org/many-files/tree/main?recursive=true",
        "/api/models/org/many-files/tree/main?recursive=true&expand=true",
    ],
)
def test_every_page_of_a_tree_lies_below_the_endpoint(
    cache: RunningCache, hub: FakeHub, first: str, trusted: bool
) -> None:
    hub.page_size = hub.expand_page_size = 100
    endpoint = cache.trusted if trusted else cache.endpoint
    url: str | None = endpoint + first
    rows: list[dict[str, Any]] = []
    while url is not None:
        answer = requests.get(url, timeout=30)
        rows += answer.json()
        url = next_page(answer)
        assert url is None or url.startswith(endpoint + "/api/models/org/many-files/tree/")
    assert len(rows) == 303
    assert len({row["path"] for row in rows}) == 303


def test_pages_of_a_branch_do_not_straddle_a_push(
    cache: RunningCache, hub: FakeHub, clock: Clock
) -> None:
    hub.page_size = 100
    repo = hub.catalogue.get("models", "org/many-files")
    before = repo.head.sha
    answer = cache.get("/api/models/org/many-files/tree/main?recursive=true")
    repo.commit({"zzz.json": "{}"})
    clock.advance(120)
    rows = answer.json()
    while (url := next_page(answer)) is not None:
        answer = requests.get(url, timeout=30)
        rows += answer.json()
        assert answer.headers["X-Repo-Commit"] == before
    assert "zzz.json" not in [row["path"] for row in rows]


def test_folders_and_missing_ones(cache: RunningCache) -> None:
    rows = cache.get("/api/models/org/many-files/tree/main/part-1").json()
    assert len(rows) == 100
    for _ in range(2):
        answer = cache.get("/api/models/org/many-files/tree/main/additional_chat_templates")
        assert answer.status_code == 404
        assert answer.headers["X-Error-Code"] == "EntryNotFound"
        assert re.fullmatch("[0-9a-f]{40}", answer.headers["X-Repo-Commit"])


class TestPathsInfo:
    URL = "/api/models/org/large/paths-info/main"

    @pytest.mark.parametrize(
        "form",
        [
            {"data": {"paths": ["model.bin", "copy", "nope"], "expand": "false"}},
            {"json": {"paths": ["model.bin", "copy", "nope"]}},
            {"data": {"paths": ["model.bin", "copy", "nope"], "expand": True}},
            {"json": {"paths": ["model.bin", "copy", "nope"], "expand": True}},
        ],
    )
    def test_forms(self, cache: RunningCache, form: dict[str, Any]) -> None:
        for _ in range(2):
            answer = cache.request("POST", self.URL, **form)
            assert [row["path"] for row in answer.json()] == ["model.bin", "copy"]
            expanded = "lastCommit" in answer.json()[0]
            assert expanded == (next(iter(form.values())).get("expand") is True)

    def test_a_repeated_question_is_free(self, cache: RunningCache, hub: FakeHub) -> None:
        cache.request("POST", self.URL, data={"paths": ["model.bin"]})
        hub.counters.reset()
        cache.request("POST", self.URL, data={"paths": ["model.bin"]})
        assert hub.counters.requests == []
        cache.request("POST", self.URL, data={"paths": ["shard.bin"]})
        assert hub.counters.count() == 1

    def test_a_body_that_is_no_question(self, cache: RunningCache) -> None:
        answer = cache.request(
            "POST", self.URL, data=b"{", headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400

    def test_a_body_without_end(self, cache: RunningCache) -> None:
        answer = cache.request("POST", self.URL, data={"paths": "x" * (5 * 1024 * 1024)})
        assert answer.status_code == 413


def test_refs(cache: RunningCache) -> None:
    refs = cache.get(f"/api/models/{TINY}/refs").json()
    assert [row["name"] for row in refs["branches"]] == ["feature/slash", "main"]
    assert "pullRequests" not in refs
    with_prs = cache.get(f"/api/models/{TINY}/refs?include_prs=1").json()
    assert [row["ref"] for row in with_prs["pullRequests"]] == ["refs/pr/1"]


def test_commits_and_their_pages(cache: RunningCache, hub: FakeHub, repo: Repo) -> None:
    for number in range(5):
        repo.commit({"n.txt": str(number)}, f"number {number}")
    answer = cache.get("/api/models/org/moving/commits/main?limit=2&expand%5B%5D=formatted")
    titles = []
    while True:
        assert answer.headers["X-Total-Count"] == "6"
        titles += [row["title"] for row in answer.json()]
        url = next_page(answer)
        if url is None:
            break
        assert url.startswith(cache.endpoint)
        answer = requests.get(url, timeout=30)
    assert titles == [*(f"number {n}" for n in (4, 3, 2, 1, 0)), "Update files"]


def test_lists_and_search(cache: RunningCache, hub: FakeHub) -> None:
    hub.list_page_size = 3
    answer = cache.get("/api/models?author=org&full=true", trusted=True)
    names = [row["id"] for row in answer.json()]
    while (url := next_page(answer)) is not None:
        assert "/~" in url
        answer = requests.get(url, timeout=30)
        names += [row["id"] for row in answer.json()]
    assert "org/large" in names
    assert "org/private" not in names
    hub.list_page_size = 1000
    mine = cache.get(
        "/api/models?author=org&x=1", trusted=True, headers={"Authorization": "Bearer hf_alice"}
    )
    assert "org/private" in [row["id"] for row in mine.json()]
    found = cache.get("/api/datasets?search=tables", trusted=True).json()
    assert [row["id"] for row in found] == ["org/tables"]


def test_lists_do_not_grow_without_end(
    cache: RunningCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "MOST_PASSING", 5)
    monkeypatch.setattr(listings, "_PRUNE_EVERY", 1)
    for number in range(12):
        assert cache.get(f"/api/models?search={number}", trusted=True).status_code == 200
    table = cache.service._tables["repos"]
    kept = [key for key, _ in table.items("passing/")]
    assert len(kept) == 5
    assert all(any(f"search={n}" in key for key in kept) for n in (11, 10, 9, 8, 7))


class TestAPush:
    """A push that did not go through this cache is seen when what is known has aged."""

    def test_is_seen_after_the_lifetime(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        first = repo.head.sha
        assert cache.get("/org/moving/resolve/main/config.json").json() == {"version": 1}
        cache.get("/org/moving/resolve/main/model.bin")
        cache.wait_idle()
        second = repo.commit({"config.json": '{"version": 2}'})
        assert cache.get("/org/moving/resolve/main/config.json").json() == {"version": 1}
        clock.advance(61)
        hub.counters.reset()
        assert cache.get("/org/moving/resolve/main/config.json").json() == {"version": 2}
        model = cache.get("/org/moving/resolve/main/model.bin")
        assert model.headers["X-Repo-Commit"] == second
        assert hub.counters.count(host="cdn") == 0, "the weights did not change"
        old = cache.get(f"/org/moving/resolve/{first}/config.json")
        assert old.json() == {"version": 1}

    @pytest.mark.parametrize("first", ["page", "file", "tree"])
    def test_page_files_and_tree_speak_of_one_commit(
        self, cache: RunningCache, repo: Repo, clock: Clock, first: str
    ) -> None:
        def look(what: str) -> str:
            if what == "page":
                return str(cache.get("/api/models/org/moving/revision/main").json()["sha"])
            if what == "info":
                return str(cache.get("/api/models/org/moving").json()["sha"])
            url = "/api/models/org/moving/tree/main"
            url = url if what == "tree" else "/org/moving/resolve/main/config.json"
            return cache.get(url).headers["X-Repo-Commit"]

        everything = ("page", "info", "file", "tree")
        assert {look(what) for what in everything} == {repo.head.sha}
        clock.advance(40)
        second = repo.commit({"config.json": '{"version": 2}'})
        clock.advance(40)
        assert look(first) == second
        third = repo.commit({"config.json": '{"version": 3}'})
        assert {look(what) for what in everything} == {second}
        clock.advance(61)
        assert {look(what) for what in everything} == {third}

    def test_is_seen_at_once_by_who_asks_for_it(self, cache: RunningCache, repo: Repo) -> None:
        cache.get("/org/moving/resolve/main/config.json")
        second = repo.commit({"config.json": '{"version": 2}'})
        fresh = {"Cache-Control": "no-cache"}
        answer = cache.get("/org/moving/resolve/main/config.json", headers=fresh)
        assert answer.headers["X-Repo-Commit"] == second
        assert cache.get("/api/models/org/moving", headers=fresh).json()["sha"] == second


def test_a_missing_repo_is_asked_for_once_a_minute(
    cache: RunningCache, hub: FakeHub, clock: Clock
) -> None:
    urls = ["/api/models/org/nothing", "/org/nothing/resolve/main/config.json"]
    for _ in range(3):
        for url in urls:
            answer = cache.get(url, headers=BOB)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")
    assert hub.counters.count() == 2
    hub.repo("models", "org/nothing").commit({"config.json": "{}"})
    clock.advance(61)
    assert [cache.get(url, headers=BOB).status_code for url in urls] == [200, 200]


@pytest.mark.parametrize("status", [401, 403, 500, 503])
def test_refusals_and_failures_are_not_kept(cache: RunningCache, hub: FakeHub, status: int) -> None:
    # More than the client repeats by itself, fewer than the breaker takes for an outage.
    for url in (f"/{TINY}/resolve/main/config.json", f"/api/models/{TINY}"):
        hub.fault("status", TINY, status=status, times=4 if status == 503 else 1)
        answer = cache.get(url)
        assert answer.status_code == (status if status < 500 else 521)
        assert cache.get(url).status_code == 200


class TestOneQuestion:
    def test_equal_ones_are_joined(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.latency = 0.05
        with ThreadPoolExecutor(20) as pool:
            heads = pool.map(lambda _: cache.head(f"/{TINY}/resolve/main/config.json"), range(20))
            assert {answer.status_code for answer in heads} == {200}
        assert hub.counters.count("HEAD") == 1

    def test_equal_pages_are_joined(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.latency = 0.05
        with ThreadPoolExecutor(20) as pool:
            pages = pool.map(lambda _: cache.get(f"/api/models/{TINY}"), range(20))
            assert {answer.status_code for answer in pages} == {200}
        assert hub.counters.count() == 1

    def test_different_identities_are_not_joined(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.latency = 0.1
        tokens = ["hf_alice", "hf_bob", "hf_reader"]

        def head(number: int) -> int:
            bearer = {"Authorization": f"Bearer {tokens[number % 3]}"}
            url = "/org/private/resolve/main/config.json"
            return cache.head(url, headers=bearer).status_code

        with ThreadPoolExecutor(12) as pool:
            statuses = list(pool.map(head, range(12)))
        assert statuses == [200, 404, 200] * 4
        seen = [r.authorization for r in hub.counters.select("HEAD")]
        assert sorted(set(seen)) == [f"Bearer {token}" for token in sorted(tokens)]
        assert len(seen) == 3

    def test_the_right_is_asked_for_once_for_many_files(
        self, cache: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        alice = {"Authorization": "Bearer hf_alice"}
        repo = hub.repo("models", "org/secret", private=True)
        sha = repo.commit({f"{n}.json": str(n) for n in range(20)})
        urls = [f"/org/secret/resolve/{sha}/{n}.json" for n in range(20)]
        for url in urls:
            cache.get(url, headers=alice)
        clock.advance(120)
        hub.counters.reset()
        hub.latency = 0.1
        with ThreadPoolExecutor(20) as pool:
            answers = pool.map(lambda url: cache.get(url, headers=alice).text, urls)
            assert list(answers) == [str(n) for n in range(20)]
        assert hub.counters.count() == 1


def test_a_warm_snapshot_costs_one_question(
    cache: RunningCache, hub: FakeHub, clock: Clock
) -> None:
    """What snapshot_download asks, file by file, long after everything was loaded."""

    def snapshot() -> dict[str, bytes]:
        page = cache.get("/api/models/org/many-files/revision/main").json()
        sha = page["sha"]
        url: str | None = (
            f"{cache.endpoint}/api/models/org/many-files/tree/{sha}?recursive=true&expand=false"
        )
        files: list[str] = []
        while url is not None:
            answer = requests.get(url, timeout=30)
            files += [row["path"] for row in answer.json() if row["type"] == "file"]
            url = next_page(answer)

        def load(path: str) -> bytes:
            at = f"/org/many-files/resolve/{sha}/{path}"
            head, body = cache.head(at), cache.get(at)
            assert head.headers["ETag"] == body.headers["ETag"]
            return body.content

        with ThreadPoolExecutor(8) as pool:
            return dict(zip(files, pool.map(load, files), strict=True))

    first = snapshot()
    assert len(first) == 300
    cache.wait_idle()
    clock.advance(24 * 3600)
    hub.counters.reset()
    assert snapshot() == first
    assert hub.counters.count() <= 1, hub.counters.summary()


def test_what_never_changes_survives_a_restart(tmp_path: Path, hub: FakeHub, clock: Clock) -> None:
    url = "/api/models/org/many-files/tree/main?recursive=true"
    with RunningCache(tmp_path, hub) as cache:
        before = cache.get(url).json()
    clock.advance(3600)
    hub.counters.reset()
    with RunningCache(tmp_path, hub) as cache:
        assert cache.get(url).json() == before
    assert hub.counters.count(path_contains="/tree/") == 0
    assert hub.counters.count() == 1


def test_another_upstream_url_starts_from_nothing(tmp_path: Path, hub: FakeHub) -> None:
    """What one upstream said means nothing once the remote points at another."""
    with RunningCache(tmp_path, hub) as cache:
        cache.get(f"/api/models/{TINY}")
        cache.get(f"/{TINY}/resolve/main/config.json")
        remote = cache.service.config.remotes()[0]
        with FakeHub() as other:
            other.repo("models", TINY).commit({"config.json": '{"other": true}'})
            cache.service.config.update_remote(remote.id, {"url": other.url})
            with RunningCache(tmp_path, other) as again:
                for one in (cache, again):
                    answer = one.get(f"/{TINY}/resolve/main/config.json")
                    assert answer.json() == {"other": True}
                    info = one.get(f"/api/models/{TINY}").json()
                    assert info["sha"] == answer.headers["X-Repo-Commit"]
