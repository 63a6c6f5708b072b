"""A partial that another process fills, seen from here.

Responsible for: reading what is there of it, and the marks that a follower makes: signs of life,
what it wants, what it gave out.
Not responsible for: waiting for more, readers, and what to do when the owner is gone
(`upstream.following`).

Bytes are read by the descriptor that was opened first, wherever the file is renamed to. That it
belongs to the map is certain: whoever starts a partial anew removes the map first, then the file,
and neither is ever shortened.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from jupyter_hf_cache.storage.exchange import REFUSED, WANTED
from jupyter_hf_cache.storage.interface import Answered, Foreign, Span, Stage
from jupyter_hf_cache.storage.mapfile import (
    BLOCK_SIZE,
    MapFile,
    MapSummary,
    Mark,
    touched,
)


class FollowedPartial:
    """A partial whose lease another process holds. Thread-safe.

    What is there is known as of the last `look`, which alone reads the disk; `read` and the marks
    do so too. Marks raise OSError when the disk refuses.

    Attributes:
        stage: how the fill stands.
        beat: the owner's last sign of life.
        trusted: whether what is present certainly is.
        incarnation: tells this partial from an earlier or later one of the same blob.
    """

    def __init__(self, path: Path, map_file: MapFile, fd: int) -> None:
        self.size = map_file.size
        self.trusted = map_file.trusted
        self.incarnation = map_file.incarnation
        self.stage = Stage.IDLE
        self.beat = 0
        self._path = path
        self._file = map_file
        self._fd = fd
        self._plane = bytes(map_file.blocks)
        self.look()

    @classmethod
    def open(cls, path: Path, size: int, owner: str) -> FollowedPartial | None:
        """Open the partial at `path` for following; None when there is none yet, or no more.

        Raises:
            Foreign: there is one, of another origin or size.
        """
        map_path = map_path_of(path)
        map_file = MapFile.find(map_path, size, owner)
        if map_file is None:
            summary = MapSummary.read(map_path)
            if summary is not None and not summary.is_of(size, owner):
                raise Foreign(path.name)
            return None
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            map_file.close()
            return None
        # Looked at again, now that the other file is open: both are of one incarnation.
        if os.fstat(fd).st_size == size and map_file.is_at(map_path):
            return cls(path, map_file, fd)
        os.close(fd)
        map_file.close()
        return None

    def look(self) -> bool:
        """Read how things stand; return whether there is more than before."""
        plane = self._file.plane("present")
        # After the blocks: what is said to be verified has all of them.
        self.stage = self._file.stage()
        self.beat = self._file.number(Mark.OWNER_BEAT)
        more, self._plane = plane != self._plane, plane
        return more

    @property
    def in_place(self) -> bool:
        """Whether this still is the partial that a fill of the blob would continue."""
        return self._file.is_at(map_path_of(self._path))

    # -- bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that are present."""
        return os.pread(self._fd, length, offset)

    def fileno(self) -> int:
        """Return the descriptor; it belongs to this object."""
        return self._fd

    def available(self, offset: int) -> int:
        """Return the end of the contiguous bytes present from `offset`."""
        if offset >= self.size:
            return offset
        plane = self._plane
        gap = plane.find(b"\0", offset // BLOCK_SIZE)
        end = self.size if gap < 0 else min(gap * BLOCK_SIZE, self.size)
        return max(offset, end)

    def missing(self, start: int, end: int) -> list[Span]:
        """Return the gaps in [start, end), in whole blocks."""
        gaps, position, plane = [], start, self._plane
        while (position := self.available(position)) < end:
            block = plane.find(b"\1", position // BLOCK_SIZE)
            gap_end = end if block < 0 else min(block * BLOCK_SIZE, end)
            gaps.append((position, gap_end))
            position = gap_end
        return gaps

    @property
    def present(self) -> int:
        """Bytes present."""
        plane = self._plane
        short = len(plane) * BLOCK_SIZE - self.size if plane.endswith(b"\1") else 0
        return plane.count(1) * BLOCK_SIZE - short

    # -- marks

    def live(self) -> None:
        """Say that somebody follows."""
        self._file.set_number(Mark.FOLLOWER_BEAT, time.monotonic_ns())

    def want(self, start: int, end: int) -> None:
        """Ask the owner for [start, end)."""
        for gap in self.missing(start, end):
            self._file.mark("wanted", *touched(*gap), WANTED)

    def want_all(self) -> None:
        """Ask the owner for everything."""
        self._file.set_byte(Mark.WHOLE_WANTED, WANTED)

    def answer(self, part: Span | None) -> Answered:
        """Return what the owner says to a want; `part` is None for everything."""
        if part is None:
            marks = bytes([self._file.byte(Mark.WHOLE_WANTED)])
        else:
            first, last = touched(*part)
            marks = self._file.plane("wanted")[first:last]
        if REFUSED in marks:
            return "refused"
        return "waiting" if WANTED in marks else "taken"

    def give_out(self, end: int) -> Stage:
        """Remember that bytes up to `end` go to a client, and return how the fill stands now.

        In this order: whoever finds the bytes damaged says so first, and then looks at what was
        given out. So either this mark is counted, or the damage is seen here.
        """
        self._file.give_out(end)
        return self._file.stage()

    def close(self) -> None:
        """Close the files; for when nobody reads any more."""
        self._file.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def map_path_of(path: Path) -> Path:
    """Return where the map of the partial at `path` lies."""
    return path.with_name(path.name + ".map")
