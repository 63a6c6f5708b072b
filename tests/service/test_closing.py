"""Repos that are closed, gated, disabled or deleted after they were read, and opened again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests
from fake_hub import FakeHub, Repo
from serving import RunningCache
from wall_clock import Clock

CONTENT = b'{"words": "of before"}'
NAME = "a-telling-name.json"
REPO = "org/closing"
READER, NOBODY = {"Authorization": "Bearer hf_bob"}, dict[str, str]()
READS: dict[str, tuple[str, str]] = {
    "head": ("HEAD", f"/{REPO}/resolve/{{}}/{NAME}"),
    "file": ("GET", f"/{REPO}/resolve/{{}}/{NAME}"),
    "raw": ("GET", f"/{REPO}/raw/{{}}/{NAME}"),
    "tree": ("GET", f"/api/models/{REPO}/tree/{{}}"),
    "paths-info": ("POST", f"/api/models/{REPO}/paths-info/{{}}"),
    "commits": ("GET", f"/api/models/{REPO}/commits/{{}}"),
    "page": ("GET", f"/api/models/{REPO}/revision/{{}}"),
    "info": ("GET", f"/api/models/{REPO}"),
    "refs": ("GET", f"/api/models/{REPO}/refs"),
}
OPEN = {"page", "info", "refs"}
"""What a gated or disabled repo shows to everybody, all the same."""


def ask(cache: RunningCache, read: str, revision: str, who: dict[str, str]) -> requests.Response:
    method, path = READS[read]
    json = {"paths": [NAME]} if method == "POST" else None
    return cache.request(method, path.format(revision), headers=who, json=json)


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    hub.gated_tree_open = False
    repo = hub.repo("models", REPO)
    repo.commit({NAME: CONTENT})
    return repo


def change(hub: FakeHub, repo: Repo, how: str) -> Callable[[], None]:
    """Close the repo; returns what opens it again, with the same commits."""
    if how == "deleted":
        hub.catalogue.delete("models", REPO)

        def again() -> None:
            new = hub.repo("models", REPO)
            new.number, new.commits, new.refs = repo.number, repo.commits, repo.refs

        return again
    setattr(repo, how, True)
    return lambda: setattr(repo, how, False)


@pytest.mark.parametrize("who", [NOBODY, READER], ids=["anonymous", "signed in"])
@pytest.mark.parametrize("revision", ["main", "commit"])
@pytest.mark.parametrize("how", ["private", "gated", "disabled", "deleted"])
def test_the_hubs_answer_comes_after_the_lifetime_of_the_right_and_nothing_else(
    cache: RunningCache,
    hub: FakeHub,
    repo: Repo,
    clock: Clock,
    how: str,
    revision: str,
    who: dict[str, str],
) -> None:
    name = repo.head.sha if revision == "commit" else "main"
    for _ in range(2):
        for read in READS:
            assert ask(cache, read, name, who).status_code == 200, read
        cache.wait_idle()
    open_again = change(hub, repo, how)
    clock.advance(61)
    for _ in range(2):
        for read in READS:
            closed = how in ("private", "deleted") or read not in OPEN
            through, direct = ask(cache, read, name, who), told_by(hub, read, name, who)
            assert through.status_code == direct.status_code, read
            assert (through.status_code >= 400) == closed, read
            if closed:
                assert through.headers["X-Error-Message"] == direct.headers["X-Error-Message"]
                assert CONTENT not in through.content and NAME not in through.text
    hub.pause()
    clock.advance(61)
    for read in READS:
        if how in ("private", "deleted") or read not in OPEN:
            answer = ask(cache, read, name, who)
            assert answer.status_code == 521, f"{read}, when nobody can be asked"
            assert CONTENT not in answer.content and NAME not in answer.text
    hub.resume()
    cache.service.breaker.forget(cache.service.config.remotes()[0].id)
    open_again()
    clock.advance(61)
    for read in READS:
        assert ask(cache, read, name, who).status_code == 200, read
    assert ask(cache, "file", name, who).content == CONTENT


def told_by(hub: FakeHub, read: str, revision: str, who: dict[str, str]) -> requests.Response:
    method, path = READS[read]
    json = {"paths": [NAME]} if method == "POST" else None
    url = hub.url + path.format(revision)
    return requests.request(method, url, headers=who, json=json, timeout=30)


@pytest.mark.parametrize("how", ["private", "gated", "disabled", "deleted"])
def test_who_opens_it_again_is_seen_at_once(
    cache: RunningCache, hub: FakeHub, repo: Repo, clock: Clock, how: str
) -> None:
    """Refusals are not kept; a 404 is, for its lifetime."""
    open_again = change(hub, repo, how)
    assert ask(cache, "file", "main", NOBODY).status_code in (401, 403)
    open_again()
    assert ask(cache, "file", "main", NOBODY).content == CONTENT
