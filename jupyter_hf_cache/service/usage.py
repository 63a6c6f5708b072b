"""What the cache saved.

Responsible for: counting hits, misses, bytes and calls, per day, surviving a restart. Hits and
misses are of files' bodies; calls are questions to the upstream, made or spared, whatever about.
Bytes of an answer are counted when it begins.
Not responsible for: metrics for monitoring (`metrics`) or who used what.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.delayed import Delayed
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 30.0
NAMES = (
    "hits",
    "misses",
    "adopted",
    "bytes_served",
    "bytes_from_cache",
    "bytes_from_upstream",
    "bytes_adopted",
    "calls_made",
    "calls_saved",
    "passed_through",
)


class Usage:
    """Counters per day in a state table, of all processes together. Thread-safe.

    What is counted here is written within half a minute.
    """

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._writing = Delayed(_FLUSH_SECONDS, self._try_flush)

    def hit(self, size: int) -> None:
        """An answer of `size` bytes came from disk."""
        self.add(hits=1, bytes_from_cache=size, bytes_served=size)

    def miss(self, size: int) -> None:
        """The `size` bytes of an answer were not kept yet."""
        self.add(misses=1, bytes_served=size)

    def fetched(self, size: int) -> None:
        """`size` bytes came from upstream."""
        self.add(bytes_from_upstream=size)

    def adopted(self, size: int) -> None:
        """A file of `size` bytes was taken over from the user's own cache."""
        self.add(adopted=1, bytes_adopted=size)

    def asked(self) -> None:
        """A question was sent upstream."""
        self.add(calls_made=1)

    def saved_call(self) -> None:
        """A question was answered without asking upstream."""
        self.add(calls_saved=1)

    def today(self) -> dict[str, int]:
        """Return today's counters."""
        with self._lock:
            pending = Counter(self._pending)
        kept = self._table.get(_today()) or {}
        return {name: int(kept.get(name, 0)) + pending[name] for name in NAMES}

    def report(self) -> dict[str, dict[str, float | None]]:
        """Return the counters of today and of all days that were counted, each with what follows
        from them: `bytes_saved`, and `hit_ratio` of files, None before the first one."""
        today, total = self.today(), Counter[str]()
        for day, kept in self._table.items(key_of("usage") + "/"):
            if day != _today():
                total.update({name: int(kept.get(name, 0)) for name in NAMES})
        total.update(today)
        return {"today": _with_savings(today), "total": _with_savings(total)}

    def flush(self) -> None:
        """Write what was collected.

        Raises:
            StorageError: the disk refuses; it is kept for the next time.
        """
        with self._lock:
            pending, self._pending = self._pending, Counter()
        if not pending:
            return
        try:
            self._table.update(
                _today(),
                lambda kept: {
                    name: int((kept or {}).get(name, 0)) + pending[name] for name in NAMES
                },
            )
        except StorageError:
            with self._lock:
                self._pending.update(pending)
            raise

    def add(self, **counts: int) -> None:
        """Count several things at once, each by its name in `NAMES`; does not block."""
        with self._lock:
            self._pending.update(counts)
        self._writing.want()

    def close(self) -> None:
        """Write what was collected, and nothing afterwards.

        Raises:
            StorageError: the disk refuses; it is lost.
        """
        self._writing.stop()
        self.flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except StorageError as error:
            logger.warning("usage is not written: %s", error.message)


def _with_savings(counts: Mapping[str, int]) -> dict[str, float | None]:
    files = counts["hits"] + counts["misses"]
    return {
        **{name: counts[name] for name in NAMES},
        "bytes_saved": max(0, counts["bytes_served"] - counts["bytes_from_upstream"]),
        "hit_ratio": round(counts["hits"] / files, 4) if files else None,
    }


def _today() -> str:
    return key_of("usage", datetime.now(timezone.utc).date().isoformat())
