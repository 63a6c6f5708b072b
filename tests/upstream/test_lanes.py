"""How many connections a download ends up with, on lines of different kinds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jupyter_hf_cache.upstream.lanes import MOST, Lanes, Reading

MIB = 1 << 20
STEP = 0.05
SIZE = 100_000 * MIB

Line = Callable[[float, int], float]
"""(seconds, connections) -> MiB per second of this download."""


class Download:
    """A download over `line`, with as many connections as `lanes` says.

    Args:
        others: MiB per second of all other downloads, by (seconds, connections of this one).
        most: threads that there are.
    """

    def __init__(self, line: Line, *, others: Line | None = None, most: int = MOST) -> None:
        self.lanes = Lanes()
        self._line, self._others = line, others or (lambda now, active: 0.0)
        self._most = most
        self._now = self._own = self._total = 0.0
        self.seen: list[int] = []

    def run(self, seconds: float, *, size: int = SIZE) -> Download:
        until = self._now + seconds
        while self._now < until:
            active = min(self.lanes.target, self._most)
            own = self._line(self._now, active) * MIB * STEP
            self._own += own
            self._total += own + self._others(self._now, active) * MIB * STEP
            self._now += STEP
            left = max(0, size - int(self._own))
            self.lanes.look(Reading(self._now, int(self._own), int(self._total), active, left))
            self.seen.append(self.lanes.target)
        return self


def test_a_cap_on_each_connection_is_met_with_the_most() -> None:
    download = Download(lambda now, active: 20.0 * active).run(5)
    assert download.lanes.target == MOST
    assert sorted(set(download.seen)) == [1, 2, 4, 8]


def test_a_full_line_keeps_one() -> None:
    download = Download(lambda now, active: 100.0).run(60)
    assert download.lanes.target == 1
    assert max(download.seen) == 2
    assert download.seen.count(2) < 0.15 * len(download.seen), "it is tried rarely"


def test_a_fast_connection_is_left_alone() -> None:
    assert max(Download(lambda now, active: 300.0 * active).run(30).seen) == 1


def test_it_stops_where_the_line_is_full() -> None:
    assert Download(lambda now, active: min(20.0 * active, 90.0)).run(4).lanes.target == 4
    settled = Download(lambda now, active: min(20.0 * active, 40.0)).run(60)
    assert settled.lanes.target == 2
    assert settled.seen.count(4) < 0.25 * len(settled.seen)


def test_what_is_taken_from_other_downloads_is_no_gain() -> None:
    share: Line = lambda now, active: 100.0 * active / (active + 3)  # noqa: E731
    rest: Line = lambda now, active: 100.0 * 3 / (active + 3)  # noqa: E731
    download = Download(share, others=rest).run(60)
    assert download.lanes.target == 1
    assert max(download.seen) == 2


def test_a_line_that_is_not_what_it_was_is_met_with_one() -> None:
    def line(now: float, active: int) -> float:
        return 20.0 * active if now < 10 else 15.0

    download = Download(line).run(10)
    assert download.lanes.target == MOST
    download.run(6)
    assert download.lanes.target == 1


def test_a_bad_moment_changes_nothing() -> None:
    def line(now: float, active: int) -> float:
        return 20.0 * active if not 5.0 < now < 5.3 else 0.0

    assert set(Download(line).run(20).seen[-200:]) == {MOST}


def test_a_connection_that_is_slow_to_come_about_gets_its_chance() -> None:
    def line(now: float, active: int) -> float:
        return 20.0 * active if now > 1.6 else 20.0

    assert Download(line).run(6).lanes.target == MOST


def test_what_was_given_up_too_soon_is_taken_again() -> None:
    def line(now: float, active: int) -> float:
        return 20.0 * active if not 8.0 < now < 9.5 else 5.0

    download = Download(line).run(9.4)
    assert download.lanes.target < MOST
    assert download.run(15).lanes.target == MOST


def test_an_origin_that_asks_for_less_gets_one_for_a_while() -> None:
    download = Download(lambda now, active: 20.0 * active).run(5)
    download.lanes.only_one(5.0)
    assert max(download.run(4).seen[-60:]) == 1
    assert download.run(30).lanes.target == MOST, "and may be tried again later"


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_than_there_are_threads(most: int) -> None:
    download = Download(lambda now, active: 20.0 * active, most=most).run(4)
    assert download.lanes.target == most


def test_a_download_that_is_nearly_over_is_left_alone() -> None:
    assert max(Download(lambda now, active: 20.0).run(10, size=22 * MIB).seen) == 1


def test_a_line_that_brings_nothing_is_not_judged() -> None:
    assert max(Download(lambda now, active: 0.0).run(10).seen) == 1
