"""A fill: the one running download of a blob, joined by all who want it.

Responsible for: who reads and what is wanted, saying how far a reader may go, comparing the digest,
and ending in exactly one of kept, failed or paused.
Not responsible for: who joins which fill and what happens to its result (`upstream.fills`), its
connections (`upstream.fetching`), hashing what arrives (`upstream.hashing`), or the answer to the
client (`web.content`).

How far a reader may go: an answer that would complete the file is held back by its last bytes
until the digest matched, so that no client ever ends a download that is not what the Hub named.
Bounded ranges are given out as soon as they are there, if their origin is believable (see
`range_safe`); but no longer once the file is complete and its digest not yet known.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from jupyter_hf_cache.errors import (
    HfCacheError,
    StorageError,
    UpstreamError,
    VerificationFailed,
)
from jupyter_hf_cache.storage.interface import BlobId, Partial
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.upstream.fetching import Fetching
from jupyter_hf_cache.upstream.growing_digest import GrowingDigest
from jupyter_hf_cache.upstream.hashing import Hashing
from jupyter_hf_cache.upstream.pools import Pools
from jupyter_hf_cache.upstream.transfer import Source
from jupyter_hf_cache.upstream.underway import Part

__all__ = ["HOLD_BACK", "Fill", "Pools", "State"]

logger = logging.getLogger(__name__)

HOLD_BACK = 64 * 1024
_CLAIMS_IN_SIDECAR = 64

State = Literal["running", "verified", "kept", "unkept", "failed", "paused"]
_OVER = ("kept", "unkept", "failed", "paused")


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
        self.sources = [source]
        self._pools = pools
        self._on_end = on_end
        self._changed = threading.Condition(threading.Lock())
        self._watchers: tuple[Callable[[], None], ...] = ()
        self._readers = 0
        self._idle_since = time.monotonic()
        self._jobs = 0
        self._closed = False
        self._digest = GrowingDigest(blob, partial)
        self._hashing = Hashing(self._digest, partial, self._changed, lambda: self._running)
        flow = pools.spare.flow if pools.spare is not None else None
        self._fetching = Fetching(partial, self.sources, self._changed, self, flow)

    # -- readers

    def join(self, source: Source) -> bool:
        """Add a reader; False when the fill is over, of another origin, or not for this reader.

        Who only names a digest must not be handed what another origin delivers.
        """
        with self._changed:
            joinable = self._running or self.state == "verified"
            if not joinable or source.origin_id != self.origin_id or not self._admits(source):
                return False
            self._readers += 1
            if all(known.key != source.key for known in self.sources):
                # What somebody waits for goes ahead of what nobody does.
                ahead = self.sources[0].background and not source.background
                self.sources.insert(0 if ahead else len(self.sources), source)
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
            return self._fetching.speed.value(time.monotonic())

    @property
    def fetched(self) -> int:
        """Bytes that came from the upstream."""
        return self._fetching.fetched

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` from a worker thread after each change; returns what ends that."""
        with self._changed:
            self._watchers = (*self._watchers, callback)

        def unwatch() -> None:
            with self._changed:
                self._watchers = tuple(one for one in self._watchers if one is not callback)

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
        reached = self.partial.available(offset)
        if not self.range_safe or self.partial.present >= self.size:
            # Who asked for all of it in ranges would else hold a complete file of unknown digest.
            # Looked at last: what came since then is not in `reached`.
            return offset
        return reached

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
        # Before it is looked whether it may: the disk may take its time, and what is noted too much
        # does no harm.
        self._note_sent(end)
        with self._changed:
            if self.outcome is not None and not self.verified:
                # How much was given out is noted already; nothing may be added to it.
                self._changed.wait_for(lambda: self.state in _OVER)
                raise self.error or UpstreamError("The download was stopped.")
            self.sent = max(self.sent, end)

    def _note_sent(self, end: int) -> None:
        """Note it for whoever goes on if this process is killed."""
        exchange = self.partial.exchange
        if exchange is None or self.verified or end <= self.sent:
            return
        try:
            exchange.give_out(end)
        except OSError as error:
            raise StorageError(f"The cache cannot write: {error.strerror}.") from error

    # -- wants

    def want_all(self) -> None:
        """Fetch whatever is missing, from the start on, and verify."""
        with self._changed:
            if self._fetching.whole or not self._running:
                return
            part = self._fetching.begin_whole()
            self._jobs += 1
        self._pools.fetch.submit(self._job, functools.partial(self._bring, part))
        self._hash_if_due()

    def want(self, start: int, end: int) -> None:
        """Fetch what is missing of [start, end) ahead of everything else."""
        if not self.range_safe:
            self.want_all()
            return
        with self._changed:
            if not self._running:
                return
            parts = self._fetching.begin_parts(start, end)
            self._jobs += len(parts)
        for part in parts:
            self._pools.ranges.submit(self._job, functools.partial(self._bring, part))
        self._hash_if_due()

    # -- what the connections ask for

    def stopped(self, *, whole: bool) -> bool:
        """Whether nobody wants all (`whole`) or parts of it any more. The lock is held."""
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

    @property
    def over(self) -> bool:
        """Whether it has ended. The lock is held."""
        return not self._running

    def arrived(self, *, whole: bool) -> None:
        """Tell readers and the digest of written bytes; blocks a connection for the whole while
        the digest is far behind."""
        self._notify()
        self._hash_if_due()
        if whole:
            self._hashing.wait_near()

    def offer(self, work: Callable[[], None]) -> bool:
        """Begin work in a thread that is to spare, if there is one."""
        with self._changed:
            self._jobs += 1
        if self._pools.spare is not None and self._pools.spare.offer(lambda: self._job(work)):
            return True
        with self._changed:
            self._jobs -= 1
        return False

    # -- what a fill may do that takes its bytes from elsewhere

    @property
    def adopted(self) -> bool:
        """Whether the bytes were taken from the user's own file, so that nobody delivered them."""
        return False

    def _admits(self, source: Source) -> bool:
        """Whether this reader may have the bytes. The lock is held."""
        return True

    def _bring(self, part: Part) -> None:
        self._fetching.run(part)

    def _may_conclude(self) -> bool:
        """Whether what was downloaded may be judged now. The lock is held."""
        return True

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

    def _hash_if_due(self) -> None:
        with self._changed:
            if not self._hashing.claim(whole=self._fetching.whole):
                return
            self._jobs += 1
        self._pools.hash.submit(self._job, self._hash)

    def _hash(self) -> None:
        if self._hashing.run():
            self._conclude()

    def _conclude(self) -> None:
        """Compare the digest; release readers at once, then make the blob durable."""
        with self._changed:
            if not self._may_conclude():
                return
        if not self._digest.matches:
            for source in self._ways():
                source.forget_link()
            self._end(
                "failed",
                VerificationFailed(
                    f"The upstream's bytes do not have the digest {self.blob.digest}.",
                    advice="Nothing of it was kept. Try again; if it stays, the upstream or a "
                    "proxy before it damages files.",
                ),
            )
            return
        if self._turn_verified():
            self._keep(self._digest.sha256)

    def _ways(self) -> list[Source]:
        with self._changed:
            return list(self.sources)

    def _turn_verified(self) -> bool:
        with self._changed:
            if not self._running:
                return False
            self.state = "verified"
            return True

    def _keep(self, sha256: str) -> None:
        self._notify()
        try:
            self.partial.commit(self._sidecar(sha256))
        except OSError as error:
            logger.warning("blob %s is verified but cannot be kept: %s", self.blob, error)
            self._end("unkept", None)
        else:
            self._end("kept", None)

    def _sidecar(self, sha256: str) -> Sidecar:
        with self._changed:
            claims = [source.claim for source in self.sources]
        return Sidecar(
            size=self.size,
            sha256=sha256,
            origins=[] if self.adopted else [self.origin_id],
            claims=claims[:_CLAIMS_IN_SIDECAR],
            created=time.time(),
            own=self.adopted,
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
        for watcher in self._watchers:
            watcher()
