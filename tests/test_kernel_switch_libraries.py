"""The switch in processes that have imported the real libraries before it is used."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from serving import RunningCache

pytestmark = pytest.mark.clients

ROOT = Path(__file__).resolve().parent.parent
BERT = "hf-internal-testing/tiny-random-bert"

HUB = """
import json, os, sys
import huggingface_hub
from huggingface_hub import HfApi, HfFileSystem, constants, hf_api, hf_hub_download, hf_hub_url
from huggingface_hub import file_download, hf_file_system, list_repo_files, lfs

HfFileSystem()
mine = HfApi()
from jupyter_hf_cache.kernel_switch import KernelSwitch

switch = KernelSwitch()
report = switch.use(sys.argv[1])
facts = {
    "patched": report.patched,
    "left": report.left,
    "files": list_repo_files(sys.argv[2]),
    "config": json.load(open(hf_hub_download(sys.argv[2], "config.json")))["model_type"],
    "listed": HfFileSystem().ls(sys.argv[2], detail=False),
    "read": HfFileSystem().read_text(sys.argv[2] + "/config.json")[:1],
}
switch.off()
facts["after"] = [
    constants.ENDPOINT,
    hf_hub_url("a/b", "c"),
    HfApi().endpoint,
    HfFileSystem().endpoint,
    os.environ.get("HF_ENDPOINT"),
]
print(json.dumps(facts))
"""

MACHINE_LEARNING = """
import json, sys
import datasets, transformers
from datasets import load_dataset
from transformers import AutoConfig, AutoTokenizer
from jupyter_hf_cache.kernel_switch import KernelSwitch

report = KernelSwitch().use(sys.argv[1])
facts = {
    "patched": report.patched,
    "config": AutoConfig.from_pretrained(sys.argv[2]).model_type,
    "tokens": len(AutoTokenizer.from_pretrained(sys.argv[2])("hello")["input_ids"]),
    "rows": len(load_dataset("org/json-lines", split="train")),
    "streamed": len(list(load_dataset("org/json-lines", split="train", streaming=True))),
}
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as running:
        yield running


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path) -> Iterator[RunningCache]:
    with RunningCache(tmp_path / "cache", hub) as running:
        yield running


def run(client: str, script: str, cache: RunningCache, home: Path) -> dict[str, Any]:
    """Run a script in a client's environment; what it printed last, as JSON."""
    python = Path(os.environ["HF_CACHE_TEST_CLIENTS"]) / client / "bin" / "python"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Where nobody listens: what does not go to the cache must fail, and not reach the real Hub.
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    ran = subprocess.run(
        [python, "-c", script, cache.endpoint, BERT],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("client", ["hub0", "hub1", "hub2"])
def test_huggingface_hub_imported_first(client: str, cache: RunningCache, tmp_path: Path) -> None:
    facts = run(client, HUB, cache, tmp_path)
    assert facts["patched"] == ["huggingface_hub"]
    assert "HfApi object made earlier keeps the old endpoint" in facts["left"][0]
    assert "config.json" in facts["files"]
    assert f"{BERT}/config.json" in facts["listed"]
    assert facts["read"] == "{"
    assert facts["after"] == [
        "https://huggingface.co",
        "https://huggingface.co/a/b/resolve/main/c",
        "https://huggingface.co",
        "https://huggingface.co",
        None,
    ]


def test_datasets_and_transformers_imported_first(cache: RunningCache, tmp_path: Path) -> None:
    facts = run("ml", MACHINE_LEARNING, cache, tmp_path)
    assert set(facts["patched"]) >= {"datasets", "huggingface_hub"}
    assert facts["config"] == "bert"
    assert facts["tokens"] > 0
    assert facts["rows"] == facts["streamed"] > 0
