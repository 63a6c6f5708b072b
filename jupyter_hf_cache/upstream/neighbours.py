"""The fills of other processes on the same directory, and what they need of ours.

Responsible for: following a process that fills a blob, going on in its place when it ends, leaving
one alone that stands still, and attending to those that follow us.
Not responsible for: starting fills (`upstream.fills`), or one blob that is followed
(`upstream.following`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_hf_cache.errors import FillInterrupted, HfCacheError, StorageError, UpstreamError
from jupyter_hf_cache.storage.interface import BlobId, BlobStore, Foreign, Span
from jupyter_hf_cache.upstream.attendance import Attendance
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.following import Following
from jupyter_hf_cache.upstream.lookout import Lookout
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

logger = logging.getLogger(__name__)


class NotNow(Exception):
    """A blob cannot be kept now, and waiting does not help."""


class Neighbours:
    """What this process follows and who follows it. Thread-safe.

    Args:
        take_the_place_of: starts or joins a fill of this process; None when that cannot be now.
            Called in a thread of its own; raises HfCacheError when it never can.
        make_room: reserves room for a part of a fill, or all of it; raises StorageError.
        on_begun: called when a blob begins to be followed.
    """

    def __init__(
        self,
        store: BlobStore,
        taints: Taints,
        *,
        take_the_place_of: Callable[[Following], Fill | None],
        make_room: Callable[[Fill, Span | None], None],
        on_begun: Callable[[], None],
    ) -> None:
        self._store = store
        self._taints = taints
        self._take_the_place_of = take_the_place_of
        self._make_room = make_room
        self._on_begun = on_begun
        self._lock = threading.Lock()
        self._followed: dict[BlobId, Following] = {}
        self._taking: set[Following] = set()
        # The last sign of life of owners that stand still.
        self._silent: dict[BlobId, int] = {}
        self._lookout = Lookout()
        self._helpers = ThreadPoolExecutor(2, "hf-cache-share")

    def attend_to(self, fill: Fill) -> None:
        """Let other processes follow a fill that was just started."""
        exchange = fill.partial.exchange
        if exchange is not None:
            attendance = Attendance(
                fill, exchange, make_room=self._make_room, executor=self._helpers
            )
            self._lookout.watch(attendance.look)

    def join(self, blob: BlobId, source: Source) -> Following | None:
        """Add a reader to what is followed of `blob`."""
        followed = self._followed.get(blob)
        return followed if followed is not None and followed.join(source) else None

    def followed(self) -> list[Following]:
        """Return what is followed now."""
        with self._lock:
            return [one for one in self._followed.values() if not one.over]

    def follow(
        self, blob: BlobId, size: int, source: Source, *, range_safe: bool
    ) -> Following | None:
        """Follow the process that fills `blob`, without a reader yet; None while there is nothing
        to be seen of it.

        Raises:
            NotNow: it is not to be followed.
        """
        try:
            partial = self._store.follow(blob, size, source.origin_id)
        except Foreign:
            raise NotNow("another process fills it from another origin") from None
        if partial is None:
            return None
        if self._silent.get(blob) == partial.beat:
            partial.close()
            raise NotNow("the process that fills it stands still")
        following = Following(
            blob,
            partial,
            source,
            range_safe=range_safe,
            on_free=self._lease_looks_free,
            on_end=self._ended,
        )
        with self._lock:
            self._silent.pop(blob, None)
            self._followed[blob] = following
        self._lookout.watch(following.look)
        self._on_begun()
        return following

    def _ended(self, following: Following, unnoted: int) -> None:
        """Note what was given out of a partial of which nobody else keeps account."""
        with self._lock:
            if self._followed.get(following.blob) is following:
                del self._followed[following.blob]
            if following.stands_still:
                self._silent[following.blob] = following.partial.beat
        if unnoted:
            try:
                self._taints.taint(following.blob, sent=unnoted, quarantined=Path())
            except StorageError as error:
                logger.warning("a taint of %s is not noted: %s", following.blob, error.message)

    # -- going on in the place of one that ended

    def _lease_looks_free(self, following: Following) -> None:
        if following not in self._taking:
            self._taking.add(following)
            with contextlib.suppress(RuntimeError):
                self._helpers.submit(self._try_to_take_over, following)

    def _try_to_take_over(self, following: Following) -> None:
        try:
            if following.over or following.lose_if_replaced():
                return
            if self._store.is_idle(following.blob):
                self._take_over(following)
        except StorageError as error:
            # Who was sent nothing yet asks again, and is served without a fill.
            following.fail(FillInterrupted(error.message))
        except HfCacheError as error:
            following.fail(error)
        finally:
            self._taking.discard(following)

    def _take_over(self, following: Following) -> None:
        fill = self._take_the_place_of(following)
        if fill is None:
            return
        try:
            exchange = fill.partial.exchange
            if exchange is None or exchange.incarnation != following.partial.incarnation:
                following.lose()
                return
            for part in following.wanted.copy():
                self._make_room(fill, part)
            following.go_on_with(fill)
        finally:
            fill.leave()

    def stop(self) -> None:
        """Follow nobody and attend to nobody any more; for shutting down."""
        with self._lock:
            followed = list(self._followed.values())
        for one in followed:
            one.fail(UpstreamError("The cache is shutting down.", status=503))
        self._lookout.stop()
        self._helpers.shutdown(wait=True)
