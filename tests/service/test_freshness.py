"""How long what the upstream said is believed, and what it costs to ask again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub, Repo
from serving import ADMIN, RunningCache
from wall_clock import Clock

from jupyter_hf_cache.service import claims as claims_module
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import Claim, RepoRef
from jupyter_hf_cache.storage.state import StateTable

REPO = "org/moving"
FILES = 50
NO_CACHE = {"Cache-Control": "no-cache"}
READER = {"Authorization": "Bearer hf_reader"}


def url(file: str, revision: str = "main", verb: str = "resolve") -> str:
    return f"/{REPO}/{verb}/{revision}/{file}"


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    repo = hub.repo("models", REPO)
    repo.commit({f"{n}.json": f'{{"number": {n}}}' for n in range(FILES)})
    repo.commit({"model.bin": BigFile(3_000_000, seed=1), "README.md": "first"})
    return repo


def patch_remote(cache: RunningCache, **fields: Any) -> None:
    """PATCH the remote, as an admin does, and wait for the task."""
    remote = cache.service.config.remotes()[0]
    href = f"{cache.host}/pulp/api/v3/remotes/hugging_face/hugging-face/{remote.id}/"
    answer = requests.patch(href, json=fields, auth=ADMIN, timeout=60)
    assert answer.status_code in (200, 202), answer.text
    cache.wait_until(
        lambda: all(
            getattr(cache.service.config.remote(remote.id), name) == value
            for name, value in fields.items()
        )
    )


class TestLifetimes:
    """Each is an option of the remote, and acts at once when it is changed."""

    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    def test_of_a_branch(self, cache: RunningCache, repo: Repo, clock: Clock, method: str) -> None:
        patch_remote(cache, revision_ttl=600, access_ttl=10_000)
        first = cache.request(method, url("README.md")).headers["X-Repo-Commit"]
        cache.wait_idle()
        second = repo.commit({"README.md": "second"})
        clock.advance(599)
        for _ in range(2):
            assert cache.request(method, url("README.md")).headers["X-Repo-Commit"] == first
        patch_remote(cache, revision_ttl=300)
        for _ in range(2):
            assert cache.request(method, url("README.md")).headers["X-Repo-Commit"] == second

    def test_of_a_branch_that_is_looked_at_each_time(
        self, cache: RunningCache, repo: Repo, hub: FakeHub
    ) -> None:
        patch_remote(cache, revision_ttl=0)
        for number in range(3):
            sha = repo.commit({"README.md": str(number)})
            hub.counters.reset()
            answer = cache.head(url("README.md"))
            assert answer.headers["X-Repo-Commit"] == sha
            assert hub.counters.count() == 1

    def test_of_pages(self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock) -> None:
        patch_remote(cache, metadata_ttl=600, access_ttl=10_000, revision_ttl=10_000)
        pages = [f"/api/models/{REPO}", f"/api/models/{REPO}/refs"]
        for page in pages:
            cache.get(page)
        repo.tag("v1")
        repo.tags.append("new")
        clock.advance(599)
        hub.counters.reset()
        assert cache.get(pages[0]).json()["tags"] == []
        assert cache.get(pages[1]).json()["tags"] == []
        assert hub.counters.requests == []
        patch_remote(cache, metadata_ttl=300)
        assert cache.get(pages[0]).json()["tags"] == ["new"]
        assert [tag["name"] for tag in cache.get(pages[1]).json()["tags"]] == ["v1"]

    def test_of_what_is_not_there(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        patch_remote(cache, negative_ttl=600)
        asked = [url("README.md", "later"), "/org/nothing/resolve/main/config.json"]
        for _ in range(2):
            assert [cache.head(one, headers=READER).status_code for one in asked] == [404, 404]
        assert hub.counters.count() == 2
        repo.point("later")
        hub.repo("models", "org/nothing").commit({"config.json": "{}"})
        clock.advance(599)
        assert [cache.head(one, headers=READER).status_code for one in asked] == [404, 404]
        patch_remote(cache, negative_ttl=300)
        assert [cache.head(one, headers=READER).status_code for one in asked] == [200, 200]

    @pytest.mark.parametrize("revision", ["main", "commit"])
    def test_of_a_right(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, revision: str
    ) -> None:
        secret = hub.repo("models", "org/secret", private=True)
        sha = secret.commit({"config.json": "{}"})
        asked = f"/org/secret/resolve/{sha if revision == 'commit' else 'main'}/config.json"
        reader = hub.user("reader-too", token="hf_other", reads={"org/secret"})
        other = {"Authorization": "Bearer hf_other"}
        patch_remote(cache, revision_ttl=10_000, access_ttl=600)
        for _ in range(2):
            assert cache.get(asked, headers=other).status_code == 200
            cache.wait_idle()
        reader.reads.clear()
        clock.advance(599)
        assert cache.get(asked, headers=other).status_code == 200
        patch_remote(cache, access_ttl=300)
        for method in ("GET", "HEAD"):
            assert cache.request(method, asked, headers=other).status_code == 404

    def test_of_a_right_when_nobody_can_be_asked(
        self, tmp_path: Path, hub: FakeHub, clock: Clock
    ) -> None:
        hub.repo("models", "org/secret", private=True).commit({"config.json": "{}"})
        hub.user("reader-too", token="hf_other", reads={"org/secret"})
        other = {"Authorization": "Bearer hf_other"}
        with RunningCache(tmp_path, hub, single_user=False) as cache:
            patch_remote(cache, access_grace=600)
            asked = "/org/secret/resolve/main/config.json"
            cache.get(asked, headers=other)
            cache.wait_idle()
            hub.pause()
            clock.advance(550)
            assert cache.get(asked, headers=other).status_code == 200
            patch_remote(cache, access_grace=300)
            assert cache.get(asked, headers=other).status_code == 521


class TestOneLookPerRef:
    """After the lifetime, whatever is asked first renews a ref for all files of it."""

    def look(self, cache: RunningCache, what: str) -> str:
        pages = {
            "page": f"/api/models/{REPO}/revision/main",
            "info": f"/api/models/{REPO}",
            "tree": f"/api/models/{REPO}/tree/main",
        }
        if what in pages:
            answer = cache.get(pages[what])
            return str(answer.headers.get("X-Repo-Commit") or answer.json()["sha"])
        return cache.request(what, url("0.json")).headers["X-Repo-Commit"]

    @pytest.mark.parametrize("first", ["HEAD", "GET", "page", "info", "tree"])
    def test_one_question_is_enough_while_nothing_moved(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock, first: str
    ) -> None:
        self.look(cache, first)
        for number in range(FILES):
            cache.get(url(f"{number}.json"))
        cache.wait_idle()
        clock.advance(61)
        hub.counters.reset()
        assert self.look(cache, first) == repo.head.sha
        for number in range(FILES):
            assert cache.get(url(f"{number}.json")).json() == {"number": number}
            assert cache.head(url(f"{number}.json")).status_code == 200
        assert cache.get(url("0.json", repo.head.sha)).json() == {"number": 0}
        assert hub.counters.count() == 1, hub.counters.summary()

    def test_fifty_at_once_ask_once(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        for number in range(FILES):
            cache.get(url(f"{number}.json"))
        cache.wait_idle()
        clock.advance(61)
        hub.counters.reset()
        hub.latency = 0.3
        with ThreadPoolExecutor(FILES) as pool:
            heads = pool.map(lambda n: cache.head(url(f"{n}.json")).status_code, range(FILES))
            assert set(heads) == {200}
        assert hub.counters.count() == 1, hub.counters.summary()

    def test_files_never_seen_come_from_the_commit_that_was_found(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        cache.head(url("0.json"))
        clock.advance(61)
        first = repo.head.sha
        assert cache.head(url("0.json")).headers["X-Repo-Commit"] == first
        repo.commit({"1.json": "moved"})
        assert cache.get(url("1.json")).json() == {"number": 1}
        asked = [record.path for record in hub.counters.select(path_contains="main")]
        assert len(asked) == 2, "the branch itself is asked about once per lifetime"

    def test_a_moved_branch_is_followed_by_all_its_files(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        for number in range(FILES):
            cache.get(url(f"{number}.json"))
        cache.get(url("model.bin"))
        cache.wait_idle()
        second = repo.commit({"0.json": '{"number": 1000}'})
        clock.advance(61)
        hub.counters.reset()
        hub.latency = 0.1
        with ThreadPoolExecutor(20) as pool:
            heads = list(pool.map(lambda n: cache.head(url(f"{n}.json")), range(FILES)))
        assert {head.headers["X-Repo-Commit"] for head in heads} == {second}
        assert len(hub.counters.select(path_contains="/resolve/main/")) == 1
        assert cache.get(url("0.json")).json() == {"number": 1000}
        assert cache.get(url("model.bin")).headers["X-Repo-Commit"] == second
        assert hub.counters.count(host="cdn") == 0, "the weights did not change"
        for number in range(1, FILES):
            cache.get(url(f"{number}.json"))
        assert hub.counters.count("GET", "resolve-cache") == 1, "nor did the other files"

    def test_a_missing_file_renews_a_branch_too(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        for file in ("0.json", "absent.json"):
            cache.head(url(file))
        clock.advance(61)
        hub.counters.reset()
        absent = cache.head(url("absent.json"))
        assert (absent.status_code, absent.headers["X-Repo-Commit"]) == (404, repo.head.sha)
        assert hub.counters.count() == 1
        cache.head(url("0.json"))
        assert len(hub.counters.select(path_contains="/resolve/main/")) == 1

    def test_a_missing_branch_is_missing_for_all_its_files(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        statuses = {cache.head(url(f"{n}.json", "gone")).status_code for n in range(10)}
        assert statuses == {404}
        assert hub.counters.count() == 1


class TestManualRefresh:
    QUESTIONS = (
        ("HEAD", url("README.md")),
        ("GET", url("README.md")),
        ("GET", url("README.md", verb="raw")),
        ("GET", f"/api/models/{REPO}"),
        ("GET", f"/api/models/{REPO}/revision/main"),
        ("GET", f"/api/models/{REPO}/tree/main"),
        ("GET", f"/api/models/{REPO}/commits/main"),
    )

    def commit_of(self, answer: requests.Response) -> str:
        if "X-Repo-Commit" in answer.headers:
            return answer.headers["X-Repo-Commit"]
        return str(answer.json()["sha"])

    @pytest.mark.parametrize(("method", "asked"), QUESTIONS)
    def test_by_the_client(self, cache: RunningCache, repo: Repo, method: str, asked: str) -> None:
        assert self.commit_of(cache.request(method, asked)) == repo.head.sha
        repo.commit({"README.md": "second"})
        second = repo.head.sha
        assert self.commit_of(cache.request(method, asked)) != second
        assert self.commit_of(cache.request(method, asked, headers=NO_CACHE)) == second
        assert self.commit_of(cache.request(method, asked)) == second

    def test_of_what_was_not_there(self, cache: RunningCache, repo: Repo) -> None:
        asked = url("README.md", "later")
        assert cache.head(asked).status_code == 404
        repo.point("later")
        assert cache.head(asked).status_code == 404
        assert cache.head(asked, headers=NO_CACHE).status_code == 200
        assert cache.head(asked).status_code == 200

    def test_many_at_once_are_joined(self, cache: RunningCache, hub: FakeHub, repo: Repo) -> None:
        cache.head(url("0.json"))
        hub.counters.reset()
        hub.latency = 0.2
        with ThreadPoolExecutor(20) as pool:
            heads = pool.map(
                lambda n: cache.head(url(f"{n}.json"), headers=NO_CACHE).status_code, range(20)
            )
            assert set(heads) == {200}
        assert len(hub.counters.select(path_contains="/resolve/main/")) <= 3

    @pytest.mark.parametrize(("method", "asked"), QUESTIONS)
    def test_by_the_service(self, cache: RunningCache, repo: Repo, method: str, asked: str) -> None:
        cache.request(method, asked)
        cache.wait_idle()
        cache.request(method, asked)
        second = repo.commit({"README.md": "second"})
        assert cache.api("POST", f"repos/models/{REPO}/refresh").status_code == 204
        assert self.commit_of(cache.request(method, asked)) == second


class TestMovingRefs:
    @pytest.mark.parametrize("first", ["HEAD", "info", "tree"])
    def test_a_force_push_to_what_is_no_descendant(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock, first: str
    ) -> None:
        asked = {
            "HEAD": url("README.md"),
            "info": f"/api/models/{REPO}",
            "tree": f"/api/models/{REPO}/tree/main",
        }
        for one in asked.values():
            cache.get(one)
        old = repo.head.sha
        repo.commit({"README.md": "rewritten"}, replace=True)
        clock.advance(61)
        cache.get(asked[first])
        for _ in range(2):
            assert cache.get(url("README.md")).text == "rewritten"
            assert cache.get(url("0.json")).status_code == 404
            assert cache.get(asked["info"]).json()["sha"] == repo.head.sha
            assert [row["path"] for row in cache.get(asked["tree"]).json()] == ["README.md"]
        assert cache.get(url("0.json", old)).json() == {"number": 0}, (
            "the old commit is still there"
        )

    def test_a_commit_that_is_no_more_ends_within_the_lifetime_of_the_branch(
        self, cache: RunningCache, hub: FakeHub, repo: Repo
    ) -> None:
        old = repo.head
        cache.head(url("README.md"))
        new = repo.commit({"README.md": "rewritten", "0.json": "new"}, replace=True)
        del repo.commits[old.sha]
        assert cache.get(url("0.json")).text == "new", "a file that was not known at the old commit"
        assert cache.head(url("README.md")).headers["X-Repo-Commit"] == new
        for verb in ("tree", "commits"):
            assert cache.get(f"/api/models/{REPO}/{verb}/main").headers["X-Repo-Commit"] == new
        assert cache.get(f"/api/models/{REPO}").json()["sha"] == new

    @pytest.mark.parametrize("file", ["model.bin", "README.md"])
    @pytest.mark.parametrize("headers", [{}, {"Range": "bytes=2-"}])
    def test_whose_bytes_were_not_fetched_in_time(
        self, cache: RunningCache, repo: Repo, file: str, headers: dict[str, str]
    ) -> None:
        old = repo.head
        head = cache.head(url(file))
        repo.commit({"model.bin": BigFile(3_000_000, seed=2), "README.md": "later"}, replace=True)
        del repo.commits[old.sha]
        for _, client in cache.service._callers._clients.values():
            client.links._links.clear()
        answer = cache.get(url(file), headers=headers)
        assert answer.status_code == 200, "a part would be one of another file"
        assert answer.headers["X-Repo-Commit"] == repo.head.sha
        assert answer.headers["ETag"] != head.headers["ETag"]
        entry = repo.head.files[file]
        assert answer.content == entry.content.read(0, entry.size)
        gone = cache.get(url(file, old.sha))
        assert (gone.status_code, gone.headers["X-Error-Code"]) == (404, "RevisionNotFound")

    @pytest.mark.parametrize("asked", ["info", "tree"])
    def test_so_for_pages(self, cache: RunningCache, hub: FakeHub, repo: Repo, asked: str) -> None:
        old = repo.head
        cache.head(url("README.md"))
        new = repo.commit({"README.md": "rewritten"}, replace=True)
        del repo.commits[old.sha]
        path = f"/api/models/{REPO}" + ("" if asked == "info" else "/tree/main?recursive=1")
        answer = cache.get(path)
        assert answer.status_code == 200
        assert answer.headers.get("X-Repo-Commit", answer.text).find(new) >= 0

    def test_a_deleted_branch_is_gone_and_comes_back_as_another(
        self, cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock
    ) -> None:
        repo.commit({"README.md": "of the branch"}, branch="dev")
        questions = [
            url("README.md", "dev"),
            f"/api/models/{REPO}/revision/dev",
            f"/api/models/{REPO}/tree/dev",
            f"/api/models/{REPO}/commits/dev",
        ]
        for asked in questions:
            assert cache.get(asked).status_code == 200
        cache.wait_idle()
        repo.drop_ref("dev")
        clock.advance(61)
        for asked in questions:
            answer = cache.get(asked)
            assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")
        assert cache.get(url("README.md")).text == "first", "the rest of the repo is as it was"
        hub.pause()
        clock.advance(61)
        for asked in questions:
            assert cache.get(asked).status_code >= 400, "the upstream's last word was no"
        assert cache.get(url("README.md")).status_code == 200
        hub.resume()
        cache.service.breaker.forget(cache.service.config.remotes()[0].id)
        clock.advance(61)
        sha = repo.commit({"README.md": "again"}, branch="dev")
        assert cache.get(questions[0]).text == "again"
        assert cache.get(questions[1]).json()["sha"] == sha

    @pytest.mark.parametrize(
        "revision", ["v1", "refs%2Fpr%2F1", "refs/pr/1", "refs%2Fconvert%2Fparquet", "HEAD"]
    )
    def test_other_refs_that_move(
        self, cache: RunningCache, repo: Repo, clock: Clock, revision: str
    ) -> None:
        def move(text: str) -> None:
            if revision == "HEAD":
                repo.commit({"README.md": text})
            elif revision == "v1":
                repo.commit({"README.md": text}, branch="to-tag")
                repo.tag("v1", "to-tag")
            else:
                repo.commit({"README.md": text}, branch=revision.replace("%2F", "/"))

        move("one")
        assert cache.get(url("README.md", revision)).text == "one"
        move("two")
        assert cache.get(url("README.md", revision)).text == "one"
        clock.advance(61)
        assert cache.get(url("README.md", revision)).text == "two"

    def test_a_short_commit_id(self, cache: RunningCache, hub: FakeHub, repo: Repo) -> None:
        sha = repo.head.sha
        assert cache.get(url("README.md", sha[:8])).headers["X-Repo-Commit"] == sha
        repo.commit({"README.md": "second"})
        hub.counters.reset()
        assert cache.get(url("README.md", sha[:8])).text == "first"
        assert hub.counters.requests == []


def test_files_that_are_not_there_are_remembered_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "_MOST_ABSENT", 10)
    table, repo = StateTable(tmp_path / "files"), RepoRef("models", REPO)
    claims = Claims(table, Generations(tmp_path / "generations"))
    claims.put("origin", repo, "there", Claim(commit="c" * 40, etag="e" * 40, size=1))
    for number in range(500):
        claims.put("origin", repo, f"absent-{number}", Claim(commit="c" * 40, absent=True))
    assert table.count("absent/") <= 210
    again = Claims(table, Generations(tmp_path / "generations"))
    latest = again.get("origin", repo, "c" * 40, "absent-499")
    assert latest is not None and latest.absent
    kept = again.get("origin", repo, "c" * 40, "there")
    assert kept is not None and not kept.absent
    table.close()


def test_a_change_of_the_clock_does_not_make_things_fresh_for_ever(
    cache: RunningCache, repo: Repo, clock: Clock
) -> None:
    clock.advance(1000)
    cache.head(url("README.md"))
    clock.advance(-900)
    second = repo.commit({"README.md": "second"})
    assert cache.head(url("README.md")).headers["X-Repo-Commit"] == second
