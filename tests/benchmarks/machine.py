"""What the kernel says of processes, and what of the machine belongs into a report.

Responsible for: CPU seconds and memory of a server with its children, read from /proc.
Not responsible for: starting them.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
from pathlib import Path
from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_LOOK_SECONDS = 0.05


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


def memory_mib(pid: int, kind: str = "RssAnon") -> float:
    """Memory of a process and its children, in MiB: `RssAnon`, or `VmRSS` with what is mapped."""
    total = 0
    for member in family(pid):
        status = Path(f"/proc/{member}/status").read_text(encoding="utf-8")
        for line in status.splitlines():
            if line.startswith(f"{kind}:"):
                total += int(line.split()[1])
    return total / 1024


class Watch:
    """Looks at a server while something runs.

    Attributes:
        peak: highest anonymous memory seen, MiB.
        cpu: seconds of CPU used.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = 0.0
        self.cpu = 0.0

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            self.peak = max(self.peak, memory_mib(self._pid))
        except OSError:  # a child ended between two looks
            return

    def __enter__(self) -> Watch:
        self._look()
        self._before = cpu_seconds(self._pid)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self.cpu = cpu_seconds(self._pid) - self._before


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
