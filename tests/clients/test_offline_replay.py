"""What was loaded once loads again when the Hub is gone in whatever manner, the server was started
anew, and the clients remember nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from clients import test_datasets, test_transformers
from clients.environments import HUBS, Client, has_package
from clients.server import JupyterServer
from door import Door
from fake_hub import FakeHub

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

OUTAGES = {
    "refused": "refused the connection",
    "black hole": "timed out",
    "silent": "did not answer",
    "portal": "web page",
    "unknown issuer": "not trusted",
}
"""How the Hub is gone, and what is said of it."""

HUB_SCRIPT = """
import huggingface_hub as hf
get = hf.snapshot_download
tiny = "hf-internal-testing/tiny-random-bert"
fs = hf.HfFileSystem()
with fs.open("org/large/shard.bin", "rb", block_size=1 << 20) as file:
    pieces = [hashlib.sha256(file.read(1 << 20)).hexdigest() for _ in range(3)]
tell({
    "snapshot": sums(get(tiny)),
    "at a tag": sums(get(tiny, revision="v1.0")),
    "at a pull request": sums(get(tiny, revision="refs/pr/1")),
    "one segment": sums(get("bert-base-uncased")),
    "xet": sums(get("org/xet")),
    "strange names": sums(get("org/strange-names")),
    "dataset": sums(get("org/tables", repo_type="dataset")),
    "space": sums(get("org/page", repo_type="space")),
    "by an old name": sha256(hf.hf_hub_download("org/old-name", "model.bin")),
    "one file": sha256(hf.hf_hub_download("org/large", "model.bin")),
    "private": sums(get("org/private", token="hf_alice")),
    "missing": error(hf.hf_hub_download, tiny, "no.txt")[:1],
    "exists": [hf.file_exists(tiny, "config.json"), hf.file_exists(tiny, "no.txt")],
    "pieces": pieces,
    "files": sorted(hf.list_repo_files(tiny)),
})
"""


@dataclass(frozen=True)
class Replay:
    """What clients were told while the Hub was there, and the server as it is without it.

    Args:
        door: between the server and where the Hub was.
        told: by environment.
        endpoint: of before the restart.
        reason: what the server says of the Hub.
    """

    server: JupyterServer
    door: Door
    told: dict[str, Any]
    endpoint: str
    reason: str = ""


def scripts() -> dict[str, str]:
    """One script per environment."""
    model = test_transformers.LOAD_MODEL if has_package("ml", "torch") else ""
    return {
        **dict.fromkeys(HUBS, HUB_SCRIPT),
        "ml": f"{test_transformers.LOAD}\n{model}\nloaded = result\n"
        f"{test_datasets.LOAD}\ntell([loaded, result])",
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """A server behind which everything was loaded once, and whose Hub has stopped since."""
    root = tmp_path_factory.mktemp("replay")
    with FakeHub.with_defaults() as hub, Door(hub.url, root) as door:
        # Nothing is fresh by the clock: all of it has to be known in spite of its age.
        ages = {"revision_ttl": 0, "metadata_ttl": 0, "negative_ttl": 0, "access_ttl": 0}
        trusted = root / "authority.pem"
        trusted.write_text(door.authority)
        server = JupyterServer(
            root / "server", door.url, options=ages, environ={"SSL_CERT_FILE": str(trusted)}
        )
        with server:
            endpoint = server.endpoint
            told = {
                name: Client(name, root / f"first-{name}", endpoint).run(script)
                for name, script in scripts().items()
            }
            server.wait_idle()
            hub.pause()
            yield Replay(server, door, told, endpoint)


@pytest.fixture(scope="module", params=OUTAGES)
def replay(request: pytest.FixtureRequest, recorded: Replay) -> Replay:
    """The same with the Hub gone in one manner, and the server started anew."""
    recorded.door.shut(request.param)
    recorded.server.restart()
    return replace(recorded, reason=OUTAGES[request.param])


@pytest.mark.parametrize("name", [*HUBS, "ml"])
def test_everything_loads_again(replay: Replay, name: str, tmp_path: Path) -> None:
    tries, began = replay.door.tries, time.monotonic()
    client = Client(name, tmp_path, replay.server.endpoint)
    assert client.run(scripts()[name]) == replay.told[name]
    # One question finds out, with four tries at most; each two seconds or later another one looks
    # whether the Hub is back. Nothing else reaches out.
    assert replay.door.tries - tries <= 4 + (time.monotonic() - began) / 2
    (upstream,) = replay.server.status()["upstreams"]
    assert (upstream["state"], replay.reason in upstream["reason"]) == ("unreachable", True)


def test_an_endpoint_of_before_the_restart_still_works(replay: Replay, tmp_path: Path) -> None:
    client = Client("hub2", tmp_path, replay.endpoint)
    script = "from huggingface_hub import snapshot_download\n"
    snapshot = client.run(f'{script}tell(sums(snapshot_download("org/xet")))')
    assert snapshot == replay.told["hub2"]["xet"]


@pytest.mark.parametrize("name", HUBS)
def test_what_was_never_loaded_says_why(replay: Replay, name: str, tmp_path: Path) -> None:
    script = """
import huggingface_hub as hf
def words(call, *args, **named):
    try:
        call(*args, **named)
    except Exception as problem:
        return [kind.__name__ for kind in type(problem).__mro__]
tell([words(hf.hf_hub_download, "org/gated", "model.bin", token="hf_reader"),
      words(hf.snapshot_download, "org/many-files")])
"""
    client = Client(name, tmp_path, replay.server.endpoint)
    for kinds in client.run(script):
        # What every client raises for a file that is neither here nor to be had.
        assert "LocalEntryNotFoundError" in kinds


def test_a_stranger_gets_no_private_file_from_the_kept_ones(replay: Replay, tmp_path: Path) -> None:
    script = """
import huggingface_hub as hf
tell([bool(error(hf.hf_hub_download, "org/private", "model.bin", token=token))
      for token in (None, "hf_bob")])
"""
    client = Client("hub2", tmp_path, replay.server.endpoint)
    assert client.run(script) == [True, True]


@pytest.mark.parametrize("name", ["hub2", "hub1"])
def test_clients_say_that_the_hub_was_not_asked(replay: Replay, name: str, tmp_path: Path) -> None:
    script = """
import logging
import huggingface_hub as hf
said = []
class Hear(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("huggingface_hub").addHandler(Hear())
hf.hf_hub_download("hf-internal-testing/tiny-random-bert", "config.json")
hf.model_info("hf-internal-testing/tiny-random-bert")
tell(said)
"""
    client = Client(name, tmp_path, replay.server.endpoint)
    (said,) = [one for one in client.run(script) if "could not be asked" in one]
    assert replay.reason in said
