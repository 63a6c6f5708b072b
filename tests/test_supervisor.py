"""What the supervisor does about workers that die, with workers that do nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jupyter_hf_cache import workers
from jupyter_hf_cache.server import Stop
from jupyter_hf_cache.worker import Assignment
from jupyter_hf_cache.workers import CannotStart, Orders, Supervisor

pytestmark = pytest.mark.skipif(os.name != "posix", reason="workers need POSIX")

DEADLINE = 60.0
BEGIN = """
import json, os, sys, time
def say(what): os.write(1, json.dumps(what).encode() + b"\\n")
told = json.loads(sys.stdin.readline())
lives = os.environ["LIVES"] + "/" + str(os.getpid())
"""
OBEDIENT = """
open(lives, "w").write(json.dumps(told))
say({"ready": "hf"})
sys.stdin.readline()
"""
FRAIL = """
say({"ready": "hf"})
open(lives, "w").close()
sys.exit(3)
"""
# Obeys as long as it is the first one; those that replace it cannot start.
LAST = """
if os.path.exists(os.environ["LIVES"] + "/first"):
    say({"failed": "There is no room for me."})
    sys.exit(1)
open(os.environ["LIVES"] + "/first", "w").close()
say({"ready": "hf"})
sys.exit(3)
"""
SLOW = """
open(lives, "w").close()
time.sleep(600)
"""
DEAF = """
say({"ready": "hf"})
time.sleep(600)
"""
Make = Callable[..., Supervisor]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a supervisor of two workers that run a script; pauses are short."""
    monkeypatch.setattr(workers, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(workers, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(workers, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.5)

    def make(script: str, count: int = 2) -> Supervisor:
        monkeypatch.setattr(workers, "_COMMAND", BEGIN + script)
        assignment = Assignment(1, ["--x"], "secret password", "secret token", [])
        orders = Orders(assignment, {**os.environ, "LIVES": str(tmp_path)}, drain_seconds=0.5)
        return Supervisor(count, orders, [], logging.getLogger("test"))

    return make


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), DEADLINE)

    asyncio.run(bounded())


def test_each_worker_is_told_what_it_needs_and_ends_when_told(make: Make, tmp_path: Path) -> None:
    async def main() -> None:
        supervisor, stop = make(OBEDIENT), Stop()
        assert await supervisor.start(stop) == "hf"
        stop.ask()
        await supervisor.run(stop)

    run(main)
    told = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert sorted(one["number"] for one in told) == [1, 2]
    assert {one["password"] for one in told} == {"secret password"}
    assert {one["cache_token"] for one in told} == {"secret token"}


def test_secrets_are_in_no_repr() -> None:
    assert "secret" not in repr(Assignment(1, [], "secret", "secret", []))


def test_workers_that_die_at_once_again_and_again_are_given_up(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        supervisor = make(FRAIL)
        await supervisor.start(Stop())
        with pytest.raises(CannotStart, match=r"die as soon as they are started.*code 3"):
            await supervisor.run(Stop())

    run(main)
    assert "starting another in 0.01 s" in caplog.text


def test_the_reason_of_the_last_one_is_told(make: Make) -> None:
    async def main() -> None:
        supervisor = make(LAST, 1)
        await supervisor.start(Stop())
        with pytest.raises(CannotStart, match="There is no room for me"):
            await supervisor.run(Stop())

    run(main)


def test_it_stops_while_workers_still_start(make: Make, tmp_path: Path) -> None:
    async def main() -> None:
        supervisor, stop = make(SLOW), Stop()
        starting = asyncio.create_task(supervisor.start(stop))
        while len(list(tmp_path.iterdir())) < 1:
            await asyncio.sleep(0.01)
        stop.ask()
        assert await starting is None

    run(main)
    (started,) = tmp_path.iterdir()
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.name), 0)


def test_it_stops_before_any_worker_is_started(make: Make, tmp_path: Path) -> None:
    async def main() -> None:
        stop = Stop()
        stop.ask()
        assert await make(OBEDIENT).start(stop) is None

    run(main)
    assert list(tmp_path.iterdir()) == []


def test_who_does_not_end_is_killed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        supervisor, stop = make(DEAF), Stop()
        await supervisor.start(stop)
        stop.ask()
        await supervisor.run(stop)

    run(main)
    assert "does not end and is killed" in caplog.text


def test_a_first_worker_that_cannot_start_is_the_only_one(make: Make, tmp_path: Path) -> None:
    (tmp_path / "first").touch()

    async def main() -> None:
        with pytest.raises(CannotStart, match="There is no room for me"):
            await make(LAST).start(Stop())

    run(main)
