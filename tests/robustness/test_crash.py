"""A server that is killed while it downloads serves nothing wrong, then or later."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from robustness.crash import crash_round

pytestmark = pytest.mark.timeout(300)


def test_a_killed_server_leaves_nothing_wrong(tmp_path: Path) -> None:
    counts = crash_round(tmp_path, random.Random(2024), kills=7)
    assert counts["answers"] and counts["broken"]


def test_killed_workers_leave_nothing_wrong(tmp_path: Path) -> None:
    counts = crash_round(tmp_path, random.Random(2025), kills=4, workers=2)
    assert counts["answers"] and counts["broken"]
