"""A blob that another process fills, followed here. Two houses on one directory stand for two
processes: their leases exclude each other as those of processes do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filling import DEADLINE, MIB, Upstream, blob_of, data_of, follow, source, wait_over

from jupyter_hf_cache.errors import FillInterrupted, HfCacheError, VerificationFailed
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.budget import Budget
from jupyter_hf_cache.storage.interface import Stage
from jupyter_hf_cache.storage.ledger import Ledger
from jupyter_hf_cache.storage.mapfile import BLOCK_SIZE
from jupyter_hf_cache.storage.partial import LocalPartial
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream import attendance, fetching, following
from jupyter_hf_cache.upstream.fill import HOLD_BACK, Fill
from jupyter_hf_cache.upstream.fills import Fills
from jupyter_hf_cache.upstream.following import Following
from jupyter_hf_cache.upstream.growing import Growing
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

SIZE = 8 * MIB + 99
DATA = data_of(SIZE)
BLOB = blob_of(DATA)


class House:
    """One process: all that fills need."""

    def __init__(self, root: Path, *, limit: int = 10**9) -> None:
        self.store = LocalBlobStore(root)
        self.table = StateTable(root / "state")
        self.ledger = Ledger(root / "ledger")
        self.budget = Budget(self.store, self.ledger, limit=limit, min_free=0)
        self.taints = Taints(self.table)
        self.fetched: list[int] = []
        self.fills = Fills(
            self.store,
            self.budget,
            self.taints,
            linger=0.0,
            on_kept=lambda blob, size: None,
            on_fetched=self.fetched.append,
        )

    def open(
        self,
        way: Source | None = None,
        *,
        part: tuple[int, int] | None = None,
        range_safe: bool = True,
    ) -> Growing:
        growing = self.fills.open(BLOB, SIZE, way or source(), range_safe=range_safe, part=part)
        assert growing is not None
        return growing

    def download(self) -> bytes:
        growing = self.open()
        try:
            growing.want_all()
            return follow(growing, 0, SIZE, completing=True)
        finally:
            growing.leave()

    def close(self) -> None:
        self.fills.stop()
        self.table.close()
        self.ledger.close()


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    upstream = Upstream(DATA)
    monkeypatch.setattr(fetching, "transfer", upstream.transfer)
    return upstream


@pytest.fixture
def houses(tmp_path: Path, upstream: Upstream) -> Iterator[list[House]]:
    houses = [House(tmp_path / "cache") for _ in range(2)]
    yield houses
    upstream.release()
    for house in houses:
        house.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


class TestTogether:
    def test_what_one_fetches_the_other_reads(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        upstream.hold(4 * MIB)
        owner, follower = houses[0].open(), houses[1].open(source("you"))
        assert isinstance(owner, Fill) and isinstance(follower, Following)
        owner.want_all()
        follower.want_all()
        assert follow(follower, 0, 4 * MIB, completing=True) == DATA[: 4 * MIB]
        assert houses[1].fills.reports()[0].readers == 1
        upstream.release()
        assert follow(follower, 4 * MIB, SIZE, completing=True) == DATA[4 * MIB :]
        assert follower.verified and follower.done == SIZE
        owner.leave()
        follower.leave()
        wait_over(owner)
        assert upstream.delivered == SIZE and houses[1].fetched == []
        assert houses[1].fills.open(BLOB, SIZE, source(), range_safe=True) is None
        assert houses[1].fills.reports() == []

    def test_many_of_both_cost_one_transfer(self, houses: list[House], upstream: Upstream) -> None:
        with ThreadPoolExecutor(20) as pool:
            bodies = list(pool.map(lambda n: fetch(houses[n % 2]), range(20)))
        assert set(bodies) == {DATA}
        upstream.wait_for(lambda: upstream.delivered >= SIZE)
        assert upstream.delivered == SIZE

    def test_what_a_follower_wants_is_fetched_by_the_owner(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        owner = houses[0].open(part=(0, 1000))
        owner.want(0, 1000)
        follow(owner, 0, 1000, completing=False)
        tail = houses[1].open(source("you"), part=(SIZE - 1000, SIZE))
        assert isinstance(tail, Following)
        tail.want(SIZE - 1000, SIZE)
        assert follow(tail, SIZE - 1000, SIZE, completing=False) == DATA[-1000:]
        assert {identity for *_, identity in upstream.calls} == {"me"}
        assert upstream.delivered < MIB
        whole = houses[1].open(source("you"))
        assert whole is tail
        whole.want_all()
        assert follow(whole, 0, SIZE, completing=True) == DATA
        for growing in (owner, tail, whole):
            growing.leave()
        wait_over(owner)
        assert sum(houses[0].fetched) <= SIZE and houses[1].fetched == []

    def test_a_follower_keeps_the_owner_at_it(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        upstream.hold(MIB)
        owner, follower = houses[0].open(), houses[1].open(source("you"))
        owner.want_all()
        follower.want_all()
        wait_until(lambda: owner.readers == 2)
        owner.leave()
        upstream.release()
        assert follow(follower, 0, SIZE, completing=True) == DATA
        assert isinstance(follower, Following) and follower.fill is None
        follower.leave()
        wait_over(owner)

    def test_one_that_is_gone_does_not(
        self, houses: list[House], upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attendance, "FOLLOWERS_GONE_SECONDS", 0.2)
        upstream.hold(MIB)
        owner, follower = houses[0].open(), houses[1].open(source("you"))
        owner.want_all()
        follower.want_all()
        wait_until(lambda: owner.readers == 2)
        owner.leave()
        follower.leave()
        assert wait_over(owner) == "paused"

    def test_there_is_no_room_at_the_owners(self, tmp_path: Path, upstream: Upstream) -> None:
        small, large = House(tmp_path / "cache", limit=SIZE - 1), House(tmp_path / "cache")
        owner = small.open(part=(0, 1000))
        owner.want(0, 1000)
        assert large.fills.open(BLOB, SIZE, source("you"), range_safe=True) is None
        part = large.open(source("you"), part=(0, 1000))
        assert follow(part, 0, 1000, completing=False) == DATA[:1000]
        part.leave()
        owner.leave()
        small.close()
        large.close()


def fetch(house: House) -> bytes:
    """Download, from wherever it lies by then."""
    growing = house.fills.open(BLOB, SIZE, source(), range_safe=True)
    if growing is None:
        reader = house.store.open(BLOB)
        assert reader is not None
        try:
            return reader.read(0, SIZE)
        finally:
            reader.close()
    try:
        growing.want_all()
        return follow(growing, 0, SIZE, completing=True)
    finally:
        growing.leave()


class TestTakingOver:
    def test_a_follower_goes_on_where_the_owner_stopped(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        upstream.hold(4 * MIB)
        owner, follower = houses[0].open(), houses[1].open(source("you"))
        owner.want_all()
        follower.want_all()
        assert follow(follower, 0, 4 * MIB, completing=True) == DATA[: 4 * MIB]
        houses[0].fills.stop()
        upstream.release()
        assert follow(follower, 4 * MIB, SIZE, completing=True) == DATA[4 * MIB :]
        assert upstream.calls[-1][2] == "you", "by its own right"
        assert upstream.delivered <= SIZE + BLOCK_SIZE
        assert isinstance(follower, Following) and follower.fill is not None
        wait_over(follower.fill)
        assert houses[1].fetched[0] <= SIZE - 4 * MIB + BLOCK_SIZE
        follower.leave()
        owner.leave()

    def test_parts_that_are_wanted_are_wanted_still(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        upstream.hold(0)
        owner = houses[0].open(part=(0, 1000))
        owner.want(0, 1000)
        part = (5 * MIB, 5 * MIB + 1000)
        follower = houses[1].open(source("you"), part=part)
        follower.want(*part)
        houses[0].fills.stop()
        upstream.release()
        assert follow(follower, *part, completing=False) == DATA[part[0] : part[1]]
        assert houses[1].fills.running(BLOB) is not None
        follower.leave()
        owner.leave()

    def test_without_room_who_was_given_nothing_asks_again(
        self, tmp_path: Path, upstream: Upstream
    ) -> None:
        large, small = House(tmp_path / "cache"), House(tmp_path / "cache", limit=SIZE - 1)
        upstream.hold(0)
        owner = large.open()
        owner.want_all()
        follower = small.open(source("you"))
        follower.want_all()
        large.fills.stop()
        owner.leave()
        with pytest.raises(FillInterrupted):
            follow(follower, 0, SIZE, completing=True)
        follower.leave()
        assert small.fills.open(BLOB, SIZE, source("you"), range_safe=True) is None
        small.close()
        large.close()


class TestDamage:
    def test_what_the_follower_gave_out_is_noted(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        upstream.data = DATA[:1000] + b"?" + DATA[1001:]
        upstream.hold(6 * MIB)
        owner, follower = houses[0].open(), houses[1].open(source("you"))
        owner.want_all()
        follower.want_all()
        follow(follower, 0, 3 * MIB, completing=True)
        owner.leave()

        def mend(*_: object) -> None:
            upstream.data = DATA

        upstream.faults.append(mend)
        upstream.release()
        with pytest.raises(VerificationFailed):
            follow(follower, 3 * MIB, SIZE, completing=True)
        follower.leave()
        assert houses[1].taints.is_tainted(BLOB)
        wait_until(lambda: houses[1].store.size_of(BLOB) == SIZE)
        assert houses[0].taints.is_tainted(BLOB), "a client of the other one holds a bad head"
        assert houses[1].taints.is_tainted(BLOB)

    def test_an_owner_that_died_over_it_is_put_right(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        partial = houses[0].store.partial(BLOB, SIZE, "origin")
        assert partial is not None and partial.exchange is not None
        partial.write(0, bytes(SIZE))
        follower = houses[1].open()
        follower.give_out(MIB)
        partial.exchange.enter(Stage.DAMAGED)
        partial.close()
        with pytest.raises(HfCacheError):
            follow(follower, 0, SIZE, completing=True)
        follower.leave()
        assert houses[0].taints.is_tainted(BLOB)
        assert houses[1].download() == DATA
        assert houses[0].taints.is_tainted(BLOB)


class TestRules:
    @pytest.fixture
    def owner(self, houses: list[House]) -> Iterator[LocalPartial]:
        partial = houses[0].store.partial(BLOB, SIZE, "origin")
        assert isinstance(partial, LocalPartial)
        partial.write(0, DATA[: 4 * MIB])
        yield partial
        partial.close()

    def test_the_tail_waits_for_the_digest(self, houses: list[House], owner: LocalPartial) -> None:
        follower = houses[1].open()
        owner.write(4 * MIB, DATA[4 * MIB :])
        wait_until(lambda: follower.done == SIZE)
        assert follower.available(0, completing=True) == SIZE - HOLD_BACK
        assert follower.available(5, completing=False) == 5, "it would be a complete file"
        assert not follower.verified
        owner.exchange.enter(Stage.VERIFIED)
        wait_until(lambda: follower.verified)
        assert follower.available(5, completing=False) == SIZE
        follower.leave()

    def test_parts_only_from_where_bytes_are_believed(
        self, houses: list[House], owner: LocalPartial
    ) -> None:
        follower = houses[1].open(range_safe=False)
        assert follower.available(0, completing=False) == 0
        assert follower.available(0, completing=True) == 4 * MIB
        follower.leave()

    def test_another_origin_does_not_follow(self, houses: list[House], owner: LocalPartial) -> None:
        other = source(origin_id="elsewhere")
        assert houses[1].fills.open(BLOB, SIZE, other, range_safe=True) is None
        follower = houses[1].open()
        assert houses[1].fills.open(BLOB, SIZE, other, range_safe=True) is None
        follower.leave()

    def test_who_stands_still_is_left_alone(
        self, houses: list[House], owner: LocalPartial, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(following, "STOPPED_SECONDS", 0.2)
        follower = houses[1].open()
        with pytest.raises(FillInterrupted, match="stands still"):
            follow(follower, 0, SIZE, completing=True)
        follower.leave()
        assert houses[1].fills.open(BLOB, SIZE, source(), range_safe=True) is None
        assert not houses[1].taints.is_tainted(BLOB)
        owner.exchange.beat()
        monkeypatch.setattr(following, "STOPPED_SECONDS", 60.0)
        again = houses[1].open()
        assert again.available(0, completing=True) == 4 * MIB
        again.leave()

    def test_a_partial_that_was_replaced_taints_what_was_given_out(
        self, houses: list[House], upstream: Upstream
    ) -> None:
        owner = houses[0].store.partial(BLOB, SIZE, "origin")
        assert owner is not None
        owner.write(0, DATA[: 4 * MIB])
        follower = houses[1].open()
        follower.give_out(MIB)
        owner.close()
        other = houses[0].store.partial(BLOB, SIZE, "elsewhere")
        assert other is not None, "it takes the follower a moment to see that nobody is there"
        with pytest.raises(FillInterrupted, match="replaced"):
            follow(follower, 0, SIZE, completing=True)
        follower.leave()
        other.close()
        assert houses[0].taints.is_tainted(BLOB)
        assert upstream.calls == []

    def test_a_small_one_is_waited_for(self, houses: list[House], upstream: Upstream) -> None:
        data = DATA[:1000]
        small = blob_of(data)
        partial = houses[0].store.partial(small, len(data), "origin")
        assert partial is not None and partial.exchange is None

        def keep() -> None:
            partial.write(0, data)
            partial.commit(Sidecar(len(data), small.digest.hex, ["origin"], [], 0.0))
            partial.close()

        timer = threading.Timer(0.3, keep)
        timer.start()
        assert houses[1].fills.open(small, len(data), source(), range_safe=True) is None
        assert houses[1].store.size_of(small) == len(data)
        timer.join()

    def test_shutting_down_ends_it(self, houses: list[House], owner: LocalPartial) -> None:
        follower = houses[1].open()
        houses[1].fills.stop()
        with pytest.raises(HfCacheError, match="shutting down"):
            follower.available(0, completing=True)
        follower.leave()

    def test_nobody_looks_where_nothing_is_to_be_seen(self, houses: list[House]) -> None:
        assert houses[0].download() == DATA
        wait_until(lambda: all(one.name != "hf-cache-lookout" for one in threading.enumerate()))
