"""Rows without end stay in bounds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_hf_cache.storage.pruning import Pruning
from jupyter_hf_cache.storage.state import StateTable


@pytest.fixture
def table(tmp_path: Path) -> Iterator[StateTable]:
    table = StateTable(tmp_path / "table")
    yield table
    table.close()


def test_the_latest_rows_stay_and_others_are_left_alone(table: StateTable) -> None:
    table.set("other/row", 1)
    pruning = Pruning(table, "kind/", most=5, every=10)
    for number in range(100):
        table.set(f"kind/{number:03}", number)
        pruning.written()
    kept = [value for _, value in table.items("kind/")]
    assert len(kept) < 15
    assert kept[-5:] == [95, 96, 97, 98, 99]
    assert table.get("other/row") == 1


def test_what_an_earlier_process_left_is_pruned_by_the_first_write(table: StateTable) -> None:
    for number in range(50):
        table.set(f"kind/{number:03}", number)
    Pruning(table, "kind/", most=5, every=1000).written()
    assert table.count("kind/") == 5
