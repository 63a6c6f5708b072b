"""The key file and what is made with the key."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage import secrets
from jupyter_hf_cache.storage.secrets import KEY_FILE, SealedByAnotherKey, SecretBox, load_key

TOKEN = "hf_0123456789abcdefghij"
POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")


def test_a_missing_key_is_created_and_found_again(tmp_path: Path) -> None:
    first = load_key(tmp_path / "config", {})
    assert len(first) == 32
    assert load_key(tmp_path / "config", {}) == first
    assert [path.name for path in (tmp_path / "config").iterdir()] == [KEY_FILE]


@POSIX
def test_only_the_owner_may_read_the_key(tmp_path: Path) -> None:
    load_key(tmp_path / "config", {})
    assert stat.S_IMODE((tmp_path / "config" / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o700


@POSIX
def test_a_key_that_others_can_read_is_tightened(tmp_path: Path) -> None:
    key = load_key(tmp_path, {})
    (tmp_path / KEY_FILE).chmod(0o644)
    assert load_key(tmp_path, {}) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe\x00" * 20, b"not base64! " * 8])
def test_a_damaged_key_says_what_to_do(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_WRITING_SECONDS", 0.1)
    (tmp_path / KEY_FILE).write_bytes(content)
    with pytest.raises(StorageError, match="damaged") as raised:
        load_key(tmp_path, {})
    assert "delete it" in raised.value.advice
    assert (tmp_path / KEY_FILE).read_bytes() == content


def test_processes_that_start_together_get_one_key(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from jupyter_hf_cache.storage.secrets import load_key\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(load_key(pathlib.Path(sys.argv[1]), {}).hex())\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "config")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = {process.communicate("go\n", timeout=60)[0].strip() for process in processes}
    assert answers == {load_key(tmp_path / "config", {}).hex()}


def test_a_file_system_without_hard_links_still_gets_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    key = load_key(tmp_path, {})
    assert load_key(tmp_path, {}) == key


@pytest.mark.parametrize(
    "text",
    [base64.b64encode(b"\xfb" * 32).decode(), base64.urlsafe_b64encode(b"\xfb" * 32).decode()],
)
def test_a_key_in_the_environment_wins_and_leaves_no_file(tmp_path: Path, text: str) -> None:
    assert load_key(tmp_path / "config", {"JUPYTER_HF_CACHE_KEY": text}) == b"\xfb" * 32
    assert not (tmp_path / "config").exists()


def test_a_weak_key_in_the_environment_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not hold a key") as raised:
        load_key(tmp_path, {"JUPYTER_HF_CACHE_KEY": "hunter2"})
    assert "hunter2" not in raised.value.text


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("a file in the way")
    with pytest.raises(StorageError, match="cannot be used"):
        load_key(tmp_path / "config", {})


def test_what_is_sealed_opens_only_with_the_same_key() -> None:
    box = SecretBox(b"k" * 32)
    sealed = box.seal(TOKEN)
    assert TOKEN not in sealed
    assert SecretBox(b"k" * 32).open(sealed) == TOKEN
    for other in (sealed[:-4] + "AAAA", "", "é"):
        with pytest.raises(SealedByAnotherKey):
            box.open(other)
    with pytest.raises(SealedByAnotherKey):
        SecretBox(b"x" * 32).open(sealed)


def test_derived_keys_differ_by_purpose_and_key() -> None:
    box = SecretBox(b"k" * 32)
    assert box.derive("capability") == SecretBox(b"k" * 32).derive("capability")
    assert (
        len({box.derive("capability"), box.derive("seal"), SecretBox(b"x" * 32).derive("seal")})
        == 3
    )


def test_an_identity_names_a_token_without_holding_it() -> None:
    box = SecretBox(b"k" * 32)
    assert box.identity(None) == box.identity("") == "anonymous"
    name = box.identity(TOKEN)
    assert name == box.identity(TOKEN)
    assert name != box.identity(TOKEN + "x")
    assert name != SecretBox(b"x" * 32).identity(TOKEN)
    assert TOKEN not in name
    assert int(name, 16)


def test_a_box_does_not_show_its_key() -> None:
    assert "kkkk" not in repr(SecretBox(b"k" * 32))
