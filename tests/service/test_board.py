"""Running fills of several processes on one cache."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.service import board as board_module
from jupyter_hf_cache.service.board import Board
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream.fill_report import FillReport

FILL = FillReport(
    "blob", ["o", "models", "a/b", "c", "f", "e"], 100, 10, 5.0, 1, 1.0, "running", None
)
KEPT = replace(FILL, done=100, state="kept")
DEADLINE = 30.0


class Process:
    """One process' board, over fills that a test makes up."""

    def __init__(self, table: StateTable) -> None:
        self.fills: list[FillReport] = []
        self.lock = threading.Lock()
        fills: Any = self
        self.board = Board(table, fills)

    def reports(self) -> list[FillReport]:
        with self.lock:
            return list(self.fills)

    def begin(self, *fills: FillReport) -> None:
        with self.lock:
            self.fills = list(fills)
            self.board.note()

    def end(self, *fills: FillReport) -> None:
        with self.lock:
            self.fills = list(fills)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Process]]:
    monkeypatch.setattr(board_module, "_EVERY_SECONDS", 0.01)
    made: list[tuple[Process, StateTable]] = []

    def make() -> Process:
        table = StateTable(tmp_path / "table")
        made.append((Process(table), table))
        return made[-1][0]

    yield make
    for process, table in made:
        process.board.stop()
        table.close()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_what_one_fetches_all_show(start: Callable[[], Process]) -> None:
    here, there = start(), start()
    here.begin(FILL)
    wait_until(lambda: there.board.reports() == [FILL])
    here.end(replace(FILL, done=50))
    wait_until(lambda: there.board.reports()[0].done == 50)
    here.end(KEPT)
    wait_until(lambda: there.board.reports() == [KEPT])
    assert here.board.reports() == [KEPT]


def test_one_blob_is_shown_once(start: Callable[[], Process]) -> None:
    here, there, third = start(), start(), start()
    # Two clients, and one reader that stands for the processes that follow.
    here.begin(replace(FILL, done=60, readers=3, started=3.0))
    there.begin(replace(FILL, done=40, readers=3, started=2.0))
    wait_until(lambda: len(third.board.reports()) == 1 and third.board.reports()[0].readers == 5)
    (shown,) = third.board.reports()
    assert (shown.done, shown.started) == (60, 2.0)
    assert here.board.reports()[0].readers == 5


def test_nothing_runs_while_nothing_is_fetched(start: Callable[[], Process]) -> None:
    here = start()
    here.begin(FILL)
    here.end()
    wait_until(lambda: here.board._thread is None)
    here.begin(FILL)
    assert here.board._thread is not None


def test_what_a_dead_process_fetched_is_soon_not_shown(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = start(), start()
    here.begin(FILL)
    wait_until(lambda: there.board.reports() == [FILL])
    monkeypatch.setattr(board_module, "_FRESH_SECONDS", -1.0)
    assert there.board.reports() == []


def test_a_process_that_ends_takes_its_fills_away(start: Callable[[], Process]) -> None:
    here, there = start(), start()
    here.begin(FILL)
    wait_until(lambda: there.board.reports() == [FILL])
    here.board.stop()
    assert there.board.reports() == []


def test_a_disk_that_refuses_is_no_obstacle(
    start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = start()

    def refuse(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(StateTable, "set", refuse)
    here.begin(FILL)
    assert here.board.reports() == [FILL]
    here.end(KEPT)
    wait_until(lambda: here.board._thread is None)
