"""The table of clients: what fills it, and what a run says that has shown something else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from clients.matrix import NOT_APPLICABLE, PROPERTY, ROWS, SITUATIONS, Matrix, committed, compare


def report(**changes: Any) -> Any:
    note = [(PROPERTY, "curl cold"), ("other", "curl warm")]
    return SimpleNamespace(**{"when": "call", "passed": True, "user_properties": note} | changes)


def test_a_cell_is_shown_by_a_test_that_passed(pytestconfig: pytest.Config) -> None:
    matrix = Matrix(pytestconfig)
    for nothing in (report(passed=False), report(when="setup"), report(user_properties=[])):
        matrix.pytest_runtest_logreport(nothing)
    assert matrix.shown == set()
    matrix.pytest_runtest_logreport(report())
    assert matrix.shown == {("curl", "cold")}


def test_what_a_run_has_shown_and_the_table_does_not_say_is_named_and_the_reverse() -> None:
    assert compare("| a | yes |\n| b | yes |\n", "| a | yes |\n| b | yes |\n") == ""
    complaint = compare("| a | yes |\n| b | yes |\n", "| a | yes |\n| b | not shown |\n")
    assert "- | b | yes |" in complaint
    assert "+ | b | not shown |" in complaint
    assert "| a |" not in complaint


def test_the_documentation_has_every_client_and_leaves_nothing_open() -> None:
    rows = [line.split(" | ") for line in committed().splitlines() if line.startswith("| ")]
    assert [row[0].removeprefix("| ") for row in rows[2:]] == [row.title for row in ROWS.values()]
    assert tuple(rows[0][2:]) == (*SITUATIONS[:-1], f"{SITUATIONS[-1]} |")
    for client, cells in zip(ROWS, rows[2:], strict=True):
        for situation, cell in zip(SITUATIONS, cells[2:], strict=True):
            applies = (client, situation) not in NOT_APPLICABLE
            assert cell.removesuffix(" |") == "yes" if applies else cell.startswith("–")
