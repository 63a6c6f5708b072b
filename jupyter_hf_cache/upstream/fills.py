"""All running fills: one for each blob, whoever asks.

Responsible for: joining callers to a running fill, of whatever process, or starting one; reserving
its room first; taking the place of a process that gave up; what happens when a fill ends (kept,
quarantined and retried once, tainted); and the list of running and recent fills.
Not responsible for: the download itself (`upstream.fill`), or following another process's
(`upstream.following`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_hf_cache.errors import (
    StorageError,
    UpstreamError,
    VerificationFailed,
)
from jupyter_hf_cache.storage.budget import Budget, Reservation
from jupyter_hf_cache.storage.interface import BlobId, BlobStore, Partial, Stage
from jupyter_hf_cache.upstream.adopting import AdoptingFill, may_adopt
from jupyter_hf_cache.upstream.blob_locks import BlobLocks
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.fill_report import FillReport, report
from jupyter_hf_cache.upstream.following import Following
from jupyter_hf_cache.upstream.growing import Growing
from jupyter_hf_cache.upstream.neighbours import Neighbours, NotNow
from jupyter_hf_cache.upstream.pools import Pools, SparePool
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

logger = logging.getLogger(__name__)

_ATTEMPTS_AT_A_DIGEST = 2
_REST_AFTER_FAILURE_SECONDS = 10.0
_REST_AFTER_REFUSAL_SECONDS = 5.0
_WAIT_FOR_LEASE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.05


class Fills:
    """The fills of one process, and those of others that it follows.

    Thread-safe; `open` blocks on disk.

    Args:
        on_kept: called from a worker thread with a blob that was just kept and its size.
        on_fetched: called with the bytes that a fill brought in, when it ends.
        on_adopted: called with the size of a blob that was taken from the user's own file.
        on_begun: called when a fill began here or is followed; must neither block nor ask back.
    """

    def __init__(
        self,
        store: BlobStore,
        budget: Budget,
        taints: Taints,
        *,
        linger: float,
        on_kept: Callable[[BlobId, int], None],
        on_fetched: Callable[[int], None],
        on_adopted: Callable[[int], None] = lambda size: None,
        on_begun: Callable[[], None] = lambda: None,
        connections: int = 24,
    ) -> None:
        self._store = store
        self._budget = budget
        self._taints = taints
        self._linger = linger
        self._on_kept = on_kept
        self._on_fetched = on_fetched
        self._on_adopted = on_adopted
        self._on_begun = on_begun
        # Starting waits for disk and ledger: many small files must not wait for one another.
        self._deciding = BlobLocks()
        # Guards what is below, and is held for moments only; taken after a blob's own lock.
        self._lock = threading.Lock()
        self._fills: dict[BlobId, Fill] = {}
        # Ended fills hold their lease a moment longer; those of this process are waited for.
        self._holders: weakref.WeakValueDictionary[BlobId, Fill] = weakref.WeakValueDictionary()
        self._stopped = False
        self._reservations: dict[int, Reservation] = {}
        self._resting: dict[tuple[BlobId, str], tuple[float, VerificationFailed]] = {}
        self._refused: dict[BlobId, float] = {}
        self._recent: deque[FillReport] = deque(maxlen=50)
        self._executors = [
            ThreadPoolExecutor(connections, "hf-cache-fill"),
            ThreadPoolExecutor(16, "hf-cache-range"),
            ThreadPoolExecutor(4, "hf-cache-hash"),
        ]
        spare = SparePool(14, "hf-cache-extra")
        adopt = ThreadPoolExecutor(2, "hf-cache-adopt")
        self._pools = Pools(*self._executors, spare=spare, adopt=adopt)
        self._executors.append(adopt)
        self._executors.append(spare)
        self._neighbours = Neighbours(
            store,
            taints,
            take_the_place_of=self._take_the_place_of,
            make_room=self._make_room,
            on_begun=on_begun,
        )

    def open(
        self,
        blob: BlobId,
        size: int,
        source: Source,
        *,
        range_safe: bool,
        part: tuple[int, int] | None = None,
    ) -> Growing | None:
        """Join the running fill of `blob`, here or in another process, or start one; the caller
        must `leave` it.

        Args:
            part: the bytes that will be wanted of it, for which alone room is made; None: all.

        Returns:
            None when the blob was kept meanwhile, or cannot be kept now (no room, a disk that
            refuses, another origin fills it, or a process that stands still): the caller looks
            again, then streams it through unkept.

        Raises:
            VerificationFailed: it failed twice just now.
            UpstreamError: the cache is shutting down.
        """
        try:
            growing = self._find(blob, size, source, range_safe=range_safe, part=part)
        except NotNow as reason:
            logger.info("streaming %s through unkept: %s", blob, reason)
            return None
        if growing is None or self._has_room(growing, part):
            if isinstance(growing, AdoptingFill):
                growing.adopt(self._make_room_for_two)
            return growing
        growing.leave()
        return None

    def _find(
        self,
        blob: BlobId,
        size: int,
        source: Source,
        *,
        range_safe: bool,
        part: tuple[int, int] | None,
    ) -> Fill | Following | None:
        """Join or start; None when the blob is kept, or when waiting for it was in vain.

        Raises:
            NotNow: it cannot be kept now.
        """
        deadline = time.monotonic() + _WAIT_FOR_LEASE_SECONDS
        pause = 0.0
        while True:
            with self._deciding.of(blob):
                growing = self._joined(blob, source)
                if growing is not None:
                    return growing
                fill, holder = self._fills.get(blob), self._holders.get(blob)
                if holder is None or holder.released.is_set():
                    self._check_resting(blob, source.origin_id)
                    if self._stopped:
                        raise UpstreamError("The cache is shutting down.", status=503)
                    if self._store.size_of(blob) is not None:
                        return None
                    if time.monotonic() < self._refused.get(blob, 0.0):
                        raise NotNow("the disk refused it a moment ago")
                    self._refused.pop(blob, None)
                    room = size if part is None else 0
                    # At first the lease is simply tried, later only when it looks free.
                    free = pause == 0.0 or self._store.is_idle(blob)
                    growing = self._begin(
                        blob, size, source, range_safe=range_safe, room=room, free=free
                    )
                    if growing is not None and growing.join(source):
                        return growing
                    holder = None
                elif holder is fill and fill.outcome is None:
                    raise NotNow("another origin fills it")
            if time.monotonic() >= deadline:
                return None
            if holder is not None:
                holder.released.wait(deadline - time.monotonic())
            else:
                # Another process receives it in memory, or has only just begun.
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS) or _FIRST_PAUSE_SECONDS
                time.sleep(pause)

    def _joined(self, blob: BlobId, source: Source) -> Fill | Following | None:
        fill = self._fills.get(blob)
        if fill is not None and fill.join(source):
            return fill
        return self._neighbours.join(blob, source)

    def _begin(
        self,
        blob: BlobId,
        size: int,
        source: Source,
        *,
        range_safe: bool,
        room: int,
        free: bool,
    ) -> Fill | Following | None:
        """Start a fill if the lease is free, else follow whoever has it; None if nothing can be
        seen yet."""
        try:
            fill = free and self._start(blob, size, source, range_safe=range_safe, room=room)
        except StorageError as full:
            if self._store.is_idle(blob):
                raise NotNow(full.message) from full
            fill = None
        return fill or self._neighbours.follow(blob, size, source, range_safe=range_safe)

    def _has_room(self, growing: Fill | Following, part: tuple[int, int] | None) -> bool:
        if isinstance(growing, Following):
            return growing.ask(part)
        try:
            self._make_room(growing, part)
        except StorageError as full:
            logger.info("streaming %s through unkept: %s", growing.blob, full.message)
            return False
        return True

    def _make_room(self, fill: Fill, part: tuple[int, int] | None) -> None:
        room = self._reservations.get(id(fill))
        if room is None:
            return
        size = fill.size
        if part is not None and fill.range_safe:
            missing = sum(end - start for start, end in fill.partial.missing(*part))
            size = min(size, room.size + missing)
        self._budget.grow(room, size)

    def _make_room_for_two(self, fill: Fill) -> bool:
        room = self._reservations.get(id(fill))
        try:
            if room is not None:
                self._budget.grow(room, 2 * fill.size)
        except StorageError as full:
            logger.info("no room for a copy of %s: %s", fill.blob, full.message)
            return False
        return True

    def running(self, blob: BlobId) -> Fill | None:
        """Return the running fill of `blob`, without joining it."""
        return self._fills.get(blob)

    def _check_resting(self, blob: BlobId, origin_id: str) -> None:
        """Let an origin that delivered wrong bytes twice rest; another may have the right ones."""
        until, error = self._resting.get((blob, origin_id), (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error
        self._resting.pop((blob, origin_id), None)

    def _start(
        self,
        blob: BlobId,
        size: int,
        source: Source,
        *,
        range_safe: bool,
        room: int,
        attempt: int = 1,
    ) -> Fill | None:
        """Start a fill without readers; None when another process has the lease, or the blob is
        kept.

        Raises:
            StorageError: there is no room, or the disk refuses.
        """
        reservation = self._budget.reserve(blob, room, whole=size)
        try:
            partial = self._sound_partial(blob, size, source.origin_id)
        except OSError as error:
            reservation.release(kept=False)
            raise StorageError(f"The cache cannot be written: {error.strerror}.") from error
        if partial is None:
            reservation.release(kept=False)
            return None
        make: Callable[..., Fill] = Fill
        if source.own is not None and attempt == 1 and may_adopt(partial):
            make = functools.partial(AdoptingFill, own=source.own)
        fill = make(
            blob,
            partial,
            source,
            pools=self._pools,
            on_end=self._ended,
            linger=self._linger,
            range_safe=range_safe,
            attempt=attempt,
        )
        with self._lock:
            self._fills[blob] = self._holders[blob] = fill
            self._reservations[id(fill)] = reservation
        self._neighbours.attend_to(fill)
        self._on_begun()
        return fill

    def _sound_partial(self, blob: BlobId, size: int, origin_id: str) -> Partial | None:
        """Take the lease. A partial whose owner died when it had found it damaged is put away."""
        partial = self._store.partial(blob, size, origin_id)
        if partial is None or partial.exchange is None or not partial.exchange.damaged:
            return partial
        try:
            self._put_away(blob, partial, "The upstream's bytes do not have the digest.")
        finally:
            partial.close()
        return self._store.partial(blob, size, origin_id)

    def _take_the_place_of(self, following: Following) -> Fill | None:
        """Start or join a fill where another process ended; the caller must leave it."""
        with self._deciding.of(following.blob):
            if self._stopped or following.over:
                return None
            fill = self._fills.get(following.blob) or self._start(
                following.blob,
                following.size,
                following.sources[0],
                range_safe=following.range_safe,
                room=following.size if following.whole else 0,
            )
            return fill if fill is not None and fill.join(following.sources[0]) else None

    # -- ends

    def _ended(self, fill: Fill) -> None:
        kept = fill.outcome == "kept"
        fill.partial.seal()
        if isinstance(fill.error, StorageError):
            # Who was sent nothing yet asks again at once: for them it streams through.
            self._refused[fill.blob] = time.monotonic() + _REST_AFTER_REFUSAL_SECONDS
        try:
            if kept:
                self._budget.note_kept(fill.blob, fill.size)
        except StorageError as error:
            # The blob is there all the same; its record is made at the next start.
            logger.warning("blob %s is kept without a record: %s", fill.blob, error.message)
        if kept:
            # Before anybody finds the fill ended: what is asked next depends on it.
            self._note(fill.blob, self._clear_taint, fill.blob)
        with self._deciding.of(fill.blob):
            with self._lock:
                reservation = self._reservations.pop(id(fill))
                self._recent.appendleft(report(fill, fill.outcome))
                if self._fills.get(fill.blob) is fill:
                    del self._fills[fill.blob]
            reservation.release(kept=kept)
        self._note(fill.blob, self._on_fetched, fill.fetched)
        if fill.adopted:
            self._note(fill.blob, self._on_adopted, max(0, fill.size - fill.fetched))
        if kept:
            self._note(fill.blob, self._on_kept, fill.blob, fill.size)
        elif isinstance(fill.error, VerificationFailed):
            self._note(fill.blob, self._quarantine, fill, fill.error)

    def _note(self, blob: BlobId, action: Callable[..., None], *args: object) -> None:
        """Note something about an ended fill; a disk that refuses is no reason to fail readers."""
        try:
            action(*args)
        except StorageError as error:
            logger.warning("the end of the fill of %s is not noted: %s", blob, error.message)

    def _clear_taint(self, blob: BlobId) -> None:
        if self._taints.is_tainted(blob) and (reader := self._store.open(blob)) is not None:
            try:
                self._taints.clear_if_harmless(blob, reader)
            finally:
                reader.close()

    def _quarantine(self, fill: Fill, error: VerificationFailed) -> None:
        logger.warning("blob %s failed verification (attempt %d)", fill.blob, fill.attempt)
        try:
            self._put_away(fill.blob, fill.partial, error.message, sent=fill.sent)
        finally:
            self._retry(fill, error)

    def _put_away(self, blob: BlobId, partial: Partial, reason: str, *, sent: int = 0) -> None:
        """Quarantine damaged bytes and note how far they were given out, by any process.

        Those that follow are told first, so that they give out no more, and last, when it is noted.
        """
        exchange = partial.exchange
        if exchange is not None:
            with contextlib.suppress(OSError):
                exchange.enter(Stage.DAMAGED)
            sent = max(sent, exchange.given)
        try:
            where = partial.quarantine(reason)
        except OSError as failure:
            logger.warning("blob %s cannot be quarantined: %s", blob, failure)
            where = Path()
        else:
            self._note(blob, self._budget.note_quarantined, blob, where)
        self._taints.taint(blob, sent=sent, quarantined=where)
        if exchange is not None:
            with contextlib.suppress(OSError):
                exchange.enter(Stage.SETTLED)

    def _retry(self, fill: Fill, error: VerificationFailed) -> None:
        """Start once more from nothing; a second failure rests."""
        with self._deciding.of(fill.blob):
            again = None
            fill.release()
            if fill.attempt >= _ATTEMPTS_AT_A_DIGEST:
                rest = time.monotonic() + _REST_AFTER_FAILURE_SECONDS
                self._resting[fill.blob, fill.origin_id] = (rest, error)
            elif not self._stopped:
                with contextlib.suppress(StorageError):
                    again = self._start(
                        fill.blob,
                        fill.size,
                        fill.sources[0],
                        range_safe=fill.range_safe,
                        room=fill.size,
                        attempt=fill.attempt + 1,
                    )
        if again is not None:
            again.want_all()

    # -- for people

    def reports(self) -> list[FillReport]:
        """Return running fills, then recently ended ones, newest first."""
        with self._lock:
            running: list[Growing] = [*self._fills.values()]
            recent = list(self._recent)
        running += self._neighbours.followed()
        return [report(fill) for fill in running] + recent

    def stop(self) -> None:
        """End all fills, keeping what they have; for shutting down."""
        with self._deciding.all():
            self._stopped = True
            fills = list(self._fills.values())
        for fill in fills:
            fill.stop()
        self._neighbours.stop()
        for executor in self._executors:
            # Jobs that wait end at once, and only a job that ran lets its fill close its file.
            executor.shutdown(wait=True)
