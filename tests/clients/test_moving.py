"""huggingface_hub 2, 1 and 0 where branches move, repos are renamed, and names change hands."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.cutting_relay import CuttingRelay
from clients.environments import HUBS, Client
from fake_hub import BigFile, FakeHub, Repo
from serving import BASE_URL, RunningCache
from wall_clock import Clock

pytestmark = pytest.mark.clients

MIB = 1 << 20
ONE, TWO = (BigFile(24 * MIB, seed=seed) for seed in (71, 72))
REPO = "org/moving"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path / "cache", hub) as cache:
        yield cache


@pytest.fixture(params=HUBS)
def client(request: pytest.FixtureRequest, cache: RunningCache, tmp_path: Path) -> Client:
    settings = {"HF_HUB_DISABLE_XET": "1"}
    return Client(request.param, tmp_path / "home", cache.endpoint, settings)


@pytest.fixture
def repo(hub: FakeHub) -> Repo:
    repo = hub.repo("models", REPO)
    repo.commit({"model.bin": ONE, "config.json": '{"version": 1}', "vocab.txt": "a b c"})
    return repo


def get(file: str, revision: str = "main", repo: str = REPO) -> str:
    return f"""
import huggingface_hub as hf
tell(sha256(hf.hf_hub_download("{repo}", "{file}", revision="{revision}")))
"""


def of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# Before and after the client writes its first piece: it starts again, or resumes.
@pytest.mark.parametrize("after", [2 * MIB, 14 * MIB])
def test_a_cut_download_is_of_one_commit_though_the_branch_moves(
    hub: FakeHub, cache: RunningCache, client: Client, repo: Repo, clock: Clock, after: int
) -> None:
    def move() -> None:
        repo.commit({"model.bin": TWO})
        clock.advance(61)

    with CuttingRelay(cache.port, after=after, on_cut=move) as relay:
        client.endpoint = f"http://127.0.0.1:{relay.port}{BASE_URL}pulp/content/hf"
        problem = client.run("""
import huggingface_hub as hf
tell(error(hf.hf_hub_download, "org/moving", "model.bin"))
""")
        assert relay.was_cut
        if client.name == "hub0":
            assert "ChunkedEncodingError" in problem, "it resumes by its next call only"
            assert client.run(get("model.bin")) == TWO.sha256()
            return
        assert problem == []
        first = repo.head.parent.sha
        cached = client.run("""
import huggingface_hub as hf
[revision] = next(iter(hf.scan_cache_dir().repos)).revisions
[file] = revision.files
tell([revision.commit_hash, sha256(file.file_path), os.path.basename(file.blob_path)])
""")
        assert cached == [first, ONE.sha256(), ONE.sha256()]
        assert client.run(get("model.bin")) == TWO.sha256()


def test_a_new_commit_is_seen_after_the_lifetime_and_costs_what_is_new(
    hub: FakeHub, cache: RunningCache, client: Client, repo: Repo, clock: Clock
) -> None:
    snapshot = """
import huggingface_hub as hf
tell(sums(hf.snapshot_download("org/moving")))
"""
    first = client.run(snapshot)
    repo.commit({"config.json": '{"version": 2}'})
    assert client.fresh("before").run(snapshot) == first
    clock.advance(61)
    hub.counters.reset()
    second = client.fresh("after").run(snapshot)
    assert second == {**first, "config.json": of_text('{"version": 2}')}
    assert hub.counters.count(host="cdn") == 0, "the weights did not change"
    bodies = [r.path for r in hub.counters.select("GET", "/resolve")]
    assert all(path.endswith("config.json") for path in bodies), hub.counters.summary()
    hub.counters.reset()
    assert client.fresh("again").run(get("config.json")) == of_text('{"version": 2}')
    assert hub.counters.requests == []
    clock.advance(61)
    for number, file in enumerate(("config.json", "model.bin", "vocab.txt")):
        client.fresh(f"late-{number}").run(get(file))
    assert hub.counters.count() == 1, hub.counters.summary()


def test_a_renamed_repo_loads_under_its_old_name(
    hub: FakeHub, cache: RunningCache, client: Client, repo: Repo
) -> None:
    hub.catalogue.rename("models", REPO, "org/renamed")
    files = client.run("""
