"""Every client by which a file of the Hub is had, behind one call.

Responsible for: loading repos as a user of that client would write it, and telling what was got, or
how the client itself says no.
Not responsible for: what the answers should be (`test_every_client`), or other things that a client
can do (`test_range_readers`, `test_uploads`).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clients import node
from clients.environments import HUBS, Client, environment

WEIGHTS, ONNX, TABLE = "model.bin", "onnx/model.onnx", "data/train.parquet"
Wanted = Sequence[tuple[str, str | None]]
"""Repos, each with the token to use."""


@dataclass(frozen=True)
class Loader:
    """A client that loads a repo.

    Args:
        row: in the table of clients.
        type: of the repos, "models" or "datasets".
        says: a pattern found in the words by which it refuses a gated repo.
        stored: the files that it loads from the Hub's storage for large files.
    """

    row: str
    type: str
    says: str
    stored: tuple[str, ...]

    def load(self, home: Path, endpoint: str, wanted: Wanted) -> list[Any]:
        """Load one repo after the other, as a user whose home is empty.

        Returns:
            For each repo what was got, or {"refused": words}.
        """
        raise NotImplementedError

    def require(self) -> None:
        """Skip the test where the client is missing."""
        raise NotImplementedError


@dataclass(frozen=True)
class PythonLoader(Loader):
    """A Python package.

    Args:
        environment: that has it.
        code: defines `load(repo, token)`.
        settings: environment variables.
    """

    environment: str
    code: str
    settings: tuple[tuple[str, str], ...] = ()

    def load(self, home: Path, endpoint: str, wanted: Wanted) -> list[Any]:
        client = Client(self.environment, home, endpoint, dict(self.settings))
        told: list[Any] = client.run(
            f"""
{self.code}
told = []
for repo, token in {list(wanted)!r}:
    try:
        told.append(load(repo, token))
    except Exception as problem:
        kinds = [kind.__name__ for kind in type(problem).__mro__]
        told.append({{"refused": f"{{kinds}} {{problem}}"}})
tell(told)
sys.stdout.flush()
os._exit(0)  # threads of Arrow may end a process that ends by itself
"""
        )
        return told

    def require(self) -> None:
        environment(self.environment)


@dataclass(frozen=True)
class NodeLoader(Loader):
    """A JavaScript package.

    Args:
        imports: the line that begins the module.
        code: defines `load(repo, accessToken)`.
    """

    imports: str
    code: str

    def load(self, home: Path, endpoint: str, wanted: Wanted) -> list[Any]:
        script = f"""{self.imports}
{self.code}
const told = [];
for (const [repo, token] of {json.dumps(list(wanted))}) {{
  try {{ told.push(await load(repo, token ?? undefined)); }}
  catch (error) {{ told.push({{refused: `${{error.constructor.name}} ${{error.message}}`}}); }}
}}
tell(told);
"""
        told: list[Any] = node.run(script, home, endpoint)
        return told

    def require(self) -> None:
        node.modules()


@dataclass(frozen=True)
class CommandLoader(Loader):
    """A command.

    Args:
        environment: that has it, or any other for a command of the system.
        command: with {url} of the weights, {repo}, and {bearer} for an option with the token.
        bearer: that option, with {token}.
    """

    environment: str
    command: str
    bearer: str = "--header='Authorization: Bearer {token}'"

    def load(self, home: Path, endpoint: str, wanted: Wanted) -> list[Any]:
        return [self._load(home, endpoint, repo, token) for repo, token in wanted]

    def _load(self, home: Path, endpoint: str, repo: str, token: str | None) -> Any:
        place = home / repo.replace("/", "-")
        client = Client(self.environment, place, endpoint)
        url = shlex.quote(f"{endpoint}/{repo}/resolve/main/{WEIGHTS}")
        bearer = self.bearer.format(token=token) if token else ""
        command = self.command.format(url=url, repo=repo, bearer=bearer)
        done = client.shell(command, check=False)
        if done.returncode:
            return {"refused": f"exit code {done.returncode} {done.stdout} {done.stderr}"}
        return client.shell(f"sha256sum {WEIGHTS}").stdout.split()[0]

    def require(self) -> None:
        name = self.command.partition(" ")[0]
        path = f"{environment(self.environment)}{os.pathsep}{os.environ.get('PATH', '')}"
        if not shutil.which(name, path=path):
            pytest.skip(f"group clients: not installed: {name}")


_HUB = """
import huggingface_hub as hf
def load(repo, token):
    return sums(hf.snapshot_download(repo, token=token))["model.bin"]
"""
_HF_TRANSFER = """
import huggingface_hub as hf
from huggingface_hub import constants
assert constants.HF_HUB_ENABLE_HF_TRANSFER
def load(repo, token):
    return sha256(hf.hf_hub_download(repo, "model.bin", token=token))
"""
_TRANSFORMERS = """
from transformers import AutoConfig, AutoTokenizer
def load(repo, token):
    config = AutoConfig.from_pretrained(repo, token=token)
    tokenizer = AutoTokenizer.from_pretrained(repo, token=token)
    return [config.model_type, len(tokenizer("hello world")["input_ids"])]
"""
_DATASETS = """
from datasets import load_dataset
def load(repo, token):
    rows = load_dataset(repo, split="train", token=token)
    return [len(rows), rows[7]["text"]]
"""
_PANDAS = """
import pandas as pd
def load(repo, token):
    options = {"token": token} if token else None
    rows = pd.read_parquet(f"hf://datasets/{repo}/data/train.parquet", storage_options=options)
    return [len(rows), rows["text"][7]]
