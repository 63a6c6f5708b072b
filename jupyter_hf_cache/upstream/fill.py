"""A fill: the one running download of a blob, joined by all who want it.

Responsible for: which bytes are wanted, fetching them in threads with retries and resume, hashing
them as they arrive, saying how far a reader may go, and ending in exactly one of kept, failed or
paused.
Not responsible for: who joins which fill and what happens to its result (`upstream.fills`), one
transfer over the wire (`upstream.transfer`), or the answer to the client (`web.content`).

How far a reader may go: an answer that would complete the file is held back by its last bytes
until the digest matched, so that no client ever ends a download that is not what the Hub named.
Bounded ranges are given out as soon as they are there, if their origin is believable (see
`range_safe`).

A fill is hashed from the growing file itself, in order, by a job of its own: ranges may arrive in
any order, and a slow hash never stops the line unless it is 256 MiB behind.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Literal

from jupyter_hf_cache.errors import (
    HfCacheError,
    StorageError,
    UpstreamError,
    UpstreamUnreachable,
    VerificationFailed,
)
from jupyter_hf_cache.storage.interface import BlobId, Partial
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.upstream.growing_digest import GrowingDigest
from jupyter_hf_cache.upstream.speed import Speed
from jupyter_hf_cache.upstream.transfer import Source, SourceLost, transfer
from jupyter_hf_cache.upstream.underway import Part, UnderWay

logger = logging.getLogger(__name__)

HOLD_BACK = 64 * 1024
MAX_AHEAD_OF_HASH = 256 * 1024 * 1024
_HASH_LAG = 1024 * 1024
_ATTEMPTS_WITHOUT_PROGRESS = 5
_CLAIMS_IN_SIDECAR = 64
_BACKOFF_SECONDS = (0.05, 0.3, 1.0, 2.0, 4.0)
# What a connection reaches this soon is left to it; and if others have fetched less than this ahead
# of it, it reads over that rather than make room for a new one. So much may be fetched twice.
NEAR = 8 * 1024 * 1024

State = Literal["running", "verified", "kept", "unkept", "failed", "paused"]
_OVER = ("kept", "unkept", "failed", "paused")


@dataclass(frozen=True, slots=True)
class Pools:
    """The bounded executors that fills run in."""

    fetch: Executor
    ranges: Executor
    hash: Executor


class Fill:
    """One running download. Thread-safe.

    Args:
        blob: what is fetched.
        partial: where the bytes go; owned by the fill from here on.
        source: the first caller's way to the bytes.
        pools: executors for fetching and hashing.
        on_end: called once from a worker thread when it is settled how the fill ends (`outcome`),
            before any reader is told of a failure: what a client does next must find it noted.
        linger: seconds it goes on after its last reader left.
        range_safe: the origin may be believed before the digest is known (TLS or loopback).

    Attributes:
        state: how things stand for readers.
        outcome: how it ends; None while that is open.
        released: set when the lease on the blob was given up.
    """

    def __init__(
        self,
        blob: BlobId,
        partial: Partial,
        source: Source,
        *,
        pools: Pools,
        on_end: Callable[[Fill], None],
        linger: float,
        range_safe: bool,
        attempt: int = 1,
    ) -> None:
        self.blob = blob
        self.size = partial.size
        self.partial = partial
        self.range_safe = range_safe and partial.trusted
        self.linger = linger
        self.attempt = attempt
        self.started = time.time()
        self.error: HfCacheError | None = None
        self.state: State = "running"
        self.outcome: State | None = None
        self.released = threading.Event()
        self.sent = 0
        self.fetched = 0
        self.sources = [source]
        self._pools = pools
        self._on_end = on_end
        self._changed = threading.Condition(threading.Lock())
        self._watchers: list[Callable[[], None]] = []
        self._readers = 0
        self._idle_since = time.monotonic()
        self._jobs = 0
        self._whole = False
        self._under_way = UnderWay()
        self._hashing = False
        self._digest = GrowingDigest(blob, partial)
        self._closed = False
        self._speed = Speed()

    # -- readers

    def join(self, source: Source) -> bool:
        """Add a reader; False when the fill is over, or of another origin.

        Who only names a digest must not be handed what another origin delivers.
        """
        with self._changed:
            joinable = self._running or self.state == "verified"
            if not joinable or source.origin_id != self.origin_id:
                return False
            self._readers += 1
            if all(known.key != source.key for known in self.sources):
                self.sources.append(source)
            return True

    @property
    def origin_id(self) -> str:
        """The origin whose bytes these are."""
        return self.sources[0].origin_id

    @property
    def _running(self) -> bool:
        return self.outcome is None and self.state == "running"

    def leave(self) -> None:
        """Remove a reader. A fill of ranges only ends with its last reader; a whole one lingers."""
        with self._changed:
            self._readers -= 1
            if self._readers == 0:
                self._idle_since = time.monotonic()
        self._settle()

    @property
    def readers(self) -> int:
        """How many answers follow this fill now."""
        return self._readers

    @property
    def done(self) -> int:
        """Bytes on disk."""
        return self.partial.present

    @property
    def verified(self) -> bool:
        """Whether the digest matched."""
        return self.state in ("verified", "kept", "unkept")

    def speed(self) -> float:
        """Return the bytes per second that arrive now."""
        with self._changed:
            return self._speed.value(time.monotonic())

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from a worker thread after each change; returns what ends that."""
        with self._changed:
            self._watchers.append(callback)

        def unwatch() -> None:
            with self._changed:
                if callback in self._watchers:
                    self._watchers.remove(callback)

        return unwatch

    def available(self, offset: int, *, completing: bool) -> int:
        """Return the end of the bytes from `offset` on that a reader may have now.

        Args:
            completing: the answer would complete the file, so its tail waits for the digest.

        Raises:
            HfCacheError: the fill failed.
        """
        if self.verified:
            return self.size
        if self.state in ("failed", "paused"):
            raise self.error or UpstreamError("The download was stopped.")
        if self.outcome is not None:
            return offset
        if completing:
            return max(offset, min(self.partial.available(offset), self.size - HOLD_BACK))
        return self.partial.available(offset) if self.range_safe else offset

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes below `available`, and remember that they were given out.

        Raises:
            HfCacheError: the fill failed meanwhile, or the file lost its bytes.
        """
        data = self.partial.read(offset, length)
        self.give_out(offset + len(data))
        if not data and length:
            raise StorageError("The file that is being received became shorter.")
        return data

    def give_out(self, end: int) -> None:
        """Remember that bytes up to `end`, below `available`, go to a client now.

        Raises:
            HfCacheError: the fill failed meanwhile.
        """
        with self._changed:
            if self.outcome is not None and not self.verified:
                # How much was given out is noted already; nothing may be added to it.
                self._changed.wait_for(lambda: self.state in _OVER)
                raise self.error or UpstreamError("The download was stopped.")
            self.sent = max(self.sent, end)

    # -- wants

    def want_all(self) -> None:
        """Fetch whatever is missing, from the start on, and verify."""
        with self._changed:
            if self._whole or not self._running:
                return
            self._whole = True
            self._jobs += 1
            part = self._under_way.begin(0, 0)
        self._pools.fetch.submit(self._job, functools.partial(self._fetch, part, whole=True))
        self._kick_hash()

    def want(self, start: int, end: int) -> None:
        """Fetch what is missing of [start, end) ahead of everything else."""
        if not self.range_safe:
            self.want_all()
            return
        with self._changed:
            if not self._running:
                return
            parts = [
                self._under_way.begin(*piece)
                for gap in self.partial.missing(start, end)
                for piece in self._under_way.outside(*gap)
            ]
            self._jobs += len(parts)
        for part in parts:
            self._pools.ranges.submit(self._job, functools.partial(self._fetch, part, whole=False))
        self._kick_hash()

    # -- jobs

    def _job(self, work: Callable[[], None]) -> None:
        try:
            work()
        except HfCacheError as error:
            self._end("failed", error)
        except OSError as error:
            self._end("failed", StorageError(f"The cache cannot write: {error.strerror}."))
        except Exception:
            logger.exception("fill of %s broke", self.blob)
            self._end("failed", UpstreamError("The download failed inside the cache."))
        finally:
            with self._changed:
                self._jobs -= 1
            self._settle()

    def _fetch(self, part: Part, *, whole: bool) -> None:
        """Bring a part in, or all that is missing, over as many connections and sources as it
        takes."""
        failures = 0
        try:
            while (gap := self._next_gap(part, whole=whole)) is not None:
                before, source = part.received, self.sources[0]
                try:
                    transfer(
                        source,
                        *gap,
                        self.size,
                        sink=functools.partial(self._received, part, gap[1], whole=whole),
                        go_on=functools.partial(self._goes_on, part, whole=whole),
                    )
                except SourceLost as lost:
                    self._lose(source, lost)
                except UpstreamError as error:
                    failures = 1 if part.received > before else failures + 1
                    if failures > self._patience(error):
                        raise
                    self._pause_between(failures, error)
        finally:
            with self._changed:
                self._under_way.end(part)
                self._changed.notify_all()

    def _patience(self, error: UpstreamError) -> int:
        """Return how many failures in a row are borne. Who was sent nothing yet is told at once
        that nobody is there: the connection was tried several times already."""
        gone = isinstance(error, UpstreamUnreachable) and self.sent == 0
        return 0 if gone else _ATTEMPTS_WITHOUT_PROGRESS

    def _next_gap(self, part: Part, *, whole: bool) -> tuple[int, int] | None:
        """Return what this connection fetches next, or end its part.

        That it ends is decided in one step with the look at what is wanted: whoever wants more
        after it starts another one.
        """
        with self._changed:
            while True:
                start, end = (0, self.size) if whole else (part.start, part.end)
                gaps = self.partial.missing(start, end)
                if not gaps or self._stopped(whole=whole):
                    if whole:
                        self._whole = False
                    self._under_way.end(part)
                    return None
                if not whole:
                    return gaps[0]
                part.start = part.end = 0
                free = next((one for gap in gaps for one in self._under_way.outside(*gap)), None)
                if free is not None:
                    part.start, part.end = free[0], min(free[1], free[0] + NEAR)
                    return free
                self._changed.wait(1.0)

    def _goes_on(self, part: Part, *, whole: bool) -> bool:
        with self._changed:
            if self._stopped(whole=whole):
                return False
            return not whole or self._covered_from(part.start, part) - part.start < NEAR

    def _covered_from(self, offset: int, part: Part) -> int:
        """Return the end of what is there or under way elsewhere, from `offset` on."""
        reached = offset
        while True:
            further = self._under_way.reach(self.partial.available(reached), but=part)
            if further <= reached:
                return reached
            reached = further

    def _lose(self, source: Source, lost: SourceLost) -> None:
        """Go on with a joiner's own right when that of `source` is gone."""
        with self._changed:
            if source in self.sources:
                if len(self.sources) == 1:
                    raise lost.error from lost
                self.sources.remove(source)

    def _pause_between(self, failures: int, error: UpstreamError) -> None:
        wait = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1]
        asked = error.headers.get("Retry-After", "")
        if asked.isdigit():
            wait = max(wait, min(float(asked), 60.0))
        logger.info("fill of %s: %s; again in %.1f s", self.blob, error.message, wait)
        deadline = time.monotonic() + wait
        with self._changed:
            while self._running and time.monotonic() < deadline:
                self._changed.wait(max(0.0, deadline - time.monotonic()))

    def _received(self, part: Part, gap_end: int, offset: int, data: bytes, *, whole: bool) -> None:
        self.partial.write(offset, data)
        with self._changed:
            part.received += len(data)
            self.fetched += len(data)
            if whole:
                part.start = offset + len(data)
                part.end = min(gap_end, part.start + NEAR)
            self._speed.add(time.monotonic(), len(data))
        self._notify()
        self._kick_hash()
        with self._changed:
            while whole and self._running and self._hashing and self._unhashed > MAX_AHEAD_OF_HASH:
                self._changed.wait(1.0)

    @property
    def _unhashed(self) -> int:
        return self.partial.available(0) - self._digest.hashed

    def _stopped(self, *, whole: bool) -> bool:
        if not self._running:
            return True
        if self._readers > 0:
            return False
        if not whole:
            return True
        if self.attempt > 1:
            # Readers left with the first attempt; this one says what was wrong with their bytes.
            return False
        idle = time.monotonic() - self._idle_since
        return idle > self.linger and self.partial.present * 2 < self.size

    # -- hashing

    def _kick_hash(self) -> None:
        with self._changed:
            reached = self.partial.available(0)
            complete = reached >= self.size
            due = complete or (self._whole and reached - self._digest.hashed >= _HASH_LAG)
            if not due or self._hashing or not self._running:
                return
            self._hashing = True
            self._jobs += 1
        self._pools.hash.submit(self._job, self._hash)

    def _hash(self) -> None:
        while True:
            with self._changed:
                reached = self.partial.available(0)
                behind = reached - self._digest.hashed
                if not self._running or (behind <= 0 and reached < self.size):
                    self._hashing = False
                    return
            if self._digest.complete:
                self._conclude()
                return
            count = self._digest.step(reached)
            with self._changed:
                self._digest.hashed += count
                self._changed.notify_all()

    def _conclude(self) -> None:
        """Compare the digest; release readers at once, then make the blob durable."""
        if not self._digest.matches:
            self._end(
                "failed",
                VerificationFailed(
                    f"The upstream's bytes do not have the digest {self.blob.digest}.",
                    advice="Nothing of it was kept. Try again; if it stays, the upstream or a "
                    "proxy before it damages files.",
                ),
            )
            return
        with self._changed:
            if self.outcome is not None:
                return
            self.state = "verified"
        self._notify()
        try:
            self.partial.commit(self._sidecar())
        except OSError as error:
            logger.warning("blob %s is verified but cannot be kept: %s", self.blob, error)
            self._end("unkept", None)
        else:
            self._end("kept", None)

    def _sidecar(self) -> Sidecar:
        with self._changed:
            claims = [source.claim for source in self.sources]
        return Sidecar(
            size=self.size,
            sha256=self._digest.sha256,
            origins=[self.origin_id],
            claims=claims[:_CLAIMS_IN_SIDECAR],
            created=time.time(),
        )

    # -- ending

    def _end(self, outcome: State, error: HfCacheError | None) -> None:
        with self._changed:
            if self.outcome is not None:
                return
            if self.state == "verified" and outcome in ("failed", "paused"):
                return
            self.error = error
            self.outcome = outcome
        try:
            self._on_end(self)
        finally:
            with self._changed:
                self.state = outcome
                self._changed.notify_all()
            self._notify()

    def stop(self) -> None:
        """End now and keep what is there for the next fill: the cache is shutting down."""
        self._end("paused", UpstreamError("The cache is shutting down.", status=503))
        self._settle()

    def _settle(self) -> None:
        """End an idle fill, and close the file once nobody needs it."""
        with self._changed:
            idle = self._jobs == 0 and self._readers == 0
            pause = idle and self._running
        if pause:
            self._end("paused", UpstreamError("The download was stopped."))
        with self._changed:
            release = self.state in _OVER and self._jobs == 0
            close = release and self._readers == 0 and not self._closed
            self._closed = self._closed or close
        if close:
            self.partial.close()
            self.released.set()
        elif release:
            self.release()

    def release(self) -> None:
        """Give up the lease on the blob; readers may still use the file."""
        self.partial.release()
        self.released.set()

    def _notify(self) -> None:
        with self._changed:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()
