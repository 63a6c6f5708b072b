"""Readers of parts: what they read is right, costs what it touches, and is kept for the next."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clients import node
from clients.environments import HUBS, Client, environment
from clients.server import StandAloneServer, wait_for
from fake_hub import BigFile, FakeHub

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 256 * KIB
GROUPS = 16
REPO, FILE = "tables/numbers", "data/numbers.parquet"

# Row groups of 4 MiB: four columns of 1 MiB, of which `a` tells the row groups apart.
MAKE = f"""
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
rows = {MIB} // 8
def make(name, groups, seed):
    random = np.random.default_rng(seed)
    table = {{c: random.integers(0, 1 << 40, groups * rows) for c in "bcd"}}
    table = pa.table({{"a": np.arange(groups * rows), **table}})
    pq.write_table(table, name, row_group_size=rows, compression="none", use_dictionary=False)
    return [int(part.sum()) for part in np.split(table["b"].to_numpy(), groups)]
tell([make("big.parquet", {GROUPS}, 1), make("small.parquet", 6, 2), make("plain.parquet", 4, 3)])
"""
MAKE_SHARDS = """
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
random = np.random.default_rng(3)
for shard in range(8):
    noise = [random.bytes(1024) for _ in range(2000)]
    table = pa.table({"id": np.arange(2000) + 2000 * shard, "noise": noise})
    pq.write_table(table, f"{shard}.parquet", row_group_size=500, compression="none")
tell(None)
"""

FILESYSTEM = """
import huggingface_hub as hf
import numpy as np, pyarrow.parquet as pq
def total(group):
    with hf.HfFileSystem().open(PATH, block_size=1 << 20) as file:
        return int(pq.ParquetFile(file).read_row_group(group, columns=["b"])["b"].to_numpy().sum())
"""
# In environments without PyArrow: a piece of each, told by its digest.
PIECES = """
import huggingface_hub as hf
def total(group):
    with hf.HfFileSystem().open(PATH, block_size=1 << 20) as file:
        file.seek(group * 4 * 1024 * 1024 + 12345)
        return hashlib.sha256(file.read(54321)).hexdigest()
"""
PANDAS = """
import pandas as pd
def total(group):
    rows = 1024 * 1024 // 8
    span = [("a", ">=", group * rows), ("a", "<", (group + 1) * rows)]
    return int(pd.read_parquet(f"hf://{PATH}", columns=["b"], filters=span)["b"].sum())
"""
POLARS = """
import polars as pl
def total(group):
    rows = 1024 * 1024 // 8
    span = pl.col("a").is_between(group * rows, (group + 1) * rows - 1)
    return pl.scan_parquet(URL).filter(span).select(pl.col("b").sum()).collect().item()
"""
DUCKDB = """
import duckdb, duckdb_extension_httpfs, glob
httpfs = os.path.join(os.path.dirname(duckdb_extension_httpfs.__file__), "extensions/*/httpfs*")
def total(group):
    rows = 1024 * 1024 // 8
    with duckdb.connect() as db:
        db.load_extension(glob.glob(httpfs)[0])
        span = f"a BETWEEN {group * rows} AND {(group + 1) * rows - 1}"
        return int(db.sql(f"SELECT sum(b) FROM '{URL}' WHERE {span}").fetchone()[0])
"""

PLAIN = """
import duckdb, fsspec, huggingface_hub as hf, pandas as pd, polars as pl, pyarrow.parquet as pq
rows = 1024 * 1024 // 8
group = slice(2 * rows, 3 * rows)
with fsspec.open(URL) as file:
    arrow = int(pq.ParquetFile(file).read_row_group(2, columns=["b"])["b"].to_numpy().sum())
with hf.HfFileSystem().open(PATH) as file:
    polars = pl.read_parquet(file, columns=["b"])["b"][group].sum()
with duckdb.connect() as db:
    db.register_filesystem(hf.HfFileSystem())
    span = f"a BETWEEN {group.start} AND {group.stop - 1}"
    duck = int(db.sql(f"SELECT sum(b) FROM '{PATH}' WHERE {span}").fetchone()[0])
pandas = int(pd.read_parquet(URL, columns=["b"])["b"][group].sum())
tell([arrow, polars, duck, pandas])
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Reader:
    """One way to read a row group.

    Args:
        most: bytes that this may cost beside the footer: its columns, what the client reads ahead,
            and the rest of the blocks at both ends of each.
    """

    row: str
    environment: str
    code: str
    most: int


