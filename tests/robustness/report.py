"""What a run found, in figures.

Responsible for: counting, and the summary as JSON and as a table.
Not responsible for: wrong bytes: those end the run (`wanted.Wrong`).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustness.readers import Readers


class Counts(Counter[str]):
    """Figures of one round, added up over a run."""

    def add(self, **figures: int) -> None:
        """Add to the figures of these names."""
        self.update(figures)

    def add_readers(self, readers: Readers) -> None:
        """Add what clients did."""
        self.add(answers=readers.done.total(), broken=readers.broken)
        self.update({f"answered {status}": n for status, n in readers.refused.items()})


def as_json(seed: int, parts: dict[str, Counts], problem: str | None) -> dict[str, Any]:
    """The summary for machines."""
    figures = {name: dict(sorted(counts.items())) for name, counts in parts.items()}
    return {"seed": seed, "right": problem is None, "problem": problem, "parts": figures}


def table(parts: dict[str, Counts]) -> str:
    """The summary for people, in Markdown."""
    rows = ["| part | rounds | seconds | figures |", "| --- | ---: | ---: | --- |"]
    for name, counts in parts.items():
        others = [
            f"{key} {value:,}"
            for key, value in sorted(counts.items())
            if key not in ("rounds", "seconds")
        ]
        rows.append(f"| {name} | {counts['rounds']} | {counts['seconds']} | {', '.join(others)} |")
    return "\n".join(rows)
