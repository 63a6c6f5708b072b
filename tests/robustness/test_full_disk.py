"""A server on a disk that fills up refuses, cuts off, and mends; it never serves a wrong byte."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from robustness.full_disk import full_disk_round


@pytest.mark.disk
@pytest.mark.timeout(300)
def test_a_full_disk_does_no_harm(tmp_path: Path) -> None:
    counts = full_disk_round(tmp_path, random.Random(7), seconds=5.0)
    assert counts["answers"] and counts["full"] > 3
