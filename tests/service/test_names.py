"""Names of repos: renamed ones, chains and circles, and names that others have by now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from fake_hub import FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.upstream.rights import Subject

READER = {"Authorization": "Bearer hf_reader"}
SECRET = b'{"secret": true}'


def resolve(repo_id: str, file: str = "config.json", revision: str = "main") -> str:
    return f"/{repo_id}/resolve/{revision}/{file}"


def every_read(repo_id: str, revision: str) -> list[str]:
    return [
        resolve(repo_id, revision=revision),
        f"/{repo_id}/raw/{revision}/config.json",
        f"/api/models/{repo_id}/revision/{revision}",
        f"/api/models/{repo_id}/tree/{revision}",
        f"/api/models/{repo_id}/commits/{revision}",
    ]


def read_all(cache: RunningCache, repo_id: str, revision: str) -> list[requests.Response]:
    body = {"paths": ["config.json"]}
    path = f"/api/models/{repo_id}/paths-info/{revision}"
    answers = [cache.get(path) for path in every_read(repo_id, revision)]
    return [*answers, cache.request("POST", path, json=body)]


class TestARename:
    @pytest.fixture
    def renamed(self, hub: FakeHub) -> Repo:
        repo = hub.repo("models", "org/before")
        repo.commit({f"{n}.json": str(n) for n in range(10)} | {"config.json": "{}"})
        hub.catalogue.rename("models", "org/before", "org/after")
        return repo

    def test_costs_one_question_more_and_not_one_per_file(
        self, cache: RunningCache, hub: FakeHub, renamed: Repo, clock: Clock
    ) -> None:
        for round_ in range(4):
            hub.counters.reset()
            for number in range(10):
                head = cache.head(resolve("org/before", f"{number}.json"))
                assert head.headers["X-Repo-Commit"] == renamed.head.sha
            assert len(hub.counters.select(path_contains="org/before/resolve")) == (round_ == 0)
            assert len(hub.counters.select(path_contains="org/after/resolve/main")) == 1
            clock.advance(61)

    def test_is_asked_about_again_after_minutes(
        self, cache: RunningCache, hub: FakeHub, renamed: Repo, clock: Clock
    ) -> None:
        cache.head(resolve("org/before"))
        clock.advance(301)
        hub.counters.reset()
        assert cache.head(resolve("org/before")).status_code == 200
        assert len(hub.counters.select(path_contains="org/before/resolve")) == 1

    def test_that_goes_on_is_followed(
        self, cache: RunningCache, hub: FakeHub, renamed: Repo, clock: Clock
    ) -> None:
        cache.head(resolve("org/before"))
        hub.catalogue.rename("models", "org/after", "org/last")
        clock.advance(61)
        for repo_id in ("org/before", "org/after", "org/last"):
            assert cache.get(resolve(repo_id, "1.json")).text == "1"

    def test_back_to_the_old_name(
        self, cache: RunningCache, hub: FakeHub, renamed: Repo, clock: Clock
    ) -> None:
        cache.head(resolve("org/before"))
        hub.catalogue.rename("models", "org/after", "org/before")
        clock.advance(61)
        assert cache.get(resolve("org/before", "1.json")).text == "1"
        assert cache.get(resolve("org/after", "1.json")).text == "1"

    def test_of_a_private_repo_is_told_to_those_who_may_read_it(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.repo("models", "org/hidden", private=True).commit({"config.json": SECRET})
        hub.catalogue.rename("models", "org/hidden", "org/hidden-now")
        hub.user("friend", token="hf_friend", reads={"org/hidden-now"})
        friend = {"Authorization": "Bearer hf_friend"}
        assert cache.get(resolve("org/hidden"), headers=friend).content == SECRET
        for headers, status in (({}, 401), (READER, 404)):
            answer = cache.get(resolve("org/hidden"), headers=headers)
            assert answer.status_code == status
            assert b"hidden-now" not in answer.content + str(answer.headers).encode()

    def test_in_a_chain(self, cache: RunningCache, hub: FakeHub, renamed: Repo) -> None:
        for number in range(4):
            turn = {"Location": f"/org/hop-{number + 1}/resolve/main/1.json?x=1"}
            hub.fault("status", f"/org/hop-{number}/", status=307, headers=turn, times=None)
        last = {"Location": "/org/before/resolve/main/1.json"}
        hub.fault("status", "/org/hop-4/", status=307, headers=last, times=None)
        answer = cache.get(resolve("org/hop-0", "1.json"))
        assert (answer.status_code, answer.text) == (200, "1")

    @pytest.mark.parametrize("length", [1, 2, 20])
    def test_in_a_circle_ends_and_harms_nobody_else(
        self, cache: RunningCache, hub: FakeHub, renamed: Repo, length: int
    ) -> None:
        for number in range(length):
            turn = {"Location": f"/org/round-{(number + 1) % length}/resolve/main/1.json"}
            hub.fault("status", f"/org/round-{number}/", status=307, headers=turn, times=None)
        answer = cache.get(resolve("org/round-0", "1.json"))
        assert answer.status_code == 521
        assert "circle" in answer.headers["X-Error-Message"]
        assert hub.counters.count() <= 11
        assert cache.get(resolve("org/after", "1.json")).text == "1", "the Hub itself is well"

    def test_works_without_the_hub(
        self, cache: RunningCache, hub: FakeHub, renamed: Repo, clock: Clock
    ) -> None:
        cache.get(resolve("org/before", "1.json"))
        cache.wait_idle()
        hub.pause()
        clock.advance(1000)
        assert cache.get(resolve("org/before", "1.json")).text == "1"


class TestANameThatAnotherRepoHas:
    """The old repo moved away or was deleted, and its name was taken by another one."""

    @pytest.fixture(params=["moved away", "deleted"])
    def replace(
        self, request: pytest.FixtureRequest, hub: FakeHub, clock: Clock
    ) -> Callable[..., Repo]:
        def replace(**options: bool) -> Repo:
            if request.param == "deleted":
                hub.catalogue.delete("models", "org/name")
            else:
                hub.catalogue.rename("models", "org/name", "org/elsewhere").private = True
            new = hub.repo("models", "org/name", **options)
            new.commit({"README.md": "the new repo"})
            clock.advance(61)
            return new

        return replace

    @pytest.fixture
    def old(self, hub: FakeHub) -> Repo:
        old = hub.repo("models", "org/name")
        old.commit({"config.json": SECRET, "README.md": "the old repo"})
        return old

    @pytest.mark.parametrize("first", [0, 1, 2, 3, 4])
    def test_gives_out_nothing_of_the_former_one(
        self,
        cache: RunningCache,
        hub: FakeHub,
        old: Repo,
        replace: Callable[..., Repo],
        first: int,
    ) -> None:
        sha = old.head.sha
        for revision in ("main", sha):
            assert {answer.status_code for answer in read_all(cache, "org/name", revision)} == {200}
        cache.wait_idle()
        new = replace()
        cache.get(every_read("org/name", "main")[first])
        assert cache.get(resolve("org/name", "README.md")).text == "the new repo"
        for _ in range(2):
            for answer in read_all(cache, "org/name", sha):
                assert answer.status_code == 404, answer.url
                assert answer.headers["X-Error-Code"] == "RevisionNotFound"
            answers = read_all(cache, "org/name", "main")
            assert [answer.status_code for answer in answers] == [404, 404, 200, 200, 200, 200]
            for answer in answers:
                assert sha not in answer.text and b"secret" not in answer.content
                said = answer.headers.get("X-Repo-Commit") or answer.json()["sha"]
                assert said == new.head.sha

    def test_is_noticed_and_all_that_was_learnt_is_forgotten(
        self, cache: RunningCache, hub: FakeHub, old: Repo, replace: Callable[..., Repo]
    ) -> None:
        sha = old.head.sha
        for revision in ("main", sha):
            read_all(cache, "org/name", revision)
        cache.wait_idle()
        replace()
        assert cache.get("/api/models/org/name").json()["sha"] != sha
        (remote,) = cache.service.config.remotes()
        hub.pause()
        for answer in read_all(cache, "org/name", sha):
            assert answer.status_code == 521, "nor when nobody can be asked"
            assert b"secret" not in answer.content
        assert list(cache.service.claims.of_repo(remote.origin_id, old_ref())) == []

    def test_that_is_closed_is_closed(
        self, cache: RunningCache, old: Repo, replace: Callable[..., Repo]
    ) -> None:
        sha = old.head.sha
        for revision in ("main", sha):
            read_all(cache, "org/name", revision)
        cache.wait_idle()
        replace(private=True)
        for revision in ("main", sha):
            for answer in read_all(cache, "org/name", revision):
                assert answer.status_code == 401
                assert b"secret" not in answer.content

    def test_what_was_not_there_may_be_there_now(
        self, cache: RunningCache, old: Repo, replace: Callable[..., Repo], clock: Clock
    ) -> None:
        absent = resolve("org/name", "later.json")
        assert cache.get(absent).status_code == 404
        new = replace()
        new.commit({"later.json": "{}"})
        assert cache.get(absent).status_code == 200
        assert cache.get(resolve("org/name", "config.json")).status_code == 404

    def test_an_alias_ends_when_the_name_is_taken(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, old: Repo
    ) -> None:
        hub.catalogue.rename("models", "org/name", "org/elsewhere")
        assert cache.get(resolve("org/name", "README.md")).text == "the old repo"
        assert cache.get("/api/models/org/name").json()["id"] == "org/elsewhere"
        hub.repo("models", "org/name").commit({"README.md": "the new repo"})
        clock.advance(61)
        assert cache.get("/api/models/org/name").json()["id"] == "org/name"
        assert cache.get(resolve("org/name", "README.md")).text == "the new repo"

    def test_or_after_minutes(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, old: Repo
    ) -> None:
        hub.catalogue.rename("models", "org/name", "org/elsewhere")
        assert cache.get(resolve("org/name", "README.md")).text == "the old repo"
        hub.repo("models", "org/name").commit({"README.md": "the new repo"})
        clock.advance(301)
        assert cache.get(resolve("org/name", "README.md")).text == "the new repo"

    def test_the_same_repo_under_two_names_forgets_nothing(
        self, cache: RunningCache, hub: FakeHub, clock: Clock, old: Repo
    ) -> None:
        cache.get("/api/models/org/name")
        hub.catalogue.rename("models", "org/name", "org/elsewhere")
        for _ in range(2):
            clock.advance(61)
            for repo_id in ("org/name", "org/elsewhere", "ORG/Elsewhere"):
                assert cache.get(f"/api/models/{repo_id}").json()["_id"] == old.object_id
        (remote,) = cache.service.config.remotes()
        verdict = cache.service.rights.verdict(remote.scope, "anonymous", old_ref(), Subject.PAGES)
        assert verdict is not None


def old_ref() -> RepoRef:
    return RepoRef("models", "org/name")
