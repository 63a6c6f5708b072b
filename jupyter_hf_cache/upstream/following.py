"""A fill of another process, followed by the readers of this one.

Responsible for: letting readers here have what arrives there, under the same rules as if it were
fetched here; asking for what they want; noticing that the owner died, gave up or stands still; and
going on with a fill of this process in its place.
Not responsible for: starting that fill and what damage leads to (`upstream.fills`), or the files
(`storage.following`).

How it ends for readers:

- The owner says that the digest matched: all of it may be read.
- It says that it did not: readers are told so once what they were given is noted by the owner.
- The lease becomes free: this process takes it and brings in what is missing, by its own right.
- The partial is another one than it was: nobody knows any more what was given out. Who was given
  nothing asks again; what was given out is noted as damaged.
- The owner stands still and keeps its lease, because it was stopped or its disk hangs: readers are
  told, and who asks again is served without it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from jupyter_hf_cache.errors import (
    FillInterrupted,
    HfCacheError,
    StorageError,
    UpstreamError,
    VerificationFailed,
)
from jupyter_hf_cache.storage.interface import BlobId, Followed, Span, Stage
from jupyter_hf_cache.upstream.fill import HOLD_BACK, Fill
from jupyter_hf_cache.upstream.speed import Speed
from jupyter_hf_cache.upstream.transfer import Source

logger = logging.getLogger(__name__)

# A sign of life is due twice a second. A busy machine may delay it.
STOPPED_SECONDS = 8.0
_LIVE_SECONDS = 0.5
# Without progress for this long it is tried whether the lease is free.
_TRY_SECONDS = 0.25
_QUICK_SECONDS = 0.005
_SLOW_SECONDS = 0.05
_ANSWER_SECONDS = 1.0

State = Literal["running", "verified", "failed"]


class Following:
    """A fill of another process. Thread-safe; `look` is for one thread.

    Args:
        partial: closed when the last reader has left.
        source: the first reader's way to the bytes.
        range_safe: the origin may be believed before the digest is known (TLS or loopback).
        on_free: called in the looking thread when the lease may be free; must not block.
        on_end: called when it failed, before any reader is told, and when all have left; with how
            much was given out if nobody else notes that.

    Attributes:
        sent: how far bytes were given out by this process.
        fill: the fill of this process that goes on in the owner's place.
        stands_still: it failed because the owner does.
    """

    def __init__(
        self,
        blob: BlobId,
        partial: Followed,
        source: Source,
        *,
        range_safe: bool,
        on_free: Callable[[Following], None],
        on_end: Callable[[Following, int], None],
    ) -> None:
        self.blob = blob
        self.size = partial.size
        self.partial = partial
        self.range_safe = range_safe and partial.trusted
        self.started = time.time()
        self.sources = [source]
        self.error: HfCacheError | None = None
        self.sent = 0
        self.fill: Fill | None = None
        self.stands_still = False
        self.wanted: set[Span] = set()
        self.whole = False
        self._state: State = "running"
        self._on_free = on_free
        self._on_end = on_end
        self._changed = threading.Condition(threading.Lock())
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._readers = 0
        self._closed = False
        self._unwatch: Callable[[], None] = lambda: None
        self._speed = Speed()
        now = time.monotonic()
        self._beat, self._beat_at = partial.beat, now
        self._progress_at = self._tried_at = now
        self._live_at = 0.0
        self._counted = partial.present

    # -- readers

    def join(self, source: Source) -> bool:
        """Add a reader; False when it is over, or of another origin."""
        with self._changed:
            over = self._closed or self._state == "failed"
            if over or self.fill is not None or source.origin_id != self.sources[0].origin_id:
                return False
            self._readers += 1
            if all(known.key != source.key for known in self.sources):
                self.sources.append(source)
            return True

    def leave(self) -> None:
        """Remove a reader; with the last one it is over."""
        with self._changed:
            self._readers -= 1
            if self._readers > 0:
                return
            unnoted = self.sent if not self.over and self.sent and self._is_lost() else 0
            self._closed = True
            fill = self.fill
        self._unwatch()
        if fill is not None:
            fill.leave()
        self._on_end(self, unnoted)
        self.partial.close()

    def _is_lost(self) -> bool:
        """Whether the partial was replaced. One that was verified or found damaged is gone too, but
        that is written into its map before."""
        if self.partial.in_place:
            return False
        self.partial.look()
        return self.partial.stage in (Stage.IDLE, Stage.RUNNING)

    @property
    def state(self) -> str:
        """How things stand for readers."""
        return self.fill.state if self.fill is not None else self._state

    @property
    def over(self) -> bool:
        """Whether there is nothing left to follow."""
        return self._closed or self.fill is not None or self._state != "running"

    @property
    def readers(self) -> int:
        """How many answers of this process read it."""
        return self._readers

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return self.fill.done if self.fill is not None else self.partial.present

    @property
    def verified(self) -> bool:
        """Whether the digest matched."""
        return self._state == "verified" or (self.fill is not None and self.fill.verified)

    def speed(self) -> float:
        """Return the bytes per second that arrive now."""
        if self.fill is not None:
            return self.fill.speed()
        with self._changed:
            return self._speed.value(time.monotonic())

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from another thread after each change; returns what ends that."""
        with self._changed:
            self._watchers = (*self._watchers, callback)

        def unwatch() -> None:
            with self._changed:
                self._watchers = tuple(one for one in self._watchers if one is not callback)

        return unwatch

    def available(self, offset: int, *, completing: bool) -> int:
        """Return the end of the bytes from `offset` on that a reader may have now. Never blocks.

        Raises:
            HfCacheError: it will not arrive.
        """
        if self._state == "verified":
            return self.size
        if self._state == "failed":
            raise self._failure()
        if self.fill is not None:
            return self.fill.available(offset, completing=completing)
        if completing:
            return max(offset, min(self.partial.available(offset), self.size - HOLD_BACK))
        if not self.range_safe or self.partial.present >= self.size:
            # Who asked for all of it in ranges would else hold a complete file of unknown digest.
            return offset
        return self.partial.available(offset)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes below `available`, and remember that they were given out.

        Raises:
            HfCacheError: it will not arrive, or the file lost its bytes.
        """
        self.give_out(offset + length)
        data = self.partial.read(offset, length)
        if not data and length:
            raise StorageError("The file that is being received became shorter.")
        return data

    def give_out(self, end: int) -> None:
        """Remember that bytes up to `end`, below `available`, go to a client now.

        Raises:
            HfCacheError: they must not.
        """
        with self._changed:
            if self._state == "verified":
                return
            if self.error is not None:
                self._wait_for_the_end()
            fill = self.fill
            if fill is None:
                self.sent = max(self.sent, end)
        if fill is None:
            fill = self._note(end)
        if fill is not None:
            fill.give_out(end)

    def _note(self, end: int) -> Fill | None:
        """Let the owner know; returns the fill of this process, if that is the owner now."""
        try:
            stage = self.partial.give_out(end)
        except OSError as error:
            raise StorageError(f"The cache cannot write: {error.strerror}.") from error
        if stage in (Stage.DAMAGED, Stage.SETTLED):
            with self._changed:
                if self.fill is None:
                    self._wait_for_the_end()
        return self.fill

    def _wait_for_the_end(self) -> None:
        """Wait until what was given out is noted, and raise. The lock is held."""
        self._changed.wait_for(
            lambda: self._state == "failed" or self.fill is not None, 2 * STOPPED_SECONDS
        )
        if self.fill is None:
            raise self._failure()

    def _failure(self) -> HfCacheError:
        return self.error or UpstreamError("The download was stopped.")

    # -- wants

    def want_all(self) -> None:
        """Have whatever is missing fetched and verified."""
        with self._changed:
            self.whole = True
            fill = self.fill
        if fill is not None:
            fill.want_all()
        else:
            self._renew()

    def want(self, start: int, end: int) -> None:
        """Have what is missing of [start, end) fetched ahead of everything else."""
        if not self.range_safe:
            self.want_all()
            return
        with self._changed:
            self.wanted.add((start, end))
            fill = self.fill
        if fill is not None:
            fill.want(start, end)
        else:
            self._renew()

    def ask(self, part: Span | None) -> bool:
        """Want a part, or everything (None), and wait a moment for what the owner says; False when
        it has no room for that."""
        if self._state == "verified":
            return True
        if not self.range_safe:
            part = None
        (self.want_all if part is None else lambda: self.want(*part))()
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (answer := self.partial.answer(part)) == "waiting":
            if time.monotonic() > deadline or self.over:
                break
            time.sleep(_QUICK_SECONDS)
        if answer != "refused":
            return True
        with self._changed:
            if part is None:
                self.whole = False
            else:
                self.wanted.discard(part)
        return False

    def _renew(self) -> None:
        """Say that somebody follows, and what is still wanted: a new owner knows of nothing."""
        with self._changed:
            self.wanted = {part for part in self.wanted if self.partial.missing(*part)}
            wants: list[Span | None] = [*self.wanted]
            if self.whole:
                wants.append(None)
        try:
            if any(self.partial.answer(part) == "refused" for part in wants):
                self.fail(FillInterrupted("There is no room any more for this file."))
                return
            if self.whole:
                self.partial.want_all()
            for part in self.wanted.copy():
                self.partial.want(*part)
            self.partial.live()
        except OSError as error:
            logger.warning("the owner of %s is not told what is wanted: %s", self.blob, error)

    # -- looking

    def look(self) -> float | None:
        """See how things stand; return the seconds until the next look, None when it is over."""
        if self.over:
            return None
        now = time.monotonic()
        if self.partial.look():
            self._progress(now)
        if self.partial.beat != self._beat:
            self._beat, self._beat_at = self.partial.beat, now
        stage = self.partial.stage
        if stage is Stage.VERIFIED:
            self._enter("verified")
            return None
        if stage is Stage.SETTLED:
            self.fail(VerificationFailed(f"The upstream's bytes are not {self.blob.digest}."))
            return None
        if now - max(self._beat_at, self._progress_at) > STOPPED_SECONDS:
            self.stands_still = True
            self.fail(
                FillInterrupted("The process that fetches this file stands still."),
                noted=stage is not Stage.DAMAGED,
            )
            return None
        self._try(now, at_once=stage is Stage.IDLE)
        if now >= self._live_at + _LIVE_SECONDS:
            self._live_at = now
            self._renew()
        quiet = now - self._progress_at
        return min(max(quiet / 4, _QUICK_SECONDS), _SLOW_SECONDS)

    def _progress(self, now: float) -> None:
        with self._changed:
            self._speed.add(now, max(0, self.partial.present - self._counted))
            self._counted = self.partial.present
        self._progress_at = now
        self._notify()

    def _try(self, now: float, *, at_once: bool) -> None:
        quiet = now - self._progress_at > _TRY_SECONDS
        if at_once or (quiet and now - self._tried_at > _TRY_SECONDS):
            self._tried_at = now
            self._on_free(self)

    # -- how it goes on

    def go_on_with(self, fill: Fill) -> bool:
        """Let a fill of this process take the owner's place; False when it is over already."""
        with self._changed:
            if self.over or not fill.join(self.sources[0]):
                return False
            self.fill = fill
            wanted, whole, others = list(self.wanted), self.whole, self.sources[1:]
        self._unwatch = fill.watch(self._notify)
        for source in others:
            if fill.join(source):
                fill.leave()
        if whole:
            fill.want_all()
        for part in wanted:
            fill.want(*part)
        self._notify()
        return True

    def lose_if_replaced(self) -> bool:
        """End it if the partial is another one now: what was given out of this one can be compared
        with nothing."""
        with self._changed:
            lost = self._is_lost()
        if lost:
            self.lose()
        return lost

    def lose(self) -> None:
        """End it because the partial is another one now."""
        self.fail(FillInterrupted("The file that was being received was replaced."), noted=False)

    def fail(self, error: HfCacheError, *, noted: bool = True) -> None:
        """End it for all readers.

        Args:
            noted: what was given out is noted elsewhere, if it has to be.
        """
        with self._changed:
            if self.over or self.error is not None:
                return
            # From here on nothing is given out any more.
            self.error = error
            unnoted = 0 if noted else self.sent
        try:
            self._on_end(self, unnoted)
        finally:
            self._enter("failed")

    def _enter(self, state: State) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()
        self._notify()

    def _notify(self) -> None:
        for watcher in self._watchers:
            watcher()
