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
# One window may be a bad one: a machine that is busy, a connection that is slow to come about.
_WINDOWS_OF_A_TRIAL = 3
_LOW_WINDOWS = 2
_WORTH_CLIMBING = 0.5
_WORTH_KEEPING = 0.15
_LOW = 0.5
_NO_LOSS = 0.8
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


@dataclass(slots=True)
class _Trial:
    """More connections, on trial.

    Args:
        lanes: connections before it.
        before: what they brought.
        gain: what the best window showed; 1.0 when each new connection brings what an old one does.
    """

    lanes: int
    before: _Rates
    windows: int = 0
    gain: float = 0.0


class Lanes:
    """Decides for one download. Not thread-safe.

    Attributes:
        target: connections that it should have now.
    """

    def __init__(self) -> None:
        self.target = 1
        self._settled: float | None = None
        self._mark: Reading | None = None
        self._trial: _Trial | None = None
        self._held = 0.0
        self._low = 0
        self._shrunk_from: float | None = None
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
        if self._trial is not None:
            self._continue_trial(reading, rates, self._trial)
        elif self._shrunk_from is not None:
            self._end_shrinking(reading, rates, self._shrunk_from)
        elif self._is_low(reading, rates):
            # The line is not what it was, or somebody else wants it too.
            self._shrink(reading.now, rates)
        elif reading.now >= self._rest_until:
            self._try_more(reading, rates)

    # -- more

    def _try_more(self, reading: Reading, rates: _Rates) -> None:
        enough = self.target >= MOST or rates.own >= FAST
        if enough or rates.own <= 0 or reading.left < rates.own * _LEAST_SECONDS_LEFT:
            return
        self._trial = _Trial(reading.active, rates)
        self._set(reading.now, min(2 * self.target, MOST))

    def _continue_trial(self, reading: Reading, rates: _Rates, trial: _Trial) -> None:
        added = reading.active - trial.lanes
        if added <= 0:
            # There was nobody to spare for it, or nothing left to do for more.
            self._go_back(reading.now, trial.lanes)
            return
        gain = (rates.total - trial.before.total) / (trial.before.own / trial.lanes * added)
        trial.gain = max(trial.gain, gain)
        trial.windows += 1
        if trial.gain < _WORTH_CLIMBING and trial.windows < _WINDOWS_OF_A_TRIAL:
            return
        if trial.gain < _WORTH_KEEPING:
            self._go_back(reading.now, trial.lanes)
            return
        self._trial, self._low, self._held = None, 0, rates.own
        self.target = reading.active
        if trial.gain >= _WORTH_CLIMBING:
            self._rest = _SHORTEST_REST
            self._try_more(reading, rates)
        else:
            self._rest_from(reading.now)

    # -- fewer

    def _is_low(self, reading: Reading, rates: _Rates) -> bool:
        ending = reading.left < self._held
        low = self.target > 1 and rates.own < _LOW * self._held and not ending
        self._low = self._low + 1 if low else 0
        return self._low >= _LOW_WINDOWS

    def _shrink(self, now: float, rates: _Rates) -> None:
        self._shrunk_from = rates.own
        self._set(now, self.target // 2)

    def _end_shrinking(self, reading: Reading, rates: _Rates, before: float) -> None:
        if reading.active > self.target:
            # Pieces are still brought to their ends.
            return
        self._shrunk_from, self._low, self._held = None, 0, rates.own
        if rates.own < _NO_LOSS * before:
            # They were needed after all.
            self._rest_until = reading.now
        elif self.target > 1:
            self._shrink(reading.now, rates)
        else:
            self._rest_from(reading.now)

    def _go_back(self, now: float, target: int) -> None:
        self._trial = self._shrunk_from = None
        self._rest_from(now)
        self._set(now, max(1, target))

    def _rest_from(self, now: float) -> None:
        self._rest_until = now + self._rest
        self._rest = min(2 * self._rest, _LONGEST_REST)

    def _set(self, now: float, target: int) -> None:
        self.target = target
        self._settled, self._mark = now + _SETTLE_SECONDS, None
