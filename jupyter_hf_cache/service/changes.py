"""What was changed upstream through this cache.

Responsible for: remembering when, so that who pushes sees the result at once, whoever they read as.
Not responsible for: changes made elsewhere; those are seen when what is known has aged.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from jupyter_hf_cache.storage.records import RepoRef

_MOST = 10_000


class Changes:
    """Times of the last change per (scope, repo), in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: OrderedDict[tuple[str, RepoRef | None], float] = OrderedDict()

    def note(self, scope: str, repo: RepoRef | None) -> None:
        """A change went through.

        Args:
            repo: None when its address does not say which (creating, moving, deleting one).
        """
        with self._lock:
            self._times[scope, repo] = time.time()
            self._times.move_to_end((scope, repo))
            while len(self._times) > _MOST:
                self._times.popitem(last=False)

    def last(self, scope: str, repo: RepoRef | None) -> float:
        """Return the Unix time of the last change that may concern a repo, 0 if there was none."""
        if not self._times:
            return 0.0
        with self._lock:
            return max(self._times.get((scope, repo), 0.0), self._times.get((scope, None), 0.0))
