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
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

from jupyter_hf_cache.errors import HfCacheError, StorageError, UpstreamError, VerificationFailed
from jupyter_hf_cache.protocol.digests import Hasher
from jupyter_hf_cache.storage.blobs import BlobId, LocalPartial, Sidecar
from jupyter_hf_cache.upstream.transfer import Source, SourceLost, transfer

logger = logging.getLogger(__name__)

HOLD_BACK = 64 * 1024
MAX_AHEAD_OF_HASH = 256 * 1024 * 1024
_HASH_STEP = 4 * 1024 * 1024
_HASH_LAG = 1024 * 1024
_ATTEMPTS_WITHOUT_PROGRESS = 5
_BACKOFF_SECONDS = (0.05, 0.3, 1.0, 2.0, 4.0)
_NEAR = 8 * 1024 * 1024

State = Literal["running", "verified", "kept", "unkept", "failed", "paused"]


@dataclass(frozen=True, slots=True)
class Pools:
    """The bounded executors that fills run in."""

    fetch: Executor
    ranges: Executor
    hash: Executor


@dataclass(slots=True)
class Speed:
    """Bytes per second over the last few seconds. Guarded by the fill's lock."""

    marks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, now: float, count: int) -> None:
        """Note `count` bytes that arrived at `now` (monotonic seconds)."""
        if self.marks and now - self.marks[-1][0] < 0.1:
            when, before = self.marks[-1]
            self.marks[-1] = (when, before + count)
        else:
            self.marks.append((now, count))

    def value(self, now: float) -> float:
        """Return bytes per second over the last five seconds."""
        recent = [(when, count) for when, count in self.marks if now - when < 5.0]
        if not recent:
            return 0.0
        return sum(count for _, count in recent) / max(now - recent[0][0], 0.1)


