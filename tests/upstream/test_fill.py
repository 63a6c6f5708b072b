"""One download and all who follow it."""

from __future__ import annotations

import errno
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filling import (
    KIB,
    MIB,
    STEP,
    Upstream,
    Workshop,
    blob_of,
    data_of,
    follow,
    open_files,
    source,
    wait_over,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_hf_cache.errors import (
    HfCacheError,
    StorageError,
    UpstreamAnswer,
    UpstreamError,
    VerificationFailed,
)
from jupyter_hf_cache.storage import mapfile
from jupyter_hf_cache.storage.blobs import LocalPartial
from jupyter_hf_cache.storage.mapfile import BLOCK_SIZE
from jupyter_hf_cache.upstream import fetching as module
from jupyter_hf_cache.upstream import hashing, patience
from jupyter_hf_cache.upstream.fill import HOLD_BACK, Fill
from jupyter_hf_cache.upstream.transfer import Source, SourceLost

SIZE = 4 * MIB + 4321
DATA = data_of(SIZE)
NEAR = 256 * KIB


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    upstream = Upstream(DATA)
    monkeypatch.setattr(module, "transfer", upstream.transfer)
    monkeypatch.setattr(module, "NEAR", NEAR)
    monkeypatch.setattr(patience, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(hashing, "_LAG", MIB)
    monkeypatch.setattr(hashing, "_CAUGHT_UP", 1)
    return upstream


@pytest.fixture
def shop(tmp_path: Path, upstream: Upstream) -> Iterator[Workshop]:
    shop = Workshop(tmp_path / "cache", upstream)
    yield shop
    shop.close()


def everything(fill: Fill) -> bytes:
    fill.want_all()
    return follow(fill, 0, fill.size, completing=True)


def fail_with(error: Exception) -> Callable[[Source, int, int], None]:
    def fault(_: Source, __: int, ___: int) -> None:
        raise error

    return fault


class TestWhole:
    def test_all_readers_share_one_transfer(self, shop: Workshop, upstream: Upstream) -> None:
        fill = shop.joined()
        for number in range(9):
            assert fill.join(source(f"{number}"))
        with ThreadPoolExecutor(10) as pool:
            bodies = list(pool.map(lambda _: everything(fill), range(10)))
        assert all(body == DATA for body in bodies)
        assert upstream.calls == [(0, SIZE, "me")]
        for _ in range(10):
            fill.leave()
        assert wait_over(fill) == "kept"
        assert shop.ended == [fill]

    @pytest.mark.parametrize("algorithm", ["sha256", "git-sha1"])
    def test_what_is_kept_has_its_sidecar(self, shop: Workshop, algorithm: str) -> None:
        fill = shop.joined(algorithm=algorithm)
        fill.join(source("other", path="/org/copy/file"))
        assert everything(fill) == DATA
        for _ in range(2):
            fill.leave()
        assert wait_over(fill) == "kept"
        sidecar = shop.store.sidecar(fill.blob)
        assert sidecar is not None
        assert sidecar.sha256 == hashlib.sha256(DATA).hexdigest()
        assert sidecar.origins == ["origin"]
        assert [claim[4] for claim in sidecar.claims] == ["/org/m/file", "/org/copy/file"]

    def test_who_comes_from_another_origin_does_not_join(self, shop: Workshop) -> None:
        fill = shop.joined()
        assert not fill.join(source(origin_id="elsewhere"))
        fill.leave()

    def test_it_is_over_for_who_comes_late(self, shop: Workshop) -> None:
        fill = shop.joined()
        everything(fill)
        fill.leave()
        wait_over(fill)
        assert not fill.join(source())
        fill.want_all()
        fill.want(0, 10)

    def test_a_resumed_one_fetches_what_is_missing(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        first = shop.joined()
        first.want(0, MIB)
        first.want(2 * MIB, 3 * MIB)
        follow(first, 0, MIB, completing=False)
        follow(first, 2 * MIB, 3 * MIB, completing=False)
        first.leave()
        assert wait_over(first) == "paused"
        upstream.calls.clear()
        again = shop.joined()
        assert again.done == 2 * MIB
        assert everything(again) == DATA
        assert [call[:2] for call in upstream.calls] == [(MIB, 2 * MIB), (3 * MIB, SIZE)]
        again.leave()
        assert wait_over(again) == "kept"

    def test_a_complete_partial_is_kept_without_a_transfer(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        partial = shop.store.partial(blob_of(DATA), SIZE, "origin")
        assert partial is not None
        partial.write(0, DATA)
        partial.close()
        fill = shop.joined()
        assert everything(fill) == DATA
        fill.leave()
        assert wait_over(fill) == "kept"
        assert upstream.calls == []


class TestHoldBack:
    def test_the_last_bytes_wait_for_the_digest(self, shop: Workshop) -> None:
        shop.hash.shut()
        fill = shop.joined()
        fill.want_all()
        follow(fill, 0, SIZE - HOLD_BACK, completing=True)
        shop.upstream.wait_for(lambda: fill.done == SIZE)
        for offset in (0, 5, SIZE - HOLD_BACK):
            assert fill.available(offset, completing=True) == SIZE - HOLD_BACK
        assert fill.available(SIZE - 10, completing=True) == SIZE - 10
        assert fill.available(0, completing=False) == 0
        assert not fill.verified
        shop.hash.open()
        assert follow(fill, 0, SIZE, completing=True) == DATA
        assert fill.verified and fill.available(0, completing=True) == SIZE
        fill.leave()

    def test_a_file_shorter_than_that_waits_wholly(
        self, tmp_path: Path, upstream: Upstream
    ) -> None:
        upstream.data = DATA[:1000]
        shop = Workshop(tmp_path / "other", upstream)
        shop.hash.shut()
        fill = shop.joined()
        fill.want_all()
        upstream.wait_for(lambda: fill.done == 1000)
        assert fill.available(0, completing=True) == 0
        shop.hash.open()
        assert follow(fill, 0, 1000, completing=True) == DATA[:1000]
        fill.leave()
        shop.close()

    def test_ranges_of_an_origin_that_is_not_believed_wait_for_the_digest(
        self, shop: Workshop
    ) -> None:
        shop.hash.shut()
        fill = shop.joined(range_safe=False)
        fill.want(100, 200)
        shop.upstream.wait_for(lambda: fill.done == SIZE)
        assert fill.available(100, completing=False) == 100
        shop.hash.open()
        assert follow(fill, 100, 200, completing=False) == DATA[100:200]
        fill.leave()
        assert wait_over(fill) == "kept"

    def test_so_do_ranges_that_may_have_been_lost_with_the_power(
        self, shop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        partial = shop.store.partial(blob_of(DATA), SIZE, "origin")
        assert partial is not None
        partial.write(0, DATA[:MIB])
        partial.close()
        monkeypatch.setattr(mapfile, "boot_id", lambda: b"another")
        fill = shop.joined()
        assert fill.done == MIB and not fill.range_safe
        assert fill.available(0, completing=False) == 0
        fill.want(0, 100)
        assert follow(fill, 0, 100, completing=False) == DATA[:100]
        assert fill.verified
        fill.leave()


class TestOverlaps:
    def test_a_range_on_its_way_is_not_asked_for_again(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(0)
        fill = shop.joined()
        fill.want(MIB, 2 * MIB)
        fill.want(MIB // 2, 2 * MIB + MIB // 2)
        fill.want(MIB, 2 * MIB)
        upstream.wait_for(lambda: len(upstream.calls) == 3)
        upstream.release()
        follow(fill, MIB // 2, 2 * MIB + MIB // 2, completing=False)
        assert upstream.delivered == 2 * MIB
        assert len(upstream.calls) == 3
        fill.leave()

    def test_a_far_range_comes_first_and_once(self, shop: Workshop, upstream: Upstream) -> None:
        upstream.hold(0, lambda start, end: start == 0)
        fill = shop.joined()
        fill.want_all()
        upstream.wait_for(lambda: len(upstream.calls) == 1)
        fill.want(2 * MIB, 3 * MIB)
        assert follow(fill, 2 * MIB, 3 * MIB, completing=False) == DATA[2 * MIB : 3 * MIB]
        upstream.release()
        assert everything(fill) == DATA
        assert upstream.delivered <= SIZE + STEP
        fill.leave()

    def test_a_near_range_is_left_to_the_connection_that_comes_by(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(MIB)
        fill = shop.joined()
        fill.want_all()
        follow(fill, 0, MIB, completing=False)
        fill.want(MIB, MIB + NEAR)
        upstream.release()
        assert everything(fill) == DATA
        assert (len(upstream.calls), upstream.delivered) == (1, SIZE)
        fill.leave()

    def test_ranges_under_way_are_passed_over_and_waited_for(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(0, lambda start, end: start == MIB)
        fill = shop.joined()
        fill.want(MIB, 3 * MIB)
        upstream.wait_for(lambda: len(upstream.calls) == 1)
        fill.want_all()
        upstream.wait_for(lambda: fill.done == SIZE - 2 * MIB)
        upstream.release()
        assert everything(fill) == DATA
        assert upstream.delivered == SIZE
        fill.leave()
        assert wait_over(fill) == "kept"

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        wants=st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=6),
        whole_at=st.integers(0, 6),
    )
    def test_no_mixture_fetches_much_twice(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
        upstream: Upstream,
        wants: list[tuple[int, int]],
        whole_at: int,
    ) -> None:
        fresh = Upstream(DATA)
        monkeypatch.setattr(module, "transfer", fresh.transfer)
        shop = Workshop(tmp_path_factory.mktemp("mixture"), fresh)
        fill = shop.joined()
        for number, (low, high) in enumerate(wants):
            if number == whole_at:
                fill.want_all()
            fill.want(min(low, high), max(low, high))
        assert everything(fill) == DATA
        # Each range may be met by the connection for the whole, and read over if it is short.
        assert fresh.delivered <= SIZE + len(wants) * (NEAR + STEP)
        for low, high in wants:
            low, high = sorted((low, high))
            assert follow(fill, low, high, completing=False) == DATA[low:high]
        fill.leave()
        assert wait_over(fill) == "kept"
        shop.close()


class TestTwoAnswers:
    def test_what_was_written_stays_though_another_answer_says_otherwise(
        self, shop: Workshop, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = upstream.transfer

        def lying(way: Source, start: int, end: int, size: int, **rest: Any) -> None:
            if start == 0:
                sink = rest["sink"]
                rest["sink"] = lambda offset, data: sink(
                    offset, data if offset < MIB else bytes(len(data))
                )
            real(way, start, end, size, **rest)

        monkeypatch.setattr(module, "transfer", lying)
        # The connection for all reads over these, which are shorter than what is near.
        fill = shop.joined()
        fill.want(MIB, MIB + NEAR - STEP)
        follow(fill, MIB, MIB + NEAR - STEP, completing=False)
        upstream.hold(MIB + NEAR - STEP, lambda start, end: start == 0)
        fill.want_all()
        upstream.wait_for(lambda: upstream.delivered >= MIB + 2 * (NEAR - STEP))
        assert fill.read(MIB, NEAR - STEP) == DATA[MIB : MIB + NEAR - STEP]
        fill.leave()


class TestLeaving:
    def test_a_fill_of_ranges_finishes_its_block_and_pauses_with_its_last_reader(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(MIB + STEP)
        fill = shop.joined(linger=60.0)
        fill.want(MIB, 2 * MIB)
        follow(fill, MIB, MIB + STEP, completing=False)
        fill.leave()
        upstream.hold(MIB + BLOCK_SIZE)
        assert wait_over(fill) == "paused"
        assert fill.done == BLOCK_SIZE
        assert shop.store.partial(fill.blob, SIZE, "origin") is not None

    def test_less_than_half_done_it_stops_after_lingering(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(MIB)
        fill = shop.joined(linger=0.0)
        fill.want_all()
        follow(fill, 0, MIB, completing=True)
        fill.leave()
        assert wait_over(fill) == "paused"
        assert fill.done == MIB

    def test_half_done_it_goes_on_to_the_end(self, shop: Workshop, upstream: Upstream) -> None:
        upstream.hold(3 * MIB)
        fill = shop.joined(linger=0.0)
        fill.want_all()
        follow(fill, 0, 3 * MIB, completing=True)
        fill.leave()
        upstream.release()
        assert wait_over(fill) == "kept"

    def test_it_lingers(self, shop: Workshop, upstream: Upstream) -> None:
        upstream.hold(STEP)
        fill = shop.joined(linger=60.0)
        fill.want_all()
        follow(fill, 0, STEP, completing=True)
        fill.leave()
        assert fill.state == "running"
        upstream.release()
        assert wait_over(fill) == "kept"

    def test_who_joins_while_it_lingers_keeps_it_running(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(STEP)
        fill = shop.joined(linger=60.0)
        fill.want_all()
        fill.leave()
        assert fill.join(source("late"))
        fill.linger = 0.0
        upstream.release()
        assert everything(fill) == DATA
        fill.leave()
        assert wait_over(fill) == "kept"

    def test_one_of_two_leaving_changes_nothing(self, shop: Workshop, upstream: Upstream) -> None:
        upstream.hold(STEP)
        fill = shop.joined()
        fill.join(source("other"))
        fill.want(0, MIB)
        follow(fill, 0, STEP, completing=False)
        fill.leave()
        upstream.release()
        assert follow(fill, 0, MIB, completing=False) == DATA[:MIB]
        fill.leave()
        assert wait_over(fill) == "paused"

    def test_stopping_keeps_what_is_there_and_tells_the_readers(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(MIB)
        fill = shop.joined()
        fill.want_all()
        follow(fill, 0, MIB, completing=True)
        fill.stop()
        with pytest.raises(UpstreamError, match="shutting down") as told:
            follow(fill, MIB, SIZE, completing=True)
        assert told.value.status == 503
        fill.leave()
        assert wait_over(fill) == "paused"
        again = shop.store.partial(fill.blob, SIZE, "origin")
        assert again is not None and again.present == MIB
        again.close()


class TestFaults:
    def test_no_progress_at_all_ends_it_for_all_readers(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.faults = [fail_with(UpstreamError(f"no {n}")) for n in range(100)]
        fill = shop.joined()
        for number in range(4):
            fill.join(source(f"{number}"))
        with ThreadPoolExecutor(5) as pool:
            futures = [pool.submit(everything, fill) for _ in range(5)]
            errors = [future.exception() for future in futures]
        assert all(error is fill.error and isinstance(error, UpstreamError) for error in errors)
        assert len(upstream.calls) == 6
        assert fill.error is not None and fill.error.message == "no 5"
        for _ in range(5):
            fill.leave()
        assert wait_over(fill) == "failed"
        assert shop.ended == [fill]

    def test_with_progress_it_goes_on_however_often_it_breaks(
        self, shop: Workshop, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = upstream.transfer

        def breaking(way: Source, start: int, end: int, size: int, **rest: object) -> None:
            real(way, start, min(end, start + STEP), size, **rest)  # type: ignore[arg-type]
            if start + STEP < end:
                raise UpstreamError("broken off")

        monkeypatch.setattr(module, "transfer", breaking)
        fill = shop.joined()
        assert everything(fill) == DATA
        assert len(upstream.calls) == SIZE // STEP + 1
        fill.leave()
        assert wait_over(fill) == "kept"

    def test_a_range_that_never_comes_fails_though_the_rest_does(
        self, shop: Workshop, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = upstream.transfer

        def broken_range(way: Source, start: int, end: int, size: int, **rest: object) -> None:
            if start == 3 * MIB:
                raise UpstreamError("this range is broken")
            real(way, start, end, size, **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "transfer", broken_range)
        upstream.hold(MIB)
        fill = shop.joined()
        fill.want_all()
        follow(fill, 0, MIB, completing=True)
        fill.want(3 * MIB, SIZE)
        with pytest.raises(UpstreamError, match="this range"):
            follow(fill, 3 * MIB, SIZE, completing=False)
        fill.leave()
        assert wait_over(fill) == "failed"

    def test_when_the_first_callers_right_is_gone_a_joiners_is_used(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        gone = UpstreamAnswer(403, "no longer")
        upstream.hold(0)
        fill = shop.joined(first=source("first"))
        fill.join(source("second"))
        upstream.faults = [fail_with(SourceLost(gone))]
        upstream.release()
        assert everything(fill) == DATA
        assert [call[2] for call in upstream.calls] == ["first", "second"]
        for _ in range(2):
            fill.leave()
        assert wait_over(fill) == "kept"

    def test_without_another_the_refusal_is_passed_on(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        gone = UpstreamAnswer(403, "no longer", code="GatedRepo")
        upstream.faults = [fail_with(SourceLost(gone))]
        fill = shop.joined()
        with pytest.raises(UpstreamAnswer) as refused:
            everything(fill)
        assert refused.value is gone
        fill.leave()
        assert wait_over(fill) == "failed"

    def test_two_connections_that_lose_one_right_do_not_take_the_next_ones(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        both = threading.Barrier(2)

        def lost(way: Source, _: int, __: int) -> None:
            both.wait(10)
            raise SourceLost(UpstreamAnswer(403, f"{way.identity} lost it"))

        upstream.faults = [lost, lost]
        fill = shop.joined(first=source("first"))
        fill.join(source("second"))
        fill.want(0, MIB)
        fill.want(2 * MIB, 3 * MIB)
        assert follow(fill, 0, MIB, completing=False) == DATA[:MIB]
        assert follow(fill, 2 * MIB, 3 * MIB, completing=False) == DATA[2 * MIB : 3 * MIB]
        assert [known.identity for known in fill.sources] == ["second"]
        for _ in range(2):
            fill.leave()

    def test_a_disk_that_refuses_is_named(
        self, shop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(LocalPartial, "write", refuse)
        fill = shop.joined()
        with pytest.raises(StorageError, match="No space left"):
            everything(fill)
        fill.leave()
        assert wait_over(fill) == "failed"

    def test_what_cannot_be_kept_is_still_given_out(
        self, shop: Workshop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(LocalPartial, "commit", refuse)
        fill = shop.joined()
        assert everything(fill) == DATA
        fill.leave()
        assert wait_over(fill) == "unkept"

    def test_a_mistake_in_the_cache_ends_it_in_words(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.faults = [fail_with(KeyError("secret"))]
        fill = shop.joined()
        with pytest.raises(UpstreamError) as told:
            everything(fill)
        assert "secret" not in told.value.text
        fill.leave()
        assert wait_over(fill) == "failed"

    def test_a_file_that_shrinks_while_it_arrives_ends_it(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        upstream.hold(3 * MIB)
        shop.hash.shut()
        fill = shop.joined()
        fill.want_all()
        follow(fill, 0, 3 * MIB, completing=True)
        path = shop.store.partial_dir / fill.blob.name
        with path.open("r+b") as file:
            file.truncate(0)
        shop.hash.open()
        with pytest.raises(StorageError, match="shorter"):
            follow(fill, 3 * MIB - 10, SIZE, completing=True)
        fill.leave()
        assert wait_over(fill) == "failed"


class TestMismatch:
    BAD = blob_of(b"something else")

    def test_everybody_is_told_and_nothing_is_kept(self, shop: Workshop) -> None:
        fill = shop.joined(blob=self.BAD)
        with pytest.raises(VerificationFailed):
            everything(fill)
        assert fill.sent <= SIZE - HOLD_BACK
        fill.leave()
        assert wait_over(fill) == "failed"
        assert shop.store.size_of(self.BAD) is None

    def test_nobody_gets_all_of_it_in_ranges(self, shop: Workshop) -> None:
        fill = shop.joined(blob=self.BAD)
        fill.want(0, 2 * MIB)
        assert follow(fill, 0, 2 * MIB, completing=False) == DATA[: 2 * MIB]
        fill.want(2 * MIB, SIZE)
        with pytest.raises(VerificationFailed):
            follow(fill, SIZE - 10, SIZE, completing=False)
        fill.leave()

    def test_it_is_noted_before_anybody_is_told(self, shop: Workshop) -> None:
        noting, noted = threading.Event(), threading.Event()
        sent_when_noted: list[int] = []

        def note(fill: Fill) -> None:
            sent_when_noted.append(fill.sent)
            noting.set()
            assert noted.wait(10)

        shop.hash.shut()
        fill = shop.joined(blob=self.BAD, on_end=note)
        fill.want_all()
        follow(fill, 0, MIB, completing=True)
        shop.upstream.wait_for(lambda: fill.done == SIZE)
        shop.hash.open()
        assert noting.wait(10)
        assert fill.available(MIB, completing=True) == MIB, "neither bytes nor the error"
        assert not fill.join(source("late"))
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(fill.read, MIB, MIB)
            assert not reading.done()
            noted.set()
            assert isinstance(reading.exception(10), VerificationFailed)
        with pytest.raises(VerificationFailed):
            fill.available(MIB, completing=True)
        assert sent_when_noted == [fill.sent] == [MIB]
        fill.leave()


class TestAhead:
    def test_fetching_waits_for_the_hasher(
        self, shop: Workshop, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hashing, "MAX_AHEAD_OF_HASH", 2 * MIB)
        shop.hash.shut()
        fill = shop.joined()
        fill.want_all()
        follow(fill, 0, 2 * MIB, completing=True)
        upstream.wait_for(lambda: upstream.delivered >= 2 * MIB)
        fill.want(3 * MIB, SIZE)
        assert follow(fill, 3 * MIB, SIZE, completing=False) == DATA[3 * MIB :], "ranges pass by"
        assert fill.available(0, completing=False) <= 2 * MIB + STEP
        shop.hash.open()
        assert everything(fill) == DATA
        fill.leave()
        assert wait_over(fill) == "kept"


class TestDescriptors:
    def outcome(self, shop: Workshop, how: str) -> Fill:
        upstream = shop.upstream
        fill = shop.joined(blob=TestMismatch.BAD if how == "mismatch" else None)
        if how == "refused":
            upstream.faults = [fail_with(SourceLost(UpstreamAnswer(403, "no")))]
        if how in ("paused", "stopped"):
            upstream.hold(MIB)
        try:
            if how == "paused":
                fill.want(0, 2 * MIB)
                follow(fill, 0, MIB, completing=False)
            elif how == "stopped":
                fill.want_all()
                follow(fill, 0, MIB, completing=True)
                fill.stop()
            elif how != "untouched":
                everything(fill)
        except HfCacheError:
            pass
        return fill

    @pytest.mark.parametrize(
        "how", ["kept", "mismatch", "refused", "paused", "stopped", "untouched"]
    )
    def test_none_is_left_and_none_closed_twice(
        self, shop: Workshop, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[LocalPartial] = []
        real = LocalPartial.close
        monkeypatch.setattr(LocalPartial, "close", lambda self: (closed.append(self), real(self)))
        before = open_files()
        fill = self.outcome(shop, how)
        fill.leave()
        wait_over(fill)
        shop.upstream.release()
        assert closed == [fill.partial]
        assert open_files() == before
        assert len(shop.ended) == 1

    def test_a_slow_reader_keeps_the_file_and_not_the_lease(self, shop: Workshop) -> None:
        fill = shop.joined()
        everything(fill)
        assert wait_over(fill) == "kept"
        assert shop.store.delete(fill.blob).freed == SIZE
        other = shop.store.partial(fill.blob, SIZE, "origin")
        assert other is not None, "the lease is free"
        other.close()
        assert fill.read(10, 10) == DATA[10:20]
        fill.leave()


class TestManyThreads:
    def test_two_hundred_readers_of_everything_and_of_parts(
        self, shop: Workshop, upstream: Upstream
    ) -> None:
        fill = shop.joined()
        before = open_files()
        start = threading.Barrier(201)
        wrong: list[object] = []

        def read(number: int) -> None:
            rng = random.Random(number)
            start.wait(30)
            try:
                for _ in range(3):
                    if not fill.join(source(f"{number % 7}")):
                        if not fill.verified:
                            wrong.append(fill.error)
                        return
                    low = rng.randrange(SIZE)
                    high = min(SIZE, low + rng.randrange(1, MIB))
                    try:
                        if number % 3:
                            fill.want(low, high)
                            if follow(fill, low, high, completing=False) != DATA[low:high]:
                                wrong.append((low, high))
                        elif everything(fill) != DATA:
                            wrong.append("whole")
                    finally:
                        fill.leave()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=read, args=(n,)) for n in range(200)]
        for thread in threads:
            thread.start()
        start.wait(30)
        for thread in threads:
            thread.join(60)
        assert wrong == []
        fill.leave()
        assert wait_over(fill) == "kept"
        assert open_files() < before

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(seed=st.integers(0, 2**32), breaks=st.integers(0, 8))
    def test_whoever_waits_is_woken_whatever_the_others_do(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
        upstream: Upstream,
        seed: int,
        breaks: int,
    ) -> None:
        fresh = Upstream(DATA)
        fresh.faults = [fail_with(UpstreamError("once")) for _ in range(breaks // 2)]
        monkeypatch.setattr(module, "transfer", fresh.transfer)
        shop = Workshop(tmp_path_factory.mktemp("wake"), fresh)
        current = [shop.joined()]
        current[0].leave()
        wait_over(current[0])
        lock = threading.Lock()

        def join() -> Fill:
            with lock:
                if not current[0].join(source()):
                    if current[0].verified:
                        return current[0]
                    wait_over(current[0])
                    current[0] = shop.joined()
                return current[0]

        def act(number: int) -> bool:
            rng = random.Random(seed + number)
            for _ in range(4):
                fill = join()
                if fill.verified and fill.outcome == "kept":
                    return True
                low = rng.randrange(SIZE - 1)
                high = rng.randrange(low + 1, SIZE)
                try:
                    if rng.random() < 0.3:
                        fill.want_all()
                    else:
                        fill.want(low, high)
                        if rng.random() < 0.5:
                            assert follow(fill, low, high, completing=False) == DATA[low:high]
                finally:
                    fill.leave()
            return True

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(act, range(6)))
        shop.close()
