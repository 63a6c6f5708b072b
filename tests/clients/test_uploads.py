"""Libraries above huggingface_hub put on the Hub what they write, through the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from clients.environments import Client
from clients.server import JupyterServer
from fake_hub import FakeHub

pytestmark = pytest.mark.clients


@dataclass(frozen=True)
class Writer:
    """A library that uploads.

    Args:
        type: of the repo.
        file: that has to be there then.
        code: uploads to the repo `name`, and reads it again.
    """

    row: str
    environment: str
    type: str
    file: str
    code: str


DATASETS = """
from datasets import Dataset, load_dataset
Dataset.from_dict({"n": [1, 2, 3]}).push_to_hub(name, token="hf_alice")
tell(load_dataset(name, split="train", token="hf_alice")["n"][:])
"""
TRANSFORMERS = """
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained("hf-internal-testing/tiny-random-bert")
tokenizer.push_to_hub(name, token="hf_alice")
again = AutoTokenizer.from_pretrained(name, token="hf_alice")
tell([len(tokenizer), len(again)] == [len(again)] * 2 and [1, 2, 3])
"""
PANDAS = """
import huggingface_hub as hf, pandas as pd
hf.HfApi(token="hf_alice").create_repo(name, repo_type="dataset")
path, mine = f"hf://datasets/{name}/numbers.parquet", {"token": "hf_alice"}
pd.DataFrame({"n": [1, 2, 3]}).to_parquet(path, storage_options=mine)
tell(pd.read_parquet(path, storage_options=mine)["n"].tolist())
"""
PYARROW = """
import huggingface_hub as hf, pyarrow as pa, pyarrow.parquet as pq
hf.HfApi(token="hf_alice").create_repo(name, repo_type="dataset")
files, path = hf.HfFileSystem(token="hf_alice"), f"datasets/{name}/numbers.parquet"
pq.write_table(pa.table({"n": [1, 2, 3]}), path, filesystem=files)
tell(pq.read_table(path, filesystem=files)["n"].to_pylist())
"""
WRITERS = [
    Writer("datasets", "ml", "datasets", "data/train-00000-of-00001.parquet", DATASETS),
    Writer("transformers", "ml", "models", "tokenizer.json", TRANSFORMERS),
    Writer("pandas", "data", "datasets", "numbers.parquet", PANDAS),
    Writer("pyarrow", "data", "datasets", "numbers.parquet", PYARROW),
]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.row)
def test_a_library_writes_and_reads_again(
    hub: FakeHub,
    server: JupyterServer,
    tmp_path: Path,
    proves: Callable[..., None],
    writer: Writer,
) -> None:
    client = Client(writer.environment, tmp_path / "home", server.endpoint)
    # The suite's Hub takes no upload by Xet.
    client.settings["HF_HUB_DISABLE_XET"] = "1"
    name = f"alice/by-{writer.row}"
    end = "sys.stdout.flush()\nos._exit(0)"
    assert client.run(f'name = "{name}"\n{writer.code}\n{end}') == [1, 2, 3]
    assert writer.file in hub.catalogue.get(writer.type, name).head.files
    proves(writer.row, "upload")


def test_the_command_line_uploads(
    hub: FakeHub, server: JupyterServer, tmp_path: Path, proves: Callable[..., None]
) -> None:
    settings = {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_alice"}
    client = Client("hub2", tmp_path / "home", server.endpoint, settings)
    client.shell("echo hello > a.txt; head -c 5000 /dev/zero > m.bin")
    client.shell("hf upload alice/by-hf . .")
    files = hub.catalogue.get("models", "alice/by-hf").head.files
    assert files["a.txt"].content.read(0, 10) == b"hello\n"
    assert files["m.bin"].content.size == 5000
    client.fresh().shell("hf download alice/by-hf --local-dir again; cmp again/a.txt <(echo hello)")
    proves("hf", "upload")
