"""The `.map` file beside a partial: what of it is there, and what processes tell each other.

Responsible for: the layout of that file, and reading and writing single marks in it.
Not responsible for: what the marks mean to the process that fills (`blockmap`, `exchange`) or to
those that follow (`following`).

    header     whose bytes these are, and which: magic, sizes, boot, owner, incarnation
    marks      how the fill stands, what is wanted as a whole, two signs of life
    planes     three times one byte per block: present, wanted, given out

Every mark has one writer, or is the same byte whoever writes it: so no lock is needed between
processes. The file is read and written, never mapped into memory: who touches a mapping of a file
that somebody shortens is killed. For the same reason none is ever shortened: what starts anew
starts with a new file.

A block is marked present after its bytes went to the kernel, so within one boot of the machine a
marked block is readable whatever happened to the process. After a power failure it need not be:
the header names the boot, and a map of another boot is not `trusted`.
"""

from __future__ import annotations

import enum
import hashlib
import os
import re
import secrets
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jupyter_hf_cache.storage.interface import Span, Stage

BLOCK_SIZE = 256 * 1024
# What a reader that completes the file is not given before the digest matched.
HELD_BACK = 64 * 1024
Plane = Literal["present", "wanted", "given"]

_MAGIC = b"HFCMAP2\n"
_HEADER = struct.Struct("<8sIQ36s8s16s")
_NUMBER = struct.Struct("<Q")
_PLANES: tuple[Plane, ...] = ("present", "wanted", "given")
HEADER_SIZE = 128


class Mark(enum.IntEnum):
    """Where a single mark lies."""

    STAGE = 80
    WHOLE_WANTED = 81
    TAIL_GIVEN = 82
    OWNER_BEAT = 88
    FOLLOWER_BEAT = 96
    OWNER_GIVEN = 104


