"""A Hub and a Jupyter server per module, and clients that are new in each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.environments import HUBS, Client
from clients.server import JupyterServer
from fake_hub import FakeHub


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        yield hub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[JupyterServer]:
    server = JupyterServer(tmp_path_factory.mktemp("jupyter"), hub.url)
    with server:
        yield server


@pytest.fixture(params=HUBS)
def client(request: pytest.FixtureRequest, server: JupyterServer, tmp_path: Path) -> Client:
    """One huggingface_hub release after the other, as in a new kernel."""
    return Client(request.param, tmp_path / "home", server.endpoint)


@pytest.fixture(params=["xet", "no-xet"])
def any_client(request: pytest.FixtureRequest, client: Client) -> Client:
    """Each release with hf_xet, where it is installed, and with Xet switched off."""
    if request.param == "no-xet":
        client.settings["HF_HUB_DISABLE_XET"] = "1"
    return client
