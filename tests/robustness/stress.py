"""Everything at once: several servers on one directory, little room, deletions, a bad line.

Responsible for: random reads through several server processes while their budget is too small for
what is read, repos are deleted, and the upstream breaks off, stalls and refuses; every answer
compared, and the room they take measured meanwhile.
Not responsible for: lies of the upstream (`lies`): what comes late or not at all is honest here.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from pathlib import Path

import requests
from fake_hub import FakeHub
from robustness.crash import Victim
from robustness.directory import bytes_taken, check_at_rest
from robustness.readers import Readers, everything
from robustness.report import Counts
from robustness.wanted import MIB, Wanted, Wrong, new_repo

LIMIT = 24 * MIB
# Notes beside the bytes, and files that a killed server had begun.
_TOLERANCE = MIB
# No room, or an upstream that did not answer or could not be reached; 429 is passed on.
REFUSALS = frozenset({429, 501, 502, 503, 504, 507, 521})
_WAYS = (
    *("whole", "ranges", "footer", "footer", "span", "span", "span", "leave"),
    *("several", "head", "head"),
)


class Trouble:
    """What happens meanwhile, in a thread: faults of the upstream, deleted repos, measurements.

    Attributes:
        most: the most room that the cache was seen to take.
        deleted: how many repos were deleted.
        kills: how many servers were killed, and started again.
        problem: what went wrong here.
    """

    def __init__(
        self,
        hub: FakeHub,
        servers: list[Victim],
        repos: list[str],
        rng: random.Random,
        *,
        may_kill: bool,
    ) -> None:
        self.most = 0
        self.deleted = 0
        self.faults = 0
        self.kills = 0
        self.problem: BaseException | None = None
        self._hub, self._servers, self._repos, self._rng = hub, servers, repos, rng
        self._may_kill = may_kill
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._rng.uniform(0.0, 0.05)):
                taken = bytes_taken(self._servers[0].root / "cache", LIMIT)
                self.most = max(self.most, taken)
                chance = self._rng.random()
                if chance < 0.15:
                    self._add_fault()
                elif chance < 0.25:
                    self._delete()
                elif chance < 0.3:
                    self._hub.faults.release()
                elif chance < 0.31 and self._may_kill:
                    self._kill()
        except BaseException as problem:
            self.problem = problem

    def _add_fault(self) -> None:
        rng = self._rng
        kind = rng.choice(["cut", "short", "reset", "stall", "status", "ignore_range", "close"])
        at = rng.randrange(2 * MIB) if kind in ("cut", "short", "reset", "stall") else None
        status = rng.choice([403, 429, 500, 503])
        self._hub.fault(kind, "", host="cdn", at=at, status=status, method="GET")
        self.faults += 1

    def _delete(self) -> None:
        with contextlib.suppress(requests.RequestException):
            server = self._rng.choice(self._servers)
            server.api("DELETE", f"hf-cache/v1/repos/models/{self._rng.choice(self._repos)}")
            self.deleted += 1

    def _kill(self) -> None:
        """Kill a server that others may be following; it is started again at once."""
        server = self._rng.choice(self._servers)
        server.kill()
        self.kills += 1
        server.launch()
        server.wait_ready()

    def end(self) -> None:
        """End, with an upstream that is well again."""
        self._ended.set()
        self._thread.join(120)
        self._hub.faults.clear()
        if self.problem is not None:
            raise self.problem


def stress_round(
    root: Path,
    rng: random.Random,
    *,
    seconds: float,
    servers: int = 2,
    workers: int = 1,
    threads: int = 8,
    may_kill: bool = False,
) -> Counts:
    """Read at random for some seconds.

    Args:
        root: an empty directory; each server has a home of its own in it, all one cache directory.
        may_kill: servers are killed now and then.

    Raises:
        Wrong: a byte was wrong, or the cache took more room than it may.
    """
    counts = Counts()
    with FakeHub() as hub:
        hub.rate = 24.0 * MIB
        wanted: list[Wanted] = []
        for number in range(5):
            sizes = [rng.randrange(MIB, 6 * MIB) for _ in range(3)]
            wanted += new_repo(hub, f"org/stress-{number}", rng, big=sizes)
        running = [
            server_beside(root, hub, number, workers, cache_size_limit=LIMIT)
            for number in range(servers)
        ]
        try:
            for server in running:
                server.start()
            endpoints = [server.endpoint for server in running]
            readers = Readers(
                endpoints, wanted, seed=rng.randrange(1 << 30), threads=threads, ways=_WAYS,
                refusals=REFUSALS,
            )  # fmt: skip
            repos = sorted({one.repo for one in wanted})
            trouble = Trouble(hub, running, repos, rng, may_kill=may_kill)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and trouble.problem is None:
                readers.check()
                threading.Event().wait(0.2)
            trouble.end()
            readers.end()
            for endpoint in endpoints:
                everything(endpoint, wanted, refusals=REFUSALS)
            for server in running:
                server.wait_idle()
                _check_books(server)
            codes = [server.stop() for server in running]
        finally:
            for server in running:
                if server.running:
                    server.kill()
    assert not any(codes), f"servers ended with {codes}"
    if trouble.most > LIMIT:
        raise Wrong(f"the cache took {trouble.most:,} bytes of {LIMIT:,}")
    counts.add(
        deleted=trouble.deleted,
        faults=trouble.faults,
        kills=trouble.kills,
        kept=check_at_rest(root / "server-0", hub.url, leftovers=True),
    )
    counts.add_readers(readers)
    return counts


def _check_books(server: Victim) -> None:
    """Compare what an idle server thinks that the cache takes with what it takes."""
    counted = server.status()["usage"]["bytes"]
    taken = bytes_taken(server.root / "cache", LIMIT)
    if abs(counted - taken) > _TOLERANCE or counted > LIMIT:
        raise Wrong(f"the cache counts {counted:,} bytes, and takes {taken:,} of {LIMIT:,}")


def server_beside(
    root: Path, hub: FakeHub, number: int, workers: int = 1, **options: int
) -> Victim:
    """One more server on the cache directory of the first."""
    home = root / f"server-{number}"
    server = Victim(home, hub.url, workers=workers, options=options)
    home.mkdir(parents=True)
    first = root / "server-0" / "cache"
    first.mkdir(exist_ok=True, mode=0o700)
    if number:
        (home / "cache").symlink_to(first)
    return server