COLUMN = MIB + 2 * BLOCK
READERS = [
    *(Reader(hub, hub, PIECES, 2 * MIB + BLOCK) for hub in HUBS),
    # Arrow on fsspec reads 5 MiB ahead, for each of two columns where rows are chosen.
    Reader("pandas", "data", PANDAS, 2 * (COLUMN + 5 * MIB)),
    Reader("pyarrow", "data", FILESYSTEM, COLUMN + 5 * MIB),
    Reader("polars", "data", POLARS, 2 * COLUMN),
    Reader("duckdb", "data", DUCKDB, 2 * COLUMN),
]


@dataclass
class Stage:
    """A Hub with tables, and a server before it."""

    hub: FakeHub
    server: StandAloneServer
    big: bytes
    sums: list[list[int]]

    def read(self, reader: Reader, home: Path, group: int, file: str = FILE, **more: str) -> Any:
        """Read a row group as somebody who has nothing yet."""
        url = f"{self.server.endpoint}/datasets/{REPO}/resolve/main/{file}"
        names = f"URL, PATH = {url!r}, {f'datasets/{REPO}/{file}'!r}\n"
        end = "sys.stdout.flush()\nos._exit(0)"
        client = Client(reader.environment, home, self.server.endpoint, more)
        return client.run(f"{names}{reader.code}\ntell(total({group}))\n{end}")

    def expected(self, reader: Reader, group: int) -> Any:
        """What that is."""
        if reader.code is not PIECES:
            return self.sums[0][group]
        start = group * 4 * MIB + 12345
        return hashlib.sha256(self.big[start : start + 54321]).hexdigest()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    environment("data")
    root = tmp_path_factory.mktemp("range-readers")
    maker = Client("data", root / "maker", "http://nowhere.invalid")
    sums = maker.run(MAKE)
    big, small, plain = (
        (maker.home / f"{name}.parquet").read_bytes() for name in ("big", "small", "plain")
    )
    with FakeHub.with_defaults() as hub:
        hub.repo("datasets", REPO).commit(
            {FILE: big, "small.parquet": small, "plain.parquet": plain}
        )
        with StandAloneServer(root / "server", hub.url) as server:
            yield Stage(hub, server, big, sums)


@pytest.mark.parametrize("number", range(len(READERS)), ids=[reader.row for reader in READERS])
def test_a_part_costs_what_it_touches_and_the_next_reader_nothing(
    stage: Stage, tmp_path: Path, number: int, proves: Callable[..., None]
) -> None:
    reader, group = READERS[number], 2 * number + 1
    stage.hub.counters.reset()
    assert stage.read(reader, tmp_path / "first", group) == stage.expected(reader, group)
    stage.server.wait_idle()
    footer = 2 * BLOCK
    assert 0 < stage.hub.counters.bytes("cdn") <= reader.most + footer
    stage.hub.counters.reset()
    other = {"HF_TOKEN": "hf_bob"}
    assert stage.read(reader, tmp_path / "second", group, **other) == stage.expected(reader, group)
    assert stage.hub.counters.bytes("cdn") == 0, stage.hub.counters.summary()
    proves(reader.row, "ranges")


def test_what_one_client_read_is_there_for_another(stage: Stage, tmp_path: Path) -> None:
    arrow, polars = READERS[4], READERS[5]
    group = GROUPS - 1
    stage.read(arrow, tmp_path / "arrow", group)
    stage.read(polars, tmp_path / "polars", group)
    stage.server.wait_idle()
    stage.hub.counters.reset()
    duck = stage.read(READERS[6], tmp_path / "duck", group)
    assert duck == stage.sums[0][group]
    assert stage.hub.counters.bytes("cdn") == 0, stage.hub.counters.summary()


def test_plain_urls_and_hf_paths_are_read_with_what_each_library_has_for_them(
    stage: Stage, tmp_path: Path
) -> None:
    url = f"{stage.server.endpoint}/datasets/{REPO}/resolve/main/plain.parquet"
    names = f"URL, PATH = {url!r}, {f'hf://datasets/{REPO}/plain.parquet'!r}\n"
    found = Client("data", tmp_path / "home", stage.server.endpoint).run(names + PLAIN)
    assert found == [stage.sums[2][2]] * 4


