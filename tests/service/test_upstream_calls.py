"""The Hub is asked as seldom as possible: every number here is counted at the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_hub import BigFile, FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

TINY = "hf-internal-testing/tiny-random-bert"
MANY = "org/many-files"
ALICE = {"Authorization": "Bearer hf_alice"}
BOB = {"Authorization": "Bearer hf_bob"}
READER = {"Authorization": "Bearer hf_reader"}
WHOLE = "recursive=true&expand=false"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to ask for what a tree would have told."""
    monkeypatch.setattr("jupyter_hf_cache.service.listed.PATIENCE_SECONDS", 20.0)


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    repo = hub.repo("models", "org/moving")
    repo.commit({"config.json": '{"version": 1}', "model.bin": BigFile(100_000, seed=40)})
    return repo


@pytest.fixture
def gated(hub: FakeHub) -> Repo:
    hub.user("fan", "hf_fan", accepted={"org/behind-gate"})
    repo = hub.repo("models", "org/behind-gate", gated="auto")
    repo.commit({f"{n}.json": str(n) for n in range(6)})
    return repo


def load(cache: RunningCache, repo: str, sha: str, files: list[str]) -> list[bytes]:
    """HEAD and GET each file, as huggingface_hub does with eight threads."""

    def one(path: str) -> bytes:
        url = f"/{repo}/resolve/{sha}/{path}"
        head, body = cache.head(url), cache.get(url)
        assert (head.status_code, body.status_code) == (200, 200)
        assert head.headers["ETag"] == body.headers["ETag"]
        assert head.headers["Content-Length"] == str(len(body.content))
        return body.content

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, files))


def files_of(cache: RunningCache, repo: str, sha: str, **options: object) -> list[str]:
    rows = cache.get(f"/api/models/{repo}/tree/{sha}?{WHOLE}", **options).json()
    return [row["path"] for row in rows if row["type"] == "file"]


