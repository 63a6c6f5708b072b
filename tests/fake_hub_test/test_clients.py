"""The real Hugging Face clients against the fake Hub, without a cache between them.

What a client does here is what it does with the real Hub; the other suites rely on that.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import BigFile, FakeHub
from fake_hub.defaults import STRANGE_NAMES

pytestmark = pytest.mark.clients
Run = Callable[[str], Any]

PRELUDE = """
import json, os, sys
import huggingface_hub as hf

def files(folder):
    return sorted(
        os.path.relpath(os.path.join(root, name), folder).replace(os.sep, "/")
        for root, _, names in os.walk(folder) for name in names
    )

def error(call, *args, **named):
    try:
        call(*args, **named)
    except Exception as problem:
        return [kind.__name__ for kind in type(problem).__mro__]
    return []

def tell(result):
    print("RESULT" + json.dumps(result))
"""


@pytest.fixture(params=["hub2", "hub1", "hub0"])
def run(request: pytest.FixtureRequest, hub: FakeHub, tmp_path: Path) -> Run:
    """Runs a script in the environment of one huggingface_hub release and returns what it tells."""
    folder = os.environ.get("HF_CACHE_TEST_CLIENTS")
    if not folder:
        pytest.skip("HF_CACHE_TEST_CLIENTS is not set: no environments with real clients")
    python = Path(folder) / request.param / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        pytest.skip(f"{python} does not exist")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("HF_", "PYTHON"))}
    env = {
        **kept,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }

    def run(script: str) -> Any:
        done = subprocess.run(
            [str(python), "-c", PRELUDE + script],
            env=env, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stderr}\n{hub.counters.summary()}"
        line = next(row for row in done.stdout.splitlines() if row.startswith("RESULT"))
        return json.loads(line.removeprefix("RESULT"))

    return run


def test_files_arrive_whole_and_are_named_by_the_hub_s_digest(hub: FakeHub, run: Run) -> None:
    result = run("""
small = hf.hf_hub_download("bert-base-uncased", "tokenizer.json")
large = hf.hf_hub_download("org/large", "model.bin")
tell([os.path.getsize(small), os.path.getsize(large), os.path.basename(os.path.realpath(large))])
""")
    files = hub.catalogue.get("models", "bert-base-uncased").head.files
    content = BigFile((8 << 20) + 12345, seed=1)
    assert result == [files["tokenizer.json"].size, content.size, content.sha256()]


def test_snapshots_follow_every_page_and_find_every_name(hub: FakeHub, run: Run) -> None:
    hub.page_size = 100
    many, strange, data, xet = run("""
tell([
    len(files(hf.snapshot_download("org/many-files"))),
    files(hf.snapshot_download("org/strange-names")),
    files(hf.snapshot_download("org/tables", repo_type="dataset")),
    files(hf.snapshot_download("org/xet")),
])
""")
    assert many == 300
    assert strange == sorted(STRANGE_NAMES)
    assert "parquet/train.parquet" in data
    assert "model.safetensors" in xet
    assert hub.counters.count(path_contains="xet-read-token") == 0
    assert not [r for r in hub.counters.select(host="cdn") if r.authorization]


def test_renamed_repos_and_all_kinds_of_revision_are_reached(run: Run) -> None:
    result = run("""
tiny = "hf-internal-testing/tiny-random-bert"
read = lambda *a, **n: open(hf.hf_hub_download(*a, **n)).read()
tell([
    read("org/old-name", "config.json"),
    read("OldSingleName", "config.json"),
    read(tiny, "notes.txt", revision="feature/slash"),
    read(tiny, "notes.txt", revision="refs/pr/1"),
    hf.HfFileSystem().cat_file(f"{tiny}@refs/pr/1/notes.txt").decode(),
    bool(read(tiny, "config.json", revision="v1.0")),
])
""")
    proposed = "from a pull request\n"
    assert result == ["{}", "{}", "on a branch\n", proposed, proposed, True]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('"bert-base-uncased", "no.txt"', "EntryNotFoundError"),
        ('"bert-base-uncased", "config.json", revision="no"', "RevisionNotFoundError"),
        ('"org/no", "config.json", token="hf_bob"', "RepositoryNotFoundError"),
        # Over http, and without the code the Hub does not send, the error has no better name.
        ('"org/no", "config.json"', "HfHubHTTPError"),
        ('"org/gated", "config.json"', "GatedRepoError"),
        ('"org/gated", "config.json", token="hf_bob"', "GatedRepoError"),
        ('"bert-base-uncased", "config.json", token="hf_no"', "HfHubHTTPError"),
    ],
)
def test_refusals_raise_the_client_s_own_exceptions(run: Run, call: str, expected: str) -> None:
    kinds = run(f"tell(error(hf.hf_hub_download, {call}))")
    assert expected in kinds
    if expected == "HfHubHTTPError":
        assert kinds[0] == expected


def test_disabled_repos_are_told_apart(run: Run) -> None:
    kinds = run('tell(error(lambda: list(hf.HfApi().list_repo_tree("org/disabled"))))')
    assert kinds[0] == "DisabledRepoError"


def test_metadata_calls_are_understood(hub: FakeHub, run: Run) -> None:
    hub.expand_page_size = 17
    result = run("""
