"""What the kernel says of processes, and what of the machine belongs into a report.

Responsible for: CPU seconds and anonymous memory of a server with its children, read from /proc.
Not responsible for: starting them.
"""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class BenchmarkError(Exception):
    """The benchmark cannot be run, or what it measured is not what it meant to; the text says
    why."""


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *map(int, children)]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living children so far."""
    total = 0
    for member in family(pid):
        # The name in parentheses may hold spaces.
        fields = Path(f"/proc/{member}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def anonymous_mib(pid: int) -> float:
    """RssAnon of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def answers(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def describe() -> dict[str, str | int | float]:
    """The machine, as far as it explains figures."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count() or 0,
        "load": round(os.getloadavg()[0], 2),
    }
