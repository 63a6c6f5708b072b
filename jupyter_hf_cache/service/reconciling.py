"""Records and disk after a start.

Responsible for: letting the records be compared with what lies on disk beside the first requests,
in a thread of its own, so that no start waits for a walk over all files; ending that with the
service.
Not responsible for: the comparison (`storage.budget`).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import filelock

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.budget import Budget

logger = logging.getLogger(__name__)

_STOP_SECONDS = 5.0


class Reconciling:
    """One comparison in the background. `start` and `stop` are called once, by one thread.

    Args:
        lock: of several processes that start together, the one that gets this compares.
    """

    def __init__(self, budget: Budget, lock: Path) -> None:
        self._budget = budget
        self._lock = filelock.FileLock(lock, timeout=0)
        self._stopped = threading.Event()
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="hf-cache-reconcile", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Leave it at what is done. Safe also if it never began."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            with self._lock:
                self._budget.reconcile(self._stopped.is_set)
        except filelock.Timeout:
            return
        except (OSError, StorageError) as error:
            if not self._stopped.is_set():
                logger.warning("the records were not compared with the disk: %s", error)
