"""Two Jupyter servers of one user, each with its own data, on one cache directory."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.environments import HUBS, Client
from clients.server import JupyterServer, wait_for
from fake_hub import BigFile, FakeHub

pytestmark = pytest.mark.clients

MIB = 1 << 20
SIZE = 12 * MIB + 345


@pytest.fixture
def servers(tmp_path: Path, hub: FakeHub) -> Iterator[list[JupyterServer]]:
    options = {"cache_dir": str(tmp_path / "shared")}
    servers = [JupyterServer(tmp_path / name, hub.url, options=options) for name in ("a", "b")]
    with servers[0], servers[1]:
        yield servers


@pytest.mark.parametrize("name", HUBS)
def test_curl_at_one_and_huggingface_hub_at_the_other_cost_one_transfer(
    servers: list[JupyterServer], hub: FakeHub, tmp_path: Path, name: str
) -> None:
    file, repo = BigFile(SIZE, seed=71), f"org/shared-{name}"
    hub.repo("models", repo).commit({f"{name}-model.bin": file})
    hub.fault("stall", f"{name}-model.bin", host="cdn", at=4 * MIB)
    target = tmp_path / "model.bin"
    url = f"{servers[0].endpoint}/{repo}/resolve/main/{name}-model.bin"
    with subprocess.Popen(["curl", "-sSf", "--noproxy", "*", "-o", str(target), url]) as curl:
        wait_for(lambda: (target.exists() and target.stat().st_size >= MIB) or None, "start")
        other = Client(name, tmp_path / "home", servers[1].endpoint)
        other.settings["HF_HUB_DISABLE_XET"] = "1"
        received = other.run(f"""
import huggingface_hub as hf
tell(sha256(hf.hf_hub_download("{repo}", "{name}-model.bin")))
""")
        assert curl.wait(60) == 0
    assert target.read_bytes() == file.read(0, SIZE)
    assert received == hashlib.sha256(file.read(0, SIZE)).hexdigest()
    # A connection that stalled may bring again what was on its way.
    assert hub.counters.bytes("cdn", f"{name}-model.bin") < SIZE + 6 * MIB
