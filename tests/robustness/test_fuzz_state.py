"""Damaged sidecars, tables, maps and notes at start-up: the cache mends itself, or asks again."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from robustness.directory import check_blobs
from robustness.readers import Client, everything
from robustness.wanted import MIB, new_repo
from serving import RunningCache

SCALE = int(os.environ.get("HF_CACHE_FUZZ_SCALE", "1"))


class Site:
    """A Hub, and directories of a cache that keeps some of its files, and parts of another."""

    def __init__(self, root: Path, hub: FakeHub) -> None:
        self.root = root
        self.hub = hub
        self.wanted = new_repo(hub, "fuzz/state", random.Random(4), big=[MIB + 5, 2 * MIB])
        with RunningCache(root, hub) as cache:
            everything(cache.endpoint, self.wanted[1:])
            self.read_part(cache)
            cache.wait_idle()

    def read_part(self, cache: RunningCache) -> None:
        """Read the end of the file that is kept in part."""
        client, file = Client(cache.endpoint), self.wanted[0]
        client.get(file, "bytes=-300000", file.size - 300_000, file.size)
        client.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with FakeHub() as hub:
        yield Site(tmp_path_factory.mktemp("used"), hub)


def is_target(path: Path) -> bool:
    """Whether a file is damaged: everything but the bytes of blobs, and the note of the layout's
    version: a directory whose version is not known is not touched."""
    beside = path.suffix in (".json", ".map")
    bytes_of_blobs = {"blobs", "partial"} & set(path.parts)
    return path.is_file() and path.name != "VERSION" and (beside or not bytes_of_blobs)


DAMAGE = st.tuples(
    st.integers(0, 10**6),  # which file
    st.sampled_from(["empty", "cut", "random", "zeros", "gone", "longer", "text"]),
    st.integers(0, 10**6),  # seed
)


def damage(path: Path, kind: str, seed: int) -> None:
    """Do something to a file."""
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    path.chmod(0o600)
    if kind == "gone":
        path.unlink()
        return
    if kind == "empty":
        data.clear()
    elif kind == "cut":
        del data[rng.randrange(len(data) + 1) :]
    elif kind == "longer":
        data += rng.randbytes(rng.randrange(1, 5000))
    elif kind == "text":
        data[:] = b'{"size": 5, "sha256": 1}'
    elif data:
        for _ in range(rng.randrange(1, 40)):
            at = rng.randrange(len(data))
            data[at : at + 16] = bytes(16) if kind == "zeros" else rng.randbytes(16)
    path.write_bytes(data)


@pytest.mark.timeout(300 * SCALE)
@settings(max_examples=20 * SCALE, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(DAMAGE, min_size=1, max_size=5))
def test_a_damaged_state_is_mended(site: Site, damages: list[tuple[int, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "root")
        shutil.copytree(site.root, root)
        targets = sorted(filter(is_target, (root / "cache").rglob("*")))
        for number, kind, seed in damages:
            path = targets[number % len(targets)]
            if path.exists():
                damage(path, kind, seed)
        with RunningCache(root, site.hub) as cache:
            site.read_part(cache)
            everything(cache.endpoint, site.wanted)
            cache.wait_idle()
        check_blobs(root / "cache")
