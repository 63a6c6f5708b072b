"""huggingface_hub 2, 1 and 0, with and without Xet, through a Jupyter server's cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients.environments import HUBS, WITH_XET, Client, has_package
from clients.server import JupyterServer
from fake_hub import BigFile, FakeHub, Record
from fake_hub.defaults import STRANGE_NAMES

pytestmark = pytest.mark.clients

MIB = 1 << 20


def content_requests(hub: FakeHub) -> list[Record]:
    """What asked the Hub, or its storage, for the bytes of a file."""
    asked = hub.counters.select("GET")
    return [r for r in asked if r.host == "cdn" or "/resolve" in r.path or "/raw/" in r.path]


def xet_requests(hub: FakeHub) -> list[Record]:
    """What was asked of Xet's own routes."""
    return [r for r in hub.counters.requests if "/cas" in r.path or "-token" in r.path]


def new_repo(hub: FakeHub, client: Client, **rules: Any) -> tuple[str, BigFile]:
    """A repo that no test has asked for, with bytes that no other has."""
    seed = 1000 + len(hub.catalogue.all("models"))
    weights = BigFile(3 * MIB + seed, seed=seed)
    repo = hub.repo("models", f"new/{client.name}-{seed}", **rules)
    repo.commit({"config.json": f'{{"seed": {seed}}}', "model.bin": weights})
    return repo.id, weights


@pytest.mark.parametrize("xet", [False, True], ids=["lfs-repo", "xet-repo"])
def test_a_second_download_takes_nothing_from_the_hub(
    hub: FakeHub, any_client: Client, xet: bool
) -> None:
    id, weights = new_repo(hub, any_client, xet=xet)
    script = f"""
import huggingface_hub as hf
path = hf.hf_hub_download("{id}", "model.bin")
folder = hf.snapshot_download("{id}")
tell([sha256(path), os.path.basename(os.path.realpath(path)), sums(folder)])
"""
    hub.counters.reset()
    first = any_client.run(script)
    assert first[:2] == [weights.sha256()] * 2
    assert sorted(first[2]) == ["config.json", "model.bin"]
    assert hub.counters.bytes("cdn") == weights.size, hub.counters.summary()
    assert xet_requests(hub) == []
    hub.counters.reset()
    assert any_client.fresh().run(script) == first
    assert content_requests(hub) == []
    assert hub.counters.bytes("cdn") == 0


def test_snapshots_of_every_type_arrive_whole(hub: FakeHub, client: Client) -> None:
    many, strange, data, space, chosen, local = client.run("""
import huggingface_hub as hf
get = hf.snapshot_download
tell([
    len(files(get("org/many-files"))),
    files(get("org/strange-names")),
    sums(get("org/tables", repo_type="dataset")),
    files(get("org/page", repo_type="space")),
    files(get("org/large", allow_patterns=["copy/*"])),
    sums(get("org/new-name", local_dir="local"))["model.bin"],
])
""")
    assert many == 300
    assert strange == sorted(STRANGE_NAMES)
    assert {"csv/train.csv", "jsonl/train.jsonl", "parquet/train.parquet"} < set(data)
    assert space == ["README.md", "image.svg", "index.html", "script.js"]
    assert chosen == ["copy/model.bin"]
    moved = hub.catalogue.get("models", "org/new-name").head.files["model.bin"]
    assert local == moved.content.sha256()


def test_every_form_of_id_and_revision_is_reached(hub: FakeHub, client: Client) -> None:
    tiny = hub.catalogue.get("models", "hf-internal-testing/tiny-random-bert")
    result = client.run(f"""
import huggingface_hub as hf
tiny = "{tiny.id}"
def read(*a, **n):
    with open(hf.hf_hub_download(*a, **n), encoding="utf-8") as file:
        return file.read()
tell([
    read("org/old-name", "config.json"),
    read("OldSingleName", "config.json"),
    bool(read("bert-base-uncased", "config.json")),
    read(tiny, "notes.txt", revision="feature/slash"),
    read(tiny, "notes.txt", revision="refs/pr/1"),
    bool(read(tiny, "config.json", revision="v1.0")),
    bool(read(tiny, "config.json", revision="{tiny.head.sha}")),
    bool(read(tiny, "config.json", revision="{tiny.head.sha[:7]}")),
    read("org/tables", "csv/train.csv", repo_type="dataset").count("row"),
    "title" in read("org/page", "index.html", repo_type="space"),
    read("org/strange-names", "naïve/日本語.txt"),
])
""")
    proposed, branch = "from a pull request\n", "on a branch\n"
    strange = "I am naïve/日本語.txt\n"
    assert result == ["{}", "{}", True, branch, proposed, True, True, True, 50, True, strange]


