"""Repos of many small files, as a notebook loads them.

Responsible for: `snapshot_download` cold and warm, and what the Hub is asked meanwhile.
Not responsible for: the client's environment (`.ci/test` makes it).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from .effort import Effort
from .machine import BenchmarkError
from .origin import FEW, FILES
from .places import Place
from .report import Row, row
from .rounds import Figures, interleave
from .servers import Site

_SECONDS = 60


def snapshot(site: Site, effort: Effort) -> Iterator[Row]:
    """300 files; and 30, for olah, which would take minutes."""
    python = _client()
    if python is None:
        note = "no client environment hub2 below $HF_CACHE_TEST_CLIENTS: no snapshot rows"
        yield row("snapshot_download", "client", "", (), note=note)
        return
    site.limit()
    many = [place for name, place in site.places.items() if name != "olah"]
    yield from _rows(site, python, effort.snapshot, many, effort)
    if "olah" in site.peers:
        yield from _rows(site, python, FEW, [site.serve, site.peers["olah"]], effort)


def _rows(
    site: Site, python: Path, repo: str, places: list[Place], effort: Effort
) -> Iterator[Row]:
    few = {f"{name} {state}": 1 for name in site.peers for state in ("cold", "warm")}
    measured = interleave(
        effort.few,
        {
            "direct": partial(_one, site, python, site.hub, repo),
            **{f"{p.name} cold": partial(_cold, site, python, p, repo) for p in places},
            # The first round begins with the cold ones, so that this is warm in all of them.
            **{f"{p.name} warm": partial(_one, site, python, p.endpoint, repo) for p in places},
        },
        few,
    )
    direct = ("direct", "direct")
    for state in ("cold", "warm"):
        what = f"{FILES[repo]} small files by snapshot_download, {state}"
        for place in places:
            name = f"{place.name} {state}"
            held = state == "warm" and repo == effort.snapshot and place.name in site.caches
            yield measured.row(
                what, place.name, "s", "seconds", name=name, beside=direct,
                limit=("≤ 2.0 s", 2.0) if held else None,
            )  # fmt: skip
            yield measured.row(
                f"{what}: requests to the Hub", place.name, "", "asked", name=name, beside=direct,
                limit=("≤ 1", 1.0) if held else None,
            )  # fmt: skip


def _cold(site: Site, python: Path, place: Place, repo: str) -> Figures:
    place.forget(repo)
    return _one(site, python, place.endpoint, repo)


def _one(site: Site, python: Path, endpoint: str, repo: str) -> Figures:
    site.count()
    with tempfile.TemporaryDirectory(dir=site.work) as folder:
        seconds = _load(python, endpoint, repo, Path(folder))
    return {"seconds": seconds, "asked": site.count()["requests"]}


def _client() -> Path | None:
    ours = Path(__file__).parents[2] / ".venvs/clients"
    folder = Path(os.environ.get("HF_CACHE_TEST_CLIENTS") or ours)
    python = folder / "hub2/bin/python"
    return python if python.exists() else None


def _load(python: Path, endpoint: str, repo: str, folder: Path) -> float:
    script = Path(__file__).with_name("snapshot_client.py")
    done = subprocess.run(
        # Isolated, so that no module of this folder is taken for another.
        [str(python), "-I", str(script), repo, str(folder / "hub")],
        env={
            "HOME": str(folder),
            "PATH": os.environ.get("PATH", ""),
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    with suppress(ValueError):
        seconds, files = done.stdout.split()
        if int(files) == FILES[repo]:
            return float(seconds)
    raise BenchmarkError(f"the snapshot is not complete: {done.stdout} {done.stderr[-300:]}")
