"""The block map: which parts of a partial file are on disk.

Responsible for: the byte intervals written so far, in memory, and their whole blocks in the `.map`
file beside the partial, so that a killed process resumes where it was and other processes can see
the progress.
Not responsible for: the bytes themselves (`blobs`), who fetches what (`upstream.fill`), or the
layout of the file (`mapfile`).

Blocks of a map that is not trusted may be reused by a fill that verifies the whole file, but must
not be served to range requests before. The map also names whose bytes these are: who else names
the same digest must not be handed them.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
from pathlib import Path

from jupyter_hf_cache.storage.interface import Stage
from jupyter_hf_cache.storage.mapfile import BLOCK_SIZE as BLOCK_SIZE
from jupyter_hf_cache.storage.mapfile import MapFile, MapSummary, Mark, runs, touched

# No origin's id.
_NO_ORIGIN = "-"


class Intervals:
    """A sorted set of disjoint, non-adjacent [start, end) byte intervals. Not thread-safe."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Include [start, end), merging what it touches."""
        if start >= end:
            return
        first = bisect.bisect_left(self._ends, start)
        last = bisect.bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    def end_from(self, offset: int) -> int:
        """Return the end of the interval that holds `offset`, or `offset` itself."""
        index = bisect.bisect_right(self._starts, offset) - 1
        if index >= 0 and self._ends[index] > offset:
            return self._ends[index]
        return offset

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps inside [start, end) in order."""
        gaps = []
        position = start
        while position < end:
            covered = self.end_from(position)
            if covered > position:
                position = covered
                continue
            index = bisect.bisect_right(self._starts, position)
            gap_end = min(self._starts[index], end) if index < len(self._starts) else end
            gaps.append((position, gap_end))
            position = gap_end
        return gaps

    def total(self) -> int:
        """Return the number of bytes covered."""
        return sum(end - start for start, end in zip(self._starts, self._ends, strict=True))


class BlockMap:
    """The written parts of one partial file. Thread-safe.

    Args:
        path: the `.map` file; an existing one is continued when it is of this size and owner, else
            started anew.
        size: bytes of the whole file.
        owner: where the bytes come from.

    Attributes:
        file: the open file.
        trusted: whether blocks found in the file were certainly written.
        continued: whether an existing file was continued.
    """

    def __init__(self, path: Path, size: int, owner: str = "") -> None:
        self.size = size
        self._path = path
        self._lock = threading.Lock()
        self._intervals = Intervals()
        found = MapFile.find(path, size, owner)
        self.continued = found is not None
        self.file = found or MapFile.create(path, size, owner)
        self.trusted = not self.continued or self.file.trusted
        try:
            self._load()
        except OSError:
            self.file.close()
            raise

    def _load(self) -> None:
        end = 0
        for first, last in runs(self.file.plane("present"), 1):
            end = min(last * BLOCK_SIZE, self.size)
            self._intervals.add(first * BLOCK_SIZE, end)
        if not self.trusted:
            # What was given out before a power failure is not known either.
            self.file.set_number(Mark.OWNER_GIVEN, end)

    def add(self, start: int, end: int) -> None:
        """Note that the bytes [start, end) are in the file now.

        Raises:
            OSError: the map cannot be written; the bytes still count in memory.
        """
        with self._lock:
            before = self._whole_blocks(start, end)
            self._intervals.add(start, end)
            after = self._whole_blocks(start, end)
            file = self.file
        # A write may have to wait for the disk, and those who ask what is there must not. Marks
        # are only ever set, so their order does not matter.
        if after and after != before:
            file.mark("present", *after)

    def fill(self) -> None:
        """Note that the file was replaced by another one that is complete and comes from elsewhere.

        Whoever follows the file that was, goes by the map that was: that one changes no more. The
        new one names no origin, so nobody follows it: no origin has delivered these bytes.

        Raises:
            OSError: the map cannot be written; nothing has changed.
        """
        whole = MapFile.create(self._path, self.size, _NO_ORIGIN)
        try:
            whole.set_byte(Mark.STAGE, Stage.RUNNING)
            whole.set_number(Mark.OWNER_GIVEN, self.file.given)
            whole.mark("present", 0, whole.blocks)
        except OSError:
            whole.close()
            raise
        with self._lock:
            before, self.file = self.file, whole
            self._intervals.add(0, self.size)
        with contextlib.suppress(OSError):
            before.set_byte(Mark.STAGE, Stage.IDLE)
        before.close()

    def _whole_blocks(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the blocks [first, last) near [start, end) that lie wholly inside one interval."""
        if self._intervals.end_from(start) < end:
            return None
        low = (start // BLOCK_SIZE) * BLOCK_SIZE
        if self._intervals.end_from(low) < end:
            low += BLOCK_SIZE
        high = self._intervals.end_from(start)
        first = low // BLOCK_SIZE
        last = self.file.blocks if high == self.size else high // BLOCK_SIZE
        last = min(last, touched(start, end)[1])
        return (first, last) if first < last else None

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset` on (`offset` if none)."""
        with self._lock:
            return self._intervals.end_from(offset)

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the gaps inside [start, end)."""
        with self._lock:
            return self._intervals.missing(start, end)

    @property
    def present(self) -> int:
        """Number of bytes present."""
        with self._lock:
            return self._intervals.total()

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        return self.available(0) >= self.size

    def close(self) -> None:
        """Close the file; the map in memory stays readable."""
        self.file.close()


def continues(path: Path, size: int, owner: str) -> bool:
    """Return whether the map at `path` is one to go on with; bytes that were found damaged, and
    could not be removed, are not."""
    found = MapFile.find(path, size, owner)
    if found is None:
        return False
    try:
        return found.stage() is not Stage.SETTLED
    finally:
        found.close()


def whole_blocks(start: int, end: int, size: int) -> tuple[int, int]:
    """Return [start, end) of a file of `size` bytes widened to the blocks it lies in: only whole
    blocks outlive the process that received them."""
    return start - start % BLOCK_SIZE, min(end + -end % BLOCK_SIZE, size)


def holds(path: Path, size: int, owner: str, start: int, end: int) -> bool:
    """Return whether a `.map` file says that every block of [start, end) was certainly written,
    with bytes of `owner`."""
    found = MapSummary.read(path)
    if found is None or not found.trusted or not found.is_of(size, owner):
        return False
    first, last = touched(start, end)
    blocks = found.present[first:last]
    return len(blocks) == last - first and blocks.count(1) == len(blocks)


def stored_bytes(path: Path) -> int:
    """Return how many bytes a `.map` file of an idle partial accounts for; 0 if it is
    unreadable."""
    found = MapSummary.read(path)
    return min(found.present.count(1) * BLOCK_SIZE, found.size) if found is not None else 0
