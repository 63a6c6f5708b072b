"""Byte ranges: RFC 9110 by table, and no header that breaks the reader."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_hf_cache.errors import RangeNotSatisfiable
from jupyter_hf_cache.protocol.ranges import (
    MAX_RANGES,
    ByteRange,
    content_range,
    is_open_ended,
    parse_content_range,
    parse_range,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-", [(0, 10)]),
        ("bytes=3-", [(3, 10)]),
        ("bytes=3-5", [(3, 6)]),
        ("bytes=9-9", [(9, 10)]),
        ("bytes=3-99", [(3, 10)]),
        ("bytes=-3", [(7, 10)]),
        ("bytes=-10", [(0, 10)]),
        ("bytes=-99", [(0, 10)]),
        ("Bytes = 0-1", [(0, 2)]),
        ("bytes=0-1, 4-5", [(0, 2), (4, 6)]),
        ("bytes=4-5,0-1", [(4, 6), (0, 2)]),
        ("bytes=,0-1,,\t4-5,", [(0, 2), (4, 6)]),
        ("bytes=0-1,50-60", [(0, 2)]),
        ("bytes=-1,0-0", [(9, 10), (0, 1)]),
        ("bytes=0-99999999999999999999999999", [(0, 10)]),
        ("bytes=-99999999999999999999999999", [(0, 10)]),
        ("bytes=000000000000000000000001-2", [(1, 3)]),
        ("bytes=0-5,3-8,1-2", [(0, 9)]),
        ("bytes=0-1,2-3", [(0, 4)]),
        ("bytes=8-9,0-1,1-2", [(8, 10), (0, 3)]),
        ("bytes=4-5,0-1,2-3", [(0, 6)]),
        ("bytes=-2,0-0,2-2,7-8", [(7, 10), (0, 1), (2, 3)]),
    ],
)
def test_ranges_are_read(header: str, expected: list[tuple[int, int]]) -> None:
    assert parse_range(header, 10) == [ByteRange(*pair) for pair in expected]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=0-1,5-3",
        "bytes=10000000000000000000-1000000000000000000",
        "bytes=0x1-2",
        "bytes=1 - 2",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=٣-٤",
        "items=0-1",
        "bytes 0-1/10",
        "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)),
        "bytes=" + ",".join(["0-"] * 4),
    ],
)
def test_what_is_not_a_range_means_the_whole_body(header: str | None) -> None:
    assert parse_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=10-", 10),
        ("bytes=10-20", 10),
        ("bytes=99999999999999999999999-", 10),
        ("bytes=-0", 10),
        ("bytes=10-,20-30", 10),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-0", 0),
    ],
)
def test_a_range_outside_the_body_is_not_satisfiable(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        parse_range(header, size)

    assert refused.value.headers["Content-Range"] == f"bytes */{size}"


def test_the_last_bytes_of_an_empty_file_are_the_whole_of_it() -> None:
    assert parse_range("bytes=-5", 0) is None


@given(
    st.one_of(
        st.text(max_size=40),
        st.text("0123456789-, ", max_size=40).map("bytes=".__add__),
        st.integers(1, 6000).map(lambda digits: "bytes=" + "9" * digits + "-"),
    ),
    st.integers(0, 10**13),
)
def test_no_header_breaks_the_reader(header: str, size: int) -> None:
    try:
        ranges = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert all(0 <= r.start < r.end <= size for r in ranges or [])
    assert ranges != []


@given(st.integers(0, 10**12), st.integers(1, 10**12), st.integers(0, 10**12))
def test_content_ranges_read_back(start: int, length: int, rest: int) -> None:
    wanted = ByteRange(start, start + length)
    size = wanted.end + rest

    assert parse_content_range(content_range(wanted, size)) == (wanted, size)
    assert len(wanted) == length


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-0/1", (ByteRange(0, 1), 1)),
        ("bytes 5-9/*", (ByteRange(5, 10), None)),
        (" Bytes 0-4/10 ", (ByteRange(0, 5), 10)),
        (None, None),
        ("", None),
        ("bytes */10", None),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes=0-1/10", None),
        ("items 0-1/10", None),
    ],
)
def test_content_range_tells_range_and_size(
    value: str | None, expected: tuple[ByteRange, int | None] | None
) -> None:
    assert parse_content_range(value) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=5-", True),
        ("BYTES = 0- ", True),
        ("bytes=5-9", False),
        ("bytes=-5", False),
        ("bytes=0-1,5-", True),
        ("", False),
    ],
)
def test_open_ended_is_a_range_that_runs_to_the_end(header: str, expected: bool) -> None:
    assert is_open_ended(header) is expected
