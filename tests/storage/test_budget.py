"""What may be kept, what goes first, and records that agree with the disk."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_hf_cache.errors import OutOfSpace, StorageError
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage import budget as module
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.budget import Budget, blob_key, blob_of
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.state import StateTable

SIZE = 100_000
NOW = 1_000_000_000.0


class Clock:
    """Time that a test moves."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[StateTable]:
    table = StateTable(tmp_path / "state")
    yield table
    table.close()


def make(store: LocalBlobStore, table: StateTable, clock: Clock, **options: Any) -> Budget:
    return Budget(store, table, **{"limit": 10 * SIZE, "min_free": 0, "clock": clock, **options})


@pytest.fixture
def budget(store: LocalBlobStore, table: StateTable, clock: Clock) -> Budget:
    return make(store, table, clock)


def blob(number: int) -> BlobId:
    return BlobId(Digest("sha256", f"{number:064x}"))


def keep(budget: Budget, store: LocalBlobStore, number: int, size: int = SIZE) -> BlobId:
    """What a fill does."""
    reservation = budget.reserve(blob(number), size)
    partial = store.partial(blob(number), size)
    assert partial is not None
    reservation.follow(lambda: partial.present)
    partial.write(0, os.urandom(size))
    partial.commit(Sidecar(size, blob(number).digest.hex))
    partial.close()
    budget.note_kept(blob(number), size)
    reservation.release(kept=True)
    return blob(number)


def leave_partial(
    store: LocalBlobStore, number: int, used: float, size: int, written: int | None = None
) -> Path:
    partial = store.partial(blob(number), size)
    assert partial is not None
    partial.write(0, os.urandom(written or size))
    partial.close()
    path = store.partial_dir / blob(number).name
    os.utime(path, (used, used))
    return path


def kept(store: LocalBlobStore) -> set[BlobId]:
    return {one for one, _ in store.blobs()}


@pytest.mark.parametrize("one", [blob(7), BlobId(Digest("git-sha1", "a" * 40), "0123456789abcdef")])
def test_a_key_names_its_blob(one: BlobId) -> None:
    assert blob_of(blob_key(one)) == one


