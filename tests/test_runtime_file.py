from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_hf_cache import runtime_file
from jupyter_hf_cache.discovery import read_runtime_file


def test_clients_can_read_what_is_written(tmp_path: Path) -> None:
    path = runtime_file.write(tmp_path / "run", "http://127.0.0.1:1/a/", "jhc_x", "1.0")
    server = read_runtime_file(path)
    assert (server.url, server.token, server.pid) == ("http://127.0.0.1:1/a/", "jhc_x", os.getpid())


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_nobody_else_can_read_it_even_if_the_name_was_taken(tmp_path: Path) -> None:
    taken = tmp_path / f"hf-cache-{os.getpid()}.json"
    taken.write_text("{}")
    taken.chmod(0o666)
    path = runtime_file.write(tmp_path, "http://h/", "jhc_x", "1.0")
    assert path == taken
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["token"] == "jhc_x"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_removing_twice_is_fine(tmp_path: Path) -> None:
    path = runtime_file.write(tmp_path, "http://h/", "jhc_x", "1.0")
    runtime_file.remove(path)
    runtime_file.remove(path)
    assert not path.exists()


@pytest.mark.skipif(os.name != "posix", reason="processes cannot be asked for safely elsewhere")
def test_files_of_servers_that_were_killed_are_swept(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / f"hf-cache-{ended.pid}.json"
    dead.write_text("{}")
    other = tmp_path / "hf-cache-x.json"
    other.write_text("{}")
    alive = runtime_file.write(tmp_path, "http://h/", "jhc_x", "1.0")
    runtime_file.sweep(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {alive.name, other.name}
