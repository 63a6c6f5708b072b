"""Killed at any instant, and started again on what was left.

Responsible for: a stand-alone server that is killed, with or without workers, while clients
download, and the clients that go on over all of that; what is on disk afterwards.
Not responsible for: loss of power (`power`), which loses what was written.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clients.server import StandAloneServer, wait_for
from fake_hub import FakeHub
from robustness.directory import check_at_rest
from robustness.readers import Readers, everything
from robustness.report import Counts
from robustness.wanted import MIB, Wanted, new_repo

# What a server that is being killed may answer: nothing, or that it is shutting down.
_REFUSALS = frozenset({503})
# What it says when it is up.
_USAGE = "export HF_ENDPOINT="


class Victim(StandAloneServer):
    """`jupyter hf-cache serve`, to be killed.

    Args:
        workers: processes that answer; 1 for the server alone.
    """

    def __init__(self, root: Path, upstream: str, *, workers: int = 1, **rest: Any) -> None:
        super().__init__(root, upstream, **rest)
        self.workers = workers
        self._said_before = 0
        self._left_alone: list[int] = []

    def launch(self) -> None:
        """Start, and wait for nothing."""
        self._said_before = len(self.text())
        super().launch()

    def wait_ready(self) -> None:
        """Wait until it is ready for clients, and all its workers are."""
        super().wait_ready()
        wait_for(lambda: _USAGE in self.text()[self._said_before :] or None, "word of it")

    def children(self) -> list[int]:
        """The processes of its workers."""
        with contextlib.suppress(OSError):
            found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(word) for word in found.split()]
        return []

    def kill(self, *, with_workers: bool = True) -> None:
        """Kill it as the kernel does when memory is short.

        Workers that are left alone finish what runs, beside the next server on the port.

        Args:
            with_workers: kill those too.
        """
        children = self.children()
        os.kill(self.pid, signal.SIGKILL)
        for pid in children if with_workers else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        self._left_alone += children
        wait_for(lambda: _is_free(self.port) or None, "end of listening", 60)

    def wait_for_workers(self) -> None:
        """Wait until all workers have ended that were left alone."""
        wait_for(lambda: not any(map(_lives, self._left_alone)) or None, "end of the workers", 60)

    def kill_a_worker(self, rng: random.Random) -> None:
        """Kill one worker, if there are any."""
        children = self.children()
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(children), signal.SIGKILL)

    def _command(self) -> Sequence[str]:
        more = () if self.workers == 1 else (f"--workers={self.workers}",)
        return (*super()._command(), *more)


def _is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return True
    return False


def _lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def crash_round(
    root: Path, rng: random.Random, *, kills: int, workers: int = 1, big: int | None = None
) -> Counts:
    """Kill a server `kills` times while it fills; then everything must be there.

    Args:
        root: an empty directory.
        workers: of the server.
        big: the size of one larger file in each repo.

    Raises:
        Wrong: a byte was wrong, or something is wrong on disk.
    """
    counts = Counts()
    with FakeHub() as hub:
        hub.rate = 8.0 * MIB
        wanted: list[Wanted] = []
        victim = Victim(root, hub.url, workers=workers)
        readers = Readers(
            [victim.endpoint],
            _next_repo(hub, wanted, rng, big),
            seed=rng.randrange(1 << 30),
            refusals=_REFUSALS,
        )
        try:
            for number in range(kills):
                if number:
                    readers.wanted = _next_repo(hub, wanted, rng, big)
                victim.launch()
                _kill_some_time(victim, rng)
                readers.check()
            victim.start()
            everything(victim.endpoint, wanted, refusals=_REFUSALS)
            readers.end()
            victim.wait_idle()
            code = victim.stop()
            victim.wait_for_workers()
        finally:
            if victim.running:
                victim.kill()
    assert code == 0, f"the last server ended with {code}\n{victim.text()}"
    counts.add(kills=kills, kept=check_at_rest(root, hub.url))
    counts.add_readers(readers)
    return counts


def _next_repo(
    hub: FakeHub, wanted: list[Wanted], rng: random.Random, big: int | None
) -> list[Wanted]:
    """Make one more repo; what is to be read now: its files and some older ones."""
    older = rng.sample(wanted, min(3, len(wanted)))
    sizes = [] if big is None else [big, rng.randrange(MIB, 3 * MIB)]
    fresh = new_repo(hub, f"org/round-{len(wanted)}", rng, big=sizes)
    wanted += fresh
    return fresh + older


def _kill_some_time(victim: Victim, rng: random.Random) -> None:
    """Kill the server while it starts, or while it serves; or first a worker of it."""
    if rng.random() < 0.2:
        time.sleep(rng.uniform(0.0, 1.5))
    else:
        victim.wait_ready()
        time.sleep(rng.uniform(0.0, 1.0))
        if victim.workers > 1 and rng.random() < 0.5:
            victim.kill_a_worker(rng)
            time.sleep(rng.uniform(0.0, 1.0))
    victim.kill(with_workers=rng.random() < 0.5)
