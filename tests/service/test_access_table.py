"""The table of access: every kind of repo, caller, moment and read, under every kind of setting.

What each cell must hold is said by `access_rules.expected`, from the rules alone. A cell is wrong
by its status, code, message or bytes, by anything that a refusal lets slip, and by a credential
that went where it must not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from access_rules import (
    CALLERS,
    KEEPER,
    KINDS,
    READS,
    SOME_CALLERS,
    SOME_KINDS,
    SOME_READS,
    Phase,
    Server,
    expected,
)
from access_world import World
from wall_clock import Clock

Wrong = tuple[str, str, str, str, str]
"""Phase, kind, caller, read and fault."""

# Thousands of questions each.
pytestmark = pytest.mark.timeout(900)

TTL = 60
GRACE = 3600


@dataclass(frozen=True)
class Table:
    """Which cells are looked at: all of them for the usual server, the telling ones for others."""

    server: Server
    kinds: tuple[str, ...] = SOME_KINDS
    callers: tuple[str, ...] = SOME_CALLERS
    reads: tuple[str, ...] = SOME_READS


TABLES = [
    pytest.param(Table(Server(), tuple(KINDS), tuple(CALLERS), tuple(READS)), id="one user"),
    pytest.param(
        Table(Server(single_user=False, open_tree=True), tuple(KINDS), tuple(CALLERS)),
        id="several users",
    ),
    pytest.param(Table(Server("shared", single_user=False)), id="shared"),
    pytest.param(Table(Server("shared", open_tree=True)), id="shared, one user"),
    pytest.param(Table(Server("public")), id="public"),
]


class Life:
    """One server, from a first download to long after the Hub was gone."""

    def __init__(self, world: World, clock: Clock, table: Table) -> None:
        self.world = world
        self.clock = clock
        self.table = table
        self.repos = {kind: world.make(kind, f"{kind}-repo") for kind in table.kinds}
        self.wrong: list[Wrong] = []

    def load(self) -> None:
        """Let every caller read what they may, while everything is as at first."""
        for name in self.table.reads:
            for kind, repo in self.repos.items():
                for caller in self.table.callers:
                    self.world.ask(CALLERS[caller], kind, repo, READS[name])
        self.world.cache.wait_idle()

    def change(self) -> None:
        for kind, repo in self.repos.items():
            self.world.change(kind, repo)
        self.world.take_back(list(self.repos.values()))

    def check(
        self,
        phase: Phase,
        reads: tuple[str, ...] | None = None,
        *,
        asked_since: bool = False,
        pause: float = 0.0,
    ) -> None:
        """Ask everything once and note each cell that is wrong.

        Args:
            pause: seconds that pass before each kind of read.
        """
        for read in reads or self.table.reads:
            self.clock.advance(pause)
            for kind, repo in self.repos.items():
                for caller in self.table.callers:
                    wanted = expected(
                        self.world.server,
                        CALLERS[caller],
                        kind,
                        READS[read],
                        phase,
                        asked_since=asked_since,
                    )
                    faults = self.world.faults(CALLERS[caller], kind, repo, READS[read], wanted)
                    self.wrong += [(phase, kind, caller, read, fault) for fault in faults]


class Tokens(logging.Handler):
    """Keeps every line of a log that shows a token."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        tokens = [who.token for who in (KEEPER, *CALLERS.values()) if who.token is not None]
        if any(token in line for token in tokens):
            self.shown.append(line)


def report(wrong: list[Wrong]) -> str:
    """The wrong cells, one line for each fault that several callers share."""
    callers: dict[tuple[str, ...], list[str]] = {}
    for phase, kind, caller, read, fault in wrong:
        callers.setdefault((phase, kind, read, fault), []).append(caller)
    lines = [f"{' | '.join(cell)}: {', '.join(names)}" for cell, names in callers.items()]
    return "\n".join([f"{len(wrong)} wrong cells", *lines])


@pytest.fixture
def log() -> Iterator[Tokens]:
    """What the whole process logs, at its most talkative."""
    tokens, root = Tokens(), logging.getLogger()
    before = root.level
    root.addHandler(tokens)
    root.setLevel(logging.DEBUG)
    yield tokens
    root.setLevel(before)
    root.removeHandler(tokens)


@pytest.mark.parametrize("table", TABLES)
def test_everybody_is_given_what_they_may_have_and_nothing_else(
    tmp_path: Path, clock: Clock, log: Tokens, table: Table
) -> None:
    with World(tmp_path, table.server) as world:
        life = Life(world, clock, table)
        life.load()
        life.change()
        life.check("warm")
        life.check("stale", pause=TTL + 1)
        world.pause()
        life.check("offline", SOME_READS, asked_since=True, pause=TTL + 1)
    assert not life.wrong, report(life.wrong)
    assert not log.shown


@pytest.mark.parametrize("table", TABLES)
def test_what_was_learnt_last_holds_when_nobody_can_be_asked(
    tmp_path: Path, clock: Clock, table: Table
) -> None:
    with World(tmp_path, table.server) as world:
        life = Life(world, clock, table)
        life.load()
        life.change()
        clock.advance(TTL + 1)
        world.pause()
        life.check("offline")
        clock.advance(GRACE + 1)
        life.check("late", SOME_READS)
    assert not life.wrong, report(life.wrong)


@pytest.mark.parametrize("table", TABLES)
def test_who_comes_first_is_asked_about(tmp_path: Path, table: Table) -> None:
    """Nobody has loaded anything of these repos: each cell has one to itself."""
    server = table.server
    with World(tmp_path, server) as world:
        cells = [
            (read, kind, caller)
            for read in table.reads
            for kind in table.kinds
            for caller in table.callers
        ]
        made = [world.make(kind, f"{kind}-{number}") for number, (_, kind, _) in enumerate(cells)]
        for (_, kind, _), repo in zip(cells, made, strict=True):
            world.change(kind, repo)
        world.take_back(made)
        wrong = [
            ("cold", kind, caller, read, fault)
            for (read, kind, caller), repo in zip(cells, made, strict=True)
            for fault in world.faults(
                CALLERS[caller],
                kind,
                repo,
                READS[read],
                expected(server, CALLERS[caller], kind, READS[read], "cold"),
            )
        ]
    assert not wrong, report(wrong)
