"""The block map: which parts of a partial file are on disk.

Responsible for: the byte intervals written so far, in memory, and their whole blocks in a `.map`
file beside the partial, so that a killed process resumes where it was and other processes can see
the progress.
Not responsible for: the bytes themselves (`blobs`) or who fetches what (`upstream.fill`).

The file is a 64-byte header followed by one byte per block, 1 when the whole block was written. A
block is marked after its bytes went to the kernel, so within one boot of the machine a marked
block is readable whatever happened to the process. After a power failure it need not be: the
header names the boot, and a map of another boot is opened with `trusted = False`, whose blocks may
be reused by a fill that verifies the whole file but must not be served to range requests before.

The header also names whose bytes these are: who else names the same digest must not be handed them.
"""

from __future__ import annotations

import bisect
import hashlib
import os
import struct
import threading
from pathlib import Path

BLOCK_SIZE = 256 * 1024
_MAGIC = b"HFCMAP1\n"
_HEADER = struct.Struct("<8sIQ36s8s")


def boot_id() -> bytes:
    """Return what tells this boot of the machine from others; empty where the system does not
    say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()[:36]
    except OSError:
        return b""


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
        trusted: whether blocks found in the file were certainly written (see the module's text).
        continued: whether an existing file was continued.
    """

    def __init__(self, path: Path, size: int, owner: str = "") -> None:
        self.size = size
        self.trusted = True
        self.continued = False
        self._owner = _short(owner)
        self._lock = threading.Lock()
        self._intervals = Intervals()
        self._blocks = (size + BLOCK_SIZE - 1) // BLOCK_SIZE
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            self.continued = self._load()
            if not self.continued:
                self._start_anew()
        except OSError:
            os.close(self._fd)
            raise

    def _load(self) -> bool:
        raw = os.pread(self._fd, _HEADER.size + self._blocks, 0)
        if len(raw) != _HEADER.size + self._blocks:
            return False
        magic, block_size, size, boot, owner = _HEADER.unpack_from(raw)
        if (magic, block_size, size, owner) != (_MAGIC, BLOCK_SIZE, self.size, self._owner):
            return False
        here = boot_id()
        self.trusted = bool(here) and boot.rstrip(b"\0") == here
        for index in range(self._blocks):
            if raw[_HEADER.size + index] == 1:
                self._intervals.add(index * BLOCK_SIZE, min((index + 1) * BLOCK_SIZE, self.size))
        return True

    def _start_anew(self) -> None:
        os.ftruncate(self._fd, 0)
        header = _HEADER.pack(_MAGIC, BLOCK_SIZE, self.size, boot_id(), self._owner)
        os.pwrite(self._fd, header + bytes(self._blocks), 0)

    def add(self, start: int, end: int) -> None:
        """Note that the bytes [start, end) are in the file now.

        Raises:
            OSError: the map cannot be written; the bytes still count in memory.
        """
        with self._lock:
            before = self._whole_blocks(start, end)
            self._intervals.add(start, end)
            after = self._whole_blocks(start, end)
            if self._fd >= 0 and after and after != before:
                first, last = after
                os.pwrite(self._fd, b"\1" * (last - first), _HEADER.size + first)

    def _whole_blocks(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the blocks [first, last) near [start, end) that lie wholly inside one interval."""
        if self._intervals.end_from(start) < end:
            return None
        low = (start // BLOCK_SIZE) * BLOCK_SIZE
        if self._intervals.end_from(low) < end:
            low += BLOCK_SIZE
        high = self._intervals.end_from(start)
        first = low // BLOCK_SIZE
        touched = (end + BLOCK_SIZE - 1) // BLOCK_SIZE
        last = self._blocks if high == self.size else high // BLOCK_SIZE
        last = min(last, touched)
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
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


def whole_blocks(start: int, end: int, size: int) -> tuple[int, int]:
    """Return [start, end) of a file of `size` bytes widened to the blocks it lies in: only whole
    blocks outlive the process that received them."""
    return start - start % BLOCK_SIZE, min(end + -end % BLOCK_SIZE, size)


def holds(path: Path, size: int, owner: str, start: int, end: int) -> bool:
    """Return whether a `.map` file says that every block of [start, end) was certainly written,
    with bytes of `owner`."""
    try:
        raw = path.read_bytes()
    except OSError:
        return False
    if len(raw) < _HEADER.size:
        return False
    expected = _HEADER.pack(_MAGIC, BLOCK_SIZE, size, boot_id(), _short(owner))
    if not boot_id() or raw[: _HEADER.size] != expected:
        return False
    first, last = start // BLOCK_SIZE, (end + BLOCK_SIZE - 1) // BLOCK_SIZE
    blocks = raw[_HEADER.size + first : _HEADER.size + last]
    return len(blocks) == last - first and blocks.count(1) == len(blocks)


def _short(owner: str) -> bytes:
    return hashlib.sha256(owner.encode()).digest()[:8]


def stored_bytes(path: Path) -> int:
    """Return how many bytes a `.map` file of an idle partial accounts for; 0 if it is
    unreadable."""
    try:
        raw = path.read_bytes()
    except OSError:
        return 0
    if len(raw) < _HEADER.size or not raw.startswith(_MAGIC):
        return 0
    size = int(_HEADER.unpack_from(raw)[2])
    return min(raw[_HEADER.size :].count(1) * BLOCK_SIZE, size)
