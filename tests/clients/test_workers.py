"""huggingface_hub through several processes on one port, let in by a named key."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.environments import HUBS, Client
from fake_hub import BigFile, FakeHub
from serve_process import DEADLINE, Serving

FILES: dict[str, bytes | BigFile] = {
    "config.json": b'{"a": 1}',
    "model.safetensors": BigFile(20_000_000, seed=11),
    **{f"shards/{number:02}.bin": BigFile(300_000, seed=100 + number) for number in range(30)},
}

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="workers need POSIX"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "org/sharded").commit(FILES)
        yield hub


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[Serving]:
    options = ("--workers=4", "--HfCache.allow_anonymous=never")
    with Serving(tmp_path_factory.mktemp("serve"), hub, *options) as serving:
        yield serving
        assert serving.stop() == 0


def key(serving: Serving, *words: str) -> str:
    command = [sys.executable, "-m", "jupyter_hf_cache.cli", "key", *words]
    done = subprocess.run(
        command,
        env=serving.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    return done.stdout


def expected() -> dict[str, str]:
    return {
        name: data.sha256() if isinstance(data, BigFile) else hashlib.sha256(data).hexdigest()
        for name, data in FILES.items()
    }


@pytest.mark.parametrize("name", HUBS)
def test_a_snapshot_comes_through_all_workers_until_the_key_is_revoked(
    serving: Serving, hub: FakeHub, tmp_path: Path, name: str
) -> None:
    (assignment,) = shlex.split(key(serving, "create", name).removeprefix("export "))
    client = Client(name, tmp_path / "home", assignment.removeprefix("HF_ENDPOINT="))
    snapshot = """
from huggingface_hub import snapshot_download
tell(sums(snapshot_download("org/sharded", max_workers=8)))
"""
    assert client.run(snapshot) == expected()
    # Whatever worker was asked, each blob came once, for all releases of the client.
    assert hub.counters.bytes("cdn", "model.safetensors") == 20_000_000
    key(serving, "revoke", name)
    refused = client.fresh().run("""
from huggingface_hub import hf_hub_download
tell(error(hf_hub_download, "org/sharded", "config.json"))
""")
    assert "HfHubHTTPError" in refused or "LocalEntryNotFoundError" in refused, refused
    # Whoever refused it says so, without the key.
    lines = [line for line in serving.log.read_text().splitlines() if " 401 " in line]
    assert lines
    assert all(re.search(r"worker [1-4]", line) and "~2." not in line for line in lines)
