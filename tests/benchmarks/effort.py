"""How much is measured, and how often.

Responsible for: sizes, rounds and speeds of the three forms of the benchmark.
Not responsible for: what is done with them (the groups).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .origin import FEW, MANY


@dataclass(frozen=True, slots=True)
class Effort:
    """One form of the benchmark.

    Args:
        mib: of the big file; the half and the eighth are of this too.
        rounds: of figures that vary.
        few: rounds of figures that vary little, or take long.
        seconds: at least, of each watch over the UI endpoint.
        burst: seconds of each run of many requests.
        caps: MiB/s that the Hub may send in all, with the rounds at each. Where a line is slow,
            rounds take long and differ little.
        connection_cap: MiB/s that the Hub may send on one connection.
        snapshot: the repo of many small files.
    """

    mib: int
    rounds: int
    few: int
    seconds: float
    burst: float
    caps: Mapping[int, int]
    connection_cap: int
    snapshot: str = MANY

    @property
    def size(self) -> int:
        """Bytes of the big file."""
        return self.mib << 20

    @property
    def usual_cap(self) -> int:
        """MiB/s of the rounds in which everybody takes part."""
        return 300 if 300 in self.caps else max(self.caps)


FULL = Effort(1024, 4, 3, 2.0, 1.0, MappingProxyType({100: 2, 300: 2, 500: 2}), 40)
QUICK = Effort(256, 2, 1, 1.0, 1.0, MappingProxyType({100: 1, 300: 2, 500: 1}), 40)
TINY = Effort(16, 1, 1, 0.3, 0.3, MappingProxyType({100: 1}), 8, FEW)
"""Every row once, however wrong: for the tests of the benchmark itself."""
