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
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fake_hub import BigFile, FakeHub, SmallFile
from fake_hub.faults import Fault
from robustness.agents import Agent, agent
from robustness.crash import Victim
from robustness.directory import check_at_rest
from robustness.report import Counts
from robustness.wanted import KIB, MIB, Wanted, Wrong, add_repo

# Received in a file, and in memory.
SIZE = 2 * MIB + 777
SMALL = 700 * KIB
# Enough for hf_transfer to ask for ranges.
TRANSFER_SIZE = 7 * MIB + 777
_HONEST_SECONDS = 90.0
_PAUSE_SECONDS = 0.5
# What is told in answer to a second question, which may be spared.
_SECOND = ("corrupt", "cut", "wrong_range", "false_range", "other_version")


@dataclass(frozen=True, slots=True)
class Lie:
    """What the upstream's storage does with a file.

    Args:
        kind: see `fake_hub.faults`.
        at: in parts of the file's size, or None.
        then: a second fault for the next answer.
        of: what is lied about: bytes in the Hub's storage, those the Hub itself sends, or what it
            says of a file.
    """

    kind: str
    at: float | None = None
    then: Lie | None = None
    of: Literal["storage", "small", "head"] = "storage"

    def tell(self, hub: FakeHub, wanted: Wanted, times: int | None) -> list[Fault]:
        """Arm it; for `times` answers, or for good."""
        # A lie in two parts has its first part told once, and the second for as long as it lasts.
        at = None if self.at is None else min(int(self.at * wanted.size), wanted.size - 1)
        first = 1 if self.then is not None else times
        path = f"/resolve-cache/models/{wanted.repo}/" if self.of == "small" else wanted.name
        fault = hub.fault(
            self.kind,
            path,
            host="cdn" if self.of == "storage" else "hub",
            at=at,
            times=first,
            method="HEAD" if self.of == "head" else "GET",
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
    "small-flip": Lie("corrupt", 0.3, of="small"),
    "small-truncate": Lie("short", 0.6, of="small"),
    "small-swapped": Lie("swap", of="small"),
    "small-html": Lie("html", of="small"),
    "html-head": Lie("html", of="head"),
    "no-metadata": Lie("no_metadata", of="head"),
}


def lies_round(
    root: Path,
    rng: random.Random,
    *,
    clients: Sequence[str],
    lies: Sequence[str] = tuple(LIES),
    times: int | None = None,
    rate: float = 24.0 * MIB,
    workers: int = 1,
    shared: bool = False,
) -> Counts:
    """Tell each lie to each client, all at once; then be honest.

    Args:
        root: an empty directory.
        clients: names of `agents`.
        times: how many answers are lies; None for all until every client has right or given up.
        workers: of the server.
        shared: all clients want the same file; else each has one of its own.

    Raises:
        Wrong: a client has a wrong file, or does not get the right one afterwards.
    """
    counts = Counts()
    with FakeHub() as hub:
        hub.rate = rate
        with Victim(root, hub.url, workers=workers) as server:
            agents = [agent(name, root / "clients" / name, server.endpoint) for name in clients]
            try:
                trials = _trials(hub, rng, agents, lies, shared=shared)
                told = [
                    fault
                    for wanted, lie in {trial.wanted: trial.lie for trial in trials}.items()
                    for fault in LIES[lie].tell(hub, wanted, times)
                ]
                with ThreadPoolExecutor(len(trials)) as pool:
                    for _ in pool.map(Trial.first, trials):
                        pass
                    _fall_silent(told)
                    for _ in pool.map(Trial.afterwards, trials):
                        pass
            finally:
                for one in agents:
                    one.close()
            server.wait_idle()
    for trial in trials:
        counts.update(trial.counts)
    counts.add(kept=check_at_rest(root, hub.url, leftovers=True))
    return counts


def _trials(
    hub: FakeHub,
    rng: random.Random,
    agents: Sequence[Agent],
    lies: Sequence[str],
    *,
    shared: bool,
) -> list[Trial]:
    trials = []
    for lie in lies:
        both = _file(hub, rng, "all", lie, TRANSFER_SIZE) if shared else None
        for one in agents:
            size = TRANSFER_SIZE if one.name.endswith("transfer") else rng.choice([SIZE, SMALL])
            trials.append(Trial(one, lie, both or _file(hub, rng, one.name, lie, size)))
    return trials


def _file(hub: FakeHub, rng: random.Random, whose: str, lie: str, size: int) -> Wanted:
    """A file in a repo of its own. No name is part of another: a fault knows its file by it."""
    name, size = f"{whose.replace('+', '-')}.{lie}", size + rng.randrange(1000)
    content: BigFile | SmallFile = BigFile(size, rng.randrange(1 << 30))
    ending = "bin"
    if LIES[lie].of == "small":
        # Git holds what is small and no model; the Hub sends that itself.
        content, ending = SmallFile(rng.randbytes(SMALL)), "json"
    [wanted] = add_repo(hub, f"lies/{name}", {f"{name}.{ending}": content})
    return wanted


def _fall_silent(told: Sequence[Fault]) -> None:
    """Be honest from now on."""
    for fault in told:
        fault.times = 0
    for fault in told:
        if fault.hits == 0 and fault.kind not in _SECOND:
            raise Wrong(f"the lie {fault.kind} about {fault.path_contains} was never told")


class Trial:
    """One client that wants one file, about which one lie is told."""

    def __init__(self, client: Agent, lie: str, wanted: Wanted) -> None:
        self.client = client
        self.lie = lie
        self.wanted = wanted
        self.counts = Counts(trials=1)
        self._words: str | None = None

    def first(self) -> None:
        """Ask while the upstream lies."""
        self._words = self.client.fetch(self.wanted)
        self.counts.add(**{"failed" if self._words else "right": 1})

    def afterwards(self) -> None:
        """Ask until it succeeds."""
        deadline = time.monotonic() + _HONEST_SECONDS
        while self._words is not None:
            self._words = self.client.again(self.wanted)
            self.counts.add(tries=1)
            if self._words is not None and time.monotonic() > deadline:
                raise Wrong(
                    f"{self.client.name} after {self.lie}: the upstream is honest again, but "
                    f"{self.wanted.path} cannot be had: {self._words}"
                )
            time.sleep(_PAUSE_SECONDS if self._words else 0)
