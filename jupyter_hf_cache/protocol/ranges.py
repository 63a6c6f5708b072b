"""Byte ranges as RFC 9110 section 14 defines them.

Responsible for: reading `Range` and `Content-Range`, writing `Content-Range`.
Not responsible for: `If-Range` and the bytes themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jupyter_hf_cache.errors import RangeNotSatisfiable

MAX_RANGES = 64
"""More ranges in one request are ignored, and the whole body is served."""

_UNIT = re.compile(r"\s*bytes\s*=", re.IGNORECASE)
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"\s*bytes\s+([0-9]+)-([0-9]+)/([0-9]+|\*)\s*", re.IGNORECASE)
_MOST_DIGITS = 1000
_FAR_AWAY = 10**_MOST_DIGITS


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to, not including, `end`."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def parse_range(header: str | None, size: int) -> list[ByteRange] | None:
    """The ranges a request asks for, inside `[0, size)`, in the order asked. Those that overlap or
    touch are one, at the place of the first of them.

    Args:
        header: the value of `Range`, or None.
        size: length of the whole body in bytes.

    Returns:
        None when the whole body is to be sent: no header, another unit, a malformed value (which
        RFC 9110 says to ignore), more than `MAX_RANGES`, or more than two ranges that overlap.

    Raises:
        RangeNotSatisfiable: well-formed, but no range holds a byte of the body.
    """
    specs = _specs(header)
    if not specs:
        return None
    if size == 0 and any(first is None and last != 0 for first, last in specs):
        return None  # "the last n bytes" of nothing is nothing, and satisfiable
    ranges = [found for spec in specs if (found := _place(spec, size)) is not None]
    if not ranges:
        raise RangeNotSatisfiable(size)
    return None if _is_flood(ranges) else _merged(ranges)


def content_range(r: ByteRange, size: int) -> str:
    """The `Content-Range` of a 206."""
    return f"bytes {r.start}-{r.end - 1}/{size}"


def parse_content_range(value: str | None) -> tuple[ByteRange, int | None] | None:
    """A 206's `Content-Range`: the range and the whole size (None for `*`); None if unusable."""
    match = _CONTENT_RANGE.fullmatch(value or "")
    if match is None:
        return None
    first, last = _number(match[1]), _number(match[2])
    total = None if match[3] == "*" else _number(match[3])
    if last < first or (total is not None and last >= total):
        return None
    return ByteRange(first, last + 1), total


def is_open_ended(header: str) -> bool:
    """Whether a range of the header runs to the end, wherever that is: `bytes=5-`."""
    return any(first is not None and last is None for first, last in _specs(header))


def is_beginning(header: str | None) -> bool:
    """Whether a request with this `Range` begins to read a file, and does not go on: the whole file
    is asked for (`bytes=0-` too), or only its first byte, as clients do that want the head."""
    return _specs(header) in ([], [(0, None)], [(0, 0)])


def _specs(header: str | None) -> list[tuple[int | None, int | None]]:
    """(first, last), (first, None) or (None, suffix length) per range; empty if unusable."""
    unit = _UNIT.match(header or "")
    if header is None or unit is None:
        return []
    specs: list[tuple[int | None, int | None]] = []
    for part in header[unit.end() :].split(","):
        text = part.strip(" \t")
        if not text:
            continue  # RFC 9110 lets a list have empty elements
        match = _SPEC.fullmatch(text)
        if match is None or text == "-" or len(specs) == MAX_RANGES:
            return []
        first = _number(match[1]) if match[1] else None
        last = _number(match[2]) if match[2] else None
        if first is not None and last is not None and last < first:
            return []
        specs.append((first, last))
    return specs


def _place(spec: tuple[int | None, int | None], size: int) -> ByteRange | None:
    first, last = spec
    if first is None:
        start = max(0, size - (last or 0))
        return ByteRange(start, size) if start < size else None
    if first >= size:
        return None
    return ByteRange(first, size if last is None else min(last + 1, size))


def _merged(ranges: list[ByteRange]) -> list[ByteRange]:
    """The same bytes without any of them twice."""
    by_start = sorted(range(len(ranges)), key=lambda index: ranges[index].start)
    groups: list[tuple[int, ByteRange]] = []
    for index in by_start:
        place, r = index, ranges[index]
        if groups and r.start <= groups[-1][1].end:
            before, reached = groups.pop()
            place, r = min(before, index), ByteRange(reached.start, max(reached.end, r.end))
        groups.append((place, r))
    return [r for _, r in sorted(groups, key=lambda group: group[0])]


def _is_flood(ranges: list[ByteRange]) -> bool:
    """More than two ranges overlap: a request that asks for many times the file."""
    overlapping, reached = 0, 0
    for r in sorted(ranges, key=lambda r: r.start):
        overlapping += r.start < reached
        reached = max(reached, r.end)
    return overlapping > 2


def _number(digits: str) -> int:
    """An int that is never too long for `int()`. What no file can reach keeps its order, for as
    many digits as anybody writes, because a range whose end comes first is none."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MOST_DIGITS else _FAR_AWAY