class Fill:
    """One running download. Thread-safe.

    Args:
        blob: what is fetched.
        partial: where the bytes go; owned by the fill from here on.
        source: the first caller's way to the bytes.
        pools: executors for fetching and hashing.
        on_end: called once from a worker thread with the fill when it has ended, before waiting
        readers
            are told of a failure.
        linger: seconds it goes on after its last reader left.
        range_safe: the origin may be believed before the digest is known (TLS or loopback).
    """

    def __init__(
        self,
        blob: BlobId,
        partial: LocalPartial,
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
        self.sent = 0
        self.fetched = 0
        self.sha256 = ""
        self.sources = [source]
        self._pools = pools
        self._on_end = on_end
        self._changed = threading.Condition(threading.Lock())
        self._watchers: list[Callable[[], None]] = []
        self._readers = 0
        self._idle_since = time.monotonic()
        self._jobs = 0
        self._whole = False
        self._in_flight: list[tuple[int, int]] = []
        self._hashing = False
        self._hashed = 0
        self._digest = Hasher(blob.digest.algorithm, partial.size)
        self._sha256 = Hasher("sha256", partial.size) if blob.digest.algorithm != "sha256" else None
        self._closed = False
        self._speed = Speed()

    # -- readers

    def join(self, source: Source) -> bool:
        """Add a reader; False when the fill is over and another one is needed."""
        with self._changed:
            if self.state not in ("running", "verified"):
                return False
            self._readers += 1
            if all(known.key != source.key for known in self.sources):
                self.sources.append(source)
            return True

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
        if completing:
            return max(offset, min(self.partial.available(offset), self.size - HOLD_BACK))
        return self.partial.available(offset) if self.range_safe else offset

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes below `available`, and remember that they were given out."""
        data = self.partial.read(offset, length)
        with self._changed:
            self.sent = max(self.sent, offset + len(data))
        return data

    # -- wants

    def want_all(self) -> None:
        """Fetch whatever is missing, from the start on, and verify."""
        with self._changed:
            if self._whole or self.state != "running":
                return
            self._whole = True
            self._jobs += 1
        self._pools.fetch.submit(self._job, self._fetch_all)
        self._kick_hash()

    def want(self, start: int, end: int) -> None:
        """Fetch what is missing of [start, end) ahead of everything else."""
        if not self.range_safe:
            self.want_all()
            return
        jobs = []
        with self._changed:
            if self.state != "running":
                return
            for gap_start, gap_end in self.partial.missing(start, end):
                for piece in _outside(gap_start, gap_end, self._in_flight):
                    self._in_flight.append(piece)
                    self._jobs += 1
                    jobs.append(piece)
        for piece in jobs:
            self._pools.ranges.submit(self._job, functools.partial(self._fetch_piece, *piece))
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

    def _fetch_all(self) -> None:
        while True:
            self._fetch_gaps()
            with self._changed:
                # A reader may have joined after the decision to stop for want of readers.
                missing = bool(self.partial.missing(0, self.size))
                if self.state != "running" or not missing or self._readers == 0:
                    self._whole = False
                    return

    def _fetch_gaps(self) -> None:
        while not self._stopped(whole=True):
            gaps = self.partial.missing(0, self.size)
            if not gaps:
                return
            start, end = gaps[0]
            with self._changed:
                reserved = (start, min(end, start + _NEAR))
                self._in_flight.append(reserved)
            try:
                self._fetch(start, end, whole=True)
            finally:
                with self._changed:
                    self._in_flight.remove(reserved)

    def _fetch_piece(self, start: int, end: int) -> None:
        while True:
            self._fetch(start, end, whole=False)
            with self._changed:
                missing = bool(self.partial.missing(start, end))
                if self.state != "running" or not missing or self._readers == 0:
                    self._in_flight.remove((start, end))
                    return

    def _fetch(self, start: int, end: int, *, whole: bool) -> None:
        """Bring [start, end) in, over as many connections and sources as it takes."""
        failures = 0
        while not self._stopped(whole=whole):
            gaps = self.partial.missing(start, end)
            if not gaps:
                return
            gap_start, gap_end = gaps[0]
            before = self.fetched
            try:
                transfer(
                    self.sources[0],
                    gap_start,
                    gap_end,
                    self.size,
                    sink=self._received,
                    go_on=lambda: not self._stopped(whole=whole),
                )
            except SourceLost as lost:
                self._next_source(lost)
            except UpstreamError as error:
                failures = 1 if self.fetched > before else failures + 1
                if failures > _ATTEMPTS_WITHOUT_PROGRESS:
                    raise
                self._pause_between(failures, error)

    def _next_source(self, lost: SourceLost) -> None:
        """Go on with a joiner's own right when the first caller's is gone."""
        with self._changed:
            if len(self.sources) < 2:
                raise lost.error from lost
            self.sources.pop(0)

    def _pause_between(self, failures: int, error: UpstreamError) -> None:
        wait = _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1]
        asked = error.headers.get("Retry-After", "")
        if asked.isdigit():
            wait = max(wait, min(float(asked), 60.0))
        logger.info("fill of %s: %s; again in %.1f s", self.blob, error.message, wait)
        deadline = time.monotonic() + wait
        with self._changed:
            while self.state == "running" and time.monotonic() < deadline:
                self._changed.wait(max(0.0, deadline - time.monotonic()))

    def _received(self, offset: int, data: bytes) -> None:
        self.partial.write(offset, data)
        with self._changed:
            self.fetched += len(data)
            self._speed.add(time.monotonic(), len(data))
        self._notify()
        self._kick_hash()
        with self._changed:
            while (
                self._whole
                and self.state == "running"
                and self._hashing
                and offset - self._hashed > MAX_AHEAD_OF_HASH
            ):
                self._changed.wait(1.0)

    def _stopped(self, *, whole: bool) -> bool:
        if self.state != "running":
            return True
        if self._readers > 0:
            return False
        if not whole:
            return True
        idle = time.monotonic() - self._idle_since
        return idle > self.linger and self.partial.present * 2 < self.size

    # -- hashing

    def _kick_hash(self) -> None:
        with self._changed:
            reached = self.partial.available(0)
            complete = reached >= self.size
            due = complete or (self._whole and reached - self._hashed >= _HASH_LAG)
            if not due or self._hashing or self.state != "running":
                return
            self._hashing = True
            self._jobs += 1
        self._pools.hash.submit(self._job, self._hash)

    def _hash(self) -> None:
        while True:
            with self._changed:
                reached = self.partial.available(0)
                if self.state != "running" or (self._hashed >= reached and reached < self.size):
                    self._hashing = False
                    return
            if self._hashed >= self.size:
                self._conclude()
                return
            data = self.partial.read(self._hashed, min(_HASH_STEP, reached - self._hashed))
            self._digest.update(data)
            if self._sha256 is not None:
                self._sha256.update(data)
            with self._changed:
                self._hashed += len(data)
                self._changed.notify_all()

    def _conclude(self) -> None:
        """Compare the digest; release readers at once, then make the blob durable."""
        if self._digest.hexdigest() != self.blob.digest.hex:
            self._end(
                "failed",
                VerificationFailed(
                    f"The upstream's bytes do not have the digest {self.blob.digest}.",
                    advice="Nothing of it was kept. Try again; if it stays, the upstream or a proxy "
                    "before it damages files.",
                ),
            )
            return
        self.sha256 = (self._sha256 or self._digest).hexdigest()
        with self._changed:
            self.state = "verified"
        self._notify()
        source = self.sources[0]
        sidecar = Sidecar(
            size=self.size,
            sha256=self.sha256,
            origins=[source.origin_id],
            claims=[source.claim],
            created=time.time(),
        )
        try:
            self.partial.commit(sidecar)
        except OSError as error:
            logger.warning("blob %s is verified but cannot be kept: %s", self.blob, error)
            self._end("unkept", None)
        else:
            self._end("kept", None)

    # -- ending

    def _end(self, state: State, error: HfCacheError | None) -> None:
        with self._changed:
            if self.state in ("kept", "unkept", "failed", "paused"):
                return
            if self.state == "verified" and state == "failed":
                return
            self.error = error
            self.state = state
            self._changed.notify_all()
        self._on_end(self)
        self._notify()

    def stop(self) -> None:
        """End now and keep what is there for the next fill: the cache is shutting down."""
        self._end("paused", UpstreamError("The cache is shutting down.", status=503))
        self._settle()

    def _settle(self) -> None:
        """End an idle fill, and close the file once nobody needs it."""
        with self._changed:
            idle = self._jobs == 0 and self._readers == 0
            pause = idle and self.state == "running"
        if pause:
            self._end("paused", UpstreamError("The download was stopped."))
        with self._changed:
            over = self.state in ("kept", "unkept", "failed", "paused")
            release = over and self._jobs == 0
            close = release and self._readers == 0 and not self._closed
            self._closed = self._closed or close
        if close:
            self.partial.close()
        elif release:
            self.partial.release()

    def _notify(self) -> None:
        with self._changed:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()


def _outside(start: int, end: int, taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of [start, end) that no interval in `taken` covers."""
    pieces = [(start, end)]
    for low, high in taken:
        pieces = [
            part
            for a, b in pieces
            for part in ((a, min(b, low)), (max(a, high), b))
            if part[0] < part[1]
        ]
    return pieces
