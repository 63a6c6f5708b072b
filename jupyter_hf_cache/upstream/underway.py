"""Which parts of a blob connections are bringing in now.

Responsible for: keeping two connections from fetching the same bytes.
Not responsible for: locking; the fill does that. What has arrived (`storage.blockmap`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Part:
    """Bytes [start, end) that one connection will bring; it moves with a connection that goes on.

    Attributes:
        received: bytes that came over it so far.
    """

    start: int
    end: int
    received: int = 0


class UnderWay:
    """The parts of one blob that are under way. Not thread-safe."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def begin(self, start: int, end: int) -> Part:
        """Claim [start, end)."""
        part = Part(start, end)
        self._parts.append(part)
        return part

    def end(self, part: Part) -> None:
        """Give a part up; a second time does nothing."""
        if part in self._parts:
            self._parts.remove(part)

    def outside(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of [start, end) that nobody fetches."""
        pieces = [(start, end)]
        for part in self._parts:
            pieces = [
                piece
                for low, high in pieces
                for piece in ((low, min(high, part.start)), (max(low, part.end), high))
                if piece[0] < piece[1]
            ]
        return pieces

    def reach(self, offset: int, *, but: Part) -> int:
        """Return how far other connections than `but` cover the bytes from `offset` on."""
        ends = [p.end for p in self._parts if p is not but and p.start <= offset < p.end]
        return max(ends, default=offset)
