"""Counters that all processes on one directory see at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jupyter_hf_cache.storage.generations import Generations

RAISE = """
import sys
from pathlib import Path
from jupyter_hf_cache.storage.generations import Generations
counters = Generations(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    counters.advance("config")
"""


def test_counters_are_independent(tmp_path: Path) -> None:
    counters = Generations(tmp_path / "generations")
    before = counters.values()
    counters.advance("access")
    assert counters.value("access") == 1
    assert counters.value("config") == counters.value("content") == 0
    assert counters.values() != before
    counters.close()


def test_another_process_is_heard_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "generations"
    counters = Generations(path)
    others = [subprocess.Popen([sys.executable, "-c", RAISE, str(path), "40"]) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda: [counters.advance("config") for _ in range(40)])
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0]
    assert counters.value("config") == 160
    counters.close()


def test_they_survive_a_restart(tmp_path: Path) -> None:
    first = Generations(tmp_path / "generations")
    first.advance("content")
    first.close()
    assert first.value("content") == 1
    again = Generations(tmp_path / "generations")
    assert again.value("content") == 1
    again.close()


@pytest.mark.parametrize("damage", [b"", b"short", b"\xff" * 10_000])
def test_a_damaged_file_is_no_obstacle(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "generations"
    path.write_bytes(damage)
    counters = Generations(path)
    before = counters.values()
    counters.advance("config")
    assert counters.values() != before
    counters.close()


def test_without_a_file_they_serve_this_process(tmp_path: Path) -> None:
    counters = Generations(tmp_path / "missing" / "generations")
    counters.advance("config")
    assert counters.value("config") == 1
    counters.close()
