"""The table and the JSON.

Responsible for: rows, medians, ratios, goals, and how they are written.
Not responsible for: the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

_HEAD = ("what", "server", "median", "range", "beside", "", "ratio", "goal", "met")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is held to.

    Args:
        text: as the table says it.
        met: whether it is; None where what it is compared with could not be measured.
    """

    text: str
    met: bool | None

    @property
    def word(self) -> str:
        """As the table says it."""
        return {True: "yes", False: "NO", None: "not judged"}[self.met]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Args:
        samples: one per round; none where it could not be measured.
        beside: name of what it is compared with, or None.
        reference: that one's median, or None where that could not be measured.
        note: said below the table.
    """

    what: str
    server: str
    unit: str
    samples: tuple[float, ...]
    beside: str | None = None
    reference: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        """Of the rounds; None without any."""
        return statistics.median(self.samples) if self.samples else None

    @property
    def ratio(self) -> float | None:
        """The median divided by the reference, where there are both."""
        return self.median / self.reference if self.median is not None and self.reference else None


def row(
    what: str,
    server: str,
    unit: str,
    samples: Sequence[float],
    beside: tuple[str, Sequence[float]] | None = None,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    limit: tuple[str, float] | None = None,
    note: str = "",
) -> Row:
    """A row and, if it has one, its goal. What was not measured does not meet it.

    Args:
        beside: name and samples of what it is compared with.
        at_least, at_most: goal for the ratio.
        limit: goal for the median: its text, and the highest value that meets it.
    """
    reference = statistics.median(beside[1]) if beside and beside[1] else None
    judged = not samples or beside is None or bool(reference)
    note = " ".join(note.split())
    made = Row(what, server, unit, tuple(samples), beside and beside[0], reference, None, note)
    median, ratio = made.median, made.ratio
    goal = None
    if at_least is not None:
        goal = Goal(f"ratio ≥ {at_least:g}", ratio is not None and ratio >= at_least)
    elif at_most is not None:
        goal = Goal(f"ratio ≤ {at_most:g}", ratio is not None and ratio <= at_most)
    elif limit is not None:
        goal = Goal(limit[0], median is not None and median <= limit[1])
    if goal is not None and not judged:
        goal = Goal(goal.text, None)
    return replace(made, goal=goal)


def table(rows: Iterable[Row]) -> str:
    """All rows as Markdown, with the notes below."""
    rows = list(rows)
    notes = list(dict.fromkeys(made.note for made in rows if made.note))
    lines = [_HEAD, *(_cells(made, notes) for made in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    texts = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    below = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    return "\n".join([texts[0], rule, *texts[1:], *([""] if below else []), *below])


def _cells(made: Row, notes: Sequence[str]) -> tuple[str, ...]:
    many = len(made.samples) > 1
    value = "not measured" if made.median is None else f"{number(made.median)} {made.unit}".strip()
    if made.note:
        value += f" [{notes.index(made.note) + 1}]"
    return (
        made.what,
        made.server,
        value,
        f"{number(min(made.samples))} – {number(max(made.samples))}" if many else "",
        made.beside or "",
        "" if made.reference is None else number(made.reference),
        "" if made.ratio is None else f"{made.ratio:.2f}",
        made.goal.text if made.goal else "",
        made.goal.word if made.goal else "",
    )


def lacking(rows: Iterable[Row], may_be_missing: Collection[str]) -> list[Row]:
    """The rows without a figure, but for those of servers that a machine need not have."""
    return [made for made in rows if not made.samples and made.server not in may_be_missing]


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_json(rows: Iterable[Row]) -> list[dict[str, object]]:
    """All rows for programs."""
    return [{**asdict(made), "median": made.median, "ratio": made.ratio} for made in rows]
