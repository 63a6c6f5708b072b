"""Real clients, each in an environment of its own, run as a user would.

Responsible for: finding the environments that `HF_CACHE_TEST_CLIENTS` names, and running scripts
and shell commands in them with nothing set but what a test says.
Not responsible for: making the environments (`.ci/test`).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HUBS = ("hub2", "hub1", "hub0")
WITH_XET = ("hub2", "hub0")
"""The other one is tested as on a machine where hf_xet is not installed."""

PRELUDE = """
import hashlib, json, os, sys

def files(folder):
    return sorted(
        os.path.relpath(os.path.join(root, name), folder).replace(os.sep, "/")
        for root, _, names in os.walk(folder) for name in names
    )

def sums(folder):
    return {name: sha256(os.path.join(folder, name)) for name in files(folder)}

def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

def error(call, *args, **named):
    try:
        call(*args, **named)
    except Exception as problem:
        return [kind.__name__ for kind in type(problem).__mro__]
    return []

def tell(result):
    print("RESULT" + json.dumps(result))
"""


def environment(name: str) -> Path:
    """The folder of one environment's commands; the test is skipped where it is missing."""
    folder = Path(os.environ.get("HF_CACHE_TEST_CLIENTS", ""), name)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    if not commands.is_dir():
        pytest.skip(f"group clients: there is no environment {name}")
    return commands


def has_package(name: str, package: str) -> bool:
    """Whether an environment holds a package, seen from outside."""
    return any(environment(name).parent.glob(f"lib/python*/site-packages/{package}"))


@dataclass
class Client:
    """One environment, with a home of its own.

    Args:
        name: of the environment.
        home: HOME; what the client keeps is below it.
        endpoint: HF_ENDPOINT.
        settings: further variables.
        inside: a command that everything is run by, to run it elsewhere.
    """

    name: str
    home: Path
    endpoint: str
    settings: dict[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()

    @property
    def environ(self) -> dict[str, str]:
        """All variables of a command."""
        commands = environment(self.name)
        system = {k: v for k, v in os.environ.items() if k in ("LANG", "LC_ALL", "TMPDIR")}
        return {
            **system,
            "PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', '')}",
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
            **self.settings,
        }

    def fresh(self, name: str = "again") -> Client:
        """The same client on a machine that has nothing yet."""
        return Client(
            self.name, self.home.parent / name, self.endpoint, dict(self.settings), self.inside
        )

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command of the environment.

        Raises:
            AssertionError: it failed; the message is what it said.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [*self.inside, *words],
            env=self.environ,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def shell(self, text: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command line, as it would be typed."""
        return self.command("bash", "-euo", "pipefail", "-c", text, check=check)

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a Python script that is talked to while it runs; its output is in a pipe."""
        self.home.mkdir(parents=True, exist_ok=True)
        python = str(environment(self.name) / "python")
        return subprocess.Popen(
            [*self.inside, python, "-u", "-c", PRELUDE + script],
            env=self.environ,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str) -> Any:
        """Run a Python script; what it `tell`s."""
        done = self.command(str(environment(self.name) / "python"), "-c", PRELUDE + script)
        line = next(row for row in done.stdout.splitlines() if row.startswith("RESULT"))
        return json.loads(line.removeprefix("RESULT"))
