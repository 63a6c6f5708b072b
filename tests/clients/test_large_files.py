"""A file over 50 GB with real clients: they go by Xet, past the cache, with their own right.

The suite's Hub announces the file and knows no Xet: that a client comes to the door of its storage
with the Hub's token is what is shown, and that the bytes were asked for nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.environments import HUBS, WITH_XET, Client
from clients.server import JupyterServer
from fake_hub import FakeHub, HugeFile

pytestmark = pytest.mark.clients

HUGE = HugeFile(60 * 10**9, seed=9)
REPO = "org/huge"


@pytest.fixture(scope="module", autouse=True)
def repo(hub: FakeHub) -> None:
    repo = hub.repo("models", REPO, xet=True)
    repo.commit({"config.json": "{}", "model.safetensors": HUGE})


@pytest.mark.parametrize(
    "call",
    [
        f"hf.hf_hub_download({REPO!r}, 'model.safetensors', token='hf_alice')",
        f"hf.snapshot_download({REPO!r}, token='hf_alice')",
    ],
    ids=["one file", "snapshot"],
)
@pytest.mark.parametrize("client", WITH_XET, indirect=True)
def test_a_client_loads_it_by_xet(
    hub: FakeHub, server: JupyterServer, client: Client, call: str
) -> None:
    before = server.status()["today"]["passed_through"]
    hub.counters.reset()
    assert client.run(f"import huggingface_hub as hf\ntell(error(lambda: {call}))")
    tokens = hub.counters.select("GET", "xet-read-token")
    assert {record.authorization for record in tokens} == {"Bearer hf_alice"}
    storage = hub.counters.select(path_contains="/cas")
    assert storage
    assert {record.authorization for record in storage} == {"Bearer xet_fake_token"}
    bodies = [record for record in hub.counters.select("GET", host="cdn") if record not in storage]
    assert bodies == []
    assert server.status()["today"]["passed_through"] > before


def test_a_part_of_it_is_read_over_plain_http(client: Client) -> None:
    assert (
        client.run(f"""
from huggingface_hub import HfFileSystem
with HfFileSystem().open({REPO + "/model.safetensors"!r}, block_size=4096) as file:
    file.seek(50_000_000_000)
    tell(file.read(64).hex())
""")
        == HUGE.read(50_000_000_000, 64).hex()
    )


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[JupyterServer]:
    root = tmp_path_factory.mktemp("closed")
    with JupyterServer(root, hub.url, options={"pass_through_large_files": False}) as server:
        yield server


@pytest.mark.parametrize("name", HUBS)
def test_switched_off_it_is_refused_in_words_at_once(
    closed: JupyterServer, tmp_path: Path, name: str
) -> None:
    client = Client(name, tmp_path / "home", closed.endpoint)
    told = client.run(f"""
import traceback, huggingface_hub as hf
def words(call, *args):
    try:
        call(*args)
    except Exception as problem:
        return traceback.format_exc()
tell([
    words(hf.hf_hub_download, {REPO!r}, "model.safetensors"),
    words(hf.snapshot_download, {REPO!r}),
    bool(hf.hf_hub_download({REPO!r}, "config.json")),
])
""")
    for text in told[:2]:
        assert "pass_through_large_files is off" in text
        assert "403" in text
    assert told[2]
