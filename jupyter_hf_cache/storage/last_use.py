"""When what is kept was used last.

Responsible for: collecting hits in memory and writing them to the ledger in batches, from a thread
of its own: a hit must not cost a write, and a killed process loses those of its last minute.
Not responsible for: what follows from it (`budget`).
"""

from __future__ import annotations

import logging
import threading

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.ledger import Ledger

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 60.0


class LastUse:
    """Last-use times on their way to the ledger. Thread-safe; `note` never blocks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}
        self._timer: threading.Timer | None = None
        self._closed = False

    def note(self, key: str, when: float) -> None:
        """Remember a hit at Unix time `when`."""
        with self._lock:
            self._used[key] = when
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(_FLUSH_SECONDS, self.try_flush)
                self._timer.daemon = True
                self._timer.start()

    def try_flush(self) -> None:
        """Write them; a disk that refuses is no reason to refuse what is kept on it."""
        try:
            self.flush()
        except StorageError as error:
            logger.warning("last-use times are not written: %s", error.message)

    def flush(self) -> None:
        """Write what was collected.

        Raises:
            StorageError: the disk refuses; it is kept for the next time.
        """
        with self._lock:
            used, self._used = self._used, {}
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if not used:
            return
        try:
            self._ledger.touch(used)
        except StorageError:
            with self._lock:
                self._used = {**used, **self._used}
            raise

    def close(self) -> None:
        """Write them, if that is possible, and begin no more batches."""
        with self._lock:
            self._closed = True
        self.try_flush()
