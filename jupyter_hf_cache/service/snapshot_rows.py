"""What is being fetched whole, in a table that all processes on the cache share.

Responsible for: that only one of them fetches a snapshot, that anybody can end it, and what people
are told about it.
Not responsible for: fetching (`service.snapshots`).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from jupyter_hf_cache.storage.state import StateTable, key_of

RUNNING = frozenset({"queued", "running"})

_PREFIX = "snapshot/"
# Written at least every second while its process lives; a busy machine may delay it.
_LIVE_SECONDS = 15.0
_MOST = 500


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """One repo at one commit that is, or was, fetched as a whole.

    Args:
        id: of this fetching: the same for the same files of the same commit.
        remote: the remote's id.
        include, exclude: shell patterns of paths; all files without any.
        state: "queued", "running", "done", "failed" (goes on at the next touch), "refused" (it does
            not fit), "canceled" or "paused" (the process ended, or the remote changed).
        files_total, files_done: paths; 0 before they are known.
        bytes_total, bytes_done: equal files count once.
        started, ended: Unix time in seconds; 0 while it is not.
        error: why it did not come to its end, in words.
    """

    id: str
    remote: str
    type: str
    repo: str
    commit: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    state: str = "queued"
    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    started: float = 0.0
    ended: float = 0.0
    error: str = ""


_FIELDS = frozenset(field.name for field in fields(SnapshotReport))


class SnapshotRows:
    """Thread-safe; blocks on disk.

    Args:
        clock: Unix time in seconds, the same for all processes.
    """

    def __init__(self, table: StateTable, clock: Callable[[], float] | None = None) -> None:
        self._table = table
        self._clock = clock or (lambda: time.time())
        self._owner = f"{os.getpid()}-{secrets.token_hex(4)}"

    def take(self, report: SnapshotReport) -> bool:
        """Begin a snapshot here, unless another process, or this one, is at it.

        Raises:
            StorageError: it cannot be written.
        """
        taken = False

        def change(row: Any) -> Any:
            nonlocal taken
            taken = row is None or not self._is_alive(row)
            return self._row(report) if taken else row

        self._table.update(_key(report.id), change)
        return taken

    def write(self, report: SnapshotReport) -> bool:
        """Note how far it is; False if it is to end, or is no longer ours.

        Raises:
            StorageError: it cannot be written.
        """
        goes_on = False

        def change(row: Any) -> Any:
            nonlocal goes_on
            if row is None or row["owner"] != self._owner:
                return row
            goes_on = not row["cancel"]
            return {**self._row(report), "cancel": row["cancel"]}

        self._table.update(_key(report.id), change)
        return goes_on

    def cancel(self, snapshot_id: str) -> bool:
        """Have whoever fetches it end; False if nobody does."""
        found = False

        def change(row: Any) -> Any:
            nonlocal found
            found = row is not None and self._is_alive(row)
            return {**row, "cancel": True} if found else row

        self._table.update(_key(snapshot_id), change)
        return found

    def all(self) -> list[SnapshotReport]:
        """Return what there is to tell, the latest first."""
        self._table.keep_latest(_PREFIX, _MOST)
        reports = []
        for _, row in self._table.items(_PREFIX):
            kept = {name: value for name, value in row.items() if name in _FIELDS}
            kept |= {name: tuple(kept[name]) for name in ("include", "exclude")}
            report = SnapshotReport(**kept)
            if report.state in RUNNING and not self._is_alive(row):
                report = replace(report, state="paused", error="Its process ended.")
            reports.append(report)
        return sorted(reports, key=lambda report: report.started, reverse=True)

    def _is_alive(self, row: dict[str, Any]) -> bool:
        recent = 0 <= self._clock() - row["beat"] < _LIVE_SECONDS
        return row["state"] in RUNNING and recent

    def _row(self, report: SnapshotReport) -> dict[str, Any]:
        own = {"owner": self._owner, "beat": self._clock(), "cancel": False}
        return {**asdict(report), **own}


def _key(snapshot_id: str) -> str:
    return _PREFIX + key_of(snapshot_id)