"""
_PYARROW = """
import huggingface_hub as hf
import pyarrow.parquet as pq
def load(repo, token):
    files = hf.HfFileSystem(token=token)
    rows = pq.read_table(f"datasets/{repo}/data/train.parquet", filesystem=files)
    return [len(rows), rows["text"][7].as_py()]
"""
_POLARS = """
import huggingface_hub as hf
import polars as pl
def load(repo, token):
    if token:  # there is no way to send one to a plain URL
        with hf.HfFileSystem(token=token).open(f"datasets/{repo}/data/train.parquet") as file:
            file.read(1)  # a refusal inside of Polars ends in a panic
            file.seek(0)
            rows = pl.read_parquet(file)
    else:
        url = f"{os.environ['HF_ENDPOINT']}/datasets/{repo}/resolve/main/data/train.parquet"
        rows = pl.read_parquet(url)
    return [len(rows), rows["text"][7]]
"""
_DUCKDB = """
import duckdb, duckdb_extension_httpfs, glob
httpfs = os.path.join(os.path.dirname(duckdb_extension_httpfs.__file__), "extensions/*/httpfs*")
def load(repo, token):
    url = f"{os.environ['HF_ENDPOINT']}/datasets/{repo}/resolve/main/data/train.parquet"
    with duckdb.connect() as db:
        db.load_extension(glob.glob(httpfs)[0])
        if token:
            db.sql(f"CREATE SECRET (TYPE http, BEARER_TOKEN '{token}')")
        rows = db.sql(f"SELECT text FROM '{url}'").fetchall()
    return [len(rows), rows[7][0]]
"""
_RUST = """
import glob
from outlines_core import Vocabulary
def load(repo, token):
    '''hf-hub takes tokenizer.json from the endpoint. What outlines-core looks up next it asks of
    huggingface.co itself, so that this call as a whole always fails.'''
    said = ""
    try:
        Vocabulary.from_pretrained(repo, token=token)
    except ValueError as problem:
        said = str(problem)
    kept = f"{os.environ['HF_HOME']}/hub/models--{repo.replace('/', '--')}/snapshots/*"
    found = glob.glob(f"{kept}/tokenizer.json")
    if not found:
        raise RuntimeError(said)
    return sha256(found[0])
"""
_JS = """
async function load(repo, accessToken) {
  const blob = await hub.downloadFile({repo, path: "model.bin", hubUrl, accessToken});
  return sha256(await bytes(blob));
}
"""
_TRANSFORMERS_JS = """
const {env, AutoTokenizer, AutoModel} = transformers;
env.remoteHost = `${hubUrl}/`;
env.cacheDir = `${process.env.HOME}/cache`;  // else beside the installed package
async function load(repo, token) {
  // Its own use of HF_TOKEN is for huggingface.co only.
  const headers = token ? {Authorization: `Bearer ${token}`} : {};
  env.fetch = (url, options) => {
    const all = new Headers(options?.headers);
    for (const [name, value] of Object.entries(headers)) all.set(name, value);
    return fetch(url, {...options, headers: all});
  };
  const tokenizer = await AutoTokenizer.from_pretrained(repo);
  const words = await tokenizer("hello world");
  const model = await AutoModel.from_pretrained(repo);
  return (await model(words)).last_hidden_state.dims;
}
"""

_TRANSFER = (("HF_HUB_ENABLE_HF_TRANSFER", "1"), ("HF_HUB_DISABLE_XET", "1"))
LOADERS: list[Loader] = [
    *(PythonLoader(hub, "models", "GatedRepoError", (WEIGHTS, ONNX), hub, _HUB) for hub in HUBS),
    CommandLoader(
        "hf",
        "models",
        "approval|restricted|gated",
        (WEIGHTS,),
        "hub2",
        "hf download {repo} model.bin --local-dir . {bearer}",
        "--token {token}",
    ),
    PythonLoader(
        "hf_transfer", "models", "GatedRepoError", (WEIGHTS,), "hub0", _HF_TRANSFER, _TRANSFER
    ),
    PythonLoader("transformers", "models", "gated repo", (), "ml", _TRANSFORMERS),
    PythonLoader("datasets", "datasets", "DatasetNotFoundError", (TABLE,), "ml", _DATASETS),
    PythonLoader("pandas", "datasets", "GatedRepoError", (TABLE,), "data", _PANDAS),
    PythonLoader("pyarrow", "datasets", "GatedRepoError", (TABLE,), "data", _PYARROW),
    PythonLoader("polars", "datasets", "PermissionError|GatedRepoError", (TABLE,), "data", _POLARS),
    PythonLoader("duckdb", "datasets", "HTTPException", (TABLE,), "data", _DUCKDB),
    NodeLoader("js", "models", "HubApiError", (WEIGHTS,), node.HUB, _JS),
    NodeLoader(
        "transformers.js",
        "models",
        "Unauthorized|Forbidden",
        (ONNX,),
        node.TRANSFORMERS,
        _TRANSFORMERS_JS,
    ),
    PythonLoader("rust", "models", "RuntimeError", (), "rust", _RUST),
    CommandLoader(
        "curl",
        "models",
        "40[13]",
        (WEIGHTS,),
        "hub2",
        "curl -sSf -O {bearer} {url}",
        "-H 'Authorization: Bearer {token}'",
    ),
    CommandLoader(
        "wget", "models", "Authentication Failed|403", (WEIGHTS,), "hub2", "wget -nv {bearer} {url}"
    ),
    CommandLoader(
        "aria2c",
        "models",
        "exit code 2[24]",
        (WEIGHTS,),
        "hub2",
        "aria2c -x8 -s8 -k1M {bearer} {url}",
    ),
]
"""In the order of the table."""
