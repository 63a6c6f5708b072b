"""Numbers, times and tables as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyter_hf_cache import presentation

NOW = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0 B"),
        (-5, "0 B"),
        (570, "570 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1550, "1.6 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (110_000, "110 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (440_473_133, "440 MB"),
        (16_400_000_000, "16.4 GB"),
        (128_000_000_000, "128 GB"),
        (5_000_000_000_000_000_000, "5000 PB"),
    ],
)
def test_size(value: int, expected: str) -> None:
    assert presentation.size(value) == expected


def test_exact_size() -> None:
    assert presentation.exact_size(440_473_133) == "440,473,133 bytes"


@pytest.mark.parametrize(
    ("done", "total", "expected"),
    [
        (1_600_000_000, 2_500_000_000, "1.6 of 2.5 GB"),
        (0, 2_500_000_000, "0 of 2.5 GB"),
        (3, 7, "3 of 7 B"),
    ],
)
def test_progress_uses_one_unit(done: int, total: int, expected: str) -> None:
    assert presentation.progress(done, total) == expected


def test_speed_and_count() -> None:
    assert presentation.speed(38_000_000) == "38 MB/s"
    assert presentation.count(1204) == "1,204"
    assert presentation.plural(1, "file") == "1 file"
    assert presentation.plural(1204, "file") == "1,204 files"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-1, "0 s"), (24.4, "24 s"), (60, "1 min"), (3600, "1 h"), (3900, "1 h 5 min")],
)
def test_duration(seconds: float, expected: str) -> None:
    assert presentation.duration(seconds) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(seconds=-30), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(minutes=3, seconds=20), "3 min ago"),
        (timedelta(hours=23), "23 h ago"),
        (timedelta(days=1), "1 day ago"),
        (timedelta(days=30), "30 days ago"),
        (timedelta(days=31), "2026-03-31"),
    ],
)
def test_ago(age: timedelta, expected: str) -> None:
    moment = (NOW - age).isoformat()
    assert presentation.ago(moment, NOW) == expected


@pytest.mark.parametrize("nothing", [None, "", "yesterday", "2026-13-45"])
def test_ago_without_a_moment(nothing: str | None) -> None:
    assert presentation.ago(nothing, NOW) == "never"


@pytest.mark.parametrize("text", ["2026-05-01T11:57:00Z", "2026-05-01T11:57:00.000000"])
def test_ago_takes_a_z_and_no_offset_for_utc(text: str) -> None:
    assert presentation.ago(text, NOW) == "3 min ago"


def test_short_commit() -> None:
    assert presentation.short_commit("a265f773a47193eed794233aa2a0f0bb6d3eaa63") == "a265f77"
    assert presentation.short_commit(None) == ""


def test_nothing_from_the_server_reaches_the_terminal_as_control() -> None:
    assert presentation.plain("a\x1b]0;title\x07b\nc") == "a\\x1b]0;title\\x07b\\nc"
    assert presentation.plain("naïve ⬡ 模型") == "naïve ⬡ 模型"
    assert presentation.plain("\u202e\udcff") == "\\u202e\\udcff"


def test_table_aligns_columns() -> None:
    text = presentation.table(("REPO", "SIZE"), [("a", "1 B"), ("o/long", "440 MB")], right=(1,))
    assert text.splitlines() == ["REPO      SIZE", "a          1 B", "o/long  440 MB"]
