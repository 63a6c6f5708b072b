"""Snapshots that are fetched whole, below `hf-cache/v1/snapshots`.

Responsible for: showing them as JSON.
Not responsible for: fetching (`service.snapshots`).
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from jupyter_hf_cache.service import CacheService
from jupyter_hf_cache.service.snapshot_rows import SnapshotReport
from jupyter_hf_cache.web.cache_api import PREFIX
from jupyter_hf_cache.web.handler import CacheHandler


class SnapshotsHandler(CacheHandler):
    """Running and ended snapshots, of all processes."""

    async def get(self) -> None:
        """List them, the latest first."""
        self.json({"results": await self.context.run(_snapshots, self.context.service)})


def _snapshots(service: CacheService) -> list[dict[str, Any]]:
    names = {remote.id: remote.name for remote in service.config.remotes()}
    return [_snapshot(report, names.get(report.remote)) for report in service.snapshots.reports()]


def _snapshot(report: SnapshotReport, remote: str | None) -> dict[str, Any]:
    return {
        "id": report.id,
        "remote": remote,
        "type": report.type,
        "repo": report.repo,
        "commit": report.commit,
        "include": report.include,
        "exclude": report.exclude,
        "state": report.state,
        "files_total": report.files_total,
        "files_done": report.files_done,
        "bytes_total": report.bytes_total,
        "bytes_done": report.bytes_done,
        "started": _iso(report.started),
        "ended": _iso(report.ended),
        "error": report.error or None,
    }


def _iso(when: float) -> str | None:
    return datetime.fromtimestamp(when, timezone.utc).isoformat() if when else None


ROUTES: list[tuple[str, type[CacheHandler]]] = [(rf"{PREFIX}snapshots", SnapshotsHandler)]
