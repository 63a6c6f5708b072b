"""@huggingface/hub in Node.js through a Jupyter server: below a path, with a capability."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from clients import node
from clients.server import JupyterServer
from fake_hub import BigFile, FakeHub

pytestmark = pytest.mark.clients

MIB = 1 << 20


def test_it_finds_lists_and_downloads(hub: FakeHub, server: JupyterServer, tmp_path: Path) -> None:
    hub.page_size = 100
    script = f"""{node.HUB}
import {{readFileSync}} from "node:fs";
const many = [];
for await (const file of hub.listFiles({{repo: "org/many-files", recursive: true, hubUrl}}))
  if (file.type === "file") many.push(file.path);
const models = [];
for await (const model of hub.listModels({{search: {{owner: "microsoft"}}, hubUrl}}))
  models.push(model.name);
const cacheDir = "cache";
const tables = {{type: "dataset", name: "org/tables"}};
const one = await hub.downloadFileToCacheDir({{repo: tables, path: "csv/train.csv", hubUrl, cacheDir}});
const folder = await hub.snapshotDownload({{repo: "org/large", hubUrl, cacheDir}});
const read = async (repo, path, revision) =>
  (await hub.downloadFile({{repo, path, revision, hubUrl}})).text();
const tiny = "hf-internal-testing/tiny-random-bert";
tell({{
  many: many.length,
  models,
  exists: [await hub.fileExists({{repo: "org/large", path: "model.bin", hubUrl}}),
           await hub.fileExists({{repo: "org/large", path: "no.bin", hubUrl}})],
  missing: await hub.downloadFile({{repo: "org/large", path: "no.bin", hubUrl}}),
  rows: readFileSync(one, "utf8").split("row").length - 1,
  snapshot: [sha256(readFileSync(`${{folder}}/model.bin`)), sha256(readFileSync(`${{folder}}/copy/model.bin`))],
  notes: [await read(tiny, "notes.txt", "refs/pr/1"), await read(tiny, "notes.txt", "feature/slash")],
  strange: await read("org/strange-names", "naïve/日本語.txt"),
  who: (await hub.whoAmI({{accessToken: "hf_alice", hubUrl}})).name,
  xet: sha256(await bytes(await hub.downloadFile({{repo: "org/xet", path: "model.safetensors", hubUrl}}))),
  info: (await hub.modelInfo({{name: "org/old-name", hubUrl}})).name,
}});
"""  # noqa: E501
    try:
        told = node.run(script, tmp_path, server.endpoint)
    finally:
        hub.page_size = 1000
    weights = BigFile(8 * MIB + 12345, seed=1).sha256()
    assert told == {
        "many": 300,
        "models": ["microsoft/DialoGPT-medium"],
        "exists": [True, False],
        "missing": None,
        "rows": 50,
        "snapshot": [weights, weights],
        "notes": ["from a pull request\n", "on a branch\n"],
        "strange": "I am naïve/日本語.txt\n",
        "who": "alice",
        "xet": BigFile(5 * MIB + 1, seed=4).sha256(),
        "info": "org/new-name",
    }
    assert [r for r in hub.counters.requests if "/cas" in r.path or "-token" in r.path] == []


def test_refusals_are_those_of_the_hub(hub: FakeHub, server: JupyterServer, tmp_path: Path) -> None:
    calls = [
        '{repo: "org/gated", path: "config.json"}',
        '{repo: "org/gated", path: "config.json", accessToken: "hf_bob"}',
        '{repo: "org/private", path: "config.json", accessToken: "hf_bob"}',
        '{repo: "org/private", path: "config.json"}',
        '{repo: "org/large", path: "model.bin", accessToken: "hf_no"}',
    ]
    told = ", ".join(
        f"await refusal(() => hub.downloadFile({{...{call}, hubUrl}}))" for call in calls
    )
    script = f"{node.HUB}\ntell([{told}]);"
    through = node.run(script, tmp_path / "through", server.endpoint)
    assert through == node.run(script, tmp_path / "direct", hub.url)
    assert [kind for kind, _ in through] == ["HubApiError"] * len(calls)


def test_what_it_uploads_is_on_the_hub_and_in_the_next_download(
    hub: FakeHub, server: JupyterServer, tmp_path: Path, proves: Callable[..., None]
) -> None:
    script = f"""{node.HUB}
const mine = {{repo: "alice/from-js", accessToken: "hf_alice", hubUrl, useXet: false}};
const read = async (path) => (await hub.downloadFile({{...mine, path}}))?.text() ?? null;
await hub.createRepo(mine);
const before = await read("a.txt");
await hub.uploadFile({{...mine, file: {{path: "a.txt", content: new Blob(["hello"])}}}});
await hub.uploadFile({{...mine, file: {{path: "m.bin", content: new Blob(["w".repeat(5000)])}}}});
const between = await read("a.txt");
const done = await hub.commit({{...mine, title: "Exchange", operations: [
  {{operation: "addOrUpdate", path: "b.txt", content: new Blob(["b"])}},
  {{operation: "delete", path: "a.txt"}},
]}});
tell([before, between, await read("a.txt"), await read("b.txt"),
      sha256(await bytes(await hub.downloadFile({{...mine, path: "m.bin"}}))), done.commit.oid]);
"""
    *read, weights, commit = node.run(script, tmp_path, server.endpoint)
    assert read == [None, "hello", None, "b"]
    assert weights == hashlib.sha256(b"w" * 5000).hexdigest()
    head = hub.catalogue.get("models", "alice/from-js").head
    assert (head.sha, set(head.files)) == (commit, {".gitattributes", "m.bin", "b.txt"})
    proves("js", "upload")
