"""Numbers, times and names as people read them.

Responsible for: one wording of sizes, counts, speeds, times and plain-text tables, shared by the
widget, the magics and the command line. Sizes are decimal, as the Hub shows them (`440 MB`).
Not responsible for: which facts are shown (`summary`).

>>> size(440_473_133)
'440 MB'
>>> progress(1_600_000_000, 2_500_000_000)
'1.6 of 2.5 GB'
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def _unit_of(value: float) -> tuple[float, str]:
    """The divisor and the unit in which `value` rounds to less than 1000."""
    divisor = 1.0
    for unit in _UNITS[:-1]:
        if value / divisor < 999.5:
            return divisor, unit
        divisor *= 1000
    return divisor, _UNITS[-1]


def _figure(value: float) -> str:
    """At most one decimal, and only below 100: `1.6`, `32`, `440`."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}".removesuffix(".0")


def size(value: int | float) -> str:
    """Bytes in decimal units: `570 B`, `1.6 GB`, `440 MB`."""
    divisor, unit = _unit_of(max(value, 0))
    return f"{_figure(max(value, 0) / divisor)} {unit}"


def exact_size(value: int) -> str:
    """Bytes to the last one, for a tooltip: `440,473,133 bytes`."""
    return f"{count(value)} bytes"


def progress(done: int, total: int) -> str:
    """Both numbers in the unit of the larger one: `1.6 of 2.5 GB`."""
    divisor, unit = _unit_of(max(total, 0))
    return f"{_figure(max(done, 0) / divisor)} of {_figure(max(total, 0) / divisor)} {unit}"


def speed(bytes_per_second: float) -> str:
    """`38 MB/s`."""
    return f"{size(bytes_per_second)}/s"


def count(value: int) -> str:
    """With thousands separators: `1,204`."""
    return f"{value:,}"


def plural(number: int, word: str) -> str:
    """`1 file`, `1,204 files`."""
    return f"{count(number)} {word}" if number == 1 else f"{count(number)} {word}s"


def duration(seconds: float) -> str:
    """How long something still takes: `24 s`, `3 min`, `1 h 5 min`."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    hours, rest = divmod(whole // 60, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def _parse_time(iso: str) -> datetime | None:
    # datetime.fromisoformat accepts a trailing "Z" only from Python 3.11 on.
    text = iso[:-1] + "+00:00" if iso.endswith("Z") else iso
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def ago(iso: str | None, now: datetime | None = None) -> str:
    """A moment relative to now: `just now`, `3 min ago`, `2 days ago`, later the date.

    Args:
        iso: ISO 8601; without an offset it is UTC. None, "" or nonsense gives `never`.
        now: for tests; must be aware.
    """
    moment = _parse_time(iso) if iso else None
    if moment is None:
        return "never"
    seconds = ((now or datetime.now(timezone.utc)) - moment).total_seconds()
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h ago"
    days = int(seconds // 86_400)
    if days < 31:
        return "1 day ago" if days == 1 else f"{days} days ago"
    return moment.date().isoformat()


def short_commit(commit: str | None) -> str:
    """The first seven digits, as the Hub shows a commit; "" without one."""
    return (commit or "")[:7]


def plain(text: object) -> str:
    r"""Text from the server made safe for a terminal: what does not print is shown as `\x1b`.

    A repo or branch name could otherwise move the cursor or retitle the window.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text)
    )


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Columns of plain text, two spaces apart, without trailing blanks.

    Args:
        header: the titles.
        rows: the cells; they are made printable here.
        right: indexes of the columns that are aligned to the right.
    """
    lines = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
