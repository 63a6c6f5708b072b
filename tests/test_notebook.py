"""Magics and panel in a kernel of another environment, before a real Jupyter server.

The server is a process of its own with a password and no token, below a base URL with an escape in
it. The kernel's environment holds ipykernel, requests, ipywidgets and this package without its
dependencies; it is started as an editor would start it, not by the server, so that it inherits no
variable and has to find the server by itself.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
import requests
from fake_hub import FakeHub
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_server.auth.security import passwd

pytestmark = [pytest.mark.clients, pytest.mark.jupyter]

ROOT = Path(__file__).resolve().parent.parent
BERT = "hf-internal-testing/tiny-random-bert"
PACKAGES = ("ipykernel", "requests", "ipywidgets", "huggingface_hub==2.4.0")


@pytest.fixture(scope="module")
def kernel_python() -> Path:
    """The interpreter of an environment for kernels, made once and kept with the other clients'."""
    folder = Path(os.environ["HF_CACHE_TEST_CLIENTS"]) / "kernel"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (site,) = folder.glob("lib/python3*/site-packages")
        (site / "jupyter_hf_cache.pth").write_text(f"{ROOT}\n")
        (folder / "complete").touch()
    return python


def environment(home: Path) -> dict[str, str]:
    """A user's environment without anything that the run of the suite brings along."""
    kept = {"PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT"}
    kept |= {name for name in os.environ if name.startswith("COVERAGE_")}
    own = {
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    return {name: os.environ[name] for name in kept if name in os.environ} | own


def wait_for(condition: Callable[[], Any], seconds: float = 60.0, log: Path | None = None) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(log.read_text() if log else "it did not happen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@dataclass
class JupyterServer:
    """A Jupyter server process with the extension."""

    home: Path
    upstream: str
    process: subprocess.Popen[bytes] | None = None
    config: Path = field(init=False)

    def start(self) -> None:
        """Start it, and wait until its cache is open."""
        self.config = self.home / "jupyter_server_config.py"
        self.config.write_text(
            "c = get_config()\n"
            "c.ServerApp.jpserver_extensions = {'jupyter_hf_cache': True}\n"
            "c.ServerApp.base_url = '/user/a%40b/'\n"
            "c.ServerApp.allow_root = True\n"
            "c.IdentityProvider.token = ''\n"
            f"c.PasswordIdentityProvider.hashed_password = {passwd('a password')!r}\n"
            f"c.HfCache.default_upstream = {self.upstream!r}\n"
            f"c.HfCache.cache_dir = {str(self.home / 'cache')!r}\n"
            "c.HfCache.min_free_space = 0\n"
        )
        options = ["--no-browser", f"--port={free_port()}", f"--config={self.config}"]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server", *options],
                cwd=self.home,
                env=environment(self.home) | {"JUPYTER_CONFIG_DIR": str(self.home / "config")},
                stdout=log,
                stderr=log,
            )
        wait_for(self._is_open, log=self.home / "server.log")

    def _is_open(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "server.log").read_text()
        for path in (self.home / "runtime").glob("hf-cache-*.json"):
            facts = json.loads(path.read_text())
            if facts["pid"] == self.process.pid:
                answer = requests.get(
                    facts["url"] + "hf-cache/v1/status",
                    headers={"Authorization": f"token {facts['token']}"},
                    timeout=10,
                )
                return answer.ok and bool(answer.json()["kernel_endpoint"])
        return False

    def stop(self) -> None:
        """End it and wait."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None


@pytest.fixture(scope="module")
def server(home: Path, hub: FakeHub) -> Iterator[JupyterServer]:
    running = JupyterServer(home, hub.url)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@dataclass
class Kernel:
    """A running kernel and what it said."""

    client: BlockingKernelClient

    def run(self, code: str, answers: tuple[str, ...] = ()) -> str:
        """Run a cell; the text it printed and showed. Errors are part of the text."""
        said: list[str] = []
        asked = iter(answers)

        def heard(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                said.append(json.dumps(content["data"]))
            elif message["msg_type"] == "error":
                said.append("\n".join(content["traceback"]))

        self.client.execute_interactive(
            code,
            timeout=60,
            allow_stdin=bool(answers),
            output_hook=heard,
            stdin_hook=lambda message: self.client.input(next(asked)),
        )
        return "".join(said)

    def wait_for(self, expression: str) -> None:
        """Until an expression is true in the kernel."""
        wait_for(lambda: "it holds" in self.run(f"print('it holds' if ({expression}) else '')"))

    def widget_messages(self) -> Iterator[dict[str, Any]]:
        """What came from the kernel's widgets outside of cells."""
        while True:
            try:
                yield self.client.get_iopub_msg(timeout=0.5)
            except Empty:
                return


@pytest.fixture
def kernel(kernel_python: Path, home: Path, tmp_path: Path) -> Iterator[Kernel]:
    specs = tmp_path / "kernels" / "other"
    specs.mkdir(parents=True)
    arguments = [str(kernel_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": arguments, "display_name": "other", "language": "python"}
    (specs / "kernel.json").write_text(json.dumps(spec))
    manager = KernelManager(kernel_name="other")
    manager.kernel_spec_manager.kernel_dirs = [str(tmp_path / "kernels")]
    manager.start_kernel(cwd=str(tmp_path), env=environment(home))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.usefixtures("server")
def test_the_kernel_has_no_server_dependency(kernel: Kernel) -> None:
    names = ("jupyter_server", "diskcache", "cryptography", "pydantic")
    for name in names:
        assert "ModuleNotFoundError" in kernel.run(f"import {name}")


@pytest.mark.usefixtures("server")
def test_loading_the_extension_sends_downloads_through_the_cache(
    kernel: Kernel, hub: FakeHub
) -> None:
    said = kernel.run("%load_ext jupyter_hf_cache")
    assert "/user/a%40b/: on" in said
    download = (
        "from huggingface_hub import hf_hub_download\n"
        f"print(open(hf_hub_download({BERT!r}, 'config.json', force_download=True)).read())"
    )
    assert "hidden_size" in kernel.run(download)
    asked = hub.counters.bytes("hub") + hub.counters.bytes("cdn")
    assert asked > 0
    said = kernel.run("%hf_cache ls")
    assert BERT in said
    assert "text/html" in said
    assert "this kernel: on" in kernel.run("%hf_cache")


@pytest.mark.usefixtures("server")
def test_use_after_an_import(kernel: Kernel) -> None:
    kernel.run("import huggingface_hub, os\nfrom huggingface_hub import constants, hf_hub_url")
    kernel.run("os.environ['HF_ENDPOINT'] = 'https://mirror.example'")
    assert "own HF_ENDPOINT https://mirror.example" in kernel.run("%load_ext jupyter_hf_cache")
    said = kernel.run("%hf_cache use")
    assert "Already imported and changed: huggingface_hub." in said
    assert "/~…/hf" in said
    assert "/user/a%40b/pulp/content/~" in kernel.run("print(hf_hub_url('a/b', 'c'))")
    kernel.run("%hf_cache off")
    said = kernel.run("print(hf_hub_url('a/b', 'c'), os.environ['HF_ENDPOINT'])")
    assert said == "https://huggingface.co/a/b/resolve/main/c https://mirror.example\n"


@pytest.mark.usefixtures("server")
def test_a_token_is_asked_for_by_the_front_end(kernel: Kernel) -> None:
    kernel.run("%load_ext jupyter_hf_cache")
    said = kernel.run("%hf_cache token set", answers=("hf_alice",))
    assert "The token of default is set." in said
    said += kernel.run("%hf_cache token test")
    assert "works: alice" in said
    said += kernel.run("%hf_cache token forget")
    assert "hf_alice" not in said
    assert "no token" in kernel.run("%hf_cache token")
    assert "jupyter hf-cache token set" in kernel.run("%hf_cache token set")


@pytest.mark.usefixtures("server")
def test_the_panel(kernel: Kernel) -> None:
    kernel.run("%load_ext jupyter_hf_cache")
    kernel.run(
        "from huggingface_hub import hf_hub_download\n"
        f"hf_hub_download({BERT!r}, 'config.json', force_download=True)"
    )
    shown = kernel.run("from jupyter_hf_cache import CachePanel\npanel = CachePanel()\npanel")
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "in 1 repo" in shown
    kernel.wait_for("'repo' in panel._head_text.value")
    kernel.wait_for("panel._list.options")
    kernel.run(f"panel._list.value = ('models', {BERT!r})")
    kernel.wait_for("'config.json' in panel._detail.value")
    kernel.run("panel._delete.click()")
    kernel.wait_for("panel._confirm.children")
    assert "Frees" in kernel.run("print(panel._confirm.children[0].value)")
    kernel.run("panel._confirm.children[1].click()")
    kernel.wait_for("'Freed' in panel._message.value")


@pytest.mark.usefixtures("server")
def test_a_token_typed_into_the_panel_comes_back_in_no_message(kernel: Kernel) -> None:
    kernel.run("from jupyter_hf_cache import CachePanel\npanel = CachePanel()")
    kernel.wait_for("'repo' in panel._head_text.value")
    field = kernel.run("print(panel._token_field.model_id)").strip()
    list(kernel.widget_messages())
    data = {"method": "update", "state": {"value": "hf_alice"}}
    message = kernel.client.session.msg("comm_msg", {"comm_id": field, "data": data})
    kernel.client.shell_channel.send(message)
    seen = json.dumps([m["content"] for m in kernel.widget_messages()])
    kernel.wait_for("panel._pending_token")
    assert '"value": ""' in seen
    assert "hf_alice" not in seen
    kernel.run("panel._set_token()")
    kernel.wait_for("'a token is set' in panel._token_note.value")
    state = "import ipywidgets\nprint(ipywidgets.Widget.get_manager_state())"
    assert "hf_alice" not in kernel.run(state)
    kernel.run("panel._forget_token()")
    kernel.wait_for("'no token' in panel._token_note.value")


def test_an_open_panel_finds_the_restarted_server(kernel: Kernel, server: JupyterServer) -> None:
    kernel.run("from jupyter_hf_cache import CachePanel\npanel = CachePanel()")
    kernel.wait_for("'repo' in panel._head_text.value")
    server.stop()
    kernel.run("panel.refresh()")
    kernel.wait_for("'<b>' in panel._head_text.value and 'server' in panel._head_text.value")
    assert "in reach" in kernel.run("%load_ext jupyter_hf_cache")
    server.start()
    kernel.run("panel.refresh()")
    kernel.wait_for("'repo' in panel._head_text.value")
    assert "this kernel: off" in kernel.run("%hf_cache")
