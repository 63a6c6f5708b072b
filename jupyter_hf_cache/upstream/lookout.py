"""One thread that looks at what other processes do.

Responsible for: calling each thing that is watched as often as it asks for, while there is any.
Not responsible for: what is looked at (`upstream.following`, `upstream.attendance`).

Files tell nobody that they changed in a way that works everywhere, so they are looked at: a look
is a few microseconds. Where nothing is watched there is no thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

# A thread that has nothing to do waits this long for more before it ends.
_IDLE_SECONDS = 1.0

Look = Callable[[], "float | None"]


class Lookout:
    """Looks at things from a thread of its own. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._due: dict[Look, float] = {}
        self._thread: threading.Thread | None = None
        self._stopped = False

    def watch(self, look: Look) -> None:
        """Call `look` soon, and again after as many seconds as it returns, until that is None.

        It must not block for long: everything else waits.
        """
        with self._changed:
            if self._stopped:
                return
            self._due[look] = 0.0
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="hf-cache-lookout", daemon=True
                )
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while (look := self._next()) is not None:
            try:
                wait = look()
            except Exception:
                logger.exception("looking at another process's fill failed")
                wait = None
            with self._changed:
                if wait is None:
                    self._due.pop(look, None)
                elif look in self._due:
                    self._due[look] = time.monotonic() + wait

    def _next(self) -> Look | None:
        """Wait until something is due; None when the thread is to end."""
        with self._changed:
            while not self._stopped:
                if not self._due and not self._changed.wait(_IDLE_SECONDS) and not self._due:
                    break
                if self._due:
                    look, due = min(self._due.items(), key=lambda one: one[1])
                    wait = due - time.monotonic()
                    if wait <= 0:
                        return look
                    self._changed.wait(wait)
            self._thread = None
            return None

    def stop(self) -> None:
        """Look at everything once more, then at nothing; for shutting down."""
        with self._changed:
            self._stopped = True
            looks, thread = list(self._due), self._thread
            self._changed.notify()
        if thread is not None:
            thread.join()
        for look in looks:
            look()
