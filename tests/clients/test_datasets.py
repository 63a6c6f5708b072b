"""datasets through a Jupyter server's cache: loaded, and streamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from clients.environments import Client
from clients.server import JupyterServer
from fake_hub import FakeHub

pytestmark = pytest.mark.clients

SOURCES = {
    "by its card": '"org/tables"',
    "csv": '"org/tables", data_files="csv/train.csv"',
    "json lines": '"org/json-lines"',
    "parquet": '"org/parquet"',
}
LOAD = "from datasets import load_dataset\nresult = {}\n" + "".join(
    f"""
rows = load_dataset({source}, split="train")
streamed = list(load_dataset({source}, split="train", streaming=True))
result["{name}"] = [len(rows), rows[7]["text"], len(streamed), streamed[49]["text"]]
"""
    for name, source in SOURCES.items()
)
EXPECTED = {name: [50, "row 7", 50, "row 49"] for name in SOURCES}


@pytest.fixture
def ml(server: JupyterServer, tmp_path: Path) -> Client:
    return Client("ml", tmp_path / "home", server.endpoint)


def test_every_format_loads_and_streams_and_is_not_fetched_twice(hub: FakeHub, ml: Client) -> None:
    assert ml.run(f"{LOAD}\ntell(result)") == EXPECTED
    hub.counters.reset()
    assert ml.fresh().run(f"{LOAD}\ntell(result)") == EXPECTED
    assert _bodies(hub) == []


def test_a_private_dataset_needs_its_token(ml: Client) -> None:
    script = """
from datasets import load_dataset
def load(token):
    return len(load_dataset("org/private-data", split="train", token=token))
tell([bool(error(load, None)), load("hf_alice")])
"""
    assert ml.run(script) == [True, 50]


def _bodies(hub: FakeHub) -> list[Any]:
    asked = hub.counters.select("GET", status=200)
    return [r for r in asked if "/resolve" in r.path or r.host == "cdn"]
