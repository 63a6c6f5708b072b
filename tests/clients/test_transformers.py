"""transformers through a Jupyter server's cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.environments import Client, has_package
from clients.server import JupyterServer
from fake_hub import FakeHub

pytestmark = pytest.mark.clients

TINY = "hf-internal-testing/tiny-random-bert"
LOAD = f"""
from transformers import AutoConfig, AutoTokenizer
config = AutoConfig.from_pretrained("{TINY}")
tokenizer = AutoTokenizer.from_pretrained("{TINY}", revision="v1.0")
numbers = tokenizer("hello world")["input_ids"]
result = [config.model_type, type(tokenizer).__name__.startswith("Bert"), len(numbers) > 2]
"""
LOAD_MODEL = f"""
import torch
from transformers import AutoModel
model = AutoModel.from_pretrained("{TINY}")
with torch.no_grad():
    shape = list(model(torch.tensor([numbers])).last_hidden_state.shape)
result += [shape[:2] == [1, len(numbers)], shape[2] == config.hidden_size]
"""


@pytest.fixture
def ml(server: JupyterServer, tmp_path: Path) -> Client:
    return Client("ml", tmp_path / "home", server.endpoint)


def test_config_and_tokenizer_load(ml: Client) -> None:
    assert ml.run(f"{LOAD}\ntell(result)") == ["bert", True, True]


def test_a_model_loads_computes_and_is_not_fetched_twice(hub: FakeHub, ml: Client) -> None:
    if not has_package("ml", "torch"):
        pytest.skip("group clients: the environment ml has no torch")
    script = f"{LOAD}\n{LOAD_MODEL}\ntell(result)"
    assert ml.run(script) == ["bert"] + [True] * 4
    hub.counters.reset()
    assert ml.fresh().run(script) == ["bert"] + [True] * 4
    fetched = [r for r in hub.counters.select("GET") if "/resolve" in r.path or r.host == "cdn"]
    assert [r for r in fetched if r.status == 200] == []
