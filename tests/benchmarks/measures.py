"""The groups of figures, by the names that `--only` takes, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .cold import cold, lines
from .effort import Effort
from .rate import rate
from .report import Row
from .servers import Site
from .snapshot import snapshot
from .startup import startup
from .ui import ui
from .warm import warm

Measure = Callable[[Site, Effort], Iterator[Row]]

GROUPS: dict[str, Measure] = {
    "startup": startup,
    "warm": warm,
    "rate": rate,
    "ui": ui,
    "cold": cold,
    "lines": lines,
    "snapshot": snapshot,
}
