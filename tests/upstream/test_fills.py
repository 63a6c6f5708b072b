"""Who joins which fill, and what its end leads to."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from filling import (
    MIB,
    STEP,
    Upstream,
    blob_of,
    data_of,
    follow,
    open_files,
    source,
    wait_over,
)

from jupyter_hf_cache.errors import StorageError, UpstreamError, VerificationFailed
from jupyter_hf_cache.storage.blobs import LocalBlobStore, LocalPartial
from jupyter_hf_cache.storage.budget import Budget
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.ledger import Ledger
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream import fetching, patience
from jupyter_hf_cache.upstream import fills as module
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.fills import Fills
from jupyter_hf_cache.upstream.following import Following
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

SIZE = 2 * MIB + 99
DATA = data_of(SIZE)
BLOB = blob_of(DATA)


class House:
    """All that fills need, in one directory."""

    def __init__(self, root: Path, *, limit: int = 10**9, linger: float = 0.0) -> None:
        self.store = LocalBlobStore(root)
        self.table = StateTable(root / "state")
        self.ledger = Ledger(root / "ledger")
        self.budget = Budget(self.store, self.ledger, limit=limit, min_free=0)
        self.taints = Taints(self.table)
        self.kept: list[tuple[BlobId, int]] = []
        self.fetched: list[int] = []
        self.fills = Fills(
            self.store,
            self.budget,
            self.taints,
            linger=linger,
            on_kept=lambda blob, size: self.kept.append((blob, size)),
            on_fetched=self.fetched.append,
        )

    def open(self, way: Source | None = None) -> Fill | None:
        return cast("Fill | None", self.fills.open(BLOB, SIZE, way or source(), range_safe=True))

    def joined(self, way: Source | None = None) -> Fill:
        fill = self.open(way)
        assert fill is not None
        return fill

    def download(self) -> bytes:
        fill = self.joined()
        try:
            fill.want_all()
            return follow(fill, 0, SIZE, completing=True)
        finally:
            fill.leave()

    def close(self) -> None:
        self.fills.stop()
        self.table.close()
        self.ledger.close()


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    upstream = Upstream(DATA)
    monkeypatch.setattr(fetching, "transfer", upstream.transfer)
    monkeypatch.setattr(patience, "BACKOFF_SECONDS", (0.0,))
    return upstream


@pytest.fixture
def house(tmp_path: Path, upstream: Upstream) -> Iterator[House]:
    house = House(tmp_path / "cache")
    yield house
    upstream.release()
    house.close()


def damaged() -> bytes:
    return DATA[:STEP] + b"?" + DATA[STEP + 1 :]


class TestJoining:
    def test_many_openers_get_one_fill(self, house: House, upstream: Upstream) -> None:
        upstream.hold(0)
        with ThreadPoolExecutor(20) as pool:
            fills = list(pool.map(lambda n: house.joined(source(f"{n}")), range(20)))
        assert len(set(map(id, fills))) == 1
        assert fills[0].readers == 20
        assert house.fills.running(BLOB) is fills[0]
        for fill in fills:
            fill.leave()
        wait_over(fills[0])
        assert house.fills.running(BLOB) is None

    def test_what_is_kept_needs_none(self, house: House) -> None:
        assert house.download() == DATA
        wait_idle(house)
        assert house.open() is None
        assert house.kept == [(BLOB, SIZE)]
        assert house.fetched == [SIZE]
        assert house.budget.used() == SIZE
        assert [row["size"] for _, row in house.budget.rows()] == [SIZE]

    def test_another_origin_is_not_handed_a_running_fill(
        self, house: House, upstream: Upstream
    ) -> None:
        upstream.hold(MIB)
        fill = house.joined()
        fill.want_all()
        follow(fill, 0, MIB, completing=True)
        assert house.open(source(origin_id="elsewhere")) is None
        assert [known.origin_id for known in fill.sources] == ["origin"]
        fill.leave()

    def test_another_origin_is_not_handed_an_idle_partial(
        self, house: House, upstream: Upstream
    ) -> None:
        upstream.hold(MIB)
        fill = house.joined()
        fill.want(0, 2 * MIB)
        follow(fill, 0, MIB, completing=False)
        fill.leave()
        wait_over(fill)
        other = house.joined(source(origin_id="elsewhere"))
        assert other.done == 0 and other.available(0, completing=False) == 0
        other.leave()

    def test_a_fill_that_is_just_ending_is_waited_for(self, house: House) -> None:
        for turn in range(100):
            start = turn * 1000
            fill = house.open()
            assert fill is not None, "nobody else fills it"
            fill.want(start, start + 1000)
            assert follow(fill, start, start + 1000, completing=False) == DATA[start : start + 1000]
            leaving = threading.Thread(target=fill.leave)
            leaving.start()
            fill = house.open()
            assert fill is not None, "the last one is ending, and its lease is ours"
            fill.leave()
            leaving.join()

    def test_the_place_of_a_process_that_dies_is_taken(self, house: House) -> None:
        code = f"""
            import sys
            from pathlib import Path
            from jupyter_hf_cache.protocol.digests import Digest
            from jupyter_hf_cache.storage.blobs import LocalBlobStore
            from jupyter_hf_cache.storage.interface import BlobId
            blob = BlobId(Digest("sha256", {BLOB.digest.hex!r}))
            partial = LocalBlobStore(Path(sys.argv[1])).partial(blob, {SIZE}, "origin")
            print("ready", flush=True)
            sys.stdin.readline()
            """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(house.store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            growing = house.fills.open(BLOB, SIZE, source(), range_safe=True)
            assert isinstance(growing, Following)
            assert house.budget.used() == 0, "its room was given back"
        finally:
            process.kill()
            process.communicate()
        assert follow(growing, 0, SIZE, completing=True) == DATA
        growing.leave()
        wait_idle(house)
        assert house.kept == [(BLOB, SIZE)]


def wait_idle(house: House) -> None:
    """Wait until no fill runs."""
    while (fill := house.fills.running(BLOB)) is not None:
        wait_over(fill)


class TestRoom:
    def test_without_room_there_is_no_fill(self, tmp_path: Path, upstream: Upstream) -> None:
        house = House(tmp_path / "small", limit=SIZE - 1)
        assert house.open() is None
        assert upstream.calls == []
        house.close()

    def test_parts_take_the_room_of_parts(self, tmp_path: Path, upstream: Upstream) -> None:
        house = House(tmp_path / "small", limit=SIZE - 1)
        fill = house.fills.open(BLOB, SIZE, source(), range_safe=True, part=(0, 1000))
        assert fill is not None
        assert house.budget.used() == 1000
        fill.want(0, 1000)
        follow(fill, 0, 1000, completing=False)
        more = house.fills.open(BLOB, SIZE, source(), range_safe=True, part=(500, 2000))
        assert more is fill
        assert house.budget.used() == 2000
        assert house.open() is None, "there is no room for all of it"
        assert fill.readers == 2 and fill.state == "running"
        for _ in range(2):
            fill.leave()
        wait_over(fill)
        house.close()

    def test_who_must_wait_for_the_digest_needs_room_for_all(
        self, tmp_path: Path, upstream: Upstream
    ) -> None:
        house = House(tmp_path / "small", limit=SIZE - 1)
        assert house.fills.open(BLOB, SIZE, source(), range_safe=False, part=(0, 10)) is None
        assert house.fills.running(BLOB) is None
        assert house.budget._reserved == {}
        house.close()

    def test_a_disk_that_refuses_lets_it_stream_through_and_takes_no_room(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr(house.store, "partial", refuse)
            assert house.open() is None
        assert house.budget.used() == 0
        assert house.download() == DATA

    @pytest.mark.parametrize("refused", ["note_kept", "on_fetched"])
    def test_a_record_that_is_refused_does_not_hold_room(
        self, house: House, monkeypatch: pytest.MonkeyPatch, refused: str
    ) -> None:
        def refuse(*_: object) -> None:
            raise StorageError("full")

        if refused == "note_kept":
            monkeypatch.setattr(house.budget, "note_kept", refuse)
        else:
            monkeypatch.setattr(house.fills, "_on_fetched", refuse)
        assert house.download() == DATA
        wait_idle(house)
        assert house.store.size_of(BLOB) == SIZE
        assert house.budget._reserved == {}


class TestMismatch:
    def test_two_failures_rest(
        self, house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upstream.data = damaged()
        with pytest.raises(VerificationFailed):
            house.download()
        wait_idle(house)
        assert len(upstream.calls) == 2, "one clean retry"
        with pytest.raises(VerificationFailed):
            house.open()
        assert len(upstream.calls) == 2
        assert len(list(house.store.quarantine_dir.glob("*.json"))) == 2
        assert house.taints.is_tainted(BLOB)
        assert house.budget._reserved == {}
        monkeypatch.setattr(module.time, "monotonic", lambda: 10.0**12)
        fill = house.open()
        monkeypatch.undo()
        assert fill is not None, "it rested long enough"
        fill.leave()

    def test_the_clean_retry_is_kept_and_the_taint_stays(
        self, house: House, upstream: Upstream
    ) -> None:
        upstream.data = damaged()
        upstream.faults = [lambda *_: None, lambda *_: setattr(upstream, "data", DATA)]
        upstream.hold(MIB)
        fill = house.joined()
        fill.want_all()
        assert follow(fill, 0, MIB, completing=True) == damaged()[:MIB]
        upstream.release()
        with pytest.raises(VerificationFailed):
            follow(fill, MIB, SIZE, completing=True)
        fill.leave()
        wait_idle(house)
        assert house.store.size_of(BLOB) == SIZE
        assert house.taints.is_tainted(BLOB), "somebody holds the wrong bytes"

    def test_damage_behind_what_was_sent_taints_nothing(
        self, house: House, upstream: Upstream
    ) -> None:
        upstream.data = DATA[:-1] + b"?"
        upstream.faults = [lambda *_: None, lambda *_: setattr(upstream, "data", DATA)]
        with pytest.raises(VerificationFailed):
            house.download()
        wait_idle(house)
        assert not house.taints.is_tainted(BLOB)

    def test_it_is_tainted_before_a_reader_can_ask_again(
        self, house: House, upstream: Upstream
    ) -> None:
        upstream.data = damaged()
        with pytest.raises(VerificationFailed):
            house.download()
        assert house.taints.is_tainted(BLOB)

    def test_what_cannot_be_quarantined_is_tainted_all_the_same(
        self, house: House, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "full")

        monkeypatch.setattr(LocalPartial, "quarantine", refuse)
        upstream.data = damaged()
        with pytest.raises(VerificationFailed):
            house.download()
        assert house.taints.is_tainted(BLOB)


class TestStopping:
    def test_everything_is_closed_and_nothing_begins(
        self, tmp_path: Path, upstream: Upstream
    ) -> None:
        before = open_files()
        house = House(tmp_path / "cache", linger=60.0)
        upstream.hold(MIB)
        fill = house.joined()
        fill.want_all()
        fill.want(MIB, SIZE)
        follow(fill, 0, MIB, completing=True)
        house.fills.stop()
        with pytest.raises(UpstreamError, match="shutting down"):
            fill.available(MIB, completing=True)
        fill.leave()
        assert wait_over(fill) == "paused"
        with pytest.raises(UpstreamError, match="shutting down") as refused:
            house.open()
        assert refused.value.status == 503
        house.table.close()
        house.ledger.close()
        assert open_files() == before

    def test_the_next_one_in_the_same_process_goes_on(
        self, tmp_path: Path, upstream: Upstream
    ) -> None:
        first = House(tmp_path / "cache", linger=60.0)
        upstream.hold(MIB)
        fill = first.joined()
        fill.want_all()
        follow(fill, 0, MIB, completing=True)
        fill.leave()
        first.close()
        upstream.release()
        upstream.delivered = 0
        second = House(tmp_path / "cache")
        assert second.download() == DATA
        upstream.wait_for(lambda: upstream.delivered >= SIZE - MIB)
        assert upstream.delivered == SIZE - MIB
        second.close()


class SlowDisk:
    """Keeps one blob's lease waiting for the disk."""

    def __init__(self, house: House, slow: BlobId, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits, self.goes_on = threading.Event(), threading.Event()
        take = house.store.partial

        def partial(blob: BlobId, size: int, owner: str = "") -> object:
            if blob == slow:
                self.waits.set()
                assert self.goes_on.wait(30)
            return take(blob, size, owner)

        monkeypatch.setattr(house.store, "partial", partial)


class TestStarting:
    def test_does_not_wait_for_the_start_of_another(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor does an end."""
        numbers = (blob_of(data_of(SIZE, seed=seed)) for seed in range(2, 99))
        locks = house.fills._deciding
        slow = next(blob for blob in numbers if locks.of(blob) is not locks.of(BLOB))
        disk = SlowDisk(house, slow, monkeypatch)
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(house.fills.open, slow, SIZE, source(), range_safe=True)
            assert disk.waits.wait(30)
            try:
                assert house.download() == DATA
                wait_idle(house)
            finally:
                disk.goes_on.set()
            fill = opening.result(30)
        assert fill is not None
        fill.leave()

    def test_is_waited_for_at_the_end(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = SlowDisk(house, BLOB, monkeypatch)
        with ThreadPoolExecutor(2) as pool:
            opening = pool.submit(house.joined)
            assert disk.waits.wait(30)
            stopping = pool.submit(house.fills.stop)
            assert not stopping.done()
            disk.goes_on.set()
            fill = opening.result(30)
            stopping.result(30)
        assert fill.state == "paused"
        fill.leave()
        with pytest.raises(UpstreamError, match="shutting down"):
            house.open()


def test_people_see_running_and_ended_fills(house: House, upstream: Upstream) -> None:
    upstream.hold(MIB)
    fill = house.joined()
    fill.want_all()
    follow(fill, 0, MIB, completing=True)
    (running,) = house.fills.reports()
    assert (running.state, running.done, running.size, running.readers) == ("running", MIB, SIZE, 1)
    assert running.claim[2] == "org/m" and running.error is None
    upstream.release()
    follow(fill, 0, SIZE, completing=True)
    fill.leave()
    wait_over(fill)
    (ended,) = house.fills.reports()
    assert (ended.state, ended.done, ended.blob) == ("kept", SIZE, BLOB.name)
