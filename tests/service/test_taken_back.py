"""Rights that end while something is under way, and lists that must not tell names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub, Repo, User
from serving import RunningCache
from wall_clock import Clock

WORDS = b'{"words": "only for some"}'
SIZE = 6 * 1024 * 1024
WEIGHTS = BigFile(SIZE, seed=314)
FILE, MODEL = "words.json", "model.bin"


@pytest.fixture
def friend(hub: FakeHub) -> User:
    return hub.user("friend", "hf_friend", reads=["org/closed"], accepted=["org/gate"], role="read")


@pytest.fixture
def closed(hub: FakeHub, friend: User) -> Repo:
    repo = hub.repo("models", "org/closed", private=True)
    repo.commit({FILE: WORDS, MODEL: WEIGHTS})
    return repo


@pytest.fixture
def gate(hub: FakeHub, friend: User) -> Repo:
    hub.gated_tree_open = False
    repo = hub.repo("models", "org/gate", gated="auto")
    repo.commit({FILE: WORDS, MODEL: BigFile(2000, seed=5), "a-hidden-name.txt": "x"})
    return repo


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


FRIEND, ALICE = bearer("hf_friend"), bearer("hf_alice")


class TestPages:
    def test_an_open_page_keeps_no_right_to_a_closed_tree(
        self, cache: RunningCache, gate: Repo, friend: User, clock: Clock
    ) -> None:
        assert gate.head is not None
        tree = f"/api/models/org/gate/tree/{gate.head.sha}"
        open_pages = ("/api/models/org/gate/refs", "/api/models/org/gate?expand=likes")
        assert cache.get(tree, headers=FRIEND).status_code == 200
        friend.accepted.clear()
        for _ in range(5):
            clock.advance(30)
            for page in open_pages:
                assert cache.get(page, headers=FRIEND).status_code == 200
        answer = cache.get(tree, headers=FRIEND)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (403, "GatedRepo")
        assert b"a-hidden-name" not in answer.content

    def test_a_tree_keeps_no_right_to_the_history(
        self, cache: RunningCache, hub: FakeHub, gate: Repo, friend: User, clock: Clock
    ) -> None:
        hub.gated_tree_open = True
        assert gate.head is not None
        commits = f"/api/models/org/gate/commits/{gate.head.sha}"
        assert cache.get(commits, headers=FRIEND).status_code == 200
        friend.accepted.clear()
        for _ in range(5):
            clock.advance(30)
            tree = cache.get("/api/models/org/gate/tree/main", headers=FRIEND)
            assert tree.status_code == 200
        assert cache.get(commits, headers=FRIEND).status_code == 403


class TestTokens:
    def test_a_token_found_bad_at_one_repo_opens_no_other_when_nobody_can_be_asked(
        self, cache: RunningCache, hub: FakeHub, closed: Repo, gate: Repo, clock: Clock
    ) -> None:
        read = f"/org/closed/resolve/main/{FILE}"
        assert cache.get(read, headers=FRIEND).content == WORDS
        hub.accounts.revoke("hf_friend")
        clock.advance(61)
        assert cache.get(f"/org/gate/resolve/main/{FILE}", headers=FRIEND).status_code == 401
        hub.pause()
        answer = cache.get(read, headers=FRIEND)
        assert answer.status_code == 521
        assert WORDS not in answer.content

    def test_without_the_hub_nobody_learns_whether_a_repo_exists(
        self, cache: RunningCache, hub: FakeHub, closed: Repo
    ) -> None:
        cache.get(f"/org/closed/resolve/main/{FILE}", headers=FRIEND)
        hub.pause()
        # The first one finds out that the Hub is gone.
        cache.get("/org/large/resolve/main/README.md")
        answers = [
            cache.get(f"/org/{name}/resolve/main/{FILE}", headers=headers)
            for name in ("closed", "never-was")
            for headers in ({}, bearer("hf_bob"), bearer("hf_wrong"))
        ]
        assert {answer.status_code for answer in answers} == {521}
        assert len({answer.headers["X-Error-Message"] for answer in answers}) == 1
        assert len({answer.content for answer in answers}) == 1

    @pytest.mark.parametrize("trusted", [False, True])
    @pytest.mark.parametrize(
        "value", ["Bearer hf_wrong, Bearer hf_friend", "Bearer hf_friend hf_friend", "bearer hf_x"]
    )
    def test_a_header_with_a_doubtful_token_is_never_taken_for_none(
        self, cache: RunningCache, closed: Repo, trusted: bool, value: str
    ) -> None:
        remote = cache.service.config.remotes()[0]
        cache.service.config.update_remote(remote.id, {"hf_token": "hf_friend"})
        for repo in ("closed", "large"):
            url = f"/org/{repo}/resolve/main/{FILE if repo == 'closed' else 'README.md'}"
            answer = cache.get(url, headers={"Authorization": value}, trusted=trusted)
            assert answer.status_code in (400, 401), answer.text


class TestOtherProcesses:
    def test_a_right_that_one_finds_gone_is_gone_for_all(
        self, cache: RunningCache, hub: FakeHub, closed: Repo, friend: User, tmp_path: Path
    ) -> None:
        read = f"/org/closed/resolve/main/{FILE}"
        with RunningCache(tmp_path, hub) as other:
            for one in (cache, other, cache, other):
                assert one.get(read, headers=FRIEND).content == WORDS
            friend.reads.clear()
            assert other.get(read, headers=FRIEND).content == WORDS, "known for a minute"
            fresh = FRIEND | {"Cache-Control": "no-cache"}
            assert other.get(read, headers=fresh).status_code == 404
            assert cache.get(read, headers=FRIEND).status_code == 404


class TestRunningFills:
    @pytest.fixture
    def slow(self, hub: FakeHub) -> FakeHub:
        hub.rate = 1024 * 1024
        hub.url_bytes = 2 * 1024 * 1024
        return hub

    def start(self, cache: RunningCache, headers: dict[str, str]) -> requests.Response:
        answer = requests.get(
            f"{cache.endpoint}/org/closed/resolve/main/{MODEL}",
            headers=headers,
            stream=True,
            timeout=60,
        )
        assert answer.status_code == 200
        return answer

    def test_a_fill_goes_on_with_the_right_of_who_joined_it(
        self, cache: RunningCache, slow: FakeHub, closed: Repo, friend: User
    ) -> None:
        with self.start(cache, FRIEND) as first, self.start(cache, ALICE) as second:
            assert first.raw.read(1024) == WEIGHTS.read(0, 1024)
            friend.reads.clear()
            assert second.content == WEIGHTS.read(0, SIZE)
        later = cache.get(
            f"/org/closed/resolve/main/{MODEL}",
            headers=FRIEND | {"Range": "bytes=1024-", "Cache-Control": "no-cache"},
        )
        assert later.status_code == 404
        sent = {record.authorization for record in slow.counters.select(path_contains=MODEL)}
        assert sent <= {"Bearer hf_friend", "Bearer hf_alice", None}

    def test_a_fill_that_nobody_else_has_a_right_to_stops(
        self, cache: RunningCache, slow: FakeHub, closed: Repo, friend: User
    ) -> None:
        with self.start(cache, FRIEND) as first:
            assert first.raw.read(1024) == WEIGHTS.read(0, 1024)
            friend.reads.clear()
            slow.urls.expire_all()
            slow.rate = None
            with pytest.raises(requests.RequestException):
                _ = first.content
        cache.wait_idle()
        sha256 = WEIGHTS.sha256()
        assert not list((cache.root / "cache" / "blobs").rglob(sha256))

    def test_what_lies_here_of_a_file_is_closed_to_who_lost_the_right(
        self, cache: RunningCache, hub: FakeHub, closed: Repo, friend: User, clock: Clock
    ) -> None:
        part = f"/org/closed/resolve/main/{MODEL}"
        headers = FRIEND | {"Range": "bytes=0-99"}
        assert cache.get(part, headers=headers).content == WEIGHTS.read(0, 100)
        friend.reads.clear()
        clock.advance(61)
        for range_ in ("bytes=0-99", "bytes=50-", "bytes=-10", "bytes=0-9,20-29"):
            answer = cache.get(part, headers=FRIEND | {"Range": range_})
            assert answer.status_code == 404, range_
        hub.pause()
        clock.advance(61)
        for range_ in ("bytes=0-99", "bytes=50-"):
            answer = cache.get(part, headers=FRIEND | {"Range": range_})
            assert answer.status_code == 521, range_


class TestLists:
    SEARCHES = (
        "/api/models?search=closed",
        "/api/models?author=org",
        "/api/models?author=org&limit=3",
        "/api/models",
        "/api/models?full=true&sort=downloads",
    )

    @pytest.fixture(params=[True, False], ids=["one user", "several users"])
    def server(
        self, request: pytest.FixtureRequest, tmp_path: Path, hub: FakeHub, closed: Repo
    ) -> Iterator[RunningCache]:
        with RunningCache(tmp_path, hub, single_user=request.param, metadata_ttl=86400.0) as cache:
            remote = cache.service.config.remotes()[0]
            cache.service.config.update_remote(remote.id, {"hf_token": "hf_friend"})
            yield cache

    def names(self, answer: requests.Response) -> set[str]:
        assert answer.status_code == 200, answer.text
        return {row["id"] for row in answer.json()}

    def everything(self, cache: RunningCache, url: str, headers: dict[str, str]) -> str:
        """What all pages of a list tell, headers included."""
        told, answer = "", cache.get(url, headers=headers)
        while True:
            assert answer.status_code == 200, answer.text
            told += answer.text + str(dict(answer.headers))
            following = answer.links.get("next")
            if following is None:
                return told
            assert following["url"].startswith(cache.host)
            answer = requests.get(following["url"], headers=headers, timeout=60)

    def test_private_names_are_shown_to_who_may_see_them_and_to_nobody_else(
        self, server: RunningCache, hub: FakeHub
    ) -> None:
        hub.list_page_size = 4
        for _ in range(2):
            for url in self.SEARCHES:
                assert "org/closed" in self.everything(server, url, ALICE), url
                for headers in ({}, bearer("hf_bob")):
                    assert "org/closed" not in self.everything(server, url, headers), url
                assert server.get(url, headers=bearer("hf_wrong")).status_code == 401
                stored = self.names(server.get(url, trusted=True))
                assert "org/closed" not in stored, "the stored token is for reads of a repo"
        lists = hub.counters.select(path_contains="/api/models")
        assert {record.authorization for record in lists if record.status == 200} == {
            None,
            "Bearer hf_alice",
            "Bearer hf_bob",
        }

    def test_without_the_hub_a_list_is_for_who_was_given_it(
        self, server: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        url = self.SEARCHES[1]
        self.names(server.get(url, headers=ALICE))
        self.names(server.get(url))
        hub.pause()
        clock.advance(120)
        assert "org/closed" in self.names(server.get(url, headers=ALICE))
        assert "org/closed" not in self.names(server.get(url))
        for headers in (bearer("hf_bob"), bearer("hf_wrong")):
            assert server.get(url, headers=headers).status_code == 521
        clock.advance(4000)
        assert server.get(url, headers=ALICE).status_code == 521
        assert "org/large" in self.names(server.get(url)), "it holds nothing but public names"

    def test_a_name_that_is_not_public_any_more_is_gone_with_the_right(
        self, server: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        url = self.SEARCHES[1]
        assert "org/large" in self.names(server.get(url))
        large = hub.catalogue.get("models", "org/large")
        assert large is not None
        large.private = True
        clock.advance(61)
        assert "org/large" not in self.names(server.get(url))

    def test_nobody_is_told_who_somebody_else_is(self, server: RunningCache, hub: FakeHub) -> None:
        for token, name in (("hf_alice", "alice"), ("hf_bob", "bob"), ("hf_alice", "alice")):
            answer = server.get("/api/whoami-v2", headers=bearer(token))
            assert json.loads(answer.content)["name"] == name
        assert hub.counters.count(path_contains="whoami") == 3
        assert server.get("/api/whoami-v2", trusted=True).status_code == 401
        hub.pause()
        assert server.get("/api/whoami-v2", headers=ALICE).status_code == 521


class TestModes:
    """What an admin changes holds from the next request on, whatever is known and kept."""

    READ = f"/org/closed/resolve/main/{FILE}"

    def set(self, cache: RunningCache, **fields: str) -> None:
        config = cache.service.config
        config.update_distribution(config.distributions()[0].id, fields)

    def lend(self, cache: RunningCache, token: str | None) -> None:
        config = cache.service.config
        config.update_remote(config.remotes()[0].id, {"hf_token": token})

    def test_what_was_lent_to_all_is_so_no_longer(
        self, cache: RunningCache, hub: FakeHub, closed: Repo, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.lend(cache, "hf_friend")
        assert "reads 'hf' with the stored credentials" not in caplog.text
        self.set(cache, access="shared")
        assert "reads 'hf' with the stored credentials" in caplog.text
        for _ in range(3):
            assert cache.get(self.READ).content == WORDS
        for access in ("caller", "public"):
            self.set(cache, access=access)
            assert cache.get(self.READ).status_code == 401
            assert cache.get("/api/models/org/closed").status_code == 401
        hub.pause()
        assert cache.get(self.READ).status_code == 521

    def test_another_stored_token_has_another_right(
        self, cache: RunningCache, hub: FakeHub, closed: Repo
    ) -> None:
        self.lend(cache, "hf_friend")
        for _ in range(2):
            assert cache.get(self.READ, trusted=True).content == WORDS
        self.lend(cache, "hf_bob")
        assert cache.get(self.READ, trusted=True).status_code == 404
        self.lend(cache, None)
        assert cache.get(self.READ, trusted=True).status_code == 401
        hub.pause()
        self.lend(cache, "hf_bob")
        assert cache.get(self.READ, trusted=True).status_code in (404, 521)

    def test_a_stored_password_is_a_credential_like_a_token(
        self, cache: RunningCache, hub: FakeHub, closed: Repo
    ) -> None:
        config = cache.service.config
        config.update_remote(config.remotes()[0].id, {"username": "somebody", "password": "secret"})
        cache.get(self.READ)
        cache.get("/api/whoami-v2", trusted=True)
        cache.get("/api/models?author=org", trusted=True)
        assert {record.authorization for record in hub.counters.requests} == {None}
        cache.get(self.READ, trusted=True)
        sent = [record.authorization for record in hub.counters.requests]
        assert any(value is not None and value.startswith("Basic ") for value in sent)
