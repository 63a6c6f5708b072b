"""Several addresses of one content: who is asked when, and what a mirror never gets or gives."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import BigFile, FakeHub
from serving import RunningCache
from urllib3.exceptions import HTTPError
from wall_clock import Clock

REPO = "org/twice"
ALICE = {"Authorization": "Bearer hf_alice"}
CONFIG = b'{"from": "both"}'
MODEL = BigFile(3 << 20, seed=7)
OTHER = BigFile(3 << 20, seed=8)
RESOLVE = f"/{REPO}/resolve"


@pytest.fixture
def mirror() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as mirror:
        yield mirror


@pytest.fixture
def commit(hub: FakeHub, mirror: FakeHub) -> str:
    """A repo that is the same on both, down to its commit's id."""
    files = {"config.json": CONFIG, "model.bin": MODEL, "other.bin": OTHER}
    made = [one.repo("models", REPO).commit(files) for one in (hub, mirror)]
    assert made[0] == made[1]
    return made[0]


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub, mirror: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path, hub) as cache:
        # A busy machine makes the suite's own servers slow; that is no failure here.
        use(cache, {"url": mirror.url}, sock_read_timeout=30)
        yield cache


def use(cache: RunningCache, *mirrors: dict[str, Any], **fields: Any) -> None:
    """Give the remote these mirrors."""
    remote = cache.service.config.remotes()[0]
    changes = {"mirrors": [{"send_token": False, **one} for one in mirrors], **fields}
    cache.service.config.update_remote(remote.id, changes)


def bytes_of(file: BigFile) -> bytes:
    return file.read(0, file.size)


def tokens_seen(hub: FakeHub) -> set[str | None]:
    return {record.headers.get("authorization") for record in hub.counters.requests}


def test_nobody_asks_a_mirror_while_the_remote_answers(
    cache: RunningCache, mirror: FakeHub, commit: str
) -> None:
    assert cache.get(f"{RESOLVE}/main/model.bin").status_code == 200
    assert cache.get(f"/api/models/{REPO}").status_code == 200
    assert cache.get(f"{RESOLVE}/main/none.json").status_code == 404

    assert mirror.counters.requests == []


def test_a_mirror_answers_every_read_of_a_repo(
    cache: RunningCache, hub: FakeHub, commit: str
) -> None:
    hub.pause()
    for method, path, options in [
        ("GET", f"/api/models/{REPO}", {}),
        ("GET", f"/api/models/{REPO}/revision/main", {}),
        ("GET", f"/api/models/{REPO}/tree/main?recursive=true", {}),
        ("GET", f"/api/models/{REPO}/refs", {}),
        ("GET", f"/api/models/{REPO}/commits/main", {}),
        ("POST", f"/api/models/{REPO}/paths-info/main", {"data": {"paths": ["config.json"]}}),
        ("HEAD", f"{RESOLVE}/main/model.bin", {}),
        ("GET", f"{RESOLVE}/main/config.json", {}),
        ("GET", f"{RESOLVE}/{commit}/model.bin", {}),
        ("GET", f"/{REPO}/raw/main/model.bin", {}),
    ]:
        answer = cache.request(method, path, **options)
        assert answer.status_code == 200, (path, answer.text)
        assert answer.headers["X-HF-Warning"].startswith("Mirror; ")
    answer = cache.get(f"{RESOLVE}/main/model.bin")
    assert hashlib.sha256(answer.content).hexdigest() == MODEL.sha256()
    assert answer.headers["X-Repo-Commit"] == commit
    answer = cache.get(f"{RESOLVE}/main/none.json")
    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")


FAILURES: dict[str, dict[str, Any]] = {
    "paused": {},
    "500": {"kind": "status", "status": 500},
    "503": {"kind": "status", "status": 503, "headers": {"Retry-After": "7"}},
    "429": {"kind": "status", "status": 429},
    "reset": {"kind": "reset"},
    "portal": {"kind": "html"},
    "silent": {"kind": "stall"},
}


@pytest.mark.parametrize("failing", FAILURES)
def test_whatever_fails_a_mirror_answers(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str, failing: str
) -> None:
    if failing == "paused":
        hub.pause()
    else:
        options = dict(FAILURES[failing])
        hub.fault(options.pop("kind"), times=None, **options)
    if failing == "silent":
        use(cache, {"url": mirror.url}, sock_read_timeout=4)
    for path in (f"{RESOLVE}/main/config.json", f"{RESOLVE}/main/model.bin"):
        assert cache.head(path).status_code == 200
        assert cache.get(path).status_code == 200
    hub.faults.clear()


