"""Several connections of one download."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filling import (
    DEADLINE,
    KIB,
    MIB,
    STEP,
    Upstream,
    Workshop,
    data_of,
    follow,
    source,
    wait_over,
)

from jupyter_hf_cache.errors import UpstreamAnswer, UpstreamError, UpstreamFailing
from jupyter_hf_cache.upstream import fetching as module
from jupyter_hf_cache.upstream import patience
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.lanes import Lanes, Reading
from jupyter_hf_cache.upstream.pools import SparePool
from jupyter_hf_cache.upstream.slots import Crowded
from jupyter_hf_cache.upstream.transfer import RangesIgnored, Source, SourceLost

SIZE = 8 * MIB + 4321
DATA = data_of(SIZE)
NEAR = 256 * KIB
PIECE = 512 * KIB


class Eager(Lanes):
    """Wants four connections from the first look on, until it is told otherwise."""

    def look(self, reading: Reading) -> int:
        if self.target == 1 and not self._rest_until:
            self.target = 4
        return self.target


class Line(Upstream):
    """An upstream that notes what each transfer was for, and how many ran at once."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked: list[tuple[int, int, str, bool]] = []
        self.most = 0
        self.refuse: Callable[[int, str, bool], Exception | None] = lambda *_: None
        self._now = 0
        self._lock = threading.Lock()

    def transfer(self, way: Source, start: int, end: int, size: int, **rest: Any) -> None:
        ranges, spare = rest["ranges"], rest["spare"]
        with self._lock:
            self.asked.append((start, end, ranges, spare))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            if (error := self.refuse(start, ranges, spare)) is not None:
                raise error
            super().transfer(way, start, end, size, **rest)
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line(DATA)
    monkeypatch.setattr(module, "transfer", line.transfer)
    monkeypatch.setattr(module, "Lanes", Eager)
    monkeypatch.setattr(module, "NEAR", NEAR)
    monkeypatch.setattr(module, "PIECE", PIECE)
    monkeypatch.setattr(module, "_LEAST_PIECE", STEP)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(patience, "BACKOFF_SECONDS", (0.0,))
    return line


@pytest.fixture
def shop(tmp_path: Path, line: Line) -> Iterator[Workshop]:
    shop = Workshop(tmp_path / "cache", line)
    spare = SparePool(8)
    shop.pools = dataclasses.replace(shop.pools, spare=spare)
    yield shop
    line.release()
    spare.shutdown(wait=True)
    shop.close()


def everything(fill: Fill) -> bytes:
    fill.want_all()
    return follow(fill, 0, fill.size, completing=True)


def spread(shop: Workshop, line: Line) -> Fill:
    """Start a fill and wait until all four connections are busy."""
    line.hold(STEP)
    fill = shop.joined()
    fill.want_all()
    line.wait_for(lambda: line.most == 4)
    return fill


def test_pieces_follow_the_front_and_each_is_fetched_once(shop: Workshop, line: Line) -> None:
    fill = spread(shop, line)
    first, *pieces = list(line.asked)
    assert first[:2] == (0, SIZE) and not first[3]
    assert sorted(piece[:2] for piece in pieces) == [
        (STEP + NEAR + n * PIECE, STEP + NEAR + (n + 1) * PIECE) for n in range(3)
    ]
    assert all(piece[3] for piece in pieces)
    line.release()
    assert everything(fill) == DATA
    assert line.most <= 4
    assert line.delivered <= SIZE + 4 * STEP
    fill.leave()
    assert wait_over(fill) == "kept"


def test_a_connection_that_fails_leaves_its_piece_to_the_first(shop: Workshop, line: Line) -> None:
    line.refuse = lambda start, ranges, spare: UpstreamError("broken") if spare else None
    fill = shop.joined()
    assert everything(fill) == DATA
    assert any(spare for *_, spare in line.asked)
    fill.leave()
    assert wait_over(fill) == "kept"


def test_an_upstream_that_has_too_much_to_do_keeps_one_connection(
    shop: Workshop, line: Line
) -> None:
    line.refuse = lambda start, ranges, spare: (
        UpstreamFailing("busy", status=429) if spare else None
    )
    fill = shop.joined()
    assert everything(fill) == DATA
    assert sum(spare for *_, spare in line.asked) <= 3, "each was refused once, and no more came"
    fill.leave()