def test_the_filesystem_reads_pieces(client: Client) -> None:
    weights = BigFile(8 * MIB + 12345, seed=1)
    result = client.run("""
import huggingface_hub as hf
fs = hf.HfFileSystem()
with fs.open("org/large/model.bin", "rb", block_size=1 << 20) as file:
    file.seek(5_000_000)
    middle = file.read(1000)
    file.seek(-100, 2)
    last = file.read()
tell([
    hashlib.sha256(middle).hexdigest(), hashlib.sha256(last).hexdigest(),
    fs.info("org/large/model.bin")["size"],
    len(fs.ls("org/many-files/part-1", detail=False)), len(fs.glob("org/many-files/**/*.json")),
    fs.cat_file("hf-internal-testing/tiny-random-bert@refs/pr/1/notes.txt").decode(),
    fs.read_text("datasets/org/tables/csv/train.csv").count("row"),
    fs.exists("org/large/no.bin"),
])
""")
    pieces = [weights.read(5_000_000, 1000), weights.read(weights.size - 100, 100)]
    sums = [hashlib.sha256(piece).hexdigest() for piece in pieces]
    proposed = "from a pull request\n"
    assert result == [*sums, weights.size, 100, 300, proposed, 50, False]


@pytest.mark.parametrize("size", [100, 1000])
def test_metadata_calls_are_understood(hub: FakeHub, client: Client, size: int) -> None:
    hub.page_size, hub.expand_page_size = size, size // 6
    try:
        result = client.run("""
import huggingface_hub as hf
api = hf.HfApi()
tiny = "hf-internal-testing/tiny-random-bert"
refs = api.list_repo_refs(tiny, include_pull_requests=True)
tell({
    "tree": len(list(api.list_repo_tree("org/many-files", recursive=True))),
    "expanded": len(list(api.list_repo_tree("org/many-files", recursive=True, expand=True))),
    "below": len(list(api.list_repo_tree("org/many-files", "part-2"))),
    "paths": [row.path for row in api.get_paths_info("org/large", ["model.bin", "copy", "no"])],
    "refs": [r.ref for r in refs.branches + refs.tags + refs.pull_requests],
    "commits": [c.title for c in api.list_repo_commits(tiny, formatted=True)],
    "sizes": sum(s.size for s in api.model_info("org/large", files_metadata=True).siblings),
    "models": [m.id for m in api.list_models(author="microsoft")],
    "types": [api.dataset_info("org/tables").id, api.space_info("org/page").sdk],
    "exists": [api.file_exists("org/large", "model.bin"), api.file_exists("org/large", "no"),
               api.repo_exists("org/no"), api.revision_exists("org/large", "no")],
    "weights": len(api.get_safetensors_metadata(tiny).weight_map),
    "xet": [getattr(row, "xet_hash", None) for row in api.list_repo_tree("org/xet")],
})
""")
    finally:
        hub.page_size, hub.expand_page_size = 1000, 100
    assert result.pop("xet") == [None] * 3
    assert result == {
        "tree": 303,
        "expanded": 303,
        "below": 100,
        "paths": ["model.bin", "copy"],
        "refs": ["refs/heads/feature/slash", "refs/heads/main", "refs/tags/v1.0", "refs/pr/1"],
        "commits": ["Add model", "initial commit"],
        "sizes": 2 * ((8 << 20) + 12345) + (3 << 20) + 53,
        "models": ["microsoft/DialoGPT-medium"],
        "types": ["org/tables", "static"],
        "exists": [True, False, False, False],
        "weights": 39,
    }


