"""Real clients while the Hub is away and a mirror of it is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.environments import HUBS, Client
from fake_hub import BigFile, FakeHub
from serving import RunningCache

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

REPO = "org/mirrored"
MODEL = BigFile(6 << 20, seed=61)
FILES: dict[str, bytes | BigFile] = {"config.json": b"{}", "model.bin": MODEL, "a/b.txt": b"b"}
SNAPSHOT = """
import huggingface_hub as hf
tell(sums(hf.snapshot_download("org/mirrored", max_workers=2)))
"""


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", REPO).commit(FILES)
        yield hub


@pytest.fixture
def mirror() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as mirror:
        mirror.repo("models", REPO).commit(FILES)
        yield mirror


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub, mirror: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path / "cache", hub) as cache:
        remote = cache.service.config.remotes()[0]
        mirrors = [{"url": mirror.url, "send_token": False}]
        cache.service.config.update_remote(remote.id, {"mirrors": mirrors})
        yield cache


def client(name: str, tmp_path: Path, cache: RunningCache) -> Client:
    return Client(name, tmp_path / "home", cache.endpoint, {"HF_HUB_DISABLE_XET": "1"})


@pytest.mark.parametrize("name", HUBS)
def test_a_snapshot_comes_from_the_mirror(
    name: str, tmp_path: Path, cache: RunningCache, hub: FakeHub, mirror: FakeHub
) -> None:
    hub.pause()
    found = client(name, tmp_path, cache).run(SNAPSHOT)
    assert (sorted(found), found["model.bin"]) == (sorted(FILES), MODEL.sha256())
    assert mirror.counters.count(host="cdn") == 1


@pytest.mark.parametrize("name", ["hub2", "hub1"])
def test_a_snapshot_is_completed_when_the_hub_goes_away_within(
    name: str, tmp_path: Path, cache: RunningCache, hub: FakeHub, mirror: FakeHub
) -> None:
    """0.36 ends with the first connection that breaks, also against the Hub itself."""
    hub.fault("stall", "", host="cdn", at=2 << 20, times=None)

    def leave() -> None:
        if hub.faults.wait_until_stalled(1, 120):
            hub.pause()

    leaving = threading.Thread(target=leave)
    leaving.start()
    found = client(name, tmp_path, cache).run(SNAPSHOT)
    leaving.join()
    assert (sorted(found), found["model.bin"]) == (sorted(FILES), MODEL.sha256())
    assert hub.counters.count(host="cdn") >= 1
    assert mirror.counters.count(host="cdn") == 1
