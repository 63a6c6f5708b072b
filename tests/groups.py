"""The groups of tests that need more than Python packages.

Responsible for: skipping a group (a marker of pyproject.toml) where what it needs is missing,
naming each skipped group in the last lines of the run, and failing the run instead when
`HF_CACHE_TEST_REQUIRE_ALL` is set, as continuous integration does.
Not responsible for: installing anything (`.ci/test`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

REQUIRE_ALL = "HF_CACHE_TEST_REQUIRE_ALL"
CLIENTS = "HF_CACHE_TEST_CLIENTS"
GROUPS = ("clients", "browser", "network", "disk", "proxy")


def missing(group: str) -> str | None:
    """Return what `group` lacks on this machine, in words, or None when it can run."""
    if group == "clients":
        folder = os.environ.get(CLIENTS, "")
        if not folder or not Path(folder).is_dir():
            return f"${CLIENTS} names no folder of client environments"
        return _missing_commands("curl")
    if group == "browser":
        return _missing_commands("chromium", "chromedriver")
    if group == "network":
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            return "network namespaces need root"
        return _missing_commands("ip", "nginx", "curl")
    if group == "proxy":
        return _missing_commands("tinyproxy")
    if group == "disk" and not can_mount():
        return "mounting a small file system needs root on Linux"
    return None


def can_mount() -> bool:
    """Whether this process may make a file system of its own; a container may not let root."""
    if sys.platform != "linux" or os.geteuid() != 0 or _missing_commands("mount", "umount"):
        return False
    with tempfile.TemporaryDirectory() as place:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", place]
        mounted = subprocess.run(command, capture_output=True).returncode == 0
        if mounted:
            subprocess.run(["umount", place], check=True)
    return mounted


def _missing_commands(*names: str) -> str | None:
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    absent = [name for name in names if not shutil.which(name, path=path)]
    return f"not installed: {', '.join(absent)}" if absent else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of each group that cannot run here."""
    reasons = {group: missing(group) for group in GROUPS}
    for item in items:
        for group, reason in reasons.items():
            if reason and item.get_closest_marker(group):
                item.add_marker(pytest.mark.skip(reason=f"group {group}: {reason}"))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped, group by group, just above the closing line."""
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if not skipped:
        return
    terminalreporter.section("skipped")
    for reason, count in skipped.most_common():
        terminalreporter.line(f"{count} skipped - {reason}")
    if os.environ.get(REQUIRE_ALL):
        terminalreporter.line("nothing may be skipped in this run: it fails", red=True)


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that may not skip anything."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get(REQUIRE_ALL)
        and reporter
        and reporter.stats.get("skipped")
        and not exitstatus
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
