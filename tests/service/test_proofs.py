"""Who only names a digest is not handed the bytes that others brought here.

The repos of these tests are of one Hub: it says what a repo names, as a Hub does that believes a
pointer, and its storage has the bytes for those repos only that they were uploaded to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests
from fake_hub import BigFile, FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

SIZE = 5 * 1024 * 1024
WEIGHTS = BigFile(SIZE, seed=2718)
MODEL = "model.bin"
RANGES = ({}, {"Range": "bytes=100-199"}, {"Range": f"bytes={SIZE - 50}-"})
FRIEND = {"Authorization": "Bearer hf_friend"}
BOB = {"Authorization": "Bearer hf_bob"}


@dataclass(frozen=True)
class Repos:
    """One file in several repos: a private one, one that only names it, and one that has it."""

    private: Repo
    naming: Repo
    having: Repo


@pytest.fixture
def repos(hub: FakeHub) -> Iterator[Repos]:
    hub.user("friend", "hf_friend", reads=["org/private-weights"], role="read")
    made = Repos(
        hub.repo("models", "org/private-weights", private=True),
        hub.repo("models", "bob/naming"),
        hub.repo("models", "bob/having"),
    )
    for repo in (made.private, made.naming, made.having):
        repo.commit({MODEL: WEIGHTS})
    hub.fault("status", f"/{made.naming.object_id}/", host="cdn", status=404, times=None)
    yield made


def read(repo: Repo) -> str:
    return f"/{repo.id}/resolve/main/{MODEL}"


def test_naming_the_digest_of_a_kept_file_opens_nothing(
    cache: RunningCache, hub: FakeHub, repos: Repos
) -> None:
    assert cache.get(read(repos.private), headers=FRIEND).status_code == 200
    cache.wait_idle()
    for headers in ({}, BOB):
        assert cache.head(read(repos.naming), headers=headers).status_code == 200
        for range_ in RANGES:
            answer = cache.get(read(repos.naming), headers=headers | range_)
            assert answer.status_code >= 500
            assert WEIGHTS.read(100, 30) not in answer.content
    hub.pause()
    answer = cache.get(read(repos.naming), headers=BOB)
    assert answer.status_code == 521, "nobody can be asked for a proof"


def test_a_repo_that_has_the_bytes_shares_them_for_one_proof(
    cache: RunningCache, hub: FakeHub, repos: Repos
) -> None:
    cache.get(read(repos.private), headers=FRIEND)
    cache.wait_idle()
    hub.counters.reset()
    for _ in range(3):
        for headers in ({}, BOB):
            assert cache.get(read(repos.having), headers=headers).content == WEIGHTS.read(0, SIZE)
    assert hub.counters.bytes("cdn") <= 1024 * 1024
    hub.pause()
    assert cache.get(read(repos.having), headers=BOB).content == WEIGHTS.read(0, SIZE)


def test_who_may_read_where_it_came_from_needs_no_proof(
    cache: RunningCache, hub: FakeHub, repos: Repos, clock: Clock
) -> None:
    cache.get(read(repos.private), headers=FRIEND)
    cache.wait_idle()
    assert cache.head(read(repos.having), headers=FRIEND).status_code == 200
    hub.counters.reset()
    answer = cache.get(read(repos.having), headers=FRIEND)
    assert answer.content == WEIGHTS.read(0, SIZE)
    assert hub.counters.count(host="cdn") == 0
    assert cache.get(read(repos.naming), headers=BOB).status_code >= 500, "it proved nothing"
    hub.pause()
    clock.advance(300)
    assert cache.get(read(repos.having), headers=FRIEND).content == WEIGHTS.read(0, SIZE)
    clock.advance(4000)
    assert cache.get(read(repos.having), headers=FRIEND).status_code == 521


def test_naming_the_digest_of_what_is_coming_in_opens_nothing(
    cache: RunningCache, hub: FakeHub, repos: Repos
) -> None:
    hub.rate = 1024 * 1024
    with requests.get(
        cache.endpoint + read(repos.private), headers=FRIEND, stream=True, timeout=60
    ) as running:
        assert running.raw.read(1000) == WEIGHTS.read(0, 1000)
        for range_ in RANGES[:2]:
            answer = cache.get(read(repos.naming), headers=BOB | range_)
            assert answer.status_code >= 500
            assert WEIGHTS.read(100, 30) not in answer.content
        joined = cache.get(read(repos.having), headers=BOB)
        assert joined.content == WEIGHTS.read(0, SIZE)
        assert 1000 + len(running.content) == SIZE
    assert hub.counters.bytes("cdn") < 2 * SIZE, "the second reader follows the first one's"


def test_small_files_are_shared_by_the_digest_that_the_hub_computed(
    cache: RunningCache, hub: FakeHub, repos: Repos
) -> None:
    for repo in (repos.private, repos.having):
        repo.commit({"words.json": b'{"some": "words"}'})
    url = "/resolve/main/words.json"
    assert cache.get(f"/{repos.private.id}{url}", headers=FRIEND).status_code == 200
    hub.counters.reset()
    assert cache.get(f"/{repos.having.id}{url}", headers=BOB).content == b'{"some": "words"}'
    assert hub.counters.count("GET", "/resolve") == 0
