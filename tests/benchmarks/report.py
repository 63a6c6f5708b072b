"""The table and the JSON.

Responsible for: rows, medians, ratios, goals, and how they are written.
Not responsible for: the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

_HEAD = ("what", "server", "median", "range", "beside", "", "ratio", "goal", "met")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is held to.

    Args:
        text: as the table says it.
        met: whether it is.
    """

    text: str
    met: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Args:
        samples: one per round.
        beside: name of what it is compared with, or None.
        reference: that one's median.
    """

    what: str
    server: str
    unit: str
    samples: tuple[float, ...]
    beside: str | None = None
    reference: float | None = None
    goal: Goal | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratio(self) -> float | None:
        return self.median / self.reference if self.reference else None


def row(
    what: str,
    server: str,
    unit: str,
    samples: Sequence[float],
    beside: tuple[str, Sequence[float]] | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """A row whose goal, if any, is a ratio."""
    made = Row(
        what,
        server,
        unit,
        tuple(samples),
        beside and beside[0],
        statistics.median(beside[1]) if beside else None,
    )
    goal = None
    if made.ratio is not None and at_least is not None:
        goal = Goal(f"ratio ≥ {at_least:g}", made.ratio >= at_least)
    elif made.ratio is not None and at_most is not None:
        goal = Goal(f"ratio ≤ {at_most:g}", made.ratio <= at_most)
    return with_goal(made, goal)


def with_goal(made: Row, goal: Goal | None) -> Row:
    """The same row with a goal."""
    return Row(
        made.what, made.server, made.unit, made.samples, made.beside, made.reference, goal
    )  # fmt: skip


def table(rows: Iterable[Row]) -> str:
    """All rows as Markdown."""
    lines = [_HEAD, *(_cells(each) for each in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    texts = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def _cells(made: Row) -> tuple[str, ...]:
    many = len(made.samples) > 1
    return (
        made.what,
        made.server,
        f"{number(made.median)} {made.unit}",
        f"{number(min(made.samples))} – {number(max(made.samples))}" if many else "",
        made.beside or "",
        "" if made.reference is None else number(made.reference),
        "" if made.ratio is None else f"{made.ratio:.2f}",
        made.goal.text if made.goal else "",
        "" if made.goal is None else "yes" if made.goal.met else "NO",
    )


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(rows: Iterable[Row]) -> list[dict[str, object]]:
    """All rows for programs."""
    return [{**asdict(each), "median": each.median, "ratio": each.ratio} for each in rows]
