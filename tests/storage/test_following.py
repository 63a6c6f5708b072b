"""A partial seen from another process: two stores on one directory stand for two processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from filling import MIB, blob_of, data_of

from jupyter_hf_cache.storage import mapfile
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.following import FollowedPartial
from jupyter_hf_cache.storage.interface import Foreign, Stage
from jupyter_hf_cache.storage.mapfile import BLOCK_SIZE, HELD_BACK, MapSummary
from jupyter_hf_cache.storage.partial import LocalPartial

SIZE = 2 * MIB + 777
DATA = data_of(SIZE)
BLOB = blob_of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


@pytest.fixture
def partial(store: LocalBlobStore) -> Iterator[LocalPartial]:
    """As the owner has it."""
    partial = taken(store)
    yield partial
    partial.close()


def taken(store: LocalBlobStore, owner: str = "origin") -> LocalPartial:
    partial = store.partial(BLOB, SIZE, owner)
    assert isinstance(partial, LocalPartial)
    return partial


def followed(store: LocalBlobStore) -> FollowedPartial:
    """As a follower has it."""
    other = LocalBlobStore(store.root).follow(BLOB, SIZE, "origin")
    assert other is not None
    return other


def write(partial: LocalPartial, start: int, end: int) -> None:
    partial.write(start, DATA[start:end])


class TestBytes:
    def test_whole_blocks_are_seen_when_it_is_looked(
        self, store: LocalBlobStore, partial: LocalPartial
    ) -> None:
        seen = followed(store)
        assert seen.available(0) == 0 and seen.present == 0
        write(partial, 0, 2 * BLOCK_SIZE + 5)
        assert seen.available(0) == 0, "nobody looked"
        assert seen.look()
        assert seen.available(0) == seen.present == 2 * BLOCK_SIZE
        assert seen.read(5, 100) == DATA[5:105]
        write(partial, SIZE - 777, SIZE)
        assert seen.look() and not seen.look()
        assert seen.available(SIZE - 100) == SIZE
        assert seen.present == 2 * BLOCK_SIZE + 777
        assert seen.missing(BLOCK_SIZE, SIZE) == [(2 * BLOCK_SIZE, SIZE - 777)]
        assert seen.available(SIZE) == SIZE
        seen.close()

    def test_they_stay_when_the_file_is_kept(
        self, store: LocalBlobStore, partial: LocalPartial
    ) -> None:
        seen = followed(store)
        write(partial, 0, SIZE)
        partial.exchange.enter(Stage.VERIFIED)
        (store.partial_dir / BLOB.name).rename(store.root / "elsewhere")
        (store.partial_dir / f"{BLOB.name}.map").unlink()
        seen.look()
        assert seen.stage is Stage.VERIFIED and not seen.in_place
        assert seen.read(0, SIZE) == DATA
        seen.close()

    def test_another_origin_sees_none(self, store: LocalBlobStore, partial: LocalPartial) -> None:
        with pytest.raises(Foreign):
            store.follow(BLOB, SIZE, "elsewhere")
        with pytest.raises(Foreign):
            store.follow(BLOB, SIZE + 1, "origin")

    def test_where_there_is_none_there_is_none(self, store: LocalBlobStore) -> None:
        assert store.follow(BLOB, SIZE, "origin") is None
        (store.partial_dir / BLOB.name).write_bytes(DATA)
        assert store.follow(BLOB, SIZE, "origin") is None
        (store.partial_dir / f"{BLOB.name}.map").write_bytes(b"x" * 1000)
        assert store.follow(BLOB, SIZE, "origin") is None

    def test_what_another_origin_starts_anew_does_not_change_what_is_read(
        self, store: LocalBlobStore
    ) -> None:
        first = taken(store)
        write(first, 0, SIZE)
        seen = followed(store)
        first.close()
        second = taken(store, "elsewhere")
        second.write(0, bytes(SIZE))
        seen.look()
        assert seen.read(0, SIZE) == DATA
        assert not seen.in_place
        second.close()
        seen.close()

    def test_a_file_that_was_taken_from_elsewhere_is_nobodys_to_follow(
        self, store: LocalBlobStore, partial: LocalPartial
    ) -> None:
        seen = followed(store)
        staged = partial.stage()
        staged.write(memoryview(DATA))
        partial.take(staged)
        seen.look()
        assert seen.present == 0 and not seen.in_place
        assert partial.present == SIZE
        with pytest.raises(Foreign):
            store.follow(BLOB, SIZE, "origin")
        seen.close()

    def test_of_another_boot_they_are_not_trusted(
        self, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = taken(store)
        write(first, 0, MIB)
        first.close()
        monkeypatch.setattr(mapfile, "boot_id", lambda: b"another")
        second = taken(store)
        seen = followed(store)
        assert not seen.trusted and not second.trusted
        assert second.exchange.given == MIB, "nobody knows better after a power failure"
        second.close()
        seen.close()

    def test_closed_it_says_nothing(self, store: LocalBlobStore, partial: LocalPartial) -> None:
        seen = followed(store)
        seen.close()
        write(partial, 0, MIB)
        seen.look()
        seen.live()
        seen.want_all()
        assert seen.stage is Stage.IDLE and not seen.in_place
        assert not partial.exchange.whole_wanted and partial.exchange.heard == 0


class TestStages:
    def test_the_owner_says_when_it_comes_and_goes(self, store: LocalBlobStore) -> None:
        partial = taken(store)
        seen = followed(store)
        assert seen.stage is Stage.RUNNING
        partial.close()
        seen.look()
        assert seen.stage is Stage.IDLE
        again = taken(store)
        assert again.exchange.incarnation == seen.incarnation
        seen.look()
        assert seen.stage is Stage.RUNNING
        again.close()
        seen.close()

    def test_what_is_settled_is_not_continued(self, store: LocalBlobStore) -> None:
        partial = taken(store)
        write(partial, 0, SIZE)
        partial.exchange.enter(Stage.DAMAGED)
        partial.close()
        again = taken(store)
        assert again.exchange.damaged and again.present == SIZE, "it is still to be put away"
        again.exchange.enter(Stage.SETTLED)
        again.close()
        clean = taken(store)
        assert clean.present == 0 and not clean.exchange.damaged
        assert clean.exchange.incarnation != again.exchange.incarnation
        clean.close()

    def test_signs_of_life_change(self, store: LocalBlobStore, partial: LocalPartial) -> None:
        seen = followed(store)
        before = seen.beat, partial.exchange.heard
        partial.exchange.beat()
        seen.live()
        seen.look()
        assert (seen.beat != before[0], partial.exchange.heard != before[1]) == (True, True)
        seen.close()

    def test_the_lease_is_seen(self, store: LocalBlobStore) -> None:
        other = LocalBlobStore(store.root)
        partial = taken(store)
        assert not other.is_idle(BLOB)
        partial.close()
        assert other.is_idle(BLOB)


class TestWants:
    def test_the_owner_reads_and_answers_them(
        self, store: LocalBlobStore, partial: LocalPartial
    ) -> None:
        write(partial, 0, BLOCK_SIZE)
        seen = followed(store)
        seen.want(10, BLOCK_SIZE + 10)
        seen.want(SIZE - 10, SIZE)
        assert partial.exchange.wanted() == [
            (BLOCK_SIZE, 2 * BLOCK_SIZE),
            (SIZE - 777, SIZE),
        ]
        assert seen.answer((SIZE - 10, SIZE)) == "waiting"
        partial.exchange.answer(SIZE - 777, SIZE, refused=True)
        partial.exchange.answer(BLOCK_SIZE, 2 * BLOCK_SIZE, refused=False)
        assert partial.exchange.wanted() == []
        assert seen.answer((SIZE - 10, SIZE)) == "refused"
        assert seen.answer((10, BLOCK_SIZE + 10)) == "taken"
        seen.want_all()
        assert partial.exchange.whole_wanted and seen.answer(None) == "waiting"
        partial.exchange.answer_whole(refused=True)
        assert not partial.exchange.whole_wanted and seen.answer(None) == "refused"
        seen.close()

    def test_a_new_owner_starts_without(self, store: LocalBlobStore) -> None:
        partial = taken(store)
        seen = followed(store)
        seen.want(0, SIZE)
        seen.want_all()
        partial.close()
        again = taken(store)
        assert again.exchange.wanted() == [] and not again.exchange.whole_wanted
        again.close()
        seen.close()

    def test_what_is_wanted_is_not_taken_for_present(
        self, store: LocalBlobStore, partial: LocalPartial
    ) -> None:
        seen = followed(store)
        seen.want(0, SIZE)
        seen.give_out(SIZE)
        summary = MapSummary.read(store.partial_dir / f"{BLOB.name}.map")
        assert summary is not None and summary.present.count(1) == 0
        assert not store.holds(BLOB, SIZE, "origin", 0, 10)
        seen.close()


class TestGivenOut:
    def test_the_owner_counts_what_followers_gave_out(
        self, store: LocalBlobStore, partial: LocalPartial
    ) -> None:
        first, second = followed(store), followed(store)
        assert partial.exchange.given == 0
        assert first.give_out(1) is Stage.RUNNING
        assert partial.exchange.given == BLOCK_SIZE
        second.give_out(3 * BLOCK_SIZE)
        first.give_out(2)
        assert partial.exchange.given == 3 * BLOCK_SIZE
        first.give_out(SIZE - HELD_BACK)
        assert partial.exchange.given == SIZE - HELD_BACK, "its tail was held back"
        second.give_out(SIZE - 1)
        assert partial.exchange.given == SIZE
        first.close()
        second.close()

    def test_the_owners_own_part_is_exact_and_outlives_it(self, store: LocalBlobStore) -> None:
        partial = taken(store)
        partial.exchange.give_out(1000)
        partial.exchange.give_out(10)
        partial.close()
        again = taken(store)
        assert again.exchange.given == 1000
        again.exchange.give_out(500)
        assert again.exchange.given == 1000
        again.close()

    def test_either_it_is_counted_or_the_damage_is_seen(self, store: LocalBlobStore) -> None:
        for turn in range(200):
            partial, start = taken(store), threading.Barrier(2)
            seen, told = followed(store), []

            def give(
                seen: FollowedPartial = seen,
                start: threading.Barrier = start,
                told: list[Stage] = told,
            ) -> None:
                start.wait()
                told.append(seen.give_out(BLOCK_SIZE))

            thread = threading.Thread(target=give)
            thread.start()
            start.wait()
            partial.exchange.enter(Stage.DAMAGED)
            given = partial.exchange.given
            thread.join()
            assert given == BLOCK_SIZE or told == [Stage.DAMAGED], turn
            partial.exchange.enter(Stage.SETTLED)
            partial.close()
            seen.close()
