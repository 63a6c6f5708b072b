"""Whether a snapshot is complete, and what the Hub said of who may see a repo; nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.client import CacheClient
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.records import RepoRef

MIB = 1 << 20
REPO = "org/snap"
FILES: dict[str, Any] = {
    "README.md": b"# Snap",
    "config.json": b"{}",
    "empty.txt": b"",
    "sub/model.bin": BigFile(2 * MIB, seed=11),
}
SIZE = 6 + 2 + 2 * MIB


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.user("alice", "hf_alice", reads=["org/hidden"])
        hub.repo("models", REPO).commit(FILES)
        hub.repo("models", "org/hidden", private=True).commit(FILES)
        hub.repo("models", "org/manual", gated="manual").commit(FILES)
        yield hub


def listing(cache: RunningCache, how: str, repo: str = REPO, **options: Any) -> str:
    """Ask for the list of files as clients do; return the commit."""
    info = cache.get(f"/api/models/{repo}/revision/main", **options).json()
    sha = str(info["sha"])
    if how == "tree":
        url: str | None = f"/api/models/{repo}/tree/{sha}?recursive=true&expand=false"
        while url is not None:
            answer = cache.get(url, **options)
            assert answer.status_code == 200
            link = answer.links.get("next", {}).get("url")
            url = link.partition("/pulp/content/hf")[2] if link else None
    return sha


def load(cache: RunningCache, sha: str, *files: str, repo: str = REPO, **options: Any) -> None:
    for file in files or FILES:
        assert cache.get(f"/{repo}/resolve/{sha}/{file}", **options).status_code == 200
    cache.wait_idle()


def answer_of(cache: RunningCache, repo: str = REPO, **params: str) -> dict[str, Any]:
    answer = cache.api("GET", f"repos/models/{repo}/completeness", params=params)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert isinstance(body, dict)
    return body


@pytest.mark.parametrize("how", ["info", "tree"])
def test_a_snapshot_is_complete_when_every_file_is_kept(
    cache: RunningCache, hub: FakeHub, how: str
) -> None:
    sha = listing(cache, how)
    load(cache, sha, "README.md")
    asked = len(hub.counters.requests)
    found = answer_of(cache)
    assert (found["complete"], found["commit"], found["files"]) == (False, sha, 4)
    missing = {file["path"] for file in found["missing"]}
    # That a file is empty is not told by a page alone.
    assert missing - {"empty.txt"} == {"config.json", "sub/model.bin"}
    if how == "tree":
        assert (found["missing_files"], found["missing_bytes"]) == (2, 2 + 2 * MIB)
    assert len(hub.counters.requests) == asked
    load(cache, sha)
    asked = len(hub.counters.requests)
    found = answer_of(cache)
    assert (found["complete"], found["missing"], found["size_bytes"]) == (True, [], SIZE)
    assert answer_of(cache, revision=sha)["complete"] is True
    assert len(hub.counters.requests) == asked


def test_without_a_list_of_files_nothing_is_claimed(cache: RunningCache, hub: FakeHub) -> None:
    found = answer_of(cache)
    assert (found["complete"], found["commit"], found["missing_files"]) == (None, None, None)
    found = answer_of(cache, revision="never")
    assert (found["complete"], found["commit"]) == (None, None)
    assert answer_of(cache, revision="0" * 40)["complete"] is None


def test_a_list_of_which_a_page_is_missing_is_none(cache: RunningCache, hub: FakeHub) -> None:
    hub.page_size = 2
    head = hub.catalogue.get("models", REPO).head
    first = cache.get(f"/api/models/{REPO}/tree/{head.sha}?recursive=true&expand=false")
    assert "next" in first.links
    found = answer_of(cache, revision=head.sha)
    assert (found["complete"], found["files"], found["missing"]) == (None, None, [])


def test_all_pages_of_a_list_are_read(cache: RunningCache, hub: FakeHub) -> None:
    hub.page_size = 2
    sha = listing(cache, "tree")
    load(cache, sha)
    found = answer_of(cache)
    assert (found["complete"], found["files"]) == (True, 4)


def test_evicted_bytes_are_missing(cache: RunningCache, hub: FakeHub) -> None:
    sha = listing(cache, "tree")
    load(cache, sha)
    etag = cache.head(f"/{REPO}/resolve/{sha}/sub/model.bin").headers["ETag"].strip('"')
    digest = Digest.from_etag(etag)
    assert digest is not None
    origin = cache.service.config.remotes()[0].origin_id
    cache.service.budget.forget(BlobId.of(digest, origin))
    found = answer_of(cache)
    assert found["missing"] == [{"path": "sub/model.bin", "size_bytes": 2 * MIB}]
    assert (found["complete"], found["missing_bytes"]) == (False, 2 * MIB)
    hub.pause()
    answer = cache.get(f"/{REPO}/resolve/{sha}/sub/model.bin")
    assert answer.status_code == 521


def test_a_branch_that_moved_is_judged_at_its_new_commit(
    cache: RunningCache, hub: FakeHub, clock: Clock
) -> None:
    old = listing(cache, "tree")
    load(cache, old)
    hub.catalogue.get("models", REPO).commit({"new.txt": b"new"})
    clock.advance(61)
    new = listing(cache, "tree")
    assert new != old
    found = answer_of(cache)
    assert (found["commit"], found["complete"]) == (new, False)
    assert "new.txt" in [file["path"] for file in found["missing"]]
    assert answer_of(cache, revision=old)["complete"] is True


def test_it_survives_a_restart_and_asks_nobody(tmp_path: Path, hub: FakeHub) -> None:
    with RunningCache(tmp_path, hub) as cache:
        load(cache, listing(cache, "tree"))
    hub.pause()
    hub.counters.reset()
    with RunningCache(tmp_path, hub) as cache:
        assert answer_of(cache)["complete"] is True
        repo = cache.api("GET", f"repos/models/{REPO}").json()
        (revision,) = repo["revisions"]
        assert (revision["revision"], revision["complete"]) == ("main", True)
        assert (revision["missing_files"], revision["missing_bytes"]) == (0, 0)
    assert hub.counters.requests == []


def test_what_one_person_was_told_counts_for_the_operator(
    cache: RunningCache, hub: FakeHub
) -> None:
    mine = {"headers": {"Authorization": "Bearer hf_alice"}}
    sha = listing(cache, "tree", "org/hidden", **mine)
    load(cache, sha, repo="org/hidden", **mine)
    assert answer_of(cache, "org/hidden")["complete"] is True


def test_bytes_of_another_origin_do_not_count(cache: RunningCache, hub: FakeHub) -> None:
    load(cache, listing(cache, "tree"))
    config = cache.service.config
    there = hub.url.replace("127.0.0.1", "localhost")
    other = config.create_remote({"name": "other", "url": there})
    config.create_distribution({"name": "other", "base_path": "other", "remote": other.id})
    base = f"{cache.host}/pulp/content/other"
    sha = requests.get(f"{base}/api/models/{REPO}/revision/main", timeout=30).json()["sha"]
    tree = f"{base}/api/models/{REPO}/tree/{sha}?recursive=true"
    assert requests.get(tree, timeout=30).status_code == 200
    found = answer_of(cache, remote="other")
    assert (found["complete"], found["remote"]) == (False, "other")
    assert "sub/model.bin" in [file["path"] for file in found["missing"]]
    assert answer_of(cache)["remote"] == "default", "the one that has most"
    answer = cache.api("GET", f"repos/models/{REPO}/completeness", params={"remote": "none"})
    assert answer.status_code == 404


def test_bytes_that_another_repo_brought_count_where_they_are_given_out(
    tmp_path: Path, hub: FakeHub
) -> None:
    """The answer is what a reader finds when the Hub is gone."""
    hub.repo("models", "org/twin").commit({"model.bin": FILES["sub/model.bin"]})
    with RunningCache(tmp_path, hub) as cache:
        load(cache, listing(cache, "tree"))
        sha = listing(cache, "tree", "org/twin")
        assert cache.head(f"/org/twin/resolve/{sha}/model.bin").status_code == 200
    hub.pause()
    with RunningCache(tmp_path, hub) as cache:
        complete = answer_of(cache, "org/twin")["complete"]
        loads = cache.get(f"/org/twin/resolve/{sha}/model.bin").status_code == 200
        assert complete is loads


def test_only_the_operator_may_ask(cache: RunningCache, hub: FakeHub) -> None:
    for path in ("repos", f"repos/models/{REPO}", f"repos/models/{REPO}/completeness"):
        for headers in ({}, {"Authorization": "Bearer hf_alice"}):
            answer = requests.get(f"{cache.host}/hf-cache/v1/{path}", headers=headers, timeout=30)
            assert answer.status_code == 401


def test_the_client_reads_it(cache: RunningCache, hub: FakeHub) -> None:
    client = CacheClient(cache.host, cache.context.cache_token)
    sha = listing(cache, "tree")
    load(cache, sha, "README.md")
    found = client.completeness("models", REPO)
    assert (found.complete, found.commit, found.missing_files) == (False, sha, 2)
    assert [(file.path, file.size_bytes) for file in found.missing] == [
        ("config.json", 2),
        ("sub/model.bin", 2 * MIB),
    ]
    (revision,) = client.repo("models", REPO).revisions
    assert (revision.complete, revision.missing_bytes) == (False, 2 + 2 * MIB)
    assert client.completeness("models", REPO, "other").complete is None


class TestMarks:
    """What lists show of who may see a repo."""

    @pytest.mark.parametrize(
        ("repo", "token", "expected"),
        [
            (REPO, None, (False, False)),
            ("org/hidden", "hf_alice", (True, False)),
            ("org/manual", "hf_alice", (False, True)),
        ],
    )
    def test_a_repos_page_says_it(
        self,
        cache: RunningCache,
        hub: FakeHub,
        repo: str,
        token: str | None,
        expected: tuple[bool, bool],
    ) -> None:
        if repo == "org/manual":
            hub.user("alice", "hf_alice", reads=["org/hidden"], accepted=["org/manual"])
        options = {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
        load(cache, listing(cache, "info", repo, **options), repo=repo, **options)
        listed = cache.api("GET", "repos").json()["results"]
        assert [(one["private"], one["gated"]) for one in listed] == [expected]

    def test_it_is_unknown_where_nobody_said(self, cache: RunningCache, hub: FakeHub) -> None:
        mine = {"headers": {"Authorization": "Bearer hf_alice"}}
        assert cache.get("/org/hidden/resolve/main/config.json", **mine).status_code == 200
        cache.wait_idle()
        kept = cache.service.inventory.repo(RepoRef("models", "org/hidden"))
        assert kept.private in (None, True)

    def test_a_repo_that_became_private_is_shown_so(
        self, cache: RunningCache, hub: FakeHub, clock: Clock
    ) -> None:
        load(cache, listing(cache, "info"))
        hub.catalogue.get("models", REPO).private = True
        hub.user("bob", "hf_bob", reads=[REPO])
        clock.advance(3600)
        listing(cache, "info", headers={"Authorization": "Bearer hf_bob"})
        kept = cache.service.inventory.repo(RepoRef("models", REPO))
        assert (kept.private, kept.gated) == (True, False)
