"""A fill that takes the user's own file over, if that turns out to be the blob.

Responsible for: deciding between the verified copy and the download that would bring the same
bytes, so that exactly one of them becomes the blob.
Not responsible for: verifying the copy (`upstream.adopt`), or anything that other fills do as well
(`upstream.fill`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from jupyter_hf_cache.errors import FillInterrupted, UpstreamError
from jupyter_hf_cache.storage.interface import BlobId, Partial
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.upstream.adopt import QUICK, Adoption, VerifiedCopy, VerifiedLink
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.transfer import Source
from jupyter_hf_cache.upstream.underway import Part

logger = logging.getLogger(__name__)


def may_adopt(partial: Partial) -> bool:
    """Return whether a fill into `partial` may begin with the user's own file: not where bytes are
    here already, or were given out, which then have to be completed rather than replaced."""
    exchange = partial.exchange
    return partial.present == 0 and (exchange is None or exchange.given == 0)


class AdoptingFill(Fill):
    """A fill for the user, who has a file that should be the blob. Thread-safe.

    Args:
        own: the file.
        options: as of `Fill`.
    """

    def __init__(
        self, blob: BlobId, partial: Partial, source: Source, own: OwnCopy, **options: Any
    ) -> None:
        super().__init__(blob, partial, source, **options)
        self._adoption = Adoption(blob, own, partial, go_on=self._is_wanted)
        self._more_room: Callable[[Fill], bool] = lambda fill: True
        self._taking = False

    def adopt(self, more_room: Callable[[Fill], bool]) -> None:
        """Begin to take the file over; downloads wait for that. A second time does nothing.

        Args:
            more_room: makes room for a copy beside a download.
        """
        if not self._adoption.begin():
            return
        self._more_room = more_room
        with self._changed:
            self._jobs += 1
        self._pool.submit(self._job, self._take_over)

    @property
    def _pool(self) -> Executor:
        return self._pools.hash if self.size <= QUICK else self._pools.adopt or self._pools.hash

    def _is_wanted(self) -> bool:
        with self._changed:
            return not self.stopped(whole=True)

    # -- beside the download

    @property
    def adopted(self) -> bool:
        """Whether the bytes were taken from the user's own file, so that nobody delivered them."""
        return self._adoption.adopted

    def _admits(self, source: Source) -> bool:
        return source.owner or self._adoption.admit_others()

    def _bring(self, part: Part) -> None:
        if self._adoption.wait() and not self._more_room(self):
            self._adoption.cancel()
        try:
            super()._bring(part)
        except UpstreamError:
            if not self._adoption.wait_for_the_end():
                raise

    def _may_conclude(self) -> bool:
        return not self._taking

    # -- taking over

    def _take_over(self) -> None:
        try:
            found = self._adoption.verify()
            if found is not None:
                self._take_or_discard(found)
        finally:
            # Nobody must wait for what does not come any more.
            self._adoption.give_up()

    def _take_or_discard(self, found: VerifiedCopy | VerifiedLink) -> None:
        try:
            taken = self._begin_to_take(found) and self._take(found)
        except OSError as error:
            logger.info("own copy of %s cannot be taken over: %s", self.blob, error)
            taken = False
        if not taken:
            self._discard(found)
        elif isinstance(found, VerifiedLink):
            self._adoption.finish()
            # Nothing arrives here: readers, who got nothing yet, ask again and find the link.
            self._end("paused", FillInterrupted("The file is here by now."))
        else:
            verified = self._turn_verified()
            self._adoption.finish()
            if verified:
                self._keep(found.sha256)

    def _begin_to_take(self, found: VerifiedCopy | VerifiedLink) -> bool:
        """Decide between the copy and a download that has begun; that one concludes nothing then.

        Another process that follows the download would lose what it follows.
        """
        exchange = self.partial.exchange
        alone = exchange is None or not exchange.heard or self.partial.present == 0
        with self._changed:
            self._taking = self._running and alone and self._adoption.claim(found)
            return self._taking

    def _take(self, found: VerifiedCopy | VerifiedLink) -> bool:
        if isinstance(found, VerifiedCopy):
            return found.put_into(self.partial)
        self.partial.link(found.copy, found.info, self._sidecar(found.sha256))
        return True

    def _discard(self, found: VerifiedCopy | VerifiedLink) -> None:
        if isinstance(found, VerifiedCopy):
            found.discard()
        self._adoption.give_up()
        with self._changed:
            overdue = self._taking and self._digest.complete
            self._taking = False
        if overdue:
            self._conclude()
