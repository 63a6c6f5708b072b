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
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from jupyter_hf_cache.errors import OutOfSpace, StorageError, VerificationFailed
from jupyter_hf_cache.storage.blobs import BlobId, LocalBlobStore
from jupyter_hf_cache.storage.budget import Budget, Reservation
from jupyter_hf_cache.upstream.fill import Fill, Pools
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

logger = logging.getLogger(__name__)

_ATTEMPTS_AT_A_DIGEST = 2
_REST_AFTER_FAILURE_SECONDS = 10.0


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
        store: LocalBlobStore,
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
        self._reservations: dict[int, Reservation] = {}
        self._resting: dict[BlobId, tuple[float, VerificationFailed]] = {}
        self._recent: deque[FillReport] = deque(maxlen=50)
        self._executors = [
            ThreadPoolExecutor(connections, "hf-cache-fill"),
            ThreadPoolExecutor(16, "hf-cache-range"),
            ThreadPoolExecutor(4, "hf-cache-hash"),
        ]
        self._pools = Pools(*self._executors)

    def open(self, blob: BlobId, size: int, source: Source, *, range_safe: bool) -> Fill | None:
        """Join the running fill of `blob` or start one; the caller must `leave` it.

        Returns:
            None when the blob was kept meanwhile, or cannot be kept now (no room, or another
            process fills it): the caller looks again, then streams it through unkept.

        Raises:
            VerificationFailed: it failed twice just now.
            StorageError: the disk refuses to be written.
        """
        with self._lock:
            fill = self._fills.get(blob)
            if fill is not None and fill.join(source):
                return fill
            self._check_resting(blob)
            if self._store.size_of(blob) is not None:
                return None
            fill = self._start(blob, size, source, range_safe=range_safe, attempt=1)
            if fill is not None:
                fill.join(source)
            return fill

    def running(self, blob: BlobId) -> Fill | None:
        """Return the running fill of `blob`, without joining it."""
        return self._fills.get(blob)

    def _check_resting(self, blob: BlobId) -> None:
        until, error = self._resting.get(blob, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error
        self._resting.pop(blob, None)

    def _start(
        self, blob: BlobId, size: int, source: Source, *, range_safe: bool, attempt: int
    ) -> Fill | None:
        try:
            reservation = self._budget.reserve(size)
        except OutOfSpace as full:
            logger.info("streaming %s through unkept: %s", blob, full.message)
            return None
        try:
            partial = self._store.partial(blob, size)
        except OSError as error:
            reservation.release(kept=False)
            raise StorageError(f"The cache cannot be written: {error.strerror}.") from error
        if partial is None:
            reservation.release(kept=False)
            logger.info("another process fills %s; streaming it through unkept", blob)
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
        self._fills[blob] = fill
        self._reservations[id(fill)] = reservation
        return fill

    # -- ends

    def _ended(self, fill: Fill) -> None:
        self._on_fetched(fill.fetched)
        kept = fill.state == "kept"
        if kept:
            self._budget.note_kept(fill.blob, fill.size)
        with self._lock:
            reservation = self._reservations.pop(id(fill), None)
            if reservation is not None:
                reservation.release(kept=kept)
            self._recent.appendleft(report(fill))
            if self._fills.get(fill.blob) is fill:
                del self._fills[fill.blob]
        if kept:
            self._clear_taint(fill.blob)
            self._on_kept(fill.blob, fill.size)
        elif isinstance(fill.error, VerificationFailed):
            self._quarantine(fill, fill.error)

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
            return
        self._taints.taint(fill.blob, sent=fill.sent, quarantined=where)
        fill.partial.release()
        with self._lock:
            if fill.attempt >= _ATTEMPTS_AT_A_DIGEST:
                self._resting[fill.blob] = (time.monotonic() + _REST_AFTER_FAILURE_SECONDS, error)
                return
            source = fill.sources[0]
            again = self._start(
                fill.blob,
                fill.size,
                source,
                range_safe=fill.range_safe,
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
            fills = list(self._fills.values())
        for fill in fills:
            fill.stop()
        for executor in self._executors:
            executor.shutdown(wait=True, cancel_futures=True)


def report(fill: Fill) -> FillReport:
    """Describe a fill as it stands."""
    return FillReport(
        blob=fill.blob.name,
        claim=list(fill.sources[0].claim),
        size=fill.size,
        done=fill.done,
        speed=fill.speed(),
        readers=fill.readers,
        started=fill.started,
        state=fill.state,
        error=fill.error.message if fill.error is not None else None,
    )