class TestASnapshot:
    def test_with_its_tree_costs_one_call_for_each_file(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        sha = cache.get(f"/api/models/{MANY}/revision/main").json()["sha"]
        files = files_of(cache, MANY, sha)
        bodies = load(cache, MANY, sha, files)
        entries = hub.catalogue.get("models", MANY).head.files
        assert bodies == [entries[path].content.read(0, entries[path].size) for path in files]
        assert hub.counters.count("HEAD") == 0
        # The first of each thread is sent to where small files are, the others go there at once.
        assert hub.counters.count() <= 2 + 300 + 8, hub.counters.summary()

    def test_file_by_file_has_its_tree_asked_for_once(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        page = cache.get(f"/api/models/{MANY}/revision/main").json()
        load(cache, MANY, page["sha"], [row["rfilename"] for row in page["siblings"]])
        assert hub.counters.count(path_contains="/tree/") == 1
        assert hub.counters.count("HEAD") <= 8
        assert hub.counters.count() <= 2 + 300 + 16, hub.counters.summary()

    def test_of_a_moving_ref(self, cache: RunningCache, hub: FakeHub) -> None:
        for path in list(hub.catalogue.get("models", MANY).head.files)[:20]:
            assert cache.head(f"/{MANY}/resolve/main/{path}").status_code == 200
        assert hub.counters.count(path_contains="/tree/") == 1
        assert hub.counters.count() <= 4, hub.counters.summary()

    def test_one_file_or_two_cost_no_tree(self, cache: RunningCache, hub: FakeHub) -> None:
        cache.head(f"/{TINY}/resolve/main/config.json")
        cache.head(f"/{TINY}/resolve/main/vocab.txt")
        assert hub.counters.count(path_contains="/tree/") == 0
        assert hub.counters.count("HEAD") == 2

    def test_a_long_tree_is_read_as_far_as_it_pays(self, cache: RunningCache, hub: FakeHub) -> None:
        hub.page_size = 20
        repo = hub.catalogue.get("models", MANY)
        files = sorted(repo.head.files, reverse=True)
        for path in files[:10]:
            assert cache.head(f"/{MANY}/resolve/{repo.head.sha}/{path}").status_code == 200
        assert 1 <= hub.counters.count(path_contains="/tree/") <= 3
        for path in files[10:]:
            assert cache.head(f"/{MANY}/resolve/{repo.head.sha}/{path}").status_code == 200
        assert hub.counters.count() < 150, "half of the files were read from the tree"

    @pytest.mark.parametrize("kind", ["status", "html"])
    def test_a_tree_that_fails_is_done_without(
        self, cache: RunningCache, hub: FakeHub, kind: str
    ) -> None:
        fault = hub.fault(kind, "/tree/", times=None, status=403)
        repo = hub.catalogue.get("models", MANY)
        load(cache, MANY, repo.head.sha, list(repo.head.files)[:12])
        assert fault.hits == 1

    def test_a_tree_that_takes_long_is_not_waited_for(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jupyter_hf_cache.service.listed.PATIENCE_SECONDS", 0.0)
        hub.fault("stall", "/tree/")
        repo = hub.catalogue.get("models", MANY)
        files = list(repo.head.files)
        load(cache, MANY, repo.head.sha, files[:12])
        assert hub.counters.count(path_contains="/tree/") == 1
        hub.faults.release()
        sure = iter(files[12:])
        url = f"/{MANY}/resolve/{repo.head.sha}/"

        def is_known() -> bool:
            before = hub.counters.count("HEAD")
            assert cache.head(url + next(sure)).status_code == 200
            return hub.counters.count("HEAD") == before

        cache.wait_until(is_known)
        hub.counters.reset()
        assert cache.head(url + next(sure)).status_code == 200
        assert hub.counters.requests == []

    def test_a_tree_that_is_never_answered_rests_nobody(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jupyter_hf_cache.upstream.client.DEFAULT_RETRIES", 0)
        fault = hub.fault("close", "/tree/", times=None)
        repo = hub.catalogue.get("models", MANY)
        load(cache, MANY, repo.head.sha, list(repo.head.files)[:12])
        assert fault.hits == 1
        assert cache.service.breaker.state(cache.service.config.remotes()[0].id)[0] == "reachable"


class TestWhatDoesNotExist:
    def test_a_page_tells(self, cache: RunningCache, hub: FakeHub) -> None:
        sha = cache.get(f"/api/models/{TINY}").json()["sha"]
        hub.counters.reset()
        for url in (
            f"/{TINY}/resolve/main/added_tokens.json",
            f"/{TINY}/resolve/{sha}/chat_template.jinja",
            f"/{TINY}/raw/main/nope.txt",
            f"/api/models/{TINY}/tree/main/additional_chat_templates",
        ):
            answer = cache.get(url)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
            assert answer.headers["X-Repo-Commit"] == sha
        assert answer.json() == {"error": f"additional_chat_templates does not exist on {sha[:7]}"}
        assert hub.counters.requests == []

    def test_it_appears_with_a_commit(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        cache.get("/api/models/org/moving")
        assert cache.get("/org/moving/resolve/main/new.json").status_code == 404
        repo.commit({"new.json": "{}", "folder/x": "x"})
        clock.advance(61)
        assert cache.get("/org/moving/resolve/main/new.json").text == "{}"
        assert cache.get("/api/models/org/moving/tree/main/folder").status_code == 200

    def test_missing_repos_and_revisions_are_remembered_for_a_minute(
        self, cache: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        urls = ["/bob/never/resolve/main/x", "/api/models/bob/never"]
        urls += [f"/{TINY}/resolve/never/x", f"/api/models/{TINY}/tree/never"]
        for _ in range(5):
            for url in urls:
                assert cache.get(url, headers=BOB).status_code == 404
        assert hub.counters.count() <= len(urls)
        clock.advance(61)
        hub.counters.reset()
        cache.get(urls[0], headers=BOB)
        assert hub.counters.count() == 1

    def test_what_bob_may_not_see_says_nothing_of_alice(self, cache: RunningCache) -> None:
        for _ in range(2):
            bob = cache.get("/org/private/resolve/main/config.json", headers=BOB)
            assert bob.headers["X-Error-Code"] == "RepoNotFound"
            alice = cache.get("/org/private/resolve/main/config.json", headers=ALICE)
            assert alice.status_code == 200


class TestRights:
    def test_an_open_tree_of_a_gated_repo_opens_no_file(
        self, cache: RunningCache, hub: FakeHub, gated: Repo
    ) -> None:
        sha = gated.head.sha
        for headers in (BOB, {}):
            assert len(files_of(cache, gated.id, sha, headers=headers)) == 6
            for path in ("0.json", "nope.json"):
                for method in ("HEAD", "GET"):
                    url = f"/{gated.id}/resolve/{sha}/{path}"
                    answer = cache.request(method, url, headers=headers)
                    assert answer.status_code in (401, 403)
                    assert answer.headers["X-Error-Code"] == "GatedRepo"

    def test_the_right_to_a_gated_repo_is_asked_for_once(
        self, cache: RunningCache, hub: FakeHub, gated: Repo, clock: Clock
    ) -> None:
        fan = {"Authorization": "Bearer hf_fan"}
        sha = gated.head.sha
        files = files_of(cache, gated.id, sha, headers=fan)
        for _ in range(2):
            hub.counters.reset()
            for path in files:
                head = cache.head(f"/{gated.id}/resolve/{sha}/{path}", headers=fan)
                assert head.status_code == 200
            assert hub.counters.count() == 1, hub.counters.summary()
            clock.advance(61)
        hub.catalogue.get("models", gated.id)
        hub.accounts.revoke("hf_fan")
        refused = cache.head(f"/{gated.id}/resolve/{sha}/0.json", headers=fan)
        assert refused.status_code == 401

    def test_listings_of_a_private_repo_are_for_who_was_given_them(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        sha = hub.catalogue.get("models", "org/private").head.sha
        assert files_of(cache, "org/private", sha, headers=ALICE)
        for path in ("config.json", "nope.json"):
            answer = cache.get(f"/org/private/resolve/{sha}/{path}", headers=BOB)
            assert answer.headers["X-Error-Code"] == "RepoNotFound"
            assert cache.get(f"/org/private/resolve/{sha}/{path}").status_code == 401


class TestSmallFiles:
    def test_are_fetched_where_the_first_one_was(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        sha = repo.commit({f"{n}.txt": f"text {n}" for n in range(5)})
        files_of(cache, "org/moving", sha)
        hub.counters.reset()
        for number in range(5):
            url = f"/org/moving/resolve/{sha}/{number}.txt"
            assert cache.get(url).text == f"text {number}"
        assert hub.counters.count(path_contains="/org/moving/resolve/") == 1
        assert hub.counters.count(path_contains="/api/resolve-cache/") == 5
        assert hub.counters.count() == 6

    def test_are_fetched_the_long_way_where_that_fails(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        sha = repo.commit({f"{n}.txt": f"text {n}" for n in range(3)})
        files_of(cache, "org/moving", sha)
        assert cache.get(f"/org/moving/resolve/{sha}/0.txt").text == "text 0"
        fault = hub.fault("status", "/1.txt?", status=404, method="GET")
        assert cache.get(f"/org/moving/resolve/{sha}/1.txt").text == "text 1"
        assert fault.hits == 1
        assert cache.get(f"/org/moving/resolve/{sha}/2.txt").text == "text 2"


class TestAfterAllLifetimes:
    """Whoever loads what is kept costs one question, whatever the client asks first."""

    READS = {
        "page first": [
            f"/api/models/{TINY}",
            f"/{TINY}/resolve/main/config.json",
            f"/api/models/{TINY}/tree/main?recursive=true",
            f"/api/models/{TINY}/tree/main/additional_chat_templates",
            f"/{TINY}/resolve/main/added_tokens.json",
            f"/{TINY}/resolve/main/model.safetensors",
            f"/api/models/{TINY}/revision/main",
        ],
        "file first": [
            "/datasets/org/tables/resolve/main/README.md",
            "/datasets/org/tables/resolve/{sha}/tables.py",
            "/api/datasets/org/tables/revision/{sha}",
            "/api/datasets/org/tables/tree/{sha}/csv?recursive=false&expand=false",
            "/datasets/org/tables/resolve/{sha}/csv/train.csv",
        ],
        "pinned": [
            "/api/datasets/org/tables/tree/{sha}?recursive=true&expand=false",
            "/datasets/org/tables/resolve/{sha}/README.md",
            "/api/datasets/org/tables/revision/{sha}",
        ],
    }

    @pytest.fixture(params=READS)
    def reads(self, request: pytest.FixtureRequest, hub: FakeHub) -> list[str]:
        sha = hub.catalogue.get("datasets", "org/tables").head.sha
        return [url.format(sha=sha) for url in self.READS[request.param]]

    def test_one_question(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, reads: list[str]
    ) -> None:
        def answers() -> list[tuple[int, bytes]]:
            found = [cache.get(url) for url in reads]
            cache.wait_idle()
            return [(answer.status_code, answer.content) for answer in found]

        first = answers()
        hub.counters.reset()
        assert answers() == first
        assert hub.counters.requests == []
        clock.advance(24 * 3600)
        assert answers() == first
        assert hub.counters.count() == 1, hub.counters.summary()

    @pytest.mark.parametrize("private", [False, True])
    def test_who_may_read_a_restricted_repo_is_asked_on_a_file(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, private: bool
    ) -> None:
        """Its page does not tell, so it is one question more."""
        hub.user("fan", "hf_fan", reads={"org/closed"}, accepted={"org/closed"})
        fan = {"Authorization": "Bearer hf_fan"}
        repo = hub.repo("models", "org/closed", private=private, gated=not private)
        repo.commit({f"{n}.json": str(n) for n in range(5)})

        def load_all() -> None:
            assert cache.get("/api/models/org/closed", headers=fan).status_code == 200
            for number in range(5):
                url = f"/org/closed/resolve/main/{number}.json"
                assert cache.get(url, headers=fan).text == str(number)
            assert cache.get("/org/closed/resolve/main/nope", headers=fan).status_code == 404

        load_all()
        cache.wait_idle()
        hub.counters.reset()
        load_all()
        assert hub.counters.requests == []
        clock.advance(24 * 3600)
        load_all()
        assert hub.counters.count() == 2, hub.counters.summary()

    def test_a_restart_forgets_nothing(self, tmp_path: Path, hub: FakeHub, clock: Clock) -> None:
        with RunningCache(tmp_path, hub) as cache:
            sha = cache.get(f"/api/models/{MANY}/revision/main").json()["sha"]
            files = files_of(cache, MANY, sha)
        hub.counters.reset()
        with RunningCache(tmp_path, hub) as cache:
            for path in [*files[:20], "nope"]:
                head = cache.head(f"/{MANY}/resolve/{sha}/{path}")
                assert head.status_code == (404 if path == "nope" else 200)
        assert hub.counters.requests == []


class TestCounters:
    @pytest.fixture
    def usage(self, cache: RunningCache) -> Iterator[None]:
        yield

    def report(self, cache: RunningCache) -> dict[str, float]:
        cache.service.ready.settle()
        today: dict[str, float] = cache.api("GET", "status").json()["today"]
        return today

    def test_what_was_asked_and_what_was_spared(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        assert self.report(cache)["hit_ratio"] is None
        url = "/org/moving/resolve/main/config.json"
        cache.get(url)
        cache.wait_idle()
        cold = self.report(cache)
        size = repo.head.files["config.json"].size
        assert cold["calls_made"] == hub.counters.count(host="hub")
        assert (cold["hits"], cold["misses"], cold["hit_ratio"]) == (0, 1, 0.0)
        assert cold["bytes_served"] == cold["bytes_from_upstream"] == size
        assert cold["bytes_saved"] == 0
        for _ in range(3):
            cache.get(url)
        cache.head(url)
        cache.get("/api/models/org/moving")
        cache.get("/api/models/org/moving/revision/main")
        cache.get("/org/moving/resolve/main/nope.json")
        warm = self.report(cache)
        assert warm["calls_made"] == hub.counters.count(host="hub") == cold["calls_made"] + 1
        assert warm["calls_saved"] - cold["calls_saved"] == 3 + 1 + 1 + 1
        assert (warm["hits"], warm["misses"], warm["hit_ratio"]) == (3, 1, 0.75)
        assert warm["bytes_served"] == 4 * size
        assert warm["bytes_saved"] == 3 * size

    def test_a_refusal_that_is_kept_spares_a_call(self, cache: RunningCache, hub: FakeHub) -> None:
        for _ in range(4):
            cache.get("/bob/never/resolve/main/x", headers=BOB)
            cache.get("/api/models/bob/never", headers=BOB)
        report = self.report(cache)
        assert report["calls_made"] + report["calls_saved"] == 8
        assert report["calls_made"] == hub.counters.count()

    def test_days_add_up(self, tmp_path: Path, hub: FakeHub, clock: Clock) -> None:
        with RunningCache(tmp_path, hub) as cache:
            cache.get(f"/{TINY}/resolve/main/config.json")
        with RunningCache(tmp_path, hub) as cache:
            status = cache.api("GET", "status").json()
            assert status["total"] == status["today"]
            assert status["total"]["misses"] == 1
