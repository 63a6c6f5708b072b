"""After a loss of power nothing that was lost is served."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from robustness.boots import another_boot
from robustness.power import power_round


@pytest.mark.timeout(300)
def test_what_was_not_synced_is_not_believed(tmp_path: Path) -> None:
    counts = power_round(tmp_path, random.Random(3), another_boot=another_boot)
    assert counts["answers"]