class TestReservations:
    def test_room_is_given_once(self, budget: Budget) -> None:
        first = budget.reserve(blob(1), 6 * SIZE)
        with pytest.raises(OutOfSpace) as refused:
            budget.reserve(blob(2), 5 * SIZE)
        assert "cache_size_limit" in refused.value.advice
        assert budget.used() == 6 * SIZE
        budget.reserve(blob(3), 4 * SIZE)
        first.release(kept=False)
        first.release(kept=False)
        assert budget.used() == 4 * SIZE

    def test_many_threads_never_get_more_than_there_is(self, budget: Budget) -> None:
        got: list[int] = []
        start = threading.Barrier(16)

        def take(number: int) -> None:
            start.wait()
            for turn in range(20):
                try:
                    reservation = budget.reserve(blob(number), SIZE)
                except OutOfSpace:
                    continue
                got.append(budget.used())
                if turn % 2:
                    reservation.release(kept=False)
                else:
                    reservation.release(kept=False)
                    reservation.release(kept=True)

        threads = [threading.Thread(target=take, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got and max(got) <= 10 * SIZE
        assert budget.used() == 0

    def test_what_a_fill_has_written_counts_once(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        reservation = budget.reserve(blob(1), 6 * SIZE)
        partial = store.partial(blob(1), 6 * SIZE)
        assert partial is not None
        reservation.follow(lambda: partial.present)
        partial.write(0, os.urandom(5 * SIZE))
        clock.now += 60
        assert budget.used() == 6 * SIZE
        assert reservation.outstanding == SIZE
        budget.reserve(blob(2), 4 * SIZE).release(kept=False)
        partial.close()
        reservation.release(kept=False)
        assert 5 * SIZE <= budget.used() < 6 * SIZE, "what lies about counts"

    def test_kept_bytes_count(self, budget: Budget, store: LocalBlobStore, clock: Clock) -> None:
        keep(budget, store, 1)
        assert budget.used() == SIZE
        clock.now += 60
        assert budget.used() == SIZE

    def test_it_grows_with_what_is_wanted(self, budget: Budget) -> None:
        reservation = budget.reserve(blob(1), 0)
        budget.grow(reservation, 4 * SIZE)
        budget.grow(reservation, SIZE)
        assert budget.used() == 4 * SIZE
        with pytest.raises(OutOfSpace):
            budget.grow(reservation, 11 * SIZE)
        assert budget.used() == 4 * SIZE
        reservation.release(kept=False)
        assert budget.used() == 0

    def test_a_refused_reservation_takes_no_room(self, budget: Budget) -> None:
        for _ in range(3):
            with pytest.raises(OutOfSpace):
                budget.reserve(blob(1), 11 * SIZE)
        assert budget.used() == 0


class TestEviction:
    def test_the_least_recently_used_goes_first(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        for number in range(10):
            clock.now += 1
            keep(budget, store, number)
        clock.now += 1
        for number in (0, 1, 3):
            budget.note_used(blob(number))
        budget.reserve(blob(20), 3 * SIZE)
        assert kept(store) == {blob(n) for n in (0, 1, 3, 6, 7, 8, 9)}
        budget.flush()
        assert {blob_of(key) for key, _ in budget.rows()} == kept(store)

    def test_partials_go_in_their_turn(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        keep(budget, store, 1)
        old = leave_partial(store, 2, NOW - 10, 4 * SIZE)
        new = leave_partial(store, 3, NOW + 10, 4 * SIZE)
        clock.now += 20
        budget.reserve(blob(4), 4 * SIZE)
        assert not old.exists()
        assert new.exists() and kept(store) == {blob(1)}

    def test_a_resumed_fill_does_not_evict_its_own_beginning(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        mine = leave_partial(store, 1, NOW - 1000, 9 * SIZE, 6 * SIZE)
        for number in (2, 3):
            keep(budget, store, number)
        clock.now += 20
        reservation = budget.reserve(blob(1), 9 * SIZE)
        assert mine.exists()
        assert kept(store) == {blob(3)}
        assert 3 * SIZE <= reservation.outstanding < 9 * SIZE

    def test_pinned_blobs_stay(
        self, budget: Budget, store: LocalBlobStore, table: StateTable
    ) -> None:
        for number in range(3):
            keep(budget, store, number)
        table.update(blob_key(blob(0)), lambda row: {**row, "pinned": True})
        with pytest.raises(OutOfSpace):
            budget.reserve(blob(9), 10 * SIZE)
        assert kept(store) == {blob(0)}
        keep_again = table.get(blob_key(blob(0)))
        budget.note_kept(blob(0), SIZE)
        assert table.get(blob_key(blob(0)))["pinned"] is keep_again["pinned"] is True

    def test_what_is_read_now_stays(self, budget: Budget, store: LocalBlobStore) -> None:
        for number in range(2):
            keep(budget, store, number)
        reader = store.open(blob(0))
        assert reader is not None
        budget.reserve(blob(9), 9 * SIZE)
        assert kept(store) == {blob(0)}
        assert blob_key(blob(0)) in dict(budget.rows())
        reader.close()

    def test_some_of_the_disk_stays_free(
        self,
        store: LocalBlobStore,
        table: StateTable,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        budget = make(store, table, clock, min_free=5 * SIZE)
        keep(budget, store, 1)

        def usage(_: Path) -> Any:
            return shutil._ntuple_diskusage(100 * SIZE, 0, (7 - len(kept(store))) * SIZE)

        monkeypatch.setattr(module.shutil, "disk_usage", usage)
        assert budget.free_on_disk() == SIZE
        reservation = budget.reserve(blob(2), 2 * SIZE)
        assert kept(store) == set(), "the old one made room"
        assert budget.free_on_disk() == 0
        with pytest.raises(OutOfSpace):
            budget.reserve(blob(3), 1)
        reservation.release(kept=False)
        budget.reserve(blob(3), 1)

    def test_a_disk_that_refuses_records_can_still_be_cleared(
        self,
        budget: Budget,
        store: LocalBlobStore,
        table: StateTable,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for number in range(10):
            keep(budget, store, number)
        budget.note_used(blob(1))

        def refuse(*_: object) -> None:
            raise StorageError("The disk is full.")

        with monkeypatch.context() as patch:
            for name in ("delete", "set", "transact"):
                patch.setattr(table, name, refuse)
            with pytest.raises(OutOfSpace):
                budget.reserve(blob(20), SIZE)
            assert len(kept(store)) == 9
        budget.reconcile()
        budget.reserve(blob(20), SIZE)


class TestLastUse:
    def test_hits_cost_no_write_each(
        self,
        budget: Budget,
        store: LocalBlobStore,
        clock: Clock,
        table: StateTable,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keep(budget, store, 1)
        writes: list[str] = []
        real = table.set
        monkeypatch.setattr(table, "set", lambda key, row: (writes.append(key), real(key, row)))
        for _ in range(1000):
            clock.now += 0.01
            budget.note_used(blob(1))
        assert writes == []
        clock.now += 30
        budget.note_used(blob(1))
        assert len(writes) == 1
        assert table.get(blob_key(blob(1)))["used"] == clock.now

    def test_a_disk_that_refuses_does_not_refuse_hits(
        self,
        budget: Budget,
        store: LocalBlobStore,
        clock: Clock,
        table: StateTable,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keep(budget, store, 1)

        def refuse() -> None:
            raise StorageError("read-only")

        with monkeypatch.context() as patch:
            patch.setattr(table, "transact", refuse)
            clock.now += 60
            budget.note_used(blob(1))
            with pytest.raises(StorageError):
                budget.flush()
        budget.flush()
        assert table.get(blob_key(blob(1)))["used"] == clock.now, "nothing was forgotten"

    def test_a_hit_on_what_is_gone_makes_no_record(self, budget: Budget, table: StateTable) -> None:
        budget.note_used(blob(1))
        budget.flush()
        assert table.count("blob/") == 0


class TestOthers:
    """Another process on the same directory."""

    def test_what_it_keeps_is_counted_within_seconds(
        self, budget: Budget, store: LocalBlobStore, table: StateTable, clock: Clock
    ) -> None:
        assert budget.used() == 0
        other = make(LocalBlobStore(store.root), table, clock)
        keep(other, store, 1)
        clock.now += 11
        assert budget.used() == SIZE
        budget.reserve(blob(2), 10 * SIZE)
        assert kept(store) == set()

    def test_its_later_hits_win(
        self, budget: Budget, store: LocalBlobStore, table: StateTable, clock: Clock
    ) -> None:
        keep(budget, store, 1)
        other = make(store, table, clock)
        budget.note_used(blob(1))
        clock.now += 5
        other.note_used(blob(1))
        other.flush()
        budget.flush()
        assert table.get(blob_key(blob(1)))["used"] == clock.now


class TestReconcile:
    def test_lost_records_are_made_again(
        self, budget: Budget, store: LocalBlobStore, table: StateTable
    ) -> None:
        keep(budget, store, 1)
        table.delete_prefix("blob/")
        budget.reconcile()
        assert table.get(blob_key(blob(1))) == {"size": SIZE, "used": NOW, "pinned": False}
        assert budget.used() == SIZE

    def test_records_of_lost_files_go(
        self, budget: Budget, store: LocalBlobStore, table: StateTable
    ) -> None:
        for number in (1, 2):
            keep(budget, store, number)
        (store.blob_dir / blob(1).path).unlink()
        budget.reconcile()
        assert [blob_of(key) for key, _ in budget.rows()] == [blob(2)]
        assert budget.used() == SIZE

    def test_a_file_without_a_sidecar_goes(
        self, budget: Budget, store: LocalBlobStore, table: StateTable
    ) -> None:
        path = store.blob_dir / keep(budget, store, 1).path
        table.delete_prefix("blob/")
        path.with_name(path.name + ".json").unlink()
        budget.reconcile()
        assert kept(store) == set() and table.count("blob/") == 0

    def test_it_changes_nothing_that_agrees(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        keep(budget, store, 1)
        before = dict(budget.rows())
        clock.now += 1000
        budget.reconcile()
        assert dict(budget.rows()) == before
