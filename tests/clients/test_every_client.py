"""Every client that loads files: cold, warm, offline, from gated and from renamed repos.

One server for all of them; each has repos of its own, with bytes that nobody else has loaded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clients.loaders import LOADERS, ONNX, TABLE, WEIGHTS, Loader, Wanted
from clients.server import StandAloneServer
from fake_hub import BigFile, FakeHub, tiny_model, tiny_onnx

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

MIB = 1 << 20
ROWS = (Path(__file__).parents[1] / "fake_hub" / "rows.parquet").read_bytes()
BY_ROW = {loader.row: loader for loader in LOADERS}
GRANTED = "hf_granted"
# It says `Cache-Control: no-cache` at the first file of a repo.
INSISTING = ("transformers.js",)
# It asks for several parts at once: what is under way to one of them may come for another too.
SPLITTING = ("aria2c",)
# Nothing runs out while a slow machine gets from one client to the next.
AGES = dict.fromkeys(("revision_ttl", "metadata_ttl", "negative_ttl", "access_ttl"), 3600)


def padded(table: bytes, padding: bytes) -> bytes:
    """A Parquet file with the same rows and other bytes, between its columns and its footer."""
    footer = len(table) - 8 - int.from_bytes(table[-8:-4], "little")
    return table[:footer] + padding + table[footer:]


def files(seed: int) -> dict[str, bytes | BigFile]:
    """What a repo holds: for each client something, and no two repos the same."""
    model: dict[str, bytes | BigFile] = {
        name: data for name, data in tiny_model.files().items() if name != "model.safetensors"
    }
    return {
        **model,
        "tokenizer.json": model["tokenizer.json"] + b" " * seed,
        "config.json": model["config.json"] + b" " * seed,
        WEIGHTS: BigFile(3 * MIB + seed, seed=seed),
        ONNX: tiny_onnx.model(len(tiny_model.VOCABULARY) + seed),
        TABLE: padded(ROWS, BigFile(3 * MIB, seed=seed).read(0, 3 * MIB)),
    }


@dataclass
class Stage:
    """A Hub, a server before it, and what each client was told while the Hub was there.

    Each loader has three repos: an ordinary one, one that was renamed, and one that is gated.
    """

    hub: FakeHub
    server: StandAloneServer
    root: Path
    told: dict[str, list[Any]] = field(default_factory=dict)
    homes: int = 0

    def names(self, loader: Loader) -> tuple[str, str, str]:
        """The ordinary repo, the renamed one by its old name, and the gated one."""
        return f"matrix/{loader.row}", f"matrix/{loader.row}-old", f"matrix/{loader.row}-gated"

    def fill(self) -> None:
        """Put the repos into the Hub."""
        user = self.hub.user("granted", GRANTED)
        for number, loader in enumerate(LOADERS):
            for offset, name in enumerate(self.names(loader), 1):
                repo = self.hub.repo(loader.type, name, gated="auto" if offset == 3 else False)
                held = files(3 * number + offset)
                only = (TABLE,) if loader.type == "datasets" else [n for n in held if n != TABLE]
                repo.commit({path: held[path] for path in only})
            self.hub.catalogue.rename(
                loader.type, f"matrix/{loader.row}-old", f"moved/{loader.row}"
            )
            user.accepted.add(f"matrix/{loader.row}-gated")

    def load(self, loader: Loader, *, gated: bool = True) -> list[Any]:
        """Load the repos as somebody who has nothing yet, and was granted the gated one."""
        plain, old, _ = self.names(loader)
        wanted = [(plain, None), (old, None), *self.gated_for(loader, GRANTED)]
        return self._load(loader, wanted if gated else wanted[:2])

    def load_refused(self, loader: Loader) -> list[Any]:
        """Load the gated repo without a token, and with that of somebody who was not granted it."""
        return self._load(loader, self.gated_for(loader, None, "hf_bob"))

    def gated_for(self, loader: Loader, *tokens: str | None) -> list[tuple[str, str | None]]:
        """The gated repo with each of the tokens."""
        return [(self.names(loader)[2], token) for token in tokens]

    def _load(self, loader: Loader, wanted: Wanted) -> list[Any]:
        self.homes += 1
        return loader.load(self.root / f"home-{self.homes}", self.server.endpoint, wanted)

    def learn(self, loader: Loader) -> list[Any]:
        """What the first load of all told; done once."""
        if loader.row not in self.told:
            self.told[loader.row] = self.load(loader)
            self.server.wait_idle()
        return self.told[loader.row]

    def held(self, loader: Loader) -> list[dict[str, bytes | BigFile]]:
        """The files of its three repos."""
        return [files(3 * LOADERS.index(loader) + which) for which in (1, 2, 3)]

    def expected(self, loader: Loader) -> list[Any]:
        """What the content of its repos is to this client."""
        if loader.row == "transformers":
            return [["bert", 4]] * 3
        if loader.row == "transformers.js":
            return [[1, 4, tiny_onnx.WIDTH]] * 3
        if loader.type == "datasets":
            return [[50, "row 7"]] * 3
        if loader.row == "rust":
            return [
                hashlib.sha256(held["tokenizer.json"]).hexdigest() for held in self.held(loader)
            ]
        return [held[WEIGHTS].sha256() for held in self.held(loader)]

    def stored(self, loader: Loader) -> int:
        """Bytes that its repos cost the Hub's storage, if nothing is fetched twice."""
        found = [held[name] for held in self.held(loader) for name in loader.stored]
        return sum(one.size if isinstance(one, BigFile) else len(one) for one in found)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("every-client")
    with FakeHub.with_defaults() as hub:
        server = StandAloneServer(root / "server", hub.url, options=AGES)
        stage = Stage(hub, server, root)
        stage.fill()
        with server:
            yield stage


