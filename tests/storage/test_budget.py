"""What may be kept, what goes first, and records that agree with the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jupyter_hf_cache.errors import OutOfSpace, StorageError
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage import budget as module
from jupyter_hf_cache.storage import last_use
from jupyter_hf_cache.storage import partial as partial_module
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.blockmap import BLOCK_SIZE
from jupyter_hf_cache.storage.budget import Budget
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.ledger import Entry, Ledger
from jupyter_hf_cache.storage.room import (
    blob_key,
    blob_of,
    partial_key,
    room_of_blob,
    room_of_partial,
)
from jupyter_hf_cache.storage.sidecar import Sidecar

# Large enough for a file while it arrives.
SIZE = 2 * 1024 * 1024
ROOM = room_of_partial(SIZE, SIZE)
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
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "state")
    yield ledger
    ledger.close()


def make(store: LocalBlobStore, ledger: Ledger, clock: Clock, **options: Any) -> Budget:
    return Budget(store, ledger, **{"limit": 10 * ROOM, "min_free": 0, "clock": clock, **options})


@pytest.fixture
def budget(store: LocalBlobStore, ledger: Ledger, clock: Clock) -> Budget:
    return make(store, ledger, clock)


def blob(number: int) -> BlobId:
    return BlobId(Digest("sha256", f"{number:064x}"))


def keep(budget: Budget, store: LocalBlobStore, number: int, size: int = SIZE) -> BlobId:
    """What a fill does."""
    reservation = budget.reserve(blob(number), size)
    partial = store.partial(blob(number), size)
    assert partial is not None
    partial.write(0, os.urandom(size))
    partial.commit(Sidecar(size, blob(number).digest.hex, created=5.0))
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
        budget.reserve(blob(3), 3 * SIZE)
        first.release(kept=False)
        first.release(kept=False)
        assert budget.used() == 3 * SIZE

    def test_many_threads_never_get_more_than_there_is(
        self, budget: Budget, ledger: Ledger
    ) -> None:
        got: list[int] = []
        start = threading.Barrier(16)

        def take(number: int) -> None:
            start.wait()
            for _ in range(10):
                try:
                    reservation = budget.reserve(blob(number), SIZE)
                except OutOfSpace:
                    continue
                got.append(ledger.totals()[1])
                reservation.release(kept=False)
                reservation.release(kept=True)

        threads = [threading.Thread(target=take, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got and max(got) <= budget.limit
        assert ledger.totals() == (0, 0)

    def test_what_a_fill_has_written_counts_once(
        self, budget: Budget, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        quiet_disk(monkeypatch, store)
        reservation = budget.reserve(blob(1), 6 * SIZE)
        free = budget.free_on_disk()
        partial = store.partial(blob(1), 6 * SIZE)
        assert partial is not None
        partial.write(0, os.urandom(5 * SIZE))
        assert budget.used() == 6 * SIZE
        assert budget.free_on_disk() == free, "it was promised before"
        budget.reserve(blob(2), 3 * SIZE).release(kept=False)
        partial.close()
        reservation.release(kept=False)
        assert budget.used() == 5 * SIZE, "what lies about counts"

    def test_a_few_blocks_of_a_large_file_cost_a_few_blocks(
        self, budget: Budget, ledger: Ledger, store: LocalBlobStore
    ) -> None:
        whole = 5 * 10**9
        reservation = budget.reserve(blob(1), 2 * BLOCK_SIZE, whole=whole)
        assert ledger.totals()[1] < 2 * BLOCK_SIZE + 100_000, "with its block map"
        partial = store.partial(blob(1), whole)
        assert partial is not None
        partial.write(whole - whole % BLOCK_SIZE, os.urandom(whole % BLOCK_SIZE))
        partial.write(0, os.urandom(BLOCK_SIZE))
        assert store.room_of_partial(blob(1)) <= ledger.totals()[1]
        partial.close()
        reservation.release(kept=False)
        assert ledger.totals()[1] == store.room_of_partial(blob(1))

    def test_it_grows_with_what_is_wanted(self, budget: Budget) -> None:
        reservation = budget.reserve(blob(1), 0, whole=20 * SIZE)
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

    def test_a_kept_blob_takes_the_place_of_its_reservation(
        self, budget: Budget, ledger: Ledger, store: LocalBlobStore
    ) -> None:
        keep(budget, store, 1)
        assert ledger.totals() == (SIZE, room_of_blob(SIZE))
        assert [entry.key for entry in ledger.entries("")] == [blob_key(blob(1))]

    def test_a_blob_that_was_kept_with_an_error_counts(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reservation = budget.reserve(blob(1), SIZE)
        partial = store.partial(blob(1), SIZE)
        assert partial is not None
        partial.write(0, os.urandom(SIZE))
        with monkeypatch.context() as patch:
            patch.setattr(partial_module, "sync_directory", _fail)
            with pytest.raises(OSError, match="full"):
                partial.commit(Sidecar(SIZE, blob(1).digest.hex))
        partial.close()
        reservation.release(kept=False)
        assert [entry.key for entry in ledger.entries("")] == [blob_key(blob(1))]
        assert budget.used() == SIZE

    def test_what_cannot_be_given_back_goes_on_to_count(
        self, budget: Budget, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reservation = budget.reserve(blob(2), SIZE)
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "transaction", _refuse)
            reservation.release(kept=False)
        assert budget.used() == SIZE
        budget.reserve(blob(3), 10 * SIZE)
        assert budget.used() == 10 * SIZE, "given back when room was lacking"

    def test_a_kept_blob_without_a_record_goes_on_to_count(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(budget, "note_kept", lambda *_: None)
            keep(budget, store, 1)
        assert budget.used() == SIZE
        budget.reconcile()
        assert budget.used() == SIZE
        assert [entry.key for entry in ledger.entries("")] == [blob_key(blob(1))]


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
        assert {blob_of(key) for key, _ in budget.rows()} == kept(store)

    def test_partials_go_in_their_turn(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        keep(budget, store, 1)
        old = leave_partial(store, 2, NOW - 10, 4 * SIZE)
        new = leave_partial(store, 3, NOW + 10, 4 * SIZE)
        budget.reconcile()
        assert budget.used() >= 9 * SIZE
        clock.now += 20
        budget.reserve(blob(4), 4 * SIZE)
        assert not old.exists()
        assert new.exists() and kept(store) == {blob(1)}

    def test_quarantined_files_count_and_go(
        self, budget: Budget, store: LocalBlobStore, clock: Clock
    ) -> None:
        reservation = budget.reserve(blob(1), 4 * SIZE)
        partial = store.partial(blob(1), 4 * SIZE)
        assert partial is not None
        partial.write(0, os.urandom(4 * SIZE))
        reservation.release(kept=False)
        where = partial.quarantine("wrong")
        os.utime(where, (NOW, NOW))
        budget.note_quarantined(blob(1), where)
        partial.close()
        assert 4 * SIZE <= budget.used() <= 4 * SIZE + 8192
        clock.now += 20
        keep(budget, store, 2)
        budget.reserve(blob(3), 8 * SIZE)
        assert list(store.quarantine_dir.iterdir()) == []
        assert kept(store) == {blob(2)}

    def test_a_resumed_fill_does_not_evict_its_own_beginning(
        self,
        budget: Budget,
        store: LocalBlobStore,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        quiet_disk(monkeypatch, store)
        mine = leave_partial(store, 1, NOW - 1000, 9 * SIZE, 6 * SIZE)
        budget.reconcile()
        for number in (2, 3):
            keep(budget, store, number)
            clock.now += 1
        free = budget.free_on_disk()
        budget.reserve(blob(1), 9 * SIZE)
        assert mine.exists()
        assert kept(store) == {blob(3)}
        assert budget.used() == 10 * SIZE
        assert budget.free_on_disk() > free - 4 * SIZE, "six of nine are there"

    def test_pinned_blobs_stay(self, budget: Budget, store: LocalBlobStore) -> None:
        for number in range(3):
            keep(budget, store, number)
        assert budget.pin(blob(0)) and not budget.pin(blob(9))
        with pytest.raises(OutOfSpace):
            budget.reserve(blob(9), 10 * SIZE)
        assert kept(store) == {blob(0)}
        budget.note_kept(blob(0), SIZE)
        assert [row["pinned"] for _, row in budget.rows()] == [True]
        budget.pin(blob(0), pinned=False)
        budget.reserve(blob(9), 10 * SIZE)
        assert kept(store) == set()

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
        ledger: Ledger,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        budget = make(store, ledger, clock, min_free=5 * SIZE)
        keep(budget, store, 1)

        def usage(_: Path) -> Any:
            return shutil._ntuple_diskusage(100 * SIZE, 0, (8 - len(kept(store))) * SIZE)

        monkeypatch.setattr(module.shutil, "disk_usage", usage)
        assert budget.free_on_disk() == 2 * SIZE
        reservation = budget.reserve(blob(2), 2 * SIZE)
        assert kept(store) == set(), "the old one made room"
        assert budget.free_on_disk() < SIZE
        with pytest.raises(OutOfSpace):
            budget.reserve(blob(3), SIZE)
        reservation.release(kept=False)
        budget.reserve(blob(3), SIZE)

    def test_a_disk_that_is_slow_to_give_back_does_not_empty_the_cache(
        self, budget: Budget, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(10):
            keep(budget, store, number)
        monkeypatch.setattr(
            module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100 * SIZE, 0, 0)
        )
        with pytest.raises(OutOfSpace):
            budget.reserve(blob(20), SIZE // 2)
        assert len(kept(store)) >= 6

    def test_a_disk_that_refuses_records_can_still_be_cleared(
        self,
        budget: Budget,
        store: LocalBlobStore,
        ledger: Ledger,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for number in range(10):
            keep(budget, store, number)
        budget.note_used(blob(1))
        with monkeypatch.context() as patch:
            for name in ("remove", "put", "touch"):
                patch.setattr(ledger, name, _refuse)
            with pytest.raises(OutOfSpace):
                budget.reserve(blob(20), SIZE)
            assert len(kept(store)) < 10
        budget.reconcile()
        assert len(dict(budget.rows())) == len(kept(store))
        budget.reserve(blob(20), SIZE)

    def test_only_as_many_rows_are_read_as_go(
        self, budget: Budget, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger.put(*(Entry(blob_key(blob(n)), 1000, 8192, NOW + n) for n in range(5000)))
        read: list[int] = []
        real = ledger.oldest

        def oldest(after: Entry | None, limit: int) -> list[Entry]:
            read.append(limit)
            return real(after, limit)

        monkeypatch.setattr(ledger, "oldest", oldest)
        monkeypatch.setattr(ledger, "entries", _refuse)
        budget.reserve(blob(6000), SIZE)
        left = ledger.totals()[1]
        assert left <= budget.limit and sum(read) < 5000


class TestLastUse:
    def test_hits_cost_no_write_each(
        self,
        budget: Budget,
        store: LocalBlobStore,
        clock: Clock,
        ledger: Ledger,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keep(budget, store, 1)
        writes: list[Mapping[str, float]] = []
        written = threading.Event()
        real = ledger.touch

        def touch(used: Mapping[str, float]) -> None:
            writes.append(used)
            real(used)
            written.set()

        monkeypatch.setattr(ledger, "touch", touch)
        monkeypatch.setattr(last_use, "_FLUSH_SECONDS", 1.0)
        for _ in range(1000):
            clock.now += 0.01
            budget.note_used(blob(1))
        assert written.wait(30), "and not only at the end of the process"
        assert len(writes) == 1
        assert dict(budget.rows())[blob_key(blob(1))]["used"] == pytest.approx(clock.now)

    def test_a_disk_that_refuses_does_not_refuse_hits(
        self,
        budget: Budget,
        store: LocalBlobStore,
        clock: Clock,
        ledger: Ledger,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keep(budget, store, 1)
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "touch", _refuse)
            clock.now += 60
            budget.note_used(blob(1))
            with pytest.raises(StorageError):
                budget.flush()
        budget.flush()
        assert dict(budget.rows())[blob_key(blob(1))]["used"] == clock.now, "nothing was forgotten"

    def test_a_hit_on_what_is_gone_makes_no_record(self, budget: Budget) -> None:
        budget.note_used(blob(1))
        budget.close()
        assert list(budget.rows()) == []

    def test_a_closed_one_begins_no_more_batches(self, budget: Budget) -> None:
        budget.close()
        before = threading.active_count()
        budget.note_used(blob(1))
        assert threading.active_count() == before


class TestOthers:
    """Another process on the same directory: here a second ledger on the same file."""

    @pytest.fixture
    def other(self, store: LocalBlobStore, clock: Clock) -> Iterator[Budget]:
        ledger = Ledger(store.root / "state")
        yield make(LocalBlobStore(store.root), ledger, clock)
        ledger.close()

    def test_what_it_keeps_counts_at_once(
        self, budget: Budget, store: LocalBlobStore, other: Budget
    ) -> None:
        assert budget.used() == 0
        keep(other, store, 1)
        assert budget.used() == SIZE
        budget.reserve(blob(2), 10 * SIZE)
        assert kept(store) == set()

    def test_what_it_reserves_counts_at_once(self, budget: Budget, other: Budget) -> None:
        other.reserve(blob(1), 6 * SIZE)
        assert budget.used() == 6 * SIZE
        with pytest.raises(OutOfSpace):
            budget.reserve(blob(2), 5 * SIZE)
        budget.reserve(blob(2), 3 * SIZE)
        with pytest.raises(OutOfSpace):
            other.reserve(blob(3), 2 * SIZE)

    def test_room_that_it_has_for_a_blob_is_not_asked_for_twice(
        self, budget: Budget, store: LocalBlobStore, other: Budget
    ) -> None:
        keep(budget, store, 5)
        theirs = other.reserve(blob(1), 8 * SIZE)
        mine = budget.reserve(blob(1), 8 * SIZE)
        assert kept(store) == {blob(5)} and budget.used() == 9 * SIZE
        mine.release(kept=False)
        assert budget.used() == 9 * SIZE, "it was not mine"
        mine = budget.reserve(blob(1), 8 * SIZE)
        theirs.release(kept=False)
        budget.grow(mine, 8 * SIZE)
        assert budget.used() == 9 * SIZE, "taken over with the lease"
        mine.release(kept=False)
        assert budget.used() == SIZE

    def test_the_room_of_a_killed_one_is_taken_back(
        self, budget: Budget, store: LocalBlobStore
    ) -> None:
        with killed_with_a_partial(store, 6 * SIZE, written=SIZE):
            assert budget.used() == 6 * SIZE
            with pytest.raises(OutOfSpace):
                budget.reserve(blob(2), 9 * SIZE)
        budget.reserve(blob(2), 8 * SIZE)
        assert 9 * SIZE <= budget.used() < 10 * SIZE, "what it had written lies about"

    def test_its_partial_is_resumed(self, budget: Budget, store: LocalBlobStore) -> None:
        with killed_with_a_partial(store, 6 * SIZE, written=SIZE):
            pass
        mine = budget.reserve(blob(1), 6 * SIZE)
        assert mine.size == budget.used() == 6 * SIZE
        mine.release(kept=False)
        assert budget.used() == SIZE

    def test_its_later_hits_win(
        self, budget: Budget, store: LocalBlobStore, other: Budget, clock: Clock
    ) -> None:
        keep(budget, store, 1)
        budget.note_used(blob(1))
        clock.now += 5
        other.note_used(blob(1))
        other.flush()
        budget.flush()
        assert dict(budget.rows())[blob_key(blob(1))]["used"] == clock.now

    def test_what_comes_back_while_it_is_evicted_keeps_its_record(
        self,
        budget: Budget,
        store: LocalBlobStore,
        other: Budget,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keep(budget, store, 1)
        real = store.evict

        def evict(one: BlobId) -> bool:
            gone = real(one)
            keep(other, LocalBlobStore(store.root), 1)
            return gone

        monkeypatch.setattr(store, "evict", evict)
        budget._evict(SIZE)
        assert [blob_of(key) for key, _ in budget.rows()] == [blob(1)]


class TestReconcile:
    def test_lost_records_are_made_again(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger
    ) -> None:
        keep(budget, store, 1)
        partial = leave_partial(store, 2, NOW - 10, 4 * SIZE, SIZE)
        lose_records(ledger)
        budget.reconcile()
        assert dict(budget.rows()) == {
            blob_key(blob(1)): {"size": SIZE, "used": 5.0, "pinned": False}
        }
        found = ledger.get(partial_key(blob(2)))
        assert found is not None and found.used == NOW - 10
        assert found.room == store.room_of_partial(blob(2)) and partial.exists()

    def test_records_of_lost_files_go(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger
    ) -> None:
        for number in (1, 2):
            keep(budget, store, number)
        (store.blob_dir / blob(1).path).unlink()
        ledger.put(Entry("quarantine/gone", 1, 1, NOW), Entry(partial_key(blob(3)), 1, 1, NOW))
        budget.reconcile()
        assert [entry.key for entry in ledger.entries("")] == [blob_key(blob(2))]
        assert budget.used() == SIZE

    def test_a_file_without_a_sidecar_goes(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger
    ) -> None:
        path = store.blob_dir / keep(budget, store, 1).path
        lose_records(ledger)
        path.with_name(path.name + ".json").unlink()
        budget.reconcile()
        assert kept(store) == set() and list(budget.rows()) == []

    def test_it_changes_nothing_that_agrees(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger, clock: Clock
    ) -> None:
        keep(budget, store, 1)
        budget.reserve(blob(2), SIZE)
        before = list(ledger.entries(""))
        clock.now += 1000
        budget.reconcile()
        assert list(ledger.entries("")) == before

    def test_it_stops_when_it_is_told(
        self, budget: Budget, store: LocalBlobStore, ledger: Ledger
    ) -> None:
        keep(budget, store, 1)
        lose_records(ledger)
        budget.reconcile(stopped=lambda: True)
        assert list(budget.rows()) == []


def _refuse(*_: object, **__: object) -> Any:
    raise StorageError("The disk is full.")


def quiet_disk(monkeypatch: pytest.MonkeyPatch, store: LocalBlobStore) -> None:
    """A disk on which nothing but blob 1 takes room."""

    def usage(_: Path) -> Any:
        return shutil._ntuple_diskusage(1000 * SIZE, 0, 500 * SIZE - store.room_of_partial(blob(1)))

    monkeypatch.setattr(module.shutil, "disk_usage", usage)


def _fail(*_: object) -> None:
    raise OSError("full")


def lose_records(ledger: Ledger) -> None:
    for entry in list(ledger.entries("")):
        ledger.remove(entry.key)


@contextmanager
def killed_with_a_partial(store: LocalBlobStore, size: int, *, written: int) -> Iterator[None]:
    """Another process reserves room for blob 1, writes some of it and is killed."""
    code = f"""
        import sys, os
        from pathlib import Path
        from jupyter_hf_cache.protocol.digests import Digest
        from jupyter_hf_cache.storage.blobs import LocalBlobStore
        from jupyter_hf_cache.storage.budget import Budget
        from jupyter_hf_cache.storage.interface import BlobId
        from jupyter_hf_cache.storage.ledger import Ledger
        root = Path(sys.argv[1])
        store = LocalBlobStore(root)
        budget = Budget(store, Ledger(root / "state"), limit={10 * ROOM}, min_free=0)
        blob = BlobId(Digest("sha256", {blob(1).digest.hex!r}))
        reservation = budget.reserve(blob, {size})
        partial = store.partial(blob, {size})
        partial.write(0, os.urandom({written}))
        print("ready", flush=True)
        sys.stdin.read()
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate()