def test_mirrors_are_asked_in_their_order_until_one_answers(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    with FakeHub() as empty, FakeHub() as away:
        away.pause()
        use(cache, {"url": away.url}, {"url": empty.url}, {"url": mirror.url})
        hub.pause()
        assert cache.get(f"{RESOLVE}/main/model.bin").content == bytes_of(MODEL)

        assert empty.counters.requests, "it was asked before the next one"
        before = len(empty.counters.requests)
        assert cache.get(f"{RESOLVE}/main/other.bin").content == bytes_of(OTHER)
        assert len(empty.counters.requests) >= before


def test_what_is_kept_answers_before_a_mirror_does(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str, clock: Clock
) -> None:
    path = f"{RESOLVE}/main/model.bin"
    assert cache.get(path).status_code == 200
    cache.wait_idle()
    clock.advance(3600)
    hub.pause()
    answer = cache.get(path)

    assert answer.content == bytes_of(MODEL)
    assert answer.headers["X-HF-Warning"].startswith("Stale; ")
    assert mirror.counters.requests == []


def test_what_came_from_a_mirror_is_kept(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str, clock: Clock
) -> None:
    path = f"{RESOLVE}/main/model.bin"
    hub.pause()
    assert cache.get(path).content == bytes_of(MODEL)
    cache.wait_idle()
    mirror.pause()
    clock.advance(3600)
    answer = cache.get(path)
    assert (answer.status_code, answer.content) == (200, bytes_of(MODEL))

    mirror.resume()
    mirror.counters.reset()
    assert cache.get(path).content == bytes_of(MODEL)
    assert mirror.counters.bytes("cdn") == 0, "the bytes are here"


def test_the_remote_proves_what_came_from_a_mirror(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    path = f"{RESOLVE}/{commit}/model.bin"
    hub.pause()
    assert cache.get(path).status_code == 200
    cache.wait_idle()
    hub.resume()
    cache.wait_until(lambda: "X-HF-Warning" not in cache.head(path).headers)
    assert cache.get(path).content == bytes_of(MODEL)

    assert 0 < hub.counters.bytes("cdn") < MODEL.size, "ranges of it, not the whole"


def test_the_remote_is_asked_again_after_its_rest(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str, clock: Clock
) -> None:
    path = f"{RESOLVE}/main/config.json"
    hub.pause()
    assert cache.head(path).headers["X-HF-Warning"].startswith("Mirror; ")
    hub.resume()

    def is_the_remote() -> bool:
        clock.advance(61)
        return "X-HF-Warning" not in cache.head(path).headers

    cache.wait_until(is_the_remote)
    mirror.counters.reset()
    assert cache.get(path).status_code == 200
    assert mirror.counters.requests == []


# --- one version ---


@pytest.fixture
def differing(hub: FakeHub, mirror: FakeHub) -> tuple[str, str]:
    """A repo of one name with other content, of the same size, on the mirror."""
    here = hub.repo("models", REPO).commit({"config.json": b"here.", "model.bin": MODEL})
    there = mirror.repo("models", REPO).commit({"config.json": b"there", "model.bin": OTHER})
    return here, there


def test_a_branch_that_the_remote_named_is_not_answered_from_another_version(
    cache: RunningCache, hub: FakeHub, differing: tuple[str, str]
) -> None:
    head = cache.head(f"{RESOLVE}/main/model.bin")
    assert head.headers["X-Repo-Commit"] == differing[0]
    hub.pause()
    for method in ("HEAD", "GET"):
        for file in ("model.bin", "config.json"):
            answer = cache.request(method, f"{RESOLVE}/main/{file}")
            assert answer.status_code in (200, 521)
            if answer.status_code == 200:
                assert answer.headers["X-Repo-Commit"] == differing[0]
                assert method == "HEAD", "what is fresh is said at once; the bytes are nowhere"
    assert cache.get(f"/api/models/{REPO}/tree/main").status_code == 521


def test_a_conversation_that_a_mirror_began_stays_with_it(
    cache: RunningCache, hub: FakeHub, differing: tuple[str, str], clock: Clock
) -> None:
    hub.pause()
    info = cache.get(f"/api/models/{REPO}").json()
    assert info["sha"] == differing[1]
    hub.resume()
    head = cache.head(f"{RESOLVE}/main/model.bin")
    body = cache.get(f"{RESOLVE}/main/model.bin")
    pinned = cache.get(f"{RESOLVE}/{differing[1]}/config.json")

    assert {head.headers["X-Repo-Commit"], body.headers["X-Repo-Commit"]} == {differing[1]}
    assert (body.content, pinned.content) == (bytes_of(OTHER), b"there")

    def is_the_remotes() -> bool:
        clock.advance(61)
        answer = cache.head(f"{RESOLVE}/main/model.bin")
        return answer.headers["X-Repo-Commit"] == differing[0]

    cache.wait_until(is_the_remotes)
    assert cache.get(f"{RESOLVE}/main/model.bin").content == bytes_of(MODEL)


def test_a_mirror_that_names_another_digest_for_a_commit_is_passed_over(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    path = f"{RESOLVE}/{commit}/model.bin"
    assert cache.head(path).status_code == 200
    forged = mirror.catalogue.get("models", REPO)
    assert forged is not None and forged.head is not None
    entries = dict(forged.head.files)
    entries["model.bin"] = entries["other.bin"]
    object.__setattr__(forged.head, "files", entries)
    hub.pause()

    answer = cache.get(path)
    assert answer.status_code == 521
    assert cache.get(f"{RESOLVE}/{commit}/other.bin").content == bytes_of(OTHER)


def test_a_mirror_that_damages_bytes_completes_no_file(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    hub.pause()
    mirror.fault("corrupt", host="cdn", at=100_000, times=None)
    path = f"{RESOLVE}/main/model.bin"
    try:
        whole = cache.get(path, stream=True)
        received = b"" if whole.status_code != 200 else whole.raw.read(MODEL.size)
    except OSError:
        received = b""
    assert len(received) < MODEL.size
    part = cache.get(path, headers={"Range": "bytes=0-99999"})
    assert part.status_code != 206, "parts are given out when the whole was verified"


def test_a_file_that_the_remote_damages_is_had_from_a_mirror(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    hub.fault("corrupt", host="cdn", at=100_000, times=None)
    path = f"{RESOLVE}/{commit}/model.bin"

    def is_whole() -> bool:
        try:
            answer = cache.get(path)
        except (HTTPError, OSError):
            return False
        return answer.status_code == 200 and answer.content == bytes_of(MODEL)

    cache.wait_until(is_whole, 60)
    assert mirror.counters.bytes("cdn") >= MODEL.size


def test_parts_of_a_file_wait_until_the_whole_is_verified(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    hub.pause()
    answer = cache.get(f"{RESOLVE}/main/model.bin", headers={"Range": "bytes=1000-1999"})
    assert (answer.status_code, answer.content) == (206, bytes_of(MODEL)[1000:2000])
    assert mirror.counters.bytes("cdn") >= MODEL.size


def test_a_resume_by_way_of_a_mirror_gets_the_whole_file(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    hub.pause()
    answer = cache.get(f"{RESOLVE}/main/model.bin", headers={"Range": "bytes=1000000-"})
    assert (answer.status_code, answer.content) == (200, bytes_of(MODEL))


# --- while it is fetched ---


def test_a_body_that_cannot_be_fetched_comes_from_a_mirror(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    """What the remote said is fresh, so nobody notices before its storage is asked."""
    path = f"{RESOLVE}/{commit}/model.bin"
    assert cache.head(path).status_code == 200
    hub.pause()
    answer = cache.get(path)
    assert (answer.status_code, answer.content) == (200, bytes_of(MODEL))


def test_a_body_that_breaks_off_is_had_from_a_mirror_at_the_next_request(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    path = f"{RESOLVE}/{commit}/model.bin"
    fault = hub.fault("stall", "", host="cdn", at=1 << 20, times=None)
    with cache.get(path, stream=True) as answer:
        received = answer.raw.read(1 << 19)
        hub.pause()
        hub.faults.clear()
        rest = b""
        with contextlib.suppress(HTTPError, OSError):
            rest = answer.raw.read()
    assert fault.hits >= 1
    assert len(received + rest) < MODEL.size
    cache.wait_until(
        lambda: (
            cache.get(path, headers={"Range": f"bytes={len(received)}-"}).content == bytes_of(MODEL)
        )
    )


# --- what a mirror gets ---


def test_a_mirror_gets_no_token_and_no_header(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    use(
        cache,
        {"url": mirror.url},
        hf_token="hf_reader",
        username="me",
        password="secret",
        headers=[{"X-Gate": "open"}],
    )
    hub.pause()
    for options in ({"headers": ALICE}, {"trusted": True}, {}):
        assert cache.get(f"{RESOLVE}/main/model.bin", **options).status_code == 200

    assert tokens_seen(mirror) == {None}
    assert not any("x-gate" in record.headers for record in mirror.counters.requests)


def test_private_content_stays_where_it_is(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, clock: Clock
) -> None:
    use(cache, {"url": mirror.url}, hf_token="hf_reader")
    paths = ["/org/private/resolve/main/config.json", "/api/models/org/private/tree/main"]
    hub.pause()
    for path in paths:
        for options in ({"headers": ALICE}, {"trusted": True}, {}):
            assert cache.get(path, **options).status_code == 521
    assert tokens_seen(mirror) == {None}


def test_what_the_remote_refused_is_not_had_from_a_mirror(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str, clock: Clock
) -> None:
    path = f"{RESOLVE}/main/config.json"
    hidden = hub.catalogue.get("models", REPO)
    assert hidden is not None
    hidden.private = True
    bad = {"Authorization": "Bearer hf_wrong"}
    assert cache.get(path).status_code == 401
    assert cache.get("/org/large/resolve/main/README.md", headers=bad).status_code == 401
    hub.pause()
    assert cache.get(path).status_code == 521
    assert cache.get(path, headers=bad).status_code == 521, "nobody's content for a bad token"
    assert cache.get(f"/api/models/{REPO}").status_code == 521
    assert cache.get("/org/large/resolve/main/README.md").status_code == 200
    assert all(REPO not in record.path for record in mirror.counters.requests)

    hidden.private = False
    hub.resume()
    clock.advance(61)
    cache.wait_until(lambda: cache.get(path).status_code == 200, 60)
    hub.pause()
    assert cache.get(f"{RESOLVE}/main/model.bin").status_code == 200


def test_a_mirror_may_be_allowed_to_see_tokens(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub
) -> None:
    use(
        cache,
        {"url": mirror.url, "send_token": True},
        hf_token="hf_reader",
        username="me",
        password="secret",
        headers=[{"X-Gate": "open"}],
    )
    path = "/org/private/resolve/main/config.json"
    hub.pause()
    assert cache.get(path, trusted=True).status_code == 200
    assert cache.get(path, headers=ALICE).status_code == 200
    assert cache.get(path).status_code == 521, "nobody's right opens nothing"
    assert tokens_seen(mirror) == {"Bearer hf_reader", "Bearer hf_alice", None}
    assert all("x-gate" in record.headers for record in mirror.counters.requests)


def test_what_one_may_read_at_a_mirror_others_may_not(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub
) -> None:
    use(cache, {"url": mirror.url, "send_token": True})
    path = "/org/private/resolve/main/config.json"
    hub.pause()
    assert cache.get(path, headers=ALICE).status_code == 200
    cache.wait_idle()
    assert cache.get(path).status_code == 521
    assert cache.get(path, headers={"Authorization": "Bearer hf_bob"}).status_code == 521


def test_writes_and_whoami_never_go_to_a_mirror(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub
) -> None:
    hub.pause()
    assert cache.get("/api/whoami-v2", headers=ALICE).status_code == 521
    answer = cache.request(
        "POST", "/api/repos/create", headers=ALICE, json={"name": "x"}, trusted=True
    )
    assert answer.status_code == 521
    assert mirror.counters.requests == []


def test_offline_asks_no_mirror(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str, clock: Clock
) -> None:
    path = f"{RESOLVE}/main/config.json"
    hub.pause()
    assert cache.get(path).status_code == 200
    cache.wait_idle()
    use(cache, {"url": mirror.url}, offline=True)
    mirror.counters.reset()
    clock.advance(3600)
    assert cache.get(path).content == CONFIG, "what a mirror gave is kept"
    assert cache.get(f"{RESOLVE}/main/model.bin").status_code == 521
    assert mirror.counters.requests == []


def test_a_mirror_that_is_removed_answers_no_more(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    path = f"{RESOLVE}/main/config.json"
    hub.pause()
    assert cache.head(path).status_code == 200
    use(cache)
    assert cache.head(path).status_code == 521


def test_the_status_shows_each_address(
    cache: RunningCache, hub: FakeHub, mirror: FakeHub, commit: str
) -> None:
    hub.pause()
    assert cache.get(f"{RESOLVE}/main/config.json").status_code == 200
    rows = {row["url"]: row for row in cache.api("GET", "status").json()["upstreams"]}
    assert rows[hub.url]["state"] == "unreachable"
    assert rows[mirror.url]["state"] == "reachable"
    assert rows[mirror.url]["remote"] == rows[hub.url]["remote"] == "default"
