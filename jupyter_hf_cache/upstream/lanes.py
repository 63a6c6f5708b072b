"""How many connections a download may use.

Responsible for: trying more of them, measuring whether that helps, and going back where it does
not.
Not responsible for: opening them or giving them work (`upstream.fetching`). Pure: it is told times
and counts.

Some origins cap each connection, and then two bring twice as much; a line that is full brings
nothing more over two, and a polite client leaves it at one. Which of them it is can only be
measured. What counts is what the line brings in all: where two downloads share a full line, a
second connection of one only takes from the other.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST = 8
FAST = 256 * 1024 * 1024
"""Bytes per second that are enough: nothing is tried above."""

_SETTLE_SECONDS = 0.3
_WINDOW_SECONDS = 0.4
_WORTH_CLIMBING = 0.5
_WORTH_KEEPING = 0.15
_CHANGED = 0.5
_SHORTEST_REST = 5.0
_LONGEST_REST = 60.0
_LEAST_SECONDS_LEFT = 1.5


@dataclass(frozen=True, slots=True)
class Reading:
    """How things stand at one moment.

    Args:
        now: monotonic seconds.
        own: bytes that this download's connections brought so far.
        total: bytes that all downloads brought so far.
        active: connections that this download has now.
        left: bytes that it still has to bring.
    """

    now: float
    own: int
    total: int
    active: int
    left: int


@dataclass(frozen=True, slots=True)
class _Rates:
    """Bytes per second over one window."""

    own: float
    total: float


class Lanes:
    """Decides for one download. Not thread-safe.

    Attributes:
        target: connections that it should have now.
    """

    def __init__(self) -> None:
        self.target = 1
        self._settled: float | None = None
        self._mark: Reading | None = None
        self._before: tuple[int, _Rates] | None = None
        self._held = 0.0
        self._rest = _SHORTEST_REST
        self._rest_until = 0.0

    def look(self, reading: Reading) -> int:
        """Take a reading, as often as one likes; return `target`."""
        if self._settled is None:
            self._settled = reading.now + _SETTLE_SECONDS
        if self._mark is None:
            if reading.now >= self._settled:
                self._mark = reading
            return self.target
        seconds = reading.now - self._mark.now
        if seconds >= _WINDOW_SECONDS:
            rates = _Rates(
                (reading.own - self._mark.own) / seconds,
                (reading.total - self._mark.total) / seconds,
            )
            self._mark = reading
            self._judge(reading, rates)
        return self.target

    def only_one(self, now: float) -> None:
        """Go back to one connection: the origin asked for it, or more of them fail."""
        self._go_back(now, 1)

    def no_more(self, now: float, active: int) -> None:
        """Stay with those that there are: nobody has one to spare."""
        self._go_back(now, active)

    def _judge(self, reading: Reading, rates: _Rates) -> None:
        if self._before is not None:
            self._end_trial(reading, rates, *self._before)
        elif self.target > 1 and rates.own < _CHANGED * self._held:
            # The line is not what it was, or somebody else wants it too.
            self._go_back(reading.now, 1)
        elif reading.now >= self._rest_until:
            self._try_more(reading, rates)

    def _try_more(self, reading: Reading, rates: _Rates) -> None:
        enough = self.target >= MOST or rates.own >= FAST
        if enough or rates.own <= 0 or reading.left < rates.own * _LEAST_SECONDS_LEFT:
            return
        self._before = (reading.active, rates)
        self._set(reading.now, min(2 * self.target, MOST))

    def _end_trial(self, reading: Reading, rates: _Rates, lanes: int, before: _Rates) -> None:
        self._before = None
        added = reading.active - lanes
        if added <= 0:
            # There was nobody to spare for it, or nothing left to do for more.
            self._go_back(reading.now, lanes)
            return
        gain = (rates.total - before.total) / (before.own / lanes * added)
        if gain < _WORTH_KEEPING:
            self._go_back(reading.now, lanes)
            return
        self._held = rates.own
        self.target = reading.active
        if gain >= _WORTH_CLIMBING:
            self._rest = _SHORTEST_REST
            self._try_more(reading, rates)
        else:
            self._rest_from(reading.now)

    def _go_back(self, now: float, target: int) -> None:
        self._before = None
        self._rest_from(now)
        self._set(now, max(1, target))

    def _rest_from(self, now: float) -> None:
        self._rest_until = now + self._rest
        self._rest = min(2 * self._rest, _LONGEST_REST)

    def _set(self, now: float, target: int) -> None:
        self.target = target
        self._settled, self._mark = now + _SETTLE_SECONDS, None
