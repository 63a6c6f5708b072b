"""Which client was seen to work in which situation: a table that the run of the tests fills.

Responsible for: the rows and columns, the fixture `proves` by which a test says what it has shown,
gathering that from all workers of a run, and the table in the documentation: written with
`--write-client-matrix`, and compared in a run of the whole suite that may skip nothing.
Not responsible for: what a cell takes (the tests), or installing clients (`.ci/test`).

A cell counts only when the test that claims it has passed with the real client.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from groups import CLIENTS as CLIENTS_VARIABLE
from groups import REQUIRE_ALL

PAGE = Path(__file__).parents[2] / "docs" / "users" / "clients.md"
BEGIN, END = "<!-- begin of the generated table -->\n", "<!-- end of the generated table -->\n"
PROPERTY = "proves"
_TRIED = "clients/shown"


@dataclass(frozen=True)
class Row:
    """A client.

    Args:
        title: in the table.
        environment: the folder of its environment; "" for a command of the system, whose release is
            Debian's.
        package: whose release is shown.
    """

    title: str
    environment: str = ""
    package: str = ""


ROWS = {
    "hub2": Row("huggingface_hub", "hub2", "huggingface_hub"),
    "hub1": Row("huggingface_hub", "hub1", "huggingface_hub"),
    "hub0": Row("huggingface_hub", "hub0", "huggingface_hub"),
    "hf": Row("`hf` command", "hub2", "huggingface_hub"),
    "hf_transfer": Row("hf_transfer", "hub0", "hf_transfer"),
    "transformers": Row("transformers", "ml", "transformers"),
    "datasets": Row("datasets", "ml", "datasets"),
    "pandas": Row("pandas", "data", "pandas"),
    "pyarrow": Row("pyarrow", "data", "pyarrow"),
    "polars": Row("polars", "data", "polars"),
    "duckdb": Row("DuckDB with httpfs", "data", "duckdb"),
    "js": Row("@huggingface/hub in Node.js", "js", "@huggingface/hub"),
    "transformers.js": Row("@huggingface/transformers", "js", "@huggingface/transformers"),
    "rust": Row("hf-hub 0.4.1 (Rust) in outlines-core", "rust", "outlines_core"),
    "curl": Row("curl"),
    "wget": Row("wget"),
    "aria2c": Row("aria2c"),
    "git": Row("git"),
}
SITUATIONS = ("cold", "warm", "offline", "gated", "renamed", "ranges", "upload")

_WHOLE_FILES = ("hf", "transformers", "transformers.js")
_READERS = ("transformers.js", "rust", "duckdb", "curl", "wget", "aria2c")
_KEPT = ("cold", "warm", "offline", "ranges")

NOT_APPLICABLE = {
    **{(client, "ranges"): "It reads whole files only." for client in _WHOLE_FILES},
    **{(client, "upload"): "It has no upload to the Hub." for client in _READERS},
    ("hf_transfer", "upload"): "It sends parts straight to the Hub's storage.",
    ("polars", "upload"): "It writes to the Hub by `hf://` only, which knows one Hub.",
    **{("git", situation): "It is passed through, and nothing is kept." for situation in _KEPT},
    ("git", "renamed"): "The Hub of the tests does not lead git from an old name to the new one.",
}


@dataclass(eq=False)  # hashable, as plugins have to be
class Matrix:
    """What a run has shown; registered as a plugin on the process that gathers."""

    config: pytest.Config
    shown: set[tuple[str, str]] = field(default_factory=set)
    complaint: str = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test has shown, once it has passed."""
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == PROPERTY:
                    client, _, situation = str(value).partition(" ")
                    self.shown.add((client, situation))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the table, or fail a complete run that has shown another."""
        if self.config.getoption("write_client_matrix"):
            write(render(self.shown))
        elif self._is_complete():
            self._join_tries()
            if not session.exitstatus:
                self.complaint = compare(committed(), render(self.shown))
            if self.complaint:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what differs."""
        if self.complaint:
            terminalreporter.section("clients")
            terminalreporter.line(self.complaint, red=True)

    def _join_tries(self) -> None:
        """Where what failed is tried once more, the first run has shown the rest."""
        cache = getattr(self.config, "cache", None)
        if cache is None:
            return
        if self.config.getoption("lf", False):
            self.shown |= {(client, situation) for client, situation in cache.get(_TRIED, [])}
        else:
            cache.set(_TRIED, sorted(self.shown))

    def _is_complete(self) -> bool:
        option = self.config.option
        everything = self.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        chosen = bool(option.keyword or option.markexpr)
        return bool(os.environ.get(REQUIRE_ALL)) and everything and not chosen


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the table."""
    parser.addoption(
        "--write-client-matrix",
        action="store_true",
        help=f"write what this run has shown of real clients into {PAGE.name}",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Gather in one process only: the one that the workers report to."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Matrix(config), "client-matrix")


@pytest.fixture
def proves(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Say that this test has shown a client in situations; called after the assertions."""

    def note(client: str, *situations: str) -> None:
        assert client in ROWS, client
        for situation in situations:
            assert situation in SITUATIONS, situation
            assert (client, situation) not in NOT_APPLICABLE
            request.node.user_properties.append((PROPERTY, f"{client} {situation}"))

    return note


def render(shown: set[tuple[str, str]]) -> str:
    """The table in Markdown, with its notes."""
    reasons = list(dict.fromkeys(NOT_APPLICABLE.values()))
    lines = [
        f"| client | release | {' | '.join(SITUATIONS)} |",
        f"| --- | --- |{' --- |' * len(SITUATIONS)}",
    ]
    for client, row in ROWS.items():
        cells = [_cell(client, situation, shown, reasons) for situation in SITUATIONS]
        lines.append(f"| {row.title} | {release(row)} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes, ""])


def _cell(client: str, situation: str, shown: set[tuple[str, str]], reasons: list[str]) -> str:
    reason = NOT_APPLICABLE.get((client, situation))
    if reason is not None:
        return f"– ({reasons.index(reason) + 1})"
    return "yes" if (client, situation) in shown else "not shown"


def release(row: Row) -> str:
    """The release that is installed for the tests."""
    if not row.environment:
        return "Debian's"
    folder = Path(os.environ.get(CLIENTS_VARIABLE, ""), row.environment)
    package = folder / "node_modules" / row.package / "package.json"
    if package.is_file():
        return str(json.loads(package.read_text(encoding="utf-8"))["version"])
    for found in folder.glob(f"lib/python*/site-packages/{row.package}-*.dist-info"):
        return found.name.removesuffix(".dist-info").rpartition("-")[2]
    return "not installed"


def committed() -> str:
    """The table as the documentation has it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def write(table: str) -> None:
    """Put the table into the documentation."""
    text = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"(?<={re.escape(BEGIN)}).*(?={re.escape(END)})", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: f"\n{table}\n", text), encoding="utf-8")


def compare(old: str, new: str) -> str:
    """What differs between two tables, in words; "" if nothing does."""
    lines = [
        f"  {sign} {line}"
        for sign, ours, theirs in (("-", old, new), ("+", new, old))
        for line in ours.splitlines()
        if line not in theirs.splitlines()
    ]
    if not lines:
        return ""
    advice = f"Run tests/clients with --write-client-matrix, and look at {PAGE.name}."
    return "\n".join(["The table of clients is not what this run has shown:", *lines, advice])
