"""A real JupyterLab in a process of its own, before the suite's own Hub.

Responsible for: starting it with nobody's settings, and its notebooks.
Not responsible for: the browser (`tests/ui`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import nbformat
from fake_hub import FakeHub

BASE_URL = "/user/a%40b/"
TOKEN = "a-token-of-the-test"


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab.

    Args:
        url: its root, with base URL.
        folder: where its notebooks lie.
        hub: the Hub it has as upstream.
    """

    url: str
    folder: Path
    hub: FakeHub

    def notebook(self, name: str, *cells: str) -> str:
        """Write a notebook and return the address that opens it, login included."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.folder / name)
        return f"{self.url}lab/tree/{name}?token={TOKEN}&reset"


def start(home: Path, hub: FakeHub, *options: str) -> tuple[Lab, subprocess.Popen[bytes]]:
    """Start JupyterLab with its directories below `home`; return when it answers."""
    lab = Lab(f"http://127.0.0.1:{free_port()}{BASE_URL}", home / "notebooks", hub)
    lab.folder.mkdir()
    ask_for_no_news(home)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            lab_command(lab, *options),
            env=lab_environment(home, hub.url),
            cwd=home,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    wait_for_lab(lab, process, home / "log")
    return lab, process


def ask_for_no_news(home: Path) -> None:
    """Keep JupyterLab from asking whether it may fetch news: the question covers the status bar."""
    folder = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    settings = folder / "notification.jupyterlab-settings"
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')


def lab_command(lab: Lab, *options: str) -> list[str]:
    port = lab.url.split(":")[2].split("/")[0]
    return [
        sys.executable,
        *("-m", "jupyterlab", "--no-browser", "--allow-root"),
        f"--ServerApp.base_url={BASE_URL}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={lab.folder}",
        f"--IdentityProvider.token={TOKEN}",
        *options,
    ]


def lab_environment(home: Path, upstream: str) -> dict[str, str]:
    """An environment of nobody's: only the fake Hub as upstream and directories of its own."""
    ours = {"HF_ENDPOINT": upstream, "HOME": str(home)}
    folders = {
        f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    dropped = ("HF_", "JUPYTER", "JPY_", "XDG_")
    rest = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**rest, **folders, **ours, "JUPYTER_HF_CACHE_DIR": str(home / "cache")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_lab(lab: Lab, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    request = Request(f"{lab.url}api/status", headers={"Authorization": f"token {TOKEN}"})
    while True:
        try:
            with urlopen(request, timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