api = hf.HfApi()
tiny = "hf-internal-testing/tiny-random-bert"
refs = api.list_repo_refs(tiny, include_pull_requests=True)
tell({
    "tree": len(list(api.list_repo_tree("org/many-files", recursive=True, expand=True))),
    "paths": [row.path for row in api.get_paths_info("org/large", ["model.bin", "copy", "no"])],
    "refs": [r.ref for r in refs.branches + refs.tags + refs.pull_requests],
    "commits": [c.title for c in api.list_repo_commits(tiny, formatted=True)],
    "sizes": sum(s.size for s in api.model_info("org/large", files_metadata=True).siblings),
    "models": [m.id for m in api.list_models(author="microsoft")],
    "types": [api.dataset_info("org/tables").id, api.space_info("org/page").sdk],
    "exists": [api.file_exists("org/large", "model.bin"), api.file_exists("org/large", "no")],
    "weights": len(api.get_safetensors_metadata(tiny).weight_map),
    "who": api.whoami(token="hf_alice")["name"],
})
""")
    assert result == {
        "tree": 303,
        "paths": ["model.bin", "copy"],
        "refs": ["refs/heads/feature/slash", "refs/heads/main", "refs/tags/v1.0", "refs/pr/1"],
        "commits": ["Add model", "initial commit"],
        "sizes": 2 * ((8 << 20) + 12345) + (3 << 20) + 53,
        "models": ["microsoft/DialoGPT-medium"],
        "types": ["org/tables", "static"],
        "exists": [True, False],
        "weights": 39,
        "who": "alice",
    }


def test_pushes_make_commits(hub: FakeHub, run: Run) -> None:
    result = run("""
api = hf.HfApi(token="hf_alice")
api.create_repo("alice/new")
api.create_repo("alice/new", exist_ok=True)
def push(body, path, **named):
    return api.upload_file(
        path_or_fileobj=body, path_in_repo=path, repo_id="alice/new", **named
    )
push(b"hello", "a.txt")
pushed = push(b"weights" * 1000, "m.bin").oid
proposed = push(b"proposal", "b.txt", create_pr=True).pr_revision
api.create_tag("alice/new", tag="v1")
api.create_branch("alice/new", branch="dev/x")
listed = api.list_repo_files("alice/new")
size = os.path.getsize(hf.hf_hub_download("alice/new", "m.bin", revision="v1"))
api.delete_file("a.txt", "alice/new")
api.move_repo("alice/new", "alice/newer")
tell([pushed, proposed, listed, size])
""")
    repo = hub.catalogue.get("models", "alice/newer")
    assert result == [
        repo.resolve("v1").sha, "refs/pr/1", [".gitattributes", "a.txt", "m.bin"], 7000,
    ]  # fmt: skip
    assert set(repo.head.files) == {".gitattributes", "m.bin"}
    assert repo.resolve("dev/x").sha == result[0]
    assert repo.head.files["m.bin"].lfs


def test_a_body_cut_on_the_way_is_asked_for_again(hub: FakeHub, run: Run) -> None:
    content = BigFile(24 << 20, seed=5)
    hub.repo("models", "org/cut").commit({"model.bin": content})
    fault = hub.fault("cut", "model.bin", host="cdn", at=15 << 20)
    size = run("""
for attempt in range(2):  # the oldest client resumes at its next call only
    try:
        path = hf.hf_hub_download("org/cut", "model.bin")
    except Exception:
        if attempt:
            raise
tell(os.path.getsize(path))
""")
    assert size == content.size
    assert fault.hits == 1
    # All three write pieces of 10 MiB, so that is what they have of 15.
    assert hub.counters.select("GET", host="cdn")[1].range == f"bytes={10 << 20}-"
