"""What real clients cost the Hub, counted at the Hub: cold, warm, and after all lifetimes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients.environments import HUBS, Client, has_package
from fake_hub import FakeHub
from serving import RunningCache
from wall_clock import Clock

pytestmark = pytest.mark.clients

TINY = "hf-internal-testing/tiny-random-bert"
HUB_SCRIPTS = {
    "snapshot_download": f"""
from huggingface_hub import snapshot_download
tell(len(files(snapshot_download("{TINY}"))))
""",
    "hf_hub_download": f"""
from huggingface_hub import hf_hub_download
paths = [hf_hub_download("{TINY}", name) for name in ("config.json", "vocab.txt")]
tell(len(paths + [hf_hub_download("{TINY}", "model.safetensors")]))
""",
    "a revision": f"""
from huggingface_hub import snapshot_download
tell(len(files(snapshot_download("{TINY}", revision="v1.0"))))
""",
}
ML_SCRIPTS = {
    "AutoConfig": f"""
from transformers import AutoConfig
tell(AutoConfig.from_pretrained("{TINY}").model_type)
""",
    "AutoTokenizer": f"""
from transformers import AutoTokenizer
tell(len(AutoTokenizer.from_pretrained("{TINY}")("hello world")["input_ids"]) > 2)
""",
    "AutoModel": f"""
from transformers import AutoModel
tell(type(AutoModel.from_pretrained("{TINY}")).__name__)
""",
    "load_dataset": """
from datasets import load_dataset
tell(len(load_dataset("org/tables", split="train")))
""",
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no reason to ask for what a tree would have told."""
    monkeypatch.setattr("jupyter_hf_cache.service.listed.PATIENCE_SECONDS", 20.0)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub, clock: Clock) -> Iterator[RunningCache]:
    with RunningCache(tmp_path / "cache", hub) as cache:
        yield cache


@pytest.fixture
def run(cache: RunningCache, tmp_path: Path) -> Callable[[str, str], Any]:
    """Run a script as on a machine that has nothing yet."""
    homes = iter(range(100))

    def run(name: str, script: str) -> Any:
        result = Client(name, tmp_path / f"home{next(homes)}", cache.trusted).run(script)
        cache.wait_idle()
        return result

    return run


def count_all(
    hub: FakeHub, clock: Clock, run: Callable[[str, str], Any], name: str, script: str
) -> None:
    """The same load thrice: cold, at once again, and the next day."""
    first = run(name, script)
    hub.counters.reset()
    assert run(name, script) == first
    assert hub.counters.requests == [], hub.counters.summary()
    clock.advance(24 * 3600)
    assert run(name, script) == first
    assert hub.counters.count() <= 1, hub.counters.summary()


@pytest.mark.parametrize("script", HUB_SCRIPTS)
@pytest.mark.parametrize("name", HUBS)
def test_a_warm_download_asks_at_most_once(
    hub: FakeHub, clock: Clock, run: Callable[[str, str], Any], name: str, script: str
) -> None:
    count_all(hub, clock, run, name, HUB_SCRIPTS[script])


@pytest.mark.parametrize("script", ML_SCRIPTS)
def test_a_warm_load_asks_at_most_once(
    hub: FakeHub, clock: Clock, run: Callable[[str, str], Any], script: str
) -> None:
    if script == "AutoModel" and not has_package("ml", "torch"):
        pytest.skip("group clients: the environment ml has no torch")
    count_all(hub, clock, run, "ml", ML_SCRIPTS[script])


@pytest.mark.parametrize("name", HUBS)
def test_a_cold_snapshot_of_many_small_files(
    hub: FakeHub, run: Callable[[str, str], Any], name: str
) -> None:
    script = 'from huggingface_hub import snapshot_download as get\ntell(len(files(get("{}"))))'
    assert run(name, script.format("org/many-files")) == 300
    # Page and tree, each file, and how the first of each thread was sent to where they are.
    assert hub.counters.count() <= 2 + 300 + 2 * 8, hub.counters.summary()


def test_a_limited_hub_does_not_stop_a_warm_load(
    hub: FakeHub, clock: Clock, run: Callable[[str, str], Any]
) -> None:
    script = HUB_SCRIPTS["snapshot_download"]
    first = run("hub2", script)
    hub.limits.enforced = True
    hub.limits.allowed = dict.fromkeys(hub.limits.allowed, 0)
    clock.advance(24 * 3600)
    hub.counters.reset()
    assert run("hub2", script) == first
    assert hub.counters.count() <= 2, hub.counters.summary()