def test_refusals_raise_the_client_s_own_exceptions(client: Client) -> None:
    cases = {
        '"bert-base-uncased", "no.txt"': "EntryNotFoundError",
        '"bert-base-uncased", "config.json", revision="no"': "RevisionNotFoundError",
        '"org/no", "config.json"': "RepositoryNotFoundError",
        '"org/no", "config.json", token="hf_bob"': "RepositoryNotFoundError",
        '"org/private", "config.json"': "RepositoryNotFoundError",
        '"org/private", "config.json", token="hf_bob"': "RepositoryNotFoundError",
        '"org/gated", "config.json"': "GatedRepoError",
        '"org/gated", "config.json", token="hf_bob"': "GatedRepoError",
        '"bert-base-uncased", "config.json", token="hf_no"': "HfHubHTTPError",
    }
    calls = ", ".join(f"error(hf.hf_hub_download, {call})" for call in cases)
    listing = 'error(lambda: list(hf.HfApi().list_repo_tree("org/disabled")))'
    *kinds, disabled = client.run(
        f"import huggingface_hub as hf\ntell([{calls}, {listing}])",
    )
    for (call, expected), found in zip(cases.items(), kinds, strict=True):
        assert expected in found, call
    assert kinds[-1][0] == "HfHubHTTPError", "a bad token is not taken for a missing repo"
    assert disabled[0] == "DisabledRepoError"


def test_a_token_opens_what_it_opens_and_nobody_else_gets_it(client: Client) -> None:
    result = client.run("""
import huggingface_hub as hf
# Each in a place of its own: a client falls back on what it has.
def private(token):
    return error(hf.snapshot_download, "org/private", token=token, local_dir=str(token))
def gated(token):
    name = f"cache-{token}"
    return error(hf.hf_hub_download, "org/gated", "model.bin", token=token, cache_dir=name)
tell({
    "refused before": bool(private(None)),
    "alice": private("hf_alice"), "reader": private("hf_reader"),
    "bob": private("hf_bob")[:1], "nobody": private(None)[:1],
    "alice has": files("hf_alice")[-3:],
    "granted": gated("hf_reader"),
    "not granted": bool(gated("hf_bob")),
    "anonymous": bool(gated(None)),
    "data": os.path.getsize(hf.hf_hub_download(
        "org/private-data", "train.csv", repo_type="dataset", token="hf_alice")) > 0,
    "who": hf.whoami(token="hf_alice")["name"],
    "nobody is": bool(error(hf.whoami)),
})
""")
    assert result.pop("bob") == result.pop("nobody") == ["RepositoryNotFoundError"]
    assert result == {
        "refused before": True,
        "alice": [],
        "reader": [],
        "alice has": ["README.md", "config.json", "model.bin"],
        "granted": [],
        "not granted": True,
        "anonymous": True,
        "data": True,
        "who": "alice",
        "nobody is": True,
    }


def test_uploads_reach_the_hub_and_are_seen_at_once(
    hub: FakeHub, client: Client, proves: Callable[..., None]
) -> None:
    if client.name != "hub0":  # which asks the Hub first whether the repo is in Xet
        client.settings["HF_HUB_DISABLE_XET"] = "1"
    name = f"alice/up-{client.name}"
    result = client.run(f"""
import huggingface_hub as hf
api = hf.HfApi(token="hf_alice")
name = "{name}"
created = api.create_repo(name)
again = api.create_repo(name, exist_ok=True)
missing = error(hf.hf_hub_download, name, "a.txt", token="hf_alice")[:1]
def push(body, path, **named):
    return api.upload_file(path_or_fileobj=body, path_in_repo=path, repo_id=name, **named)
push(b"hello", "a.txt")
pushed = push(b"weights" * 1000, "m.bin").oid
path = hf.hf_hub_download(name, "a.txt", token="hf_alice")
with open(path, "rb") as file:
    told = file.read().decode()
proposed = push(b"proposal", "b.txt", create_pr=True).pr_revision
api.create_tag(name, tag="v1")
listed = api.list_repo_files(name)
size = os.path.getsize(hf.hf_hub_download(name, "m.bin", revision="v1", token="hf_alice"))
api.delete_file("a.txt", name)
gone = error(hf.hf_hub_download, name, "a.txt", token="hf_alice", force_download=True)
ids = [created.repo_id, again.repo_id]
tell([ids, missing, pushed, told, proposed, listed, size, "EntryNotFoundError" in gone])
""")
    repo = hub.catalogue.get("models", name)
    assert result.pop(0) == [name, name]
    assert result[0] in (["EntryNotFoundError"], ["RemoteEntryNotFoundError"])
    listed = [".gitattributes", "a.txt", "m.bin"]
    assert result[1:] == [repo.resolve("v1").sha, "hello", "refs/pr/1", listed, 7000, True]
    assert set(repo.head.files) == {".gitattributes", "m.bin"}
    proves(client.name, "upload")


