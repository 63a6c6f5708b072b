"""The connections of one fill.

Responsible for: which bytes each of them brings and in what order, going on after failures and
under another caller's right, more connections where they help, and writing what comes, once.
Not responsible for: how many connections help (`upstream.lanes`), one transfer over the wire
(`upstream.transfer`), who reads, or how the fill ends (`upstream.fill`).

All that is missing is brought by one connection, which goes on from gap to gap in one long answer
each. Where more connections help, each takes a short piece near the front, because readers and the
digest follow in order. Parts that a reader asked for by themselves have connections of their own.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from jupyter_hf_cache.errors import UpstreamError
from jupyter_hf_cache.storage.interface import Partial
from jupyter_hf_cache.storage.mapfile import BLOCK_SIZE
from jupyter_hf_cache.upstream.hashing import MAX_AHEAD_OF_HASH
from jupyter_hf_cache.upstream.lanes import Lanes, Reading
from jupyter_hf_cache.upstream.patience import LONGEST_WAIT, asked_wait, is_busy, pause_after
from jupyter_hf_cache.upstream.slots import Crowded
from jupyter_hf_cache.upstream.speed import Flow, Speed
from jupyter_hf_cache.upstream.transfer import RangesIgnored, Source, SourceLost, transfer
from jupyter_hf_cache.upstream.underway import Kind, Part, UnderWay

logger = logging.getLogger(__name__)

# What a connection reaches this soon is left to it; and if others have fetched less than this ahead
# of it, it reads over that rather than make room for a new one. So much may be fetched twice.
NEAR = 8 * 1024 * 1024
PIECE = 16 * 1024 * 1024
_LEAST_PIECE = 4 * 1024 * 1024
_LOOK_SECONDS = 0.05
_FAILURES_WITH_ANOTHER_WAY = 1


class Owner(Protocol):
    """The fill, as its connections see it."""

    def stopped(self, *, whole: bool) -> bool:
        """Whether nobody wants all (`whole`) or parts of it any more. The lock is held."""
        ...

    def arrived(self, *, whole: bool) -> None:
        """Bytes were written; may block while the digest is far behind all that is fetched."""
        ...

    def offer(self, work: Callable[[], None]) -> bool:
        """Begin work in a thread that is to spare, if there is one."""
        ...

    @property
    def over(self) -> bool:
        """Whether it has ended, so that what still comes is of no use. The lock is held."""
        ...

    @property
    def sent(self) -> int:
        """How far bytes were given out."""
        ...


class Fetching:
    """The connections of one fill. Thread-safe; what needs the lock held says so.

    Args:
        sources: ways to the bytes, shared with the fill; the first is used.
        changed: the fill's lock.
        flow: what all downloads bring; None where there are no threads to spare.

    Attributes:
        whole: all that is missing is being fetched.
        fetched: bytes that came.
    """

    def __init__(
        self,
        partial: Partial,
        sources: list[Source],
        changed: threading.Condition,
        owner: Owner,
        flow: Flow | None,
    ) -> None:
        self.whole = False
        self.fetched = 0
        self.speed = Speed()
        self._partial = partial
        self._sources = sources
        self._changed = changed
        self._owner = owner
        self._flow = flow
        self._under_way = UnderWay()
        self._lanes = Lanes()
        self._brought = 0
        self._look_at = 0.0
        self._ranged = True
        self._quiet_until = 0.0

    # -- what is wanted; the lock is held

    def begin_whole(self) -> Part:
        """Claim what is missing, for one `run`."""
        self.whole = True
        return self._under_way.begin(0, 0, "whole")

    def begin_parts(self, start: int, end: int) -> list[Part]:
        """Claim what nobody brings of [start, end), for one `run` each."""
        if self.whole and not self._ranged:
            # The one answer that this origin gives comes by there.
            return []
        return [
            self._under_way.begin(*piece)
            for gap in self._partial.missing(start, end)
            for piece in self._under_way.outside(*gap)
        ]

    # -- one connection

    def run(self, part: Part) -> None:
        """Bring a part in, over as many answers and sources as it takes.

        Raises:
            UpstreamError: the upstream fails for good, or this is not the fill's to mend.
            HfCacheError: the last source was refused.
            OSError: the disk refuses.
        """
        failures = 0
        try:
            while (gap := self._next_gap(part)) is not None:
                before, source = part.received, self._sources[0]
                try:
                    self._transfer(source, part, *gap)
                except SourceLost as lost:
                    self._lose(source, lost)
                except RangesIgnored:
                    self._go_without_ranges()
                except Crowded:
                    self._leave_to_others()
                    return
                except UpstreamError as error:
                    if self._gives_way(part, error):
                        return
                    failures = 1 if part.received > before else failures + 1
                    self._pause(source, part, failures, error)
        finally:
            with self._changed:
                self._under_way.end(part)
                self._changed.notify_all()

    def _transfer(self, source: Source, part: Part, start: int, end: int) -> None:
        transfer(
            source,
            start,
            end,
            self._partial.size,
            sink=functools.partial(self._received, part, end),
            go_on=functools.partial(self._goes_on, part),
            ranges="required" if self._ranged else "unavailable",
            spare=part.kind == "extra",
            # Somebody may come to wait for what was begun for nobody.
            background=lambda: self._sources[0].background,
        )

    def _next_gap(self, part: Part) -> tuple[int, int] | None:
        """Return what this connection fetches next, or end its part.

        That it ends is decided in one step with the look at what is wanted: whoever wants more
        after it starts another one.
        """
        whole = part.kind != "part"
        with self._changed:
            while True:
                wanted = (0, self._partial.size) if whole else (part.start, part.end)
                gaps = self._partial.missing(*wanted)
                if not gaps or self._owner.stopped(whole=whole) or self._is_surplus(part):
                    self.whole = self.whole and part.kind != "whole"
                    self._under_way.end(part)
                    return None
                quiet = self._quiet_until - time.monotonic()
                gap = self._choose(part, gaps) if quiet <= 0 else None
                if gap is not None:
                    return gap
                self._changed.wait(min(quiet, 1.0) if quiet > 0 else 1.0)

    def _is_surplus(self, part: Part) -> bool:
        if part.kind == "extra":
            return not self._ranged or self._under_way.lanes > self._lanes.target
        return part.kind == "part" and self.whole and not self._ranged

    def _choose(self, part: Part, gaps: list[tuple[int, int]]) -> tuple[int, int] | None:
        """Claim what comes next of the gaps; None while others bring it all, or it is too far off
        the front."""
        front = gaps[0][0]
        if part.kind == "part":
            return gaps[0]
        if not self._ranged:
            part.claim(front, front + NEAR, moving=True)
            return front, self._partial.size
        part.claim(0, 0, moving=False)
        free = [one for gap in gaps for one in self._under_way.outside(*gap)]
        if not free:
            return None
        start, end = free[0]
        lanes = self._under_way.lanes
        if lanes == 1:
            part.claim(start, min(end, start + NEAR), moving=True)
            return start, end
        if start - front > MAX_AHEAD_OF_HASH:
            return None
        # Shorter towards the end, so that all connections end at about the same time.
        share = sum(high - low for low, high in free) // (2 * lanes)
        end = min(end, start + max(_LEAST_PIECE, min(PIECE, share)))
        part.claim(start, end, moving=False)
        return start, end

    def _goes_on(self, part: Part) -> bool:
        with self._changed:
            if self._owner.stopped(whole=part.kind != "part"):
                # Readers of a range have it, and are gone, before the last block is complete; half
                # a block would have to be fetched again for the next one.
                return part.kind == "part" and not self._owner.over and part.within_block
            if not part.moving or not self._ranged:
                return True
            # Where others bring pieces, they are many: reading over each would fetch them twice.
            most = NEAR if self._under_way.lanes == 1 else 1
            return self._covered_from(part.start, part) - part.start < most

    def _covered_from(self, offset: int, part: Part) -> int:
        """Return the end of what is there or under way elsewhere, from `offset` on."""
        reached = offset
        while True:
            further = self._under_way.reach(self._partial.available(reached), but=part)
            if further <= reached:
                return reached
            reached = further

    # -- failures

    def _lose(self, source: Source, lost: SourceLost) -> None:
        """Go on with a joiner's own right when that of `source` is gone."""
        with self._changed:
            if source in self._sources:
                if len(self._sources) == 1:
                    raise lost.error from lost
                self._sources.remove(source)

    def _go_without_ranges(self) -> None:
        with self._changed:
            self._ranged = False
            self._lanes.only_one(time.monotonic())

    def _gives_way(self, part: Part, error: UpstreamError) -> bool:
        """Go back to one connection where the upstream has too much to do or the others fail;
        whether this connection ends with that."""
        extra = part.kind == "extra"
        with self._changed:
            if is_busy(error):
                asked = min(asked_wait(error.headers) or 0.0, LONGEST_WAIT)
                self._quiet_until = max(self._quiet_until, time.monotonic() + asked)
            if extra or is_busy(error):
                self._lanes.only_one(time.monotonic())
        if extra:
            logger.info("one connection less: %s", error.message)
        return extra

    def _leave_to_others(self) -> None:
        with self._changed:
            self._lanes.no_more(time.monotonic(), self._under_way.lanes - 1)

    def _pause(self, source: Source, part: Part, failures: int, error: UpstreamError) -> None:
        begun = self._owner.sent > 0 and not source.elsewhere
        wait = pause_after(error, failures, begun=begun)
        if wait is None or (source.elsewhere and failures > _FAILURES_WITH_ANOTHER_WAY):
            raise source.given_up(error) from error
        logger.info("%s; again in %.1f s", error.message, wait)
        deadline = time.monotonic() + wait
        with self._changed:
            while time.monotonic() < deadline:
                if self._owner.stopped(whole=part.kind != "part"):
                    return
                self._changed.wait(max(0.0, deadline - time.monotonic()))

    # -- arrivals

    def _received(self, part: Part, gap_end: int, offset: int, data: bytes) -> None:
        self._write(offset, data)
        now = time.monotonic()
        with self._changed:
            part.received += len(data)
            part.within_block = (offset + len(data)) % BLOCK_SIZE != 0
            self.fetched += len(data)
            self.speed.add(now, len(data))
            missing = 0
            if part.kind != "part":
                part.start = offset + len(data)
                if part.moving:
                    part.end = min(gap_end, part.start + NEAR)
                missing = self._more_lanes(now, len(data))
        for _ in range(missing):
            self._add_lane()
        self._owner.arrived(whole=part.kind != "part")

    def _write(self, offset: int, data: bytes) -> None:
        """Write what is not there and nobody else is writing.

        Two answers may differ. What was hashed or given out must stay as it was.
        """
        end = offset + len(data)
        with self._changed:
            fresh = self._under_way.begin_writing(self._partial.missing(offset, end))
        try:
            for low, high in fresh:
                piece = data if (low, high) == (offset, end) else data[low - offset : high - offset]
                self._partial.write(low, piece)
        finally:
            with self._changed:
                self._under_way.end_writing(fresh)

    # -- more connections; the lock is held where it says so

    def _more_lanes(self, now: float, count: int) -> int:
        """Return how many connections are to be added. The lock is held."""
        self._brought += count
        if self._flow is None:
            return 0
        total = self._flow.add(count)
        if now < self._look_at or not self._ranged:
            return 0
        self._look_at = now + _LOOK_SECONDS
        active, left = self._under_way.lanes, self._partial.size - self._partial.present
        target = self._lanes.look(Reading(now, self._brought, total, active, left))
        return max(0, target - active) if self.whole else 0

    def _add_lane(self) -> None:
        kind: Kind = "extra"
        with self._changed:
            if self._owner.stopped(whole=True):
                return
            part = self._under_way.begin(0, 0, kind)
        if not self._owner.offer(functools.partial(self.run, part)):
            with self._changed:
                self._under_way.end(part)
