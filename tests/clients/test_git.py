"""git and git-lfs, through a Jupyter server's cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.environments import Client
from clients.server import JupyterServer
from fake_hub import BigFile, FakeHub

pytestmark = pytest.mark.clients

WEIGHTS = BigFile(2_000_000, seed=41)


@pytest.fixture
def git(server: JupyterServer, tmp_path: Path) -> Client:
    """A shell with git in it, whose user has a name and no token."""
    if shutil.which("git") is None or shutil.which("git-lfs") is None:
        pytest.skip("group clients: git and git-lfs are not installed")
    settings = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    client = Client("hub2", tmp_path / "home", server.endpoint, settings)
    client.shell("""
git config --global user.name Alice
git config --global user.email alice@example.test
git config --global init.defaultBranch main
git lfs install --skip-repo
""")
    return client


def log_in(git: Client, token: str) -> None:
    """Keep a token as git's own store does."""
    host = git.endpoint.partition("//")[2].partition("/")[0]
    (git.home / ".git-credentials").write_text(f"http://alice:{token}@{host}\n")
    git.shell("git config --global credential.helper store")


def test_a_public_repo_is_cloned_with_its_large_files(hub: FakeHub, git: Client) -> None:
    repo = hub.repo("models", "new/by-git")
    attributes = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"
    sha = repo.commit({".gitattributes": attributes, "a.txt": b"hello\n", "m.bin": WEIGHTS})
    git.shell('git clone --quiet "$HF_ENDPOINT/new/by-git" clone')
    assert (git.home / "clone" / "a.txt").read_text() == "hello\n"
    assert (git.home / "clone" / "m.bin").read_bytes() == WEIGHTS.read(0, WEIGHTS.size)
    assert git.shell("git -C clone rev-parse HEAD").stdout.strip() == sha
    repo.commit({"b.txt": b"more\n"})
    git.shell("git -C clone pull --quiet")
    assert (git.home / "clone" / "b.txt").exists()
    git.shell('git clone --quiet --depth 1 "$HF_ENDPOINT/new/by-git.git" shallow')
    assert git.shell("git -C shallow log --format=%s").stdout.count("\n") == 1


def test_a_private_repo_wants_a_token(hub: FakeHub, git: Client) -> None:
    refused = git.shell('git clone "$HF_ENDPOINT/org/private" clone', check=False)
    assert refused.returncode != 0
    log_in(git, "hf_bob")
    assert git.shell('git clone "$HF_ENDPOINT/org/private" bob', check=False).returncode != 0
    log_in(git, "hf_reader")
    git.shell('git clone --quiet "$HF_ENDPOINT/org/private" reader')
    assert (git.home / "reader" / "config.json").exists()
    assert git.shell("cd reader && git commit -q --allow-empty -m x").returncode == 0
    pushed = git.shell("git -C reader push", check=False)
    assert pushed.returncode != 0
    told = hub.counters.select(path_contains="/org/private")
    assert {r.authorization for r in told} <= {None, "Bearer hf_bob", "Bearer hf_reader"}


def test_a_gated_repo_wants_to_be_granted(git: Client, proves: Callable[..., None]) -> None:
    clone = 'git clone --quiet "$HF_ENDPOINT/{}" {}'
    log_in(git, "hf_bob")
    assert git.shell(clone.format("org/gated", "bob"), check=False).returncode != 0
    log_in(git, "hf_reader")
    git.shell(clone.format("org/gated", "reader"))
    assert (git.home / "reader" / "config.json").exists()
    proves("git", "gated")


def test_a_push_is_seen_by_the_next_download(
    hub: FakeHub, git: Client, proves: Callable[..., None]
) -> None:
    git.settings["HF_TOKEN"] = "hf_alice"
    log_in(git, "hf_alice")
    git.shell("hf repos create alice/pushed --type dataset")
    read = """
import huggingface_hub as hf
path = hf.snapshot_download("alice/pushed", repo_type="dataset", local_dir="seen")
tell(sums(path))
"""
    assert "m.bin" not in git.run(read)
    (git.home / "m.bin").write_bytes(WEIGHTS.read(0, WEIGHTS.size))
    git.shell("""
git clone --quiet "$HF_ENDPOINT/datasets/alice/pushed" work
cd work
mv ../m.bin .
echo hello > a.txt
git add m.bin a.txt
git commit --quiet -m "Push"
git push --quiet
""")
    seen = git.run(read)
    assert seen["m.bin"] == WEIGHTS.sha256()
    repo = hub.catalogue.get("datasets", "alice/pushed")
    assert repo.head.files["m.bin"].lfs
    assert git.shell("git -C work rev-parse HEAD").stdout.strip() == repo.head.sha
    proves("git", "upload")
