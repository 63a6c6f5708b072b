"""Rounds: everybody in turn, again and again.

Responsible for: interleaving, collecting what each round found, and going on without whoever fails.
Not responsible for: what is measured in a round.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Mapping

import requests

from .machine import BenchmarkError
from .report import Row, row

Figures = Mapping[str, float]
"""What one measurement found, by the name of the figure."""

FAILURES = (
    BenchmarkError,
    AssertionError,
    OSError,
    subprocess.SubprocessError,
    requests.RequestException,
)
"""What a measurement may raise. Everything else is a mistake in the benchmark and ends it."""


class Measured:
    """What all rounds found, by who was measured."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[float]]] = {}
        self.failures: dict[str, str] = {}

    def add(self, name: str, figures: Figures) -> None:
        """Note what one round of one found."""
        for figure, value in figures.items():
            self._found.setdefault(name, {}).setdefault(figure, []).append(value)

    def samples(self, name: str, figure: str) -> list[float]:
        """One per round; none of who failed or took no part."""
        if name in self.failures:
            return []
        return self._found.get(name, {}).get(figure, [])

    def median(self, name: str, figure: str) -> float:
        """Of all rounds; 0 where nothing was measured."""
        samples = self.samples(name, figure)
        return statistics.median(samples) if samples else 0.0

    def took_part(self, name: str) -> bool:
        """Whether it was measured at all, with or without success."""
        return name in self._found or name in self.failures

    def row(
        self,
        what: str,
        server: str,
        unit: str,
        figure: str,
        *,
        name: str | None = None,
        beside: tuple[str, str] | None = None,
        at_least: float | None = None,
        at_most: float | None = None,
        limit: tuple[str, float] | None = None,
    ) -> Row:
        """A row of one figure.

        Args:
            server: as the table calls it.
            name: as the rounds call it, if not the same.
            beside: what it is compared with, as the table and as the rounds call it.
        """
        name = name or server
        reference = beside and (beside[0], self.samples(beside[1], figure))
        return row(
            what, server, unit, self.samples(name, figure), reference,
            at_least=at_least, at_most=at_most, limit=limit, note=self.failures.get(name, ""),
        )  # fmt: skip


def interleave(
    rounds: int,
    measures: Mapping[str, Callable[[], Figures]],
    most: Mapping[str, int] | None = None,
) -> Measured:
    """Run each measure once per round, all of them in turn; the order is reversed in every other
    round, so that nobody always comes first. Who fails takes no part any more.

    Args:
        most: rounds of those that take part in fewer, for they are slow.
    """
    measured = Measured()
    for number in range(rounds):
        names = [name for name in measures if number < (most or {}).get(name, rounds)]
        for name in names if number % 2 == 0 else reversed(names):
            if name in measured.failures:
                continue
            try:
                measured.add(name, measures[name]())
            except FAILURES as error:
                measured.failures[name] = f"{name}: {str(error)[:400]}"
    return measured