def test_a_part_is_read_while_the_whole_file_is_on_its_way(stage: Stage, tmp_path: Path) -> None:
    url = f"{stage.server.endpoint}/datasets/{REPO}/resolve/main/small.parquet"
    size = stage.hub.catalogue.get("datasets", REPO).head.files["small.parquet"].size
    target = tmp_path / "small.parquet"
    stage.hub.counters.reset()
    # Connection by connection, until what the part takes has one of its own.
    stage.hub.fault("stall", "small.parquet", host="cdn", at=2 * MIB)
    with subprocess.Popen(["curl", "-sSf", "--noproxy", "*", "-o", str(target), url]) as curl:
        wait_for(lambda: (target.exists() and target.stat().st_size >= MIB) or None, "start")
        assert stage.hub.faults.wait_until_stalled()
        found = stage.read(READERS[4], tmp_path / "home", 5, "small.parquet")
        assert found == stage.sums[1][5]
        stage.hub.faults.clear()
        assert curl.wait(60) == 0
    kept = stage.hub.catalogue.get("datasets", REPO).head.files["small.parquet"].content
    assert target.read_bytes() == kept.read(0, size)
    # A connection that goes on over less than 8 MiB that is there already brings that again.
    assert stage.hub.counters.bytes("cdn") <= size + 8 * MIB


def test_shuffled_streaming_reads_some_shards_and_costs_the_next_reader_nothing(
    stage: Stage, tmp_path: Path, proves: Callable[..., None]
) -> None:
    maker = Client("data", tmp_path / "maker", "http://nowhere.invalid")
    maker.run(MAKE_SHARDS)
    shards = {
        f"data/train-{n:05}-of-00008.parquet": (maker.home / f"{n}.parquet").read_bytes()
        for n in range(8)
    }
    stage.hub.repo("datasets", "tables/shards").commit(shards)

    def take(home: str, token: str) -> list[int]:
        ml = Client("ml", tmp_path / home, stage.server.endpoint, {"HF_TOKEN": token})
        ids: list[int] = ml.run("""
from datasets import load_dataset
rows = load_dataset("tables/shards", split="train", streaming=True)
rows = rows.shuffle(seed=7, buffer_size=50, max_buffer_input_shards=2)
tell([row["id"] for row in rows.take(100)])
sys.stdout.flush()
os._exit(0)
""")
        return ids

    stage.hub.counters.reset()
    first = take("first", "hf_alice")
    stage.server.wait_idle()
    assert len({*first}) == 100
    assert first != sorted(first)
    whole = sum(map(len, shards.values()))
    assert 0 < stage.hub.counters.bytes("cdn") < whole / 2
    stage.hub.counters.reset()
    assert take("second", "hf_bob") == first
    assert stage.hub.counters.bytes("cdn") == 0, stage.hub.counters.summary()
    proves("datasets", "ranges")


def test_a_slice_of_a_blob_in_javascript(
    stage: Stage, tmp_path: Path, proves: Callable[..., None]
) -> None:
    stage.hub.counters.reset()
    weights = BigFile(9 * MIB, seed=91)
    stage.hub.repo("models", "pieces/js").commit({"model.bin": weights})
    script = f"""{node.HUB}
const blob = await hub.downloadFile({{repo: "pieces/js", path: "model.bin", hubUrl}});
tell([blob.size, [...await bytes(blob.slice(5000000, 5000016))]]);
"""
    size, piece = node.run(script, tmp_path, stage.server.endpoint)
    assert (size, bytes(piece)) == (weights.size, weights.read(5_000_000, 16))
    stage.server.wait_idle()
    # The first byte, by which the client learns size and digest, and the piece.
    assert stage.hub.counters.bytes("cdn") == 2 * BLOCK
    proves("js", "ranges")


def test_many_connections_of_aria2c_cost_one_transfer_and_a_cut_one_goes_on(
    stage: Stage, tmp_path: Path, proves: Callable[..., None]
) -> None:
    if not shutil.which("aria2c"):
        pytest.skip("group clients: not installed: aria2c")
    whole, cut = BigFile(16 * MIB + 7, seed=92), BigFile(6 * MIB + 7, seed=93)
    stage.hub.repo("models", "pieces/aria2c").commit({"model.bin": whole, "cut.bin": cut})
    (tmp_path / "cut.bin").write_bytes(cut.read(0, 4 * MIB))
    stage.hub.counters.reset()
    for name, options in (("model.bin", ["-x8", "-s8", "-k1M"]), ("cut.bin", ["-c"])):
        url = f"{stage.server.endpoint}/pieces/aria2c/resolve/main/{name}"
        subprocess.run(["aria2c", "-q", *options, url], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "model.bin").read_bytes() == whole.read(0, whole.size)
    assert (tmp_path / "cut.bin").read_bytes() == cut.read(0, cut.size)
    assert whole.size <= stage.hub.counters.bytes("cdn", "model.bin") <= whole.size + 8 * MIB
    assert stage.hub.counters.bytes("cdn", "cut.bin") <= cut.size
    proves("aria2c", "ranges")
