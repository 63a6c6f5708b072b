"""What a running fill may be used for, and what it takes of the budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import RunningCache

MIB = 1 << 20
SIZE = 4 * MIB
BIG = BigFile(SIZE, seed=11)
URL = "/org/blob/resolve/main/model.bin"


@pytest.fixture(autouse=True)
def repo(hub: FakeHub) -> None:
    hub.repo("models", "org/blob").commit({"model.bin": BIG})


@pytest.fixture
def mirror(cache: RunningCache) -> Iterator[FakeHub]:
    """Another origin that names the same digest."""
    with FakeHub() as mirror:
        remote = cache.service.config.create_remote({"name": "mirror", "url": mirror.url})
        cache.service.config.create_distribution(
            {"name": "mirror", "base_path": "mirror", "remote": remote.id}
        )
        mirror.repo("models", "made/up").commit({"model.bin": BIG})
        yield mirror


def at_mirror(cache: RunningCache, **headers: str) -> requests.Response:
    url = f"{cache.host}/pulp/content/mirror/made/up/resolve/main/model.bin"
    return requests.get(url, headers=headers, timeout=30)


class TestAnotherOrigin:
    def test_naming_a_digest_that_is_being_filled_opens_nothing(
        self, cache: RunningCache, hub: FakeHub, mirror: FakeHub
    ) -> None:
        mirror.fault("swap", "", host="cdn", times=None)
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
            response.raw.read(MIB)
            assert hub.faults.wait_until_stalled()
            part = at_mirror(cache, Range="bytes=0-99999")
            assert part.content != BIG.read(0, 100_000)
            with pytest.raises(requests.RequestException):
                at_mirror(cache)
            hub.faults.release()
            response.raw.read()

    def test_nor_one_of_which_a_part_lies_here(
        self, cache: RunningCache, hub: FakeHub, mirror: FakeHub
    ) -> None:
        assert cache.get(URL, headers={"Range": "bytes=0-2097151"}).status_code == 206
        cache.wait_until(lambda: all(r.state == "paused" for r in cache.service.fills.reports()))
        mirror.fault("swap", "", host="cdn", times=None)
        part = at_mirror(cache, Range="bytes=0-99999")
        assert part.content != BIG.read(0, 100_000)

    def test_who_delivers_may_have_it(
        self, cache: RunningCache, hub: FakeHub, mirror: FakeHub
    ) -> None:
        hub.fault("stall", "", host="cdn", at=2 * MIB)
        with requests.get(cache.endpoint + URL, stream=True, timeout=30) as response:
            response.raw.read(MIB)
            assert hub.faults.wait_until_stalled()
            assert at_mirror(cache).content == BIG.read(0, SIZE)
            assert mirror.counters.bytes("cdn") == SIZE
            hub.faults.release()
            response.raw.read()


def test_a_range_of_a_file_takes_the_room_of_the_range(tmp_path: Path, hub: FakeHub) -> None:
    hub.repo("models", "org/small").commit({"a.bin": BigFile(MIB, seed=12)})
    with RunningCache(tmp_path, hub, cache_size_limit=3 * MIB) as cache:
        cache.get("/org/small/resolve/main/a.bin")
        cache.wait_idle()
        answer = cache.get(URL, headers={"Range": "bytes=100000-1199999"})
        assert answer.content == BIG.read(100_000, 1_100_000)
        cache.wait_until(lambda: cache.service.fills.reports()[0].state == "paused")
        hub.counters.reset()
        again = cache.get(URL, headers={"Range": "bytes=262144-1048575"})
        assert again.content == BIG.read(262_144, 1_048_576 - 262_144)
        assert hub.counters.bytes("cdn") == 0, "it was kept in part"
        assert cache.get("/org/small/resolve/main/a.bin").headers["X-HF-Cache-Result"] == "hit"
        assert cache.get(URL).content == BIG.read(0, SIZE), "the whole streams through"
