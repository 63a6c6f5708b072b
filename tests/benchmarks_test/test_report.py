"""Rows, goals and rounds: what the benchmark makes of figures."""

from __future__ import annotations

import json

import pytest
from benchmarks.machine import BenchmarkError
from benchmarks.report import as_json, lacking, number, row, table
from benchmarks.rounds import Figures, interleave


def _cells(text: str, line: int) -> list[str]:
    return [cell.strip() for cell in text.splitlines()[line].strip("|").split("|")]


def test_a_row_has_the_median_and_its_ratio_to_the_other_s_median() -> None:
    made = row("what", "ours", "MiB/s", [10.0, 30.0, 20.0], ("theirs", [1.0, 100.0, 10.0]))
    assert (made.median, made.reference, made.ratio) == (20.0, 10.0, 2.0)


@pytest.mark.parametrize(
    ("bound", "met"),
    [
        ({"at_least": 0.9}, True),
        ({"at_least": 0.91}, False),
        ({"at_most": 0.9}, True),
        ({"at_most": 0.89}, False),
        ({"limit": ("≤ 9 s", 9.0)}, True),
        ({"limit": ("≤ 8 s", 8.9)}, False),
    ],
)
def test_a_goal_is_met_up_to_its_bound(bound: dict[str, object], met: bool) -> None:
    made = row("what", "ours", "s", [9.0], ("theirs", [10.0]), **bound)  # type: ignore[arg-type]
    assert made.goal is not None
    assert made.goal.met is met


@pytest.mark.parametrize("reference", [[], [0.0]])
def test_a_goal_beside_nobody_is_not_judged(reference: list[float]) -> None:
    made = row("what", "ours", "s", [9.0], ("theirs", reference), at_least=0.9)
    assert made.goal is not None
    assert made.goal.met is None
    assert _cells(table([made]), 2)[-1] == "not judged"


def test_what_was_not_measured_meets_no_goal_and_says_why_below_the_table() -> None:
    failed = row("a", "ours", "s", [], ("theirs", [1.0]), at_most=2, note="it broke")
    again = row("b", "ours", "s", [], note="it broke")
    text = table([row("c", "ours", "s", [1.0, 3.0]), failed, again])
    assert failed.goal is not None
    assert failed.goal.met is False
    assert _cells(text, 2)[2:4] == ["2 s", "1 – 3"]
    assert _cells(text, 3)[2] == _cells(text, 4)[2] == "not measured [1]"
    assert text.splitlines()[-1] == "[1] it broke"


def test_the_table_s_columns_are_of_one_width() -> None:
    rows = [row("short", "s", "s", [1.0]), row("much longer", "server", "MiB/s", [12345.0, 1e-3])]
    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1.5, "1.5"), (99.96, "100"), (1234.5, "1234")]
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_the_json_has_all_samples_and_what_follows_from_them() -> None:
    made = row("what", "ours", "s", [1.0, 2.0], ("theirs", [3.0]), at_most=1)
    (found,) = json.loads(json.dumps(as_json([made])))
    assert found["samples"] == [1.0, 2.0]
    assert (found["median"], found["ratio"], found["goal"]["met"]) == (1.5, 0.5, True)


def test_a_run_lacks_what_failed_but_not_what_a_machine_need_not_have() -> None:
    failed, absent = row("a", "ours", "s", []), row("b", "olah", "s", [])
    assert lacking([failed, absent, row("c", "ours", "s", [1.0])], {"olah"}) == [failed]


def test_rounds_are_interleaved_and_every_other_one_goes_backwards() -> None:
    order: list[str] = []

    def one(name: str) -> Figures:
        order.append(name)
        return {"speed": len(order)}

    measures = {name: (lambda name=name: one(name)) for name in "abc"}
    measured = interleave(3, measures, {"c": 1})
    assert "".join(order) == "abc" + "ba" + "ab"
    assert measured.samples("a", "speed") == [1, 5, 6]
    assert measured.median("a", "speed") == 5
    assert measured.samples("c", "speed") == [3]


def test_who_fails_takes_no_part_any_more_and_the_others_go_on() -> None:
    calls: list[str] = []

    def breaks() -> Figures:
        calls.append("breaks")
        if len(calls) > 1:
            raise BenchmarkError("no more")
        return {"speed": 1.0}

    measured = interleave(4, {"breaks": breaks, "works": lambda: {"speed": 2.0}})
    assert len(calls) == 2
    failed = measured.row("what", "breaks", "s", "speed")
    assert (failed.samples, failed.note) == ((), "breaks: no more")
    assert measured.samples("works", "speed") == [2.0] * 4
    assert measured.took_part("breaks")
    assert not measured.took_part("others")


def test_a_mistake_in_the_benchmark_is_not_taken_for_a_failure_of_a_server() -> None:
    def mistaken() -> Figures:
        raise KeyError("typing error")

    with pytest.raises(KeyError):
        interleave(1, {"ours": mistaken})
