"""Rows in memory, and what ends them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.row_memory import RowMemory

Read = Callable[[], "int | None"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rows:
    """A table that counts how often it is read."""

    def __init__(self, **rows: int) -> None:
        self.rows = rows
        self.reads = 0

    def reader(self, key: str) -> Read:
        def read() -> int | None:
            self.reads += 1
            return self.rows.get(key)

        return read


@pytest.fixture
def counters(tmp_path: Path) -> Generations:
    return Generations(tmp_path / "generations")


def test_a_row_is_read_once(counters: Generations) -> None:
    rows = Rows(a=1)
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=10)
    assert [memory.get("a", rows.reader("a")) for _ in range(3)] == [1, 1, 1]
    assert rows.reads == 1
    assert memory.row("a") == 1


def test_another_process_ends_what_is_remembered(counters: Generations, tmp_path: Path) -> None:
    rows = Rows(a=1)
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=10)
    memory.get("a", rows.reader("a"))
    rows.rows["a"] = 2
    Generations(tmp_path / "generations").advance("access")
    assert memory.get("a", rows.reader("a")) == 1
    Generations(tmp_path / "generations").advance("content")
    assert memory.row("a") is None
    assert memory.get("a", rows.reader("a")) == 2


def test_a_row_that_was_read_before_a_change_is_read_again(counters: Generations) -> None:
    rows = Rows(a=1)
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=10)

    def overtaken() -> int | None:
        found = rows.reader("a")()
        if rows.reads == 1:
            rows.rows["a"] = 2
            counters.advance("content")
        return found

    assert memory.get("a", overtaken) == 2
    assert rows.reads == 2


def test_what_is_put_while_a_row_is_read_wins(counters: Generations) -> None:
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=10)

    def overtaken() -> int | None:
        memory.put("a", 2, written=True)
        return 1

    assert memory.get("a", overtaken) == 2
    assert memory.get("a", lambda: 1) == 2


def test_a_missing_row_is_looked_for_each_time(counters: Generations) -> None:
    rows = Rows()
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=10)
    assert memory.get("a", rows.reader("a")) is None
    rows.rows["a"] = 1
    assert memory.get("a", rows.reader("a")) == 1


def test_what_is_known_to_be_gone_is_not_looked_for(counters: Generations) -> None:
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=10)
    memory.put("a", None, written=False)
    assert memory.get("a", lambda: 1) is None
    counters.advance("content")
    assert memory.get("a", lambda: 1) == 1


def test_an_old_look_is_repeated_and_the_newer_value_counts(counters: Generations) -> None:
    clock, rows = Clock(), Rows(a=1)
    memory: RowMemory[str, int] = RowMemory(
        counters, "content", most=10, look_again=1.0, newer=max, clock=clock
    )
    assert memory.get("a", rows.reader("a")) == 1
    memory.put("a", 5, written=False)
    rows.rows["a"] = 3
    clock.now += 0.9
    assert memory.get("a", rows.reader("a")) == 5
    assert rows.reads == 1
    clock.now += 0.2
    assert memory.get("a", rows.reader("a")) == 5
    assert (rows.reads, memory.row("a")) == (2, 3)
    rows.rows["a"] = 7
    clock.now += 1.1
    assert memory.get("a", rows.reader("a")) == 7


def test_the_least_used_goes_first(counters: Generations) -> None:
    rows = Rows(a=1, b=2, c=3)
    memory: RowMemory[str, int] = RowMemory(counters, "content", most=2)
    for key in ("a", "b", "a", "c"):
        memory.get(key, rows.reader(key))
    assert [memory.row(key) for key in ("a", "b", "c")] == [1, None, 3]
