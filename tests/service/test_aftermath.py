"""A change that goes through the cache is seen by the next who asks, whoever and wherever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from serving import RunningCache

ALICE = {"Authorization": "Bearer hf_alice"}
BOB = {"Authorization": "Bearer hf_bob"}
EVERYBODY: tuple[dict[str, str], ...] = ({}, ALICE, BOB)
FILE = "/org/large/resolve/main/README.md"
PINNED = "/org/large/resolve/{}/README.md"


@pytest.fixture
def caches(
    tmp_path: Path, cache: RunningCache, hub: FakeHub
) -> Iterator[tuple[RunningCache, RunningCache]]:
    """Two servers on the same directories."""
    with RunningCache(tmp_path, hub) as other:
        yield cache, other


def change(cache: RunningCache, method: str, path: str, body: Any = None) -> None:
    """Change something as Alice."""
    answer = cache.request(method, path, trusted=True, headers=ALICE, json=body)
    assert answer.status_code < 300, answer.text


def seen(cache: RunningCache, path: str) -> list[int]:
    """The status that nobody, Alice and Bob get."""
    return [cache.get(path, headers=headers).status_code for headers in EVERYBODY]


def test_a_repo_made_private_is_closed_at_once_everywhere(
    caches: tuple[RunningCache, RunningCache], hub: FakeHub
) -> None:
    here, there = caches
    pinned = PINNED.format(hub.catalogue.get("models", "org/large").head.sha)
    paths = (FILE, pinned, "/api/models/org/large", "/api/models/org/large/tree/main")
    for path in paths:
        assert seen(here, path) == seen(there, path) == [200, 200, 200]
    change(here, "PUT", "/api/models/org/large/settings", {"private": True})
    for path in paths:
        assert seen(here, path) == seen(there, path) == [401, 200, 404], path
    change(there, "PUT", "/api/models/org/large/settings", {"private": False})
    for path in paths:
        assert seen(here, path) == seen(there, path) == [200, 200, 200], path


def test_a_gate_closes_the_files_and_a_grant_opens_them(cache: RunningCache) -> None:
    assert seen(cache, FILE) == [200, 200, 200]
    change(cache, "PUT", "/api/models/org/large/settings", {"gated": "auto"})
    assert seen(cache, FILE) == [401, 200, 403]
    route = "/api/models/org/large/user-access-request"
    change(cache, "POST", f"{route}/grant", {"user": "bob"})
    assert seen(cache, FILE) == [401, 200, 200]
    change(cache, "POST", f"{route}/handle", {"user": "bob", "status": "rejected"})
    assert seen(cache, FILE) == [401, 200, 403]


@pytest.mark.parametrize("owner", ["org", None])
def test_a_deleted_repo_is_gone_with_its_files(
    caches: tuple[RunningCache, RunningCache], hub: FakeHub, owner: str | None
) -> None:
    here, there = caches
    id = f"{owner or 'alice'}/short-lived"
    sha = hub.repo("models", id).commit({"README.md": b"# Here\n"})
    path = f"/{id}/resolve/{sha}/README.md"
    assert seen(here, path) == seen(there, path) == [200, 200, 200]
    # The client names no owner for what is one's own.
    change(here, "DELETE", "/api/repos/delete", {"name": "short-lived", "organization": owner})
    assert seen(here, path) == seen(there, path) == [401, 404, 404]
    body = {"name": "short-lived", "organization": owner, "type": "model"}
    change(there, "POST", "/api/repos/create", body)
    path = f"/{id}/resolve/main/.gitattributes"
    assert seen(here, path) == seen(there, path) == [200, 200, 200]


def test_a_moved_repo_is_found_under_both_names(
    caches: tuple[RunningCache, RunningCache], hub: FakeHub
) -> None:
    here, there = caches
    paths = ("/api/models/org/moved", "/org/moved/resolve/main/README.md")
    for path in paths:
        assert seen(here, path) == seen(there, path) == [401, 404, 404]
    body = {"fromRepo": "org/large", "toRepo": "org/moved", "type": "model"}
    change(here, "POST", "/api/repos/move", body)
    for path in (*paths, FILE):
        assert seen(here, path) == seen(there, path) == [200, 200, 200], path


def test_a_push_is_seen_in_every_process(caches: tuple[RunningCache, RunningCache]) -> None:
    here, there = caches
    for cache in caches:
        assert cache.get(FILE).status_code == 200
        assert "NEW.md" not in cache.get("/api/models/org/large/tree/main").text
        assert cache.head("/org/large/resolve/main/NEW.md").status_code == 404
    lines = (
        '{"key": "header", "value": {"summary": "m"}}\n'
        '{"key": "file", "value": {"path": "NEW.md", "content": "bmV3", "encoding": "base64"}}\n'
        '{"key": "file", "value": {"path": "README.md", "content": "bmV3", "encoding": "base64"}}'
    )
    answer = here.request(
        "POST", "/api/models/org/large/commit/main", trusted=True, headers=ALICE, data=lines
    )
    assert answer.status_code == 200
    for cache in (there, here):
        assert cache.get(FILE).content == b"new"
        assert "NEW.md" in cache.get("/api/models/org/large/tree/main").text
        assert cache.get("/org/large/resolve/main/NEW.md").content == b"new"


def test_a_like_costs_nobody_the_right_to_read(cache: RunningCache, hub: FakeHub) -> None:
    sha = hub.catalogue.get("models", "org/large").head.sha
    assert seen(cache, PINNED.format(sha)) == [200, 200, 200]
    change(cache, "POST", "/api/models/org/large/like")
    hub.pause()
    try:
        assert seen(cache, PINNED.format(sha)) == [200, 200, 200]
    finally:
        hub.resume()


def test_a_refused_change_makes_nobody_forget(cache: RunningCache, hub: FakeHub) -> None:
    sha = hub.catalogue.get("models", "org/large").head.sha
    assert seen(cache, PINNED.format(sha)) == [200, 200, 200]
    for method, path, body in (
        ("PUT", "/api/models/org/large/settings", {"private": True}),
        ("DELETE", "/api/repos/delete", {"name": "large", "organization": "org"}),
    ):
        answer = cache.request(method, path, trusted=True, headers=BOB, json=body)
        assert answer.status_code == 403
    hub.counters.reset()
    assert seen(cache, PINNED.format(sha)) == [200, 200, 200]
    assert hub.counters.requests == []


READING = (
    ("POST", "/api/models/org/large/paths-info/main", {"paths": ["README.md"]}),
    ("POST", "/org/large.git/info/lfs/objects/batch", {"operation": "download", "objects": []}),
    ("GET", "/org/page-of-git/info/refs?service=git-upload-pack", None),
    ("POST", "/org/page-of-git/git-upload-pack", None),
    ("POST", "/oauth/device", None),
    ("POST", "/api/validate-yaml", {"content": "", "repoType": "model"}),
    ("GET", "/api/models/org/large/xet-read-token/main", None),
)
WRITING = (
    ("POST", "/api/repos/create", {"name": "x"}),
    ("DELETE", "/api/repos/delete", {"name": "large", "organization": "org"}),
    ("POST", "/api/repos/move", {"fromRepo": "org/large", "toRepo": "org/x"}),
    ("PUT", "/api/models/org/large/settings", {"private": True}),
    ("POST", "/api/models/org/large/preupload/main", {"files": []}),
    ("POST", "/api/models/org/large/commit/main", {}),
    ("POST", "/api/models/org/large/branch/x", {}),
    ("DELETE", "/api/models/org/large/tag/v1", None),
    ("POST", "/api/models/org/large/super-squash/main", {}),
    ("POST", "/api/models/org/large/like", None),
    ("POST", "/api/models/org/large/discussions", {"title": "x"}),
    ("POST", "/api/models/org/large/discussions/1/merge", None),
    ("POST", "/api/models/org/large/user-access-request/grant", {"user": "bob"}),
    ("POST", "/api/collections", {"title": "x"}),
    ("POST", "/api/buckets/org/x", {}),
    ("GET", "/api/models/org/large/xet-write-token/main", None),
    ("GET", "/api/models/org%2Flarge/xet-write-token/main", None),
    ("POST", "/org/large.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}),
    ("POST", "/org/large.git/info/lfs/objects/batch", {"objects": []}),
    ("POST", "/org/large.git/info/lfs/objects/batch", None),
    ("GET", "/org/large/info/refs?service=git-receive-pack", None),
    ("POST", "/org/large/git-receive-pack", None),
    ("POST", "/org/large.git/git-receive-pack", None),
    ("POST", "/org/large/git%2Dreceive%2Dpack", None),
    ("PATCH", "/api/anything", {}),
)


def test_a_read_only_cache_refuses_each_change_before_it_is_sent(
    tmp_path: Path, hub: FakeHub
) -> None:
    with RunningCache(tmp_path, hub, read_only=True) as cache:
        for method, path, body in WRITING:
            answer = cache.request(method, path, trusted=True, headers=ALICE, json=body)
            assert answer.status_code in (400, 403), path
            assert answer.status_code == 400 or "read-only" in answer.headers["X-Error-Message"]
        assert hub.counters.requests == []
        for method, path, body in READING:
            hub.counters.reset()
            answer = cache.request(method, path, trusted=True, headers=ALICE, json=body)
            assert answer.status_code != 403, (path, answer.text)
            assert hub.counters.requests, path
