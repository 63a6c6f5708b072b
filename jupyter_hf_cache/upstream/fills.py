"""All running fills: one for each blob, whoever asks.

Responsible for: joining callers to a running fill or starting one, reserving its room first, what
happens when it ends (kept, quarantined and retried once, tainted), and the list of running and
recent fills.
Not responsible for: the download itself (`upstream.fill`).
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jupyter_hf_cache.errors import StorageError, UpstreamError, VerificationFailed
from jupyter_hf_cache.storage.budget import Budget, Reservation
from jupyter_hf_cache.storage.interface import BlobId, BlobStore
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.pools import Pools, SparePool
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

logger = logging.getLogger(__name__)

_ATTEMPTS_AT_A_DIGEST = 2
_REST_AFTER_FAILURE_SECONDS = 10.0
_WAIT_FOR_LEASE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class FillReport:
    """One running or ended fill, for people."""

    blob: str
    claim: list[str]
    size: int
    done: int
    speed: float
    readers: int
    started: float
    state: str
    error: str | None


class Fills:
    """The fills of one process. Thread-safe; `open` blocks on disk.

    Args:
        on_kept: called from a worker thread with a blob that was just kept and its size.
        on_fetched: called with the bytes that a fill brought in, when it ends.
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
        connections: int = 24,
    ) -> None:
        self._store = store
        self._budget = budget
        self._taints = taints
        self._linger = linger
        self._on_kept = on_kept
        self._on_fetched = on_fetched
        self._lock = threading.Lock()
        self._fills: dict[BlobId, Fill] = {}
        # Ended fills hold their lease a moment longer; those of this process are waited for.
        self._holders: weakref.WeakValueDictionary[BlobId, Fill] = weakref.WeakValueDictionary()
        self._stopped = False
        self._reservations: dict[int, Reservation] = {}
        self._resting: dict[BlobId, tuple[float, VerificationFailed]] = {}
        self._recent: deque[FillReport] = deque(maxlen=50)
        self._executors = [
            ThreadPoolExecutor(connections, "hf-cache-fill"),
            ThreadPoolExecutor(16, "hf-cache-range"),
            ThreadPoolExecutor(4, "hf-cache-hash"),
        ]
        spare = SparePool(14, "hf-cache-extra")
        self._pools = Pools(*self._executors, spare=spare)
        self._executors.append(spare)

    def open(
        self,
        blob: BlobId,
        size: int,
        source: Source,
        *,
        range_safe: bool,
        part: tuple[int, int] | None = None,
    ) -> Fill | None:
        """Join the running fill of `blob` or start one; the caller must `leave` it.

        Args:
            part: the bytes that will be wanted of it, for which alone room is made; None: all.

        Returns:
            None when the blob was kept meanwhile, or cannot be kept now (no room, a disk that
            refuses, or another process or another origin fills it): the caller looks again, then
            streams it through unkept.

        Raises:
            VerificationFailed: it failed twice just now.
            UpstreamError: the cache is shutting down.
        """
        fill = self._join_or_start(blob, size, source, range_safe=range_safe, part=part)
        if fill is None:
            return None
        try:
            self._make_room(fill, part)
        except StorageError as full:
            logger.info("streaming %s through unkept: %s", blob, full.message)
            fill.leave()
            return None
        return fill

    def _join_or_start(
        self,
        blob: BlobId,
        size: int,
        source: Source,
        *,
        range_safe: bool,
        part: tuple[int, int] | None,
    ) -> Fill | None:
        deadline = time.monotonic() + _WAIT_FOR_LEASE_SECONDS
        while True:
            with self._lock:
                fill = self._fills.get(blob)
                if fill is not None and fill.join(source):
                    return fill
                holder = self._holders.get(blob)
                if holder is None or holder.released.is_set():
                    self._check_resting(blob)
                    if self._stopped:
                        raise UpstreamError("The cache is shutting down.", status=503)
                    if self._store.size_of(blob) is not None:
                        return None
                    room = size if part is None else 0
                    fill = self._start(blob, size, source, range_safe=range_safe, room=room)
                    if fill is not None:
                        fill.join(source)
                    return fill
                if holder is fill and fill.outcome is None:
                    return None
            if not holder.released.wait(deadline - time.monotonic()):
                return None

    def _make_room(self, fill: Fill, part: tuple[int, int] | None) -> None:
        room = self._reservations.get(id(fill))
        if room is None:
            return
        size = fill.size
        if part is not None and fill.range_safe:
            missing = sum(end - start for start, end in fill.partial.missing(*part))
            size = min(size, room.size + missing)
        self._budget.grow(room, size)

    def running(self, blob: BlobId) -> Fill | None:
        """Return the running fill of `blob`, without joining it."""
        return self._fills.get(blob)

    def _check_resting(self, blob: BlobId) -> None:
        until, error = self._resting.get(blob, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error
        self._resting.pop(blob, None)

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
        try:
            reservation = self._budget.reserve(blob, room, whole=size)
        except StorageError as full:
            logger.info("streaming %s through unkept: %s", blob, full.message)
            return None
        try:
            partial = self._store.partial(blob, size, source.origin_id)
        except OSError as error:
            reservation.release(kept=False)
            logger.warning("streaming %s through unkept: %s", blob, error)
            return None
        if partial is None:
            reservation.release(kept=False)
            logger.info("another process fills %s, or just kept it", blob)
            return None
        fill = Fill(
            blob,
            partial,
            source,
            pools=self._pools,
            on_end=self._ended,
            linger=self._linger,
            range_safe=range_safe,
            attempt=attempt,
        )
        self._fills[blob] = self._holders[blob] = fill
        self._reservations[id(fill)] = reservation
        return fill

    # -- ends

    def _ended(self, fill: Fill) -> None:
        kept = fill.outcome == "kept"
        fill.partial.seal()
        try:
            if kept:
                self._budget.note_kept(fill.blob, fill.size)
        except StorageError as error:
            # The blob is there all the same; its record is made at the next start.
            logger.warning("blob %s is kept without a record: %s", fill.blob, error.message)
        if kept:
            # Before anybody finds the fill ended: what is asked next depends on it.
            self._note(fill, self._clear_taint, fill.blob)
        with self._lock:
            self._reservations.pop(id(fill)).release(kept=kept)
            self._recent.appendleft(report(fill, fill.outcome))
            if self._fills.get(fill.blob) is fill:
                del self._fills[fill.blob]
        self._note(fill, self._on_fetched, fill.fetched)
        if kept:
            self._note(fill, self._on_kept, fill.blob, fill.size)
        elif isinstance(fill.error, VerificationFailed):
            self._note(fill, self._quarantine, fill, fill.error)

    def _note(self, fill: Fill, action: Callable[..., None], *args: object) -> None:
        """Note something about an ended fill; a disk that refuses is no reason to fail readers."""
        try:
            action(*args)
        except StorageError as error:
            logger.warning("the end of the fill of %s is not noted: %s", fill.blob, error.message)

    def _clear_taint(self, blob: BlobId) -> None:
        if self._taints.is_tainted(blob) and (reader := self._store.open(blob)) is not None:
            try:
                self._taints.clear_if_harmless(blob, reader)
            finally:
                reader.close()

    def _quarantine(self, fill: Fill, error: VerificationFailed) -> None:
        logger.warning("blob %s failed verification (attempt %d)", fill.blob, fill.attempt)
        try:
            where = fill.partial.quarantine(error.message)
        except OSError as failure:
            logger.warning("blob %s cannot be quarantined: %s", fill.blob, failure)
            where = Path()
        else:
            self._note(fill, self._budget.note_quarantined, fill.blob, where)
        try:
            self._taints.taint(fill.blob, sent=fill.sent, quarantined=where)
        finally:
            self._retry(fill, error)

    def _retry(self, fill: Fill, error: VerificationFailed) -> None:
        """Start once more from nothing; a second failure rests."""
        with self._lock:
            again = None
            fill.release()
            if fill.attempt >= _ATTEMPTS_AT_A_DIGEST:
                self._resting[fill.blob] = (time.monotonic() + _REST_AFTER_FAILURE_SECONDS, error)
            elif not self._stopped:
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
            running = list(self._fills.values())
            recent = list(self._recent)
        return [report(fill) for fill in running] + recent

    def stop(self) -> None:
        """End all fills, keeping what they have; for shutting down."""
        with self._lock:
            self._stopped = True
            fills = list(self._fills.values())
        for fill in fills:
            fill.stop()
        for executor in self._executors:
            # Jobs that wait end at once, and only a job that ran lets its fill close its file.
            executor.shutdown(wait=True)


def report(fill: Fill, state: str | None = None) -> FillReport:
    """Describe a fill as it stands, or as ended in `state`."""
    return FillReport(
        blob=fill.blob.name,
        claim=list(fill.sources[0].claim),
        size=fill.size,
        done=fill.done,
        speed=fill.speed(),
        readers=fill.readers,
        started=fill.started,
        state=state or fill.state,
        error=fill.error.message if fill.error is not None else None,
    )
