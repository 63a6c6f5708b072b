"""A second reading of the `Range` header, to compare the cache's with.

Responsible for: what RFC 9110 (section 14) and the rules that the cache adds say about one header
and one size; and cutting a `multipart/byteranges` body into its parts.
Not responsible for: asking (`readers`), or the bytes (`wanted`).

It shares no code with the cache, and is written the other way round: character by character.
"""

from __future__ import annotations

import string
from typing import Literal

MAX_RANGES = 64
MAX_OVERLAPS = 2

Spans = list[tuple[int, int]]


class NoMultipart(ValueError):
    """A body is no `multipart/byteranges`."""


def asked(header: str | None, size: int) -> Spans | Literal["whole", "unsatisfiable"]:
    """What a header asks of a body: [start, end) spans in the order asked, or one of the words."""
    if header is None or "=" not in header:
        return "whole"
    unit, _, text = header.partition("=")
    if unit.strip().lower() != "bytes":
        return "whole"
    specs = [spec.strip(" \t") for spec in text.split(",")]
    specs = [spec for spec in specs if spec]
    if not specs or len(specs) > MAX_RANGES or not all(map(_is_spec, specs)):
        return "whole"
    spans: Spans = []
    for spec in specs:
        first, _, last = spec.partition("-")
        if first:
            start, end = _at_most(first, size), _at_most(last, size - 1) + 1 if last else size
        else:
            length = _at_most(last, size)
            if size == 0 and _at_most(last, 1):
                return "whole"
            start, end = size - length, size
        if start < end:
            spans.append((start, end))
    if not spans:
        return "unsatisfiable"
    return "whole" if _overlaps(spans) > MAX_OVERLAPS else spans


def _is_spec(spec: str) -> bool:
    first, dash, last = spec.partition("-")
    digits = set(string.digits)
    if not dash or not (first or last) or not set(first + last) <= digits:
        return False
    return not (first and last) or _as_long(first, last) <= _as_long(last, first)


def _as_long(number: str, other: str) -> str:
    """Digits that compare as text as the numbers do."""
    return number.zfill(max(len(number), len(other)))


def _at_most(digits: str, most: int) -> int:
    digits = digits.lstrip("0") or "0"
    return most if len(digits) > len(str(abs(most))) else min(int(digits), most)


def _overlaps(spans: Spans) -> int:
    """How many spans begin before all that begin earlier have ended."""
    ordered = sorted(spans, key=lambda span: span[0])
    return sum(
        any(earlier[1] > span[0] for earlier in ordered[:number])
        for number, span in enumerate(ordered)
    )


def parts_of(content_type: str, body: bytes) -> list[tuple[int, int, int, bytes]]:
    """(start, end, size, bytes) of each part of a multipart body.

    Raises:
        NoMultipart: it is none.
    """
    kind, _, parameter = content_type.partition(";")
    name, _, boundary = parameter.strip().partition("=")
    if kind.strip().lower() != "multipart/byteranges" or name.lower() != "boundary":
        raise NoMultipart(content_type)
    mark = b"--" + boundary.strip('"').encode()
    position, parts = body.find(mark), []
    while position >= 0:
        position += len(mark)
        if body[position : position + 2] == b"--":
            return parts
        head_end = body.find(b"\r\n\r\n", position)
        if body[position : position + 2] != b"\r\n" or head_end < 0:
            raise NoMultipart(f"no head at {position}")
        start, end, size = _content_range(body[position + 2 : head_end].decode("latin-1"))
        data = body[head_end + 4 : head_end + 4 + end - start]
        parts.append((start, end, size, data))
        position = head_end + 4 + len(data) + 2
        if body[position - 2 : position + len(mark)] != b"\r\n" + mark:
            raise NoMultipart(f"no border behind the part at {start}")
    raise NoMultipart("no end")


def _content_range(head: str) -> tuple[int, int, int]:
    fields = dict(line.lower().split(":", 1) for line in head.split("\r\n"))
    unit, _, rest = fields.get("content-range", "").strip().partition(" ")
    span, _, size = rest.partition("/")
    first, _, last = span.partition("-")
    if unit != "bytes" or not (first.isdigit() and last.isdigit() and size.isdigit()):
        raise NoMultipart(head)
    return int(first), int(last) + 1, int(size)
