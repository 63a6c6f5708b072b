"""Every row of the benchmark, once and in small: whether it works, not what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="not installed: curl"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def _run(folder: Path, *options: str) -> list[dict[str, Any]]:
    figures = folder / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--tiny", "--without", "olah"]
    done = subprocess.run(
        [*command, f"--json={figures}", f"--work={folder}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows: list[dict[str, Any]] = json.loads(figures.read_text(encoding="utf-8"))["rows"]
    return rows


def test_every_row_of_the_cache_can_be_measured(tmp_path: Path) -> None:
    rows = _run(tmp_path, "--only", "startup", "warm", "rate", "ui", "cold", "lines")
    ours = [made for made in rows if made["server"] in ("serve", "jupyter")]
    assert len(ours) > 40
    assert all(made["samples"] and made["median"] >= 0 for made in ours)
    sent = [made["median"] for made in ours if made["what"].endswith("sent by the Hub")]
    assert sent
    assert all(1 <= value < 1.5 for value in sent)


@pytest.mark.clients
def test_snapshots_can_be_measured(tmp_path: Path) -> None:
    rows = _run(tmp_path, "--only", "snapshot")
    asked = {made["what"]: made["median"] for made in rows if made["server"] == "serve"}
    assert asked["30 small files by snapshot_download, cold: requests to the Hub"] >= 30
    assert asked["30 small files by snapshot_download, warm: requests to the Hub"] <= 1