def test_the_command_line_downloads_and_knows_its_user(hub: FakeHub, any_client: Client) -> None:
    id, weights = new_repo(hub, any_client)
    hub.counters.reset()
    commands = ["hf"] if any_client.name != "hub0" else ["hf", "huggingface-cli"]
    for command in commands:
        any_client.shell(f"{command} download {id} --local-dir {command}")
        kept = any_client.home / command / "model.bin"
        assert kept.read_bytes() == weights.read(0, weights.size)
    any_client.shell(f"{commands[0]} download {id} config.json")
    assert hub.counters.bytes("cdn") == weights.size
    any_client.settings["HF_TOKEN"] = "hf_alice"
    assert "alice" in any_client.shell("hf auth whoami").stdout
    any_client.settings["HF_TOKEN"] = "hf_no"
    refused = any_client.shell("hf auth whoami", check=False)
    assert refused.returncode != 0
    assert "alice" not in refused.stdout


def test_parallel_ranges_of_hf_transfer_cost_one_transfer(
    hub: FakeHub, server: JupyterServer, tmp_path: Path, proves: Callable[..., None]
) -> None:
    if not has_package("hub0", "hf_transfer"):
        pytest.skip("group clients: hub0 has no hf_transfer")
    weights = BigFile(30 * MIB + 17, seed=77)
    hub.repo("models", "new/fast").commit({"fast.bin": weights})
    client = Client(
        "hub0", tmp_path, server.endpoint,
        {"HF_HUB_ENABLE_HF_TRANSFER": "1", "HF_HUB_DISABLE_XET": "1"},
    )  # fmt: skip
    hub.counters.reset()
    assert client.run("""
import huggingface_hub as hf
from huggingface_hub import constants
tell([constants.HF_HUB_ENABLE_HF_TRANSFER, sha256(hf.hf_hub_download("new/fast", "fast.bin"))])
""") == [True, weights.sha256()]  # fmt: skip
    assert weights.size <= hub.counters.bytes("cdn") <= weights.size + 2 * MIB
    proves("hf_transfer", "ranges")


def test_no_token_and_no_capability_is_in_the_log(
    hub: FakeHub, server: JupyterServer, client: Client
) -> None:
    client.run("""
import huggingface_hub as hf
hf.whoami(token="hf_alice")
tell(error(hf.hf_hub_download, "org/private", "x", token="hf_bob"))
""")
    log = server.text()
    assert "pulp/content/" in log
    ticket = server.endpoint.partition("/~")[2].partition("/")[0]
    assert ticket and ticket not in log
    for secret in ("hf_alice", "hf_bob", "hf_reader", server.password):
        assert secret not in log


@pytest.mark.parametrize("client", WITH_XET, indirect=True)
def test_an_upload_by_xet_reaches_the_storage_with_the_hub_s_token(
    hub: FakeHub, client: Client
) -> None:
    # Not compressible: the suite's storage knows no compression.
    body = BigFile(300_000, seed=HUBS.index(client.name) + 900)
    name = f"alice/by-xet-{client.name}"
    hub.repo("models", name, xet=True).commit({"README.md": b"# By Xet\n"})
    client.home.mkdir(parents=True)
    (client.home / "m.bin").write_bytes(body.read(0, body.size))
    hub.counters.reset()
    told = client.run(f"""
import huggingface_hub as hf
api = hf.HfApi(token="hf_alice")
api.upload_file(path_or_fileobj="m.bin", path_in_repo="m.bin", repo_id="{name}")
refused = error(hf.HfApi(token="hf_bob").upload_file,
    path_or_fileobj=b"x" * 99999, path_in_repo="n.bin", repo_id="{name}")
tell([sha256(hf.hf_hub_download("{name}", "m.bin")), bool(refused)])
""")
    assert told == [body.sha256(), True]
    stored = [r for r in hub.counters.requests if "/cas/" in r.path and r.method == "POST"]
    assert stored, hub.counters.summary()
    assert {r.authorization for r in stored} == {"Bearer xet_fake_write_token"}
    minted = hub.counters.select(path_contains="xet-write-token")
    assert {r.authorization for r in minted} <= {"Bearer hf_alice", "Bearer hf_bob"}
    assert hub.counters.count("PUT", host="cdn") == 0
