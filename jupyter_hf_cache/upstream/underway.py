"""Which parts of a blob connections are bringing in now.

Responsible for: keeping two connections from fetching the same bytes, and from writing them.
Not responsible for: locking; the fill does that. What has arrived (`storage.blockmap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["whole", "extra", "part"]


@dataclass(slots=True, eq=False)
class Part:
    """Bytes [start, end) that one connection will bring.

    Attributes:
        kind: "whole" brings all that is missing, "extra" helps it, "part" was asked for by itself.
        moving: it goes on from answer to answer, and [start, end) with it.
        received: bytes that came over it so far.
        within_block: what came last is not the end of a block.
    """

    start: int
    end: int
    kind: Kind = "part"
    moving: bool = False
    received: int = 0
    within_block: bool = False

    def claim(self, start: int, end: int, *, moving: bool) -> None:
        """Take other bytes."""
        self.start, self.end, self.moving = start, end, moving


class UnderWay:
    """The parts of one blob that are under way. Not thread-safe."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._writing: list[tuple[int, int]] = []

    def begin(self, start: int, end: int, kind: Kind = "part") -> Part:
        """Claim [start, end)."""
        part = Part(start, end, kind)
        self._parts.append(part)
        return part

    def end(self, part: Part) -> None:
        """Give a part up; a second time does nothing."""
        if part in self._parts:
            self._parts.remove(part)

    @property
    def lanes(self) -> int:
        """How many connections bring in all that is missing."""
        return sum(part.kind != "part" for part in self._parts)

    def outside(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) that nobody fetches."""
        return _without([(start, end)], [(part.start, part.end) for part in self._parts])

    def reach(self, offset: int, *, but: Part) -> int:
        """Return how far other connections than `but` cover the bytes from `offset` on."""
        ends = [p.end for p in self._parts if p is not but and p.start <= offset < p.end]
        return max(ends, default=offset)

    def begin_writing(self, gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Claim what nobody writes just now of bytes that are missing; returns that."""
        free = _without(gaps, self._writing)
        self._writing += free
        return free

    def end_writing(self, written: list[tuple[int, int]]) -> None:
        """Give up what `begin_writing` returned."""
        for piece in written:
            self._writing.remove(piece)


def _without(pieces: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for start, end in taken:
        pieces = [
            piece
            for low, high in pieces
            for piece in ((low, min(high, start)), (max(low, end), high))
            if piece[0] < piece[1]
        ]
    return pieces
