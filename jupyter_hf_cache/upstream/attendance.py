"""What the process that fills a blob does for other processes that follow it.

Responsible for: saying that the owner is alive, hearing whether somebody follows, being a reader on
their behalf so that the fill does not end under them, and fetching what they want.
Not responsible for: their side (`upstream.following`), or room (`upstream.fills`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.interface import Exchange, Span
from jupyter_hf_cache.upstream.fill import Fill

logger = logging.getLogger(__name__)

BEAT_SECONDS = 0.5
# A follower is heard twice a second; one that is not for this long is gone.
FOLLOWERS_GONE_SECONDS = 4.0
_ALONE_SECONDS = 0.05
_FOLLOWED_SECONDS = 0.02


class Attendance:
    """Attends to the followers of one fill. `look` is for one thread.

    Args:
        exchange: where they are heard.
        make_room: reserves room for a part, or for everything (None); raises StorageError.
        executor: where room is made, which may take a while.
    """

    def __init__(
        self,
        fill: Fill,
        exchange: Exchange,
        *,
        make_room: Callable[[Fill, Span | None], None],
        executor: Executor,
    ) -> None:
        self._fill = fill
        self._exchange = exchange
        self._make_room = make_room
        self._executor = executor
        self._heard = exchange.heard
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._reader = False
        self._busy = threading.Lock()

    def look(self) -> float | None:
        """Do what is due; return the seconds until the next time, None when the fill is over."""
        now = time.monotonic()
        if self._fill.outcome is not None:
            self._leave()
            return None
        try:
            self._listen(now)
            if now >= self._beat_at + BEAT_SECONDS:
                self._exchange.beat()
                self._beat_at = now
        except OSError as error:
            # They go on without us; what was written before stays.
            logger.warning("followers of %s are not attended to: %s", self._fill.blob, error)
        return _FOLLOWED_SECONDS if self._reader else _ALONE_SECONDS

    def _listen(self, now: float) -> None:
        heard = self._exchange.heard
        if heard != self._heard:
            self._heard, self._heard_at = heard, now
            if not self._reader:
                self._reader = self._fill.join(self._fill.sources[0])
        elif self._reader and now - self._heard_at > FOLLOWERS_GONE_SECONDS:
            self._leave()
        wants = self._exchange.whole_wanted or bool(self._exchange.wanted())
        if self._reader and wants and self._busy.acquire(blocking=False):
            try:
                self._executor.submit(self._serve)
            except RuntimeError:
                # The cache is shutting down.
                self._busy.release()

    def _serve(self) -> None:
        try:
            if self._exchange.whole_wanted:
                taken = self._try_room(None)
                if taken:
                    self._fill.want_all()
                self._exchange.answer_whole(refused=not taken)
            for start, end in self._exchange.wanted():
                taken = self._try_room((start, end))
                if taken:
                    self._fill.want(start, end)
                self._exchange.answer(start, end, refused=not taken)
        except OSError as error:
            logger.warning("followers of %s get no answer: %s", self._fill.blob, error)
        finally:
            self._busy.release()

    def _try_room(self, part: Span | None) -> bool:
        try:
            self._make_room(self._fill, part)
        except StorageError as full:
            logger.info("no room for what is wanted of %s: %s", self._fill.blob, full.message)
            return False
        return True

    def _leave(self) -> None:
        if self._reader:
            self._reader = False
            self._fill.leave()