def test_what_it_asks_to_wait_holds_for_every_connection(
    shop: Workshop, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = spread(shop, line)
    quiet = 3600.0
    monkeypatch.setattr(module, "LONGEST_WAIT", quiet)
    busy = UpstreamFailing("busy", status=503, headers={"Retry-After": "3600"})
    with fill._changed:
        part = fill._fetching._under_way.begin(0, 0, "extra")
    assert fill._fetching._gives_way(part, busy)
    with fill._changed:
        fill._fetching._under_way.end(part)
    asked = len(line.asked)
    line.release()
    # What is under way ends; the first connection meets the pieces of the others, and rests.
    line.wait_for(lambda: line._now == 0)
    assert len(line.asked) == asked
    fill.stop()
    fill.leave()
    assert wait_over(fill) == "paused"


def test_who_must_give_way_to_others_does(shop: Workshop, line: Line) -> None:
    line.refuse = lambda start, ranges, spare: Crowded() if spare else None
    fill = shop.joined()
    assert everything(fill) == DATA
    fill.leave()
    assert wait_over(fill) == "kept"


def test_an_origin_that_ignores_ranges_is_asked_for_none_again(shop: Workshop, line: Line) -> None:
    def refuse(start: int, ranges: str, spare: bool) -> Exception | None:
        return RangesIgnored() if ranges == "required" and start > 0 else None

    line.refuse = refuse
    fill = shop.joined()
    assert everything(fill) == DATA
    told = next(n for n, (start, *_) in enumerate(line.asked) if start > 0)
    later = [asked for asked in line.asked[told + 4 :]]
    assert all(ranges == "unavailable" and not spare for _, _, ranges, spare in later)
    fill.leave()
    assert wait_over(fill) == "kept"


def test_a_resumed_file_of_such_an_origin_comes_in_one_answer(shop: Workshop, line: Line) -> None:
    first = shop.joined()
    for start in (MIB, 3 * MIB):
        first.want(start, start + MIB)
        follow(first, start, start + MIB, completing=False)
    first.leave()
    assert wait_over(first) == "paused"
    line.asked.clear()
    line.refuse = lambda start, ranges, spare: (
        RangesIgnored() if ranges == "required" and start > 0 else None
    )
    fill = shop.joined()
    assert everything(fill) == DATA
    plain = [asked for asked in line.asked if asked[2] == "unavailable"]
    assert len(plain) == 1 and plain[0][1] == SIZE
    fill.leave()
    assert wait_over(fill) == "kept"


def test_a_right_that_is_lost_by_one_connection_is_lost_for_all(shop: Workshop, line: Line) -> None:
    def refuse(start: int, ranges: str, spare: bool) -> Exception | None:
        return SourceLost(UpstreamAnswer(403, "no longer")) if spare else None

    line.refuse = refuse
    line.hold(STEP, lambda start, end: start == 0)
    fill = shop.joined()
    fill.want_all()
    with pytest.raises(UpstreamAnswer, match="no longer"):
        follow(fill, 0, SIZE, completing=True)
    fill.leave()
    assert wait_over(fill) == "failed"


def test_a_joiners_right_serves_all_connections(shop: Workshop, line: Line) -> None:
    lost = threading.Event()

    def fault(way: Source, start: int, end: int) -> None:
        if way.identity == "first" and start > 0:
            lost.set()
            raise SourceLost(UpstreamAnswer(403, "no longer"))

    line.faults = [fault] * 50
    fill = shop.joined(first=source("first"))
    assert fill.join(source("second"))
    assert everything(fill) == DATA
    assert lost.wait(DEADLINE)
    for _ in range(2):
        fill.leave()
    assert wait_over(fill) == "kept"


def test_when_nobody_reads_any_more_all_end(shop: Workshop, line: Line) -> None:
    fill = spread(shop, line)
    fill.leave()
    assert wait_over(fill) == "paused"
    assert line._now == 0


def test_parts_that_a_reader_waits_for_are_fetched_beside_them(shop: Workshop, line: Line) -> None:
    fill = spread(shop, line)
    line.hold(STEP, lambda start, end: end - start != MIB)
    fill.want(6 * MIB, 7 * MIB)
    assert follow(fill, 6 * MIB, 7 * MIB, completing=False) == DATA[6 * MIB : 7 * MIB]
    line.release()
    assert everything(fill) == DATA
    assert line.delivered <= SIZE + 6 * STEP + NEAR
    fill.leave()


def test_without_threads_to_spare_there_is_one(shop: Workshop, line: Line) -> None:
    shop.pools = dataclasses.replace(shop.pools, spare=None)
    fill = shop.joined()
    assert everything(fill) == DATA
    assert [asked[:2] for asked in line.asked] == [(0, SIZE)]
    fill.leave()
