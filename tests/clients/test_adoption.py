"""What a user downloaded before the cache was there is taken over from the libraries' own cache."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients.environments import HUBS, Client
from clients.server import JupyterServer
from fake_hub import BigFile, FakeHub
from own_files import edit

pytestmark = pytest.mark.clients

MIB = 1 << 20
WEIGHTS = BigFile(9 * MIB + 1, seed=4711)
CONFIG = b'{"hidden_size": 16}'
DOWNLOAD = """
import huggingface_hub as hf
tell(sums(hf.snapshot_download("org/mine")))
"""


@pytest.fixture(params=HUBS)
def user(request: pytest.FixtureRequest, tmp_path: Path, hub: FakeHub) -> Client:
    """Somebody who has downloaded a repo straight from the Hub."""
    hub.repo("models", "org/mine").commit({"model.bin": WEIGHTS, "config.json": CONFIG})
    user = Client(request.param, tmp_path / "user", hub.url, {"HF_HUB_DISABLE_XET": "1"})
    assert user.run(DOWNLOAD)["model.bin"] == WEIGHTS.sha256()
    return user


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def server_of(user: Client, root: Path, hub: FakeHub, **options: Any) -> JupyterServer:
    """A server of this user, with no word about where their files are."""
    home = {"HF_HOME": user.environ["HF_HOME"]}
    return JupyterServer(root, hub.url, environ=home, options=options)


def another_environment(user: Client, server: JupyterServer) -> Client:
    """The user's kernel, whose libraries keep their files elsewhere."""
    kernel = user.fresh("kernel")
    kernel.endpoint = server.endpoint
    return kernel


def weights_of(user: Client) -> Path:
    hub_dir = Path(user.environ["HF_HOME"]) / "hub"
    return hub_dir / "models--org--mine" / "blobs" / WEIGHTS.sha256()


def blobs(server: JupyterServer) -> list[Path]:
    found = (server.root / ".cache").rglob("blobs/*/**/*")
    return [path for path in found if path.is_file() and path.suffix != ".json"]


def test_it_is_taken_over_and_stays_right_whatever_the_user_does_to_their_copy(
    user: Client, hub: FakeHub, tmp_path: Path
) -> None:
    expected = user.run(DOWNLOAD)
    with server_of(user, tmp_path / "jupyter", hub) as server:
        hub.counters.reset()
        kernel = another_environment(user, server)
        assert kernel.run(DOWNLOAD) == expected
        assert hub.counters.bytes("cdn") == 0, hub.counters.summary()
        assert hub.counters.select("GET", "/resolve/") == []
        assert len(blobs(server)) == 2
        assert server.status()["today"]["bytes_adopted"] == WEIGHTS.size + len(CONFIG)
        edit(weights_of(user), b"the user's own idea of weights", at=5 * MIB)
        assert kernel.fresh("next").run(DOWNLOAD) == expected
        assert hub.counters.bytes("cdn") == 0


def test_a_copy_that_was_edited_before_is_downloaded(
    user: Client, hub: FakeHub, tmp_path: Path
) -> None:
    expected = user.run(DOWNLOAD)
    edit(weights_of(user), b"the user's own idea of weights", at=5 * MIB)
    with server_of(user, tmp_path / "jupyter", hub) as server:
        hub.counters.reset()
        assert another_environment(user, server).run(DOWNLOAD) == expected
        assert hub.counters.bytes("cdn") == WEIGHTS.size
        sidecars = [
            json.loads(path.with_name(path.name + ".json").read_text()) for path in blobs(server)
        ]
        assert sorted(one["own"] for one in sidecars) == [False, True]
        assert [*(server.root / ".cache").rglob("quarantine/*")] == []


def test_nothing_is_taken_over_when_that_is_off(user: Client, hub: FakeHub, tmp_path: Path) -> None:
    with server_of(user, tmp_path / "jupyter", hub, adopt_from=[]) as server:
        hub.counters.reset()
        assert another_environment(user, server).run(DOWNLOAD)["model.bin"] == WEIGHTS.sha256()
        assert hub.counters.bytes("cdn") == WEIGHTS.size
