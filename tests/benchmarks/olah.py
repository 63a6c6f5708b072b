"""olah, the best known of the other caches, from PyPI.

Responsible for: its environment (made once), starting it for real, and saying why where that fails.
Not responsible for: what is asked of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.clients.server import clean_environment, free_port, wait_for

from .machine import BenchmarkError, answers
from .places import Place

ENVIRONMENT = "HF_CACHE_BENCH_OLAH"
_OURS = Path(__file__).parents[2] / ".venvs/peers/olah"
_INSTALL_SECONDS = 240


def program() -> Path:
    """The command, installed first if need be: in $HF_CACHE_BENCH_OLAH or `.venvs/peers/olah`.

    Raises:
        BenchmarkError: it cannot be installed, with the reason.
    """
    folder = Path(os.environ.get(ENVIRONMENT) or _OURS)
    found = folder / "bin/olah-cli"
    if not found.exists():
        _install(folder)
    return found


def _install(folder: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    python = folder / "bin/python"
    if uv:
        steps = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), "olah"],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "olah"],
        ]
    try:
        for step in steps:
            subprocess.run(
                step, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS
            )
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        said = str(getattr(error, "stderr", "") or error).strip()
        raise BenchmarkError(f"it cannot be installed: {said[-300:]}") from None


class Olah(Place):
    """A running olah.

    Args:
        root: folder for its files.
        hub, cdn: the two origins behind it.

    Raises:
        BenchmarkError: it is not installed and cannot be.
    """

    def __init__(self, root: Path, hub: str, cdn: str) -> None:
        self._port = free_port()
        super().__init__("olah", f"http://127.0.0.1:{self._port}")
        self._program = program()
        self._root = root
        self._hub, self._cdn = urlsplit(hub).netloc, urlsplit(cdn).netloc
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it listens.

        Raises:
            BenchmarkError: it does not; with the end of its log.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        own = f"127.0.0.1:{self._port}"
        command = [
            str(self._program), "--host=127.0.0.1", f"--port={self._port}",
            "--hf-scheme=http", f"--hf-netloc={self._hub}", f"--hf-lfs-netloc={self._cdn}",
            "--mirror-scheme=http", f"--mirror-netloc={own}", f"--mirror-lfs-netloc={own}",
            f"--repos-path={self._root / 'repos'}", f"--log-path={self._root / 'logs'}",
        ]  # fmt: skip
        with (self._root / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._root,
                env=clean_environment(self._root),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(self._look, "olah", 30)
        except AssertionError as problem:
            self.stop()
            log = (self._root / "output").read_text(errors="replace")
            raise BenchmarkError(f"{problem}: {log[-300:]}") from None

    def _look(self) -> bool | None:
        assert self._process is not None
        assert self._process.poll() is None, "olah ended"
        return answers(self._port) or None

    def stop(self) -> None:
        """End it. Safe to call at any time."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _forget(self, repo: str) -> None:
        # It has no way to be told, and remembers in memory too.
        self._kept.clear()
        self.stop()
        shutil.rmtree(self._root, ignore_errors=True)
        self.start()