def boot_id() -> bytes:
    """Return what tells this boot of the machine from others; empty where the system does not
    say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()[:36]
    except OSError:
        return b""


class MapFile:
    """One open `.map` file. Thread-safe; after `close` it reads as empty and writes nothing.

    Attributes:
        trusted: whether what it says to be present certainly is.
        incarnation: tells one partial from the next of the same blob.
    """

    def __init__(self, fd: int, size: int, header: bytes) -> None:
        _, _, _, boot, _, incarnation = _HEADER.unpack_from(header)
        self.incarnation: bytes = incarnation
        self.trusted = _is_this(boot)
        self.size = size
        self.blocks = blocks_of(size)
        self._fd = fd
        self._lock = threading.Lock()
        self._given = -1
        self._tail_given = False

    @classmethod
    def find(cls, path: Path, size: int, owner: str) -> MapFile | None:
        """Open an existing map, if it is one of `size` bytes of the origin `owner`."""
        try:
            fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return None
        header = os.pread(fd, HEADER_SIZE, 0)
        if _fits(header, os.fstat(fd).st_size, size, owner):
            return cls(fd, size, header)
        os.close(fd)
        return None

    @classmethod
    def create(cls, path: Path, size: int, owner: str) -> MapFile:
        """Start a map with nothing in it, in place of what is there.

        Raises:
            OSError: the disk refuses.
        """
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            header = _HEADER.pack(
                _MAGIC, BLOCK_SIZE, size, boot_id(), _short(owner), secrets.token_bytes(16)
            ).ljust(HEADER_SIZE, b"\0")
            # Whole and in one step: others read it as soon as it has a name.
            os.pwrite(fd, header + bytes(len(_PLANES) * blocks_of(size)), 0)
            return cls(fd, size, header)
        except OSError:
            os.close(fd)
            raise

    def is_at(self, path: Path) -> bool:
        """Return whether this is the file at `path` now."""
        with self._lock:
            try:
                return self._fd >= 0 and os.path.samestat(os.fstat(self._fd), path.stat())
            except OSError:
                return False

    # -- marks

    def stage(self) -> Stage:
        """Return how the fill stands."""
        raw = self._read(Mark.STAGE, 1)
        return Stage(raw[0]) if raw and raw[0] in Stage._value2member_map_ else Stage.IDLE

    def byte(self, mark: Mark) -> int:
        """Return a mark of one byte."""
        return (self._read(mark, 1) or b"\0")[0]

    def set_byte(self, mark: Mark, value: int) -> None:
        """Write a mark of one byte; raises OSError when the disk refuses."""
        self._write(mark, bytes([value]))

    def number(self, mark: Mark) -> int:
        """Return a mark of eight bytes."""
        raw = self._read(mark, _NUMBER.size)
        return int(_NUMBER.unpack(raw)[0]) if len(raw) == _NUMBER.size else 0

    def set_number(self, mark: Mark, value: int) -> None:
        """Write a mark of eight bytes; raises OSError when the disk refuses."""
        self._write(mark, _NUMBER.pack(value % 2**64))

    # -- planes

    def plane(self, plane: Plane) -> bytes:
        """Return the bytes of all blocks in one plane."""
        raw = self._read(self._at(plane), self.blocks)
        return raw.ljust(self.blocks, b"\0")

    def mark(self, plane: Plane, first: int, last: int, value: int = 1) -> None:
        """Mark the blocks [first, last); raises OSError when the disk refuses."""
        self._write(self._at(plane) + first, bytes([value]) * (last - first))

    def _at(self, plane: Plane) -> int:
        return HEADER_SIZE + _PLANES.index(plane) * self.blocks

    # -- what was given out

    def give_out(self, end: int) -> None:
        """Mark that bytes up to `end` go to a client of a follower. The owner has a number for
        that, which nobody else writes.

        Raises:
            OSError: the disk refuses; then they must not go.
        """
        block = (end - 1) // BLOCK_SIZE
        if block > self._given:
            self.mark("given", block, block + 1)
            self._given = block
        if end > self.size - HELD_BACK and not self._tail_given:
            self.set_byte(Mark.TAIL_GIVEN, 1)
            self._tail_given = True

    @property
    def given(self) -> int:
        """How far bytes were given out, by any process. Followers' parts are rounded up to the end
        of a block, or to where the tail begins that is held back."""
        end = min((self.plane("given").rfind(b"\1") + 1) * BLOCK_SIZE, self.size)
        if not self.byte(Mark.TAIL_GIVEN):
            end = min(end, max(self.size - HELD_BACK, 0))
        return max(end, self.number(Mark.OWNER_GIVEN))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    # A closed descriptor's number is soon another file's, hence the lock around every use.

    def _read(self, offset: int, length: int) -> bytes:
        with self._lock:
            return os.pread(self._fd, length, offset) if self._fd >= 0 else b""

    def _write(self, offset: int, data: bytes) -> None:
        with self._lock:
            if self._fd >= 0:
                os.pwrite(self._fd, data, offset)


def blocks_of(size: int) -> int:
    """Return how many blocks a file of `size` bytes has."""
    return (size + BLOCK_SIZE - 1) // BLOCK_SIZE


def touched(start: int, end: int) -> tuple[int, int]:
    """Return the blocks [first, last) that [start, end) lies in."""
    return start // BLOCK_SIZE, (end + BLOCK_SIZE - 1) // BLOCK_SIZE


def runs(plane: bytes, value: int) -> list[Span]:
    """Return the runs [first, last) of blocks that have `value`."""
    return [found.span() for found in re.finditer(re.escape(bytes([value])) + b"+", plane)]


@dataclass(frozen=True, slots=True)
class MapSummary:
    """What a map says at one moment.

    Args:
        size: bytes of the blob.
        present: the plane of present blocks.
        trusted: whether those certainly are.
    """

    size: int
    owner: bytes
    present: bytes
    trusted: bool

    @classmethod
    def read(cls, path: Path) -> MapSummary | None:
        """Read the map at `path`; None if there is none, or a damaged one."""
        try:
            with path.open("rb") as file:
                header = file.read(HEADER_SIZE)
                if len(header) < HEADER_SIZE or not header.startswith(_MAGIC):
                    return None
                _, _, size, boot, owner, _ = _HEADER.unpack_from(header)
                if not _is_long_enough(os.fstat(file.fileno()).st_size, size):
                    return None
                present = file.read(blocks_of(size))
        except OSError:
            return None
        return cls(int(size), owner, present, _is_this(boot))

    def is_of(self, size: int, owner: str) -> bool:
        """Return whether it is about a blob of `size` bytes of the origin `owner`."""
        return (self.size, self.owner) == (size, _short(owner))


def _is_this(boot: bytes) -> bool:
    here = boot_id()
    return bool(here) and boot.rstrip(b"\0") == here


def _is_long_enough(length: int, size: int) -> bool:
    return length >= HEADER_SIZE + len(_PLANES) * blocks_of(size)


def _fits(header: bytes, length: int, size: int, owner: str) -> bool:
    if len(header) < HEADER_SIZE or not _is_long_enough(length, size):
        return False
    magic, block_size, whole, _, whose, _ = _HEADER.unpack_from(header)
    return (magic, block_size, whole, whose) == (_MAGIC, BLOCK_SIZE, size, _short(owner))


def _short(owner: str) -> bytes:
    return hashlib.sha256(owner.encode()).digest()[:8]