@pytest.fixture(params=BY_ROW)
def loader(request: pytest.FixtureRequest) -> Loader:
    loader = BY_ROW[request.param]
    loader.require()
    return loader


@pytest.fixture(scope="module")
def gone(request: pytest.FixtureRequest, stage: Stage) -> Stage:
    """The Hub is gone, and the server was started anew, after all clients had loaded."""
    here = [item for item in request.session.items if item.path == request.path]
    for row in dict.fromkeys(item.callspec.params["loader"] for item in here):
        try:
            BY_ROW[row].require()
        except pytest.skip.Exception:
            continue
        stage.learn(BY_ROW[row])
    stage.hub.pause()
    stage.server.restart()
    return stage


def test_cold_then_warm(stage: Stage, loader: Loader, proves: Callable[..., None]) -> None:
    stage.hub.counters.reset()
    for answer in stage.load_refused(loader):
        assert re.search(loader.says, answer["refused"]), answer
    assert stage.hub.counters.bytes("cdn") == 0
    told = stage.learn(loader)
    assert told == stage.expected(loader)
    stored = stage.hub.counters.bytes("cdn")
    if loader.type == "datasets":  # some read no more than they need
        assert 0 < stored <= stage.stored(loader), stage.hub.counters.summary()
    elif loader.row in SPLITTING:
        assert stage.stored(loader) <= stored < 2 * stage.stored(loader)
    else:
        assert stored == stage.stored(loader), stage.hub.counters.summary()
    small = [record.uri for record in stage.hub.counters.select("GET", "/resolve", status=200)]
    assert len({*small}) == len(small), stage.hub.counters.summary()

    stage.hub.counters.reset()
    assert stage.load(loader) == told
    looks = [record for record in stage.hub.counters.requests if loader.row in INSISTING]
    assert stage.hub.counters.requests == looks, stage.hub.counters.summary()
    # One look for each repo, and one that finds out where the renamed one went.
    assert len(looks) <= 4
    assert {record.method for record in looks} <= {"HEAD"}
    proves(loader.row, "cold", "warm", "gated", "renamed")
    if loader.row == "rust":  # each of its requests is for a range
        proves(loader.row, "ranges")


def test_offline_after_a_restart(gone: Stage, loader: Loader, proves: Callable[..., None]) -> None:
    asked = len(gone.hub.counters.requests)
    assert gone.load(loader, gated=False) == gone.told[loader.row][:2]
    assert len(gone.hub.counters.requests) == asked
    proves(loader.row, "offline")
