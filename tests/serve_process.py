"""`jupyter hf-cache serve` as a process of its own, and what tests ask it with.

Responsible for: starting it on directories below one root, reading what it prints, and ending it.
Not responsible for: Jupyter, or other clients than curl and plain sockets (`clients`).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fake_hub import FakeHub

DEADLINE = 60.0


class Serving:
    """A running `serve`, and what it printed.

    Args:
        tmp_path: a second one on the same path finds the first one's directories.
        options: of the command line.
        environ: further variables.
    """

    def __init__(self, tmp_path: Path, hub: FakeHub, *options: str, **environ: str) -> None:
        self.runtime_dir = tmp_path / "runtime"
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "JUPYTER_"))},
            "JUPYTER_RUNTIME_DIR": str(self.runtime_dir),
            "JUPYTER_DATA_DIR": str(tmp_path / "data"),
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
            **environ,
        }
        self.log = tmp_path / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "jupyter_hf_cache.standalone"),
                    *("--port", "0", "--cache-dir", str(tmp_path / "cache")),
                    *("--upstream", hub.url, "--HfCache.min_free_space=0", *options),
                ],
                env=self.environ,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.printed = ""

    def __enter__(self) -> Serving:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if not line.strip() and "pulp/api" in self.printed:
                break
        assert "export HF_ENDPOINT=" in self.printed, self.log.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def endpoint(self) -> str:
        """The anonymous entrance to distribution `default`."""
        return re.findall(r"export HF_ENDPOINT=(\S+)", self.printed)[0]

    @property
    def url(self) -> str:
        """With a trailing slash."""
        return self.endpoint.partition("pulp/")[0]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2].strip("/"))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


def curl(*arguments: str) -> tuple[int, str]:
    """The status and the body."""
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "30", "-w", "\n%{http_code}", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def refuses(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
