"""An upstream that lies, and real clients behind the cache.

Responsible for: each lie told to each client, for good and only once; that no client ever takes a
wrong file for complete, and gets the right one by the same call once the upstream is honest again.
Not responsible for: the lies themselves (`fake_hub.faults`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fake_hub import BigFile, FakeHub
from fake_hub.faults import Fault
from robustness.agents import Agent, agent
from robustness.crash import Victim
from robustness.directory import check_at_rest
from robustness.report import Counts
from robustness.wanted import MIB, Wanted, Wrong, add_repo

SIZE = 2 * MIB + 777
# Enough for hf_transfer to ask for ranges.
TRANSFER_SIZE = 7 * MIB + 777
_HONEST_SECONDS = 90.0
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Lie:
    """What the upstream's storage does with a file.

    Args:
        kind: see `fake_hub.faults`.
        at: in parts of the file's size, or None.
        then: a second fault for the next answer.
        rest: further arguments of the fault.
    """

    kind: str
    at: float | None = None
    then: Lie | None = None
    rest: dict[str, Any] = field(default_factory=dict)

    def tell(self, hub: FakeHub, wanted: Wanted, times: int | None) -> list[Fault]:
        """Arm it; for `times` answers, or for good."""
        # A lie in two parts has its first part told once, and the second for as long as it lasts.
        at = None if self.at is None else min(int(self.at * wanted.size), wanted.size - 1)
        first = 1 if self.then is not None else times
        fault = hub.fault(
            self.kind, wanted.name, host="cdn", at=at, times=first, method="GET", **self.rest
        )
        return [fault, *(self.then.tell(hub, wanted, times) if self.then is not None else [])]


LIES: dict[str, Lie] = {
    "flip-head": Lie("corrupt", 0.0),
    "flip-middle": Lie("corrupt", 0.5),
    "flip-tail": Lie("corrupt", 1.0),
    "truncate": Lie("short", 0.6),
    "cut": Lie("cut", 0.6),
    "longer": Lie("longer", 0.1),
    "swapped": Lie("swap"),
    "html": Lie("html"),
    "bad-head-good-tail": Lie("corrupt", 0.1, then=Lie("cut", 0.7)),
    "good-head-bad-tail": Lie("cut", 0.6, then=Lie("corrupt", 0.9)),
    "wrong-range": Lie("cut", 0.5, then=Lie("wrong_range", 0.1)),
    "false-range": Lie("cut", 0.5, then=Lie("false_range", 0.1)),
    "new-version-midway": Lie("cut", 0.5, then=Lie("other_version")),
    "gzip": Lie("gzip"),
    "endless": Lie("endless"),
}


def lies_round(
    root: Path,
    rng: random.Random,
    *,
    clients: Sequence[str],
    lies: Sequence[str] = tuple(LIES),
    times: int | None = None,
    rate: float = 24.0 * MIB,
) -> Counts:
    """Tell each lie to each client; all at once, each about a file of its own.

    Args:
        root: an empty directory.
        clients: names of `agents`.
        times: how many answers are lies; None for all until the client gave up.

    Raises:
        Wrong: a client has a wrong file, or does not get the right one afterwards.
    """
    counts = Counts()
    with FakeHub() as hub:
        hub.rate = rate
        files = _files(hub, rng, clients, lies)
        with Victim(root, hub.url) as server:
            agents = [agent(name, root / "clients" / name, server.endpoint) for name in clients]
            jobs = [(one, lie, files[one.name, lie]) for one in agents for lie in lies]
            try:
                with ThreadPoolExecutor(max(1, len(jobs))) as pool:
                    trials = [pool.submit(_trial, hub, *job, times) for job in jobs]
                for trial in trials:
                    counts.update(trial.result())
            finally:
                for one in agents:
                    one.close()
            server.wait_idle()
    counts.add(kept=check_at_rest(root, hub.url, leftovers=True))
    return counts


def _files(
    hub: FakeHub, rng: random.Random, clients: Sequence[str], lies: Sequence[str]
) -> dict[tuple[str, str], Wanted]:
    files: dict[tuple[str, str], Wanted] = {}
    for client in clients:
        size = TRANSFER_SIZE if client.endswith("transfer") else SIZE
        for lie in lies:
            # No name is part of another: a fault knows its file by its name.
            name = f"{client.replace('+', '-')}.{lie}.bin"
            content = BigFile(size + rng.randrange(1000), rng.randrange(1 << 30))
            id = f"lies/{name.removesuffix('.bin')}"
            files[client, lie] = add_repo(hub, id, {name: content})[0]
    return files


def _trial(hub: FakeHub, client: Agent, lie: str, wanted: Wanted, times: int | None) -> Counts:
    counts = Counts(trials=1)
    told = LIES[lie].tell(hub, wanted, times)
    words = client.fetch(wanted)
    counts.add(**{"failed" if words else "right": 1})
    for fault in told:
        fault.times = 0
    if all(fault.hits == 0 for fault in told):
        raise Wrong(f"{client.name}: the lie {lie} was never told")
    deadline = time.monotonic() + _HONEST_SECONDS
    while words is not None and (words := client.again(wanted)) is not None:
        counts.add(tries=1)
        if time.monotonic() > deadline:
            raise Wrong(f"{client.name} after {lie}: the upstream is honest again, but: {words}")
        time.sleep(_PAUSE_SECONDS)
    return counts