import huggingface_hub as hf
tell([sha256(hf.hf_hub_download("org/moving", name))
      for name in ("config.json", "vocab.txt", "model.bin")])
""")
    assert files == [of_text('{"version": 1}'), of_text("a b c"), ONE.sha256()]
    asked = hub.counters.select("HEAD", "/org/moving/resolve/")
    assert len(asked) == 1, hub.counters.summary()
    whole = client.fresh().run("""
import huggingface_hub as hf
tell(sums(hf.snapshot_download("org/moving")))
""")
    assert whole["model.bin"] == ONE.sha256()


def test_a_name_that_another_repo_has_is_that_repo(
    hub: FakeHub, cache: RunningCache, client: Client, repo: Repo, clock: Clock
) -> None:
    old = repo.head.sha
    assert client.run(get("config.json")) == of_text('{"version": 1}')
    assert client.run(get("config.json", old)) == of_text('{"version": 1}')
    hub.catalogue.rename("models", REPO, "org/elsewhere").private = True
    hub.repo("models", REPO).commit({"config.json": "another"})
    clock.advance(61)
    fresh = client.fresh()
    assert fresh.run(get("config.json")) == of_text("another")
    for revision, problem in ((old, "RevisionNotFoundError"), ("main", "EntryNotFoundError")):
        file = "config.json" if revision == old else "vocab.txt"
        kinds = fresh.run(f"""
import huggingface_hub as hf
tell(error(hf.hf_hub_download, "org/moving", "{file}", revision="{revision}"))
""")
        assert problem in kinds


@pytest.mark.parametrize("what", ["branch", "repo"])
def test_what_was_deleted_is_gone(
    hub: FakeHub, cache: RunningCache, client: Client, repo: Repo, clock: Clock, what: str
) -> None:
    repo.point("dev")
    assert client.run(get("config.json", "dev")) == of_text('{"version": 1}')
    if what == "branch":
        repo.drop_ref("dev")
    else:
        hub.catalogue.delete("models", REPO)
    clock.advance(61)
    kinds = client.fresh().run("""
import huggingface_hub as hf
tell(error(hf.hf_hub_download, "org/moving", "config.json", revision="dev"))
""")
    wanted = "RevisionNotFoundError" if what == "branch" else "RepositoryNotFoundError"
    assert wanted in kinds


def test_parts_of_an_open_file_are_of_one_commit(
    hub: FakeHub, cache: RunningCache, client: Client, repo: Repo, clock: Clock
) -> None:
    """HfFileSystem learns a size, and reads part after part of a branch's file by that."""
    opened, moved = client.home / "opened", client.home / "moved"
    running = client.start(f"""
import time
import huggingface_hub as hf
fs = hf.HfFileSystem()
file = fs.open("hf://org/moving/model.bin", block_size={MIB})
start = file.read(1000)
open({str(opened)!r}, "w").close()
while not os.path.exists({str(moved)!r}):
    time.sleep(0.05)
file.seek({5 * MIB})
part = file.read(1000)
again = hf.HfFileSystem(skip_instance_cache=True)
with again.open("hf://org/moving/model.bin", block_size={MIB}) as new:
    new.seek({5 * MIB})
    later = new.read(1000)
tell([hashlib.sha256(data).hexdigest() for data in (start, part, later)])
""")
    deadline = time.monotonic() + 90
    while not opened.exists() and running.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    repo.commit({"model.bin": TWO})
    clock.advance(61)
    moved.touch()
    said, complaints = running.communicate(timeout=90)
    assert running.returncode == 0, complaints
    sums = [
        hashlib.sha256(file.read(start, 1000)).hexdigest()
        for file, start in ((ONE, 0), (ONE, 5 * MIB), (TWO, 5 * MIB))
    ]
    assert str(sums).replace("'", '"') in said
