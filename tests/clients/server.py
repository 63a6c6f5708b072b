"""Real server processes in front of the suite's own Hub.

Responsible for: a Jupyter server with the extension, or the stand-alone server, in a process of its
own with a home and Jupyter directories of its own; stopped and started again on the same ones.
Not responsible for: what talks to them (`environments`), or the Hub (`fake_hub`).

Nothing of the environment that the tests run in reaches a server, except what finds Python and
measures coverage.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import requests

BASE_URL = "/user/a%40b/"
TOKEN = "jupyter-token-of-the-suite"
ADMIN_PASSWORD = "admin-password-of-the-suite"
START_SECONDS = 60.0
STOP_SECONDS = 30.0

T = TypeVar("T")

_KEPT = ("LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "COVERAGE_")


def wait_for(get: Callable[[], T | None], what: str, seconds: float = START_SECONDS) -> T:
    """Poll until `get` returns something that is not None.

    Raises:
        AssertionError: it never did.
    """
    deadline = time.monotonic() + seconds
    while (found := get()) is None:
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        time.sleep(0.05)
    return found


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def clean_environment(home: Path) -> dict[str, str]:
    """The environment of a user whose home is `home` and who has set nothing."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(_KEPT)}
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONUNBUFFERED": "1",
    }


class ServerProcess:
    """One server process after the other, on the same directories and port.

    Args:
        root: home of the user, made when missing.
        options: `c.HfCache.*`.
        log: name of the log file in `root`.
    """

    base_url = "/"

    def __init__(
        self,
        root: Path,
        *,
        options: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        ip: str = "127.0.0.1",
        log: str = "server.log",
    ) -> None:
        self.root = root
        self.ip = ip
        self.port = free_port()
        self.log = root / log
        self.environ = {**clean_environment(root), **(environ or {})}
        self._options = {"min_free_space": 0, "cache_size_limit": 10**11, **(options or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Scheme, host, port and base URL, without a trailing slash: the tutorial's host."""
        return f"http://127.0.0.1:{self.port}{self.base_url.rstrip('/')}"

    @property
    def password(self) -> str:
        """What Basic takes, with any user name."""
        raise NotImplementedError

    @property
    def content(self) -> str:
        """URL of the content without a capability: the anonymous entrance of this machine."""
        return f"{self.host}/pulp/content"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and neither stopped nor ended by itself."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and wait until it is ready for clients.

        Raises:
            AssertionError: it ended or did not become ready; the message holds its log.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start, and wait for nothing."""
        for name in ("config", "data", "runtime"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self._write_config()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command()],
                env=self.environ,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        """Wait until it is ready for clients, as `start`."""
        try:
            wait_for(self._look, "ready server")
        except AssertionError as problem:
            self.stop()
            raise AssertionError(f"{problem}\n{self.text()}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process; its exit code. A second call does nothing."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the server did not stop\n{self.text()}") from None

    def restart(self) -> None:
        """Stop and start on the same directories and port."""
        self.stop()
        self.start()

    def text(self) -> str:
        """The log of all processes so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def api(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask the cache API or the REST API below the host, as its admin."""
        options.setdefault("auth", ("admin", self.password))
        return requests.request(method, f"{self.host}/{path}", timeout=60, **options)

    def status(self) -> dict[str, Any]:
        """The cache API's status.

        Raises:
            requests.RequestException: it does not answer, or with an error.
        """
        answer = self.api("GET", "hf-cache/v1/status")
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def wait_idle(self) -> None:
        """Wait until no download from the Hub runs."""
        wait_for(lambda: self.status()["fills"]["running"] == 0 or None, "end of downloads")

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_config(self) -> None:
        raise NotImplementedError

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _ready(self, status: dict[str, Any]) -> bool:
        return not status["problems"]

    def _look(self) -> dict[str, Any] | None:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"the server ended with {code}"
        try:
            status = self.status()
        except requests.HTTPError as error:
            assert error.response.status_code != 404, "the server runs without the extension"
            return None
        except requests.ConnectionError:
            return None
        return status if self._ready(status) else None

    def _save(self, name: str, settings: Mapping[str, Any]) -> None:
        file = self.root / "config" / name
        file.write_text(json.dumps(settings), encoding="utf-8")


class JupyterServer(ServerProcess):
    """`jupyter server` with the extension, whose upstream is the `HF_ENDPOINT` it finds."""

    base_url = BASE_URL
    _extension = True

    def __init__(self, root: Path, upstream: str, **rest: Any) -> None:
        super().__init__(root, environ={"HF_ENDPOINT": upstream, **rest.pop("environ", {})}, **rest)

    @property
    def password(self) -> str:
        return TOKEN

    def ask_jupyter(self) -> requests.Response:
        """Ask Jupyter's own API how it is."""
        login = {"Authorization": f"token {self.password}"}
        return requests.get(f"{self.host}/api/status", headers=login, timeout=60)

    @property
    def endpoint(self) -> str:
        """What kernels get as HF_ENDPOINT, with its capability."""
        endpoint: str = self.status()["kernel_endpoint"]
        return endpoint

    def _write_config(self) -> None:
        others = ("jupyterlab", "notebook_shim", "jupyter_lsp")
        extensions = {"jupyter_hf_cache": self._extension, **dict.fromkeys(others, False)}
        settings = {
            "ServerApp": {"jpserver_extensions": extensions, "base_url": self.base_url},
            "IdentityProvider": {"token": TOKEN},
            "HfCache": self._options,
        }
        self._save("jupyter_server_config.json", settings)

    def _command(self) -> Sequence[str]:
        fixed = ("jupyter", "server", "--no-browser", "--allow-root", "--ServerApp.port_retries=0")
        notebooks = self.root / "notebooks"
        notebooks.mkdir(exist_ok=True)
        own = (f"--ip={self.ip}", f"--port={self.port}", f"--ServerApp.root_dir={notebooks}")
        return (*fixed, *own)

    def _ready(self, status: dict[str, Any]) -> bool:
        assert status["inject"]["reason"] in (None, "The cache is still starting."), status
        return bool(status["inject"]["on"])


class BareJupyterServer(JupyterServer):
    """The same `jupyter server` without the extension, to compare with."""

    _extension = False

    def _look(self) -> dict[str, Any] | None:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended"
        try:
            return {} if self.ask_jupyter().ok else None
        except requests.ConnectionError:
            return None


class StandAloneServer(ServerProcess):
    """`jupyter hf-cache serve`."""

    def __init__(self, root: Path, upstream: str, **rest: Any) -> None:
        password = {"JUPYTER_HF_CACHE_ADMIN_PASSWORD": ADMIN_PASSWORD}
        super().__init__(root, environ={**password, **rest.pop("environ", {})}, **rest)
        self._upstream = upstream

    @property
    def password(self) -> str:
        return ADMIN_PASSWORD

    @property
    def endpoint(self) -> str:
        """The anonymous entrance to distribution `default`."""
        return f"{self.content}/hf"

    def _write_config(self) -> None:
        self._save("jupyter_config.json", {"HfCache": self._options})

    def _command(self) -> Sequence[str]:
        serve = ("jupyter", "hf-cache", "serve", f"--ip={self.ip}", f"--port={self.port}")
        return (*serve, f"--cache-dir={self.root / 'cache'}", f"--upstream={self._upstream}")
