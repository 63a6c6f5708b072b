"""`jupyter hf-cache key`, beside a running server and without one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from serve_process import DEADLINE, Serving, curl, wait_until

CONFIG = "/tiny/model/resolve/main/config.json"
PRIVATE = "/org/vault/resolve/main/config.json"
NEVER = "--HfCache.allow_anonymous=never"

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="signals and workers are POSIX"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "tiny/model").commit({"config.json": b"{}"})
        hub.repo("models", "org/vault", private=True).commit({"config.json": b"{}"})
        reader = hub.accounts.identify("Bearer hf_reader")
        assert reader is not None
        reader.reads.add("org/vault")
        yield hub


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment with directories of its own."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "JUPYTER_"))},
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
    }


def key(place: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_hf_cache.cli", "key", *words],
        env=place,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def endpoint_of(created: subprocess.CompletedProcess[str]) -> str:
    assert created.returncode == 0, created.stderr
    (assignment,) = shlex.split(created.stdout.removeprefix("export "))
    return assignment.removeprefix("HF_ENDPOINT=")


def status_of(url: str, *options: str) -> int:
    return curl("-o", os.devnull, *options, url)[0]


@pytest.mark.parametrize("workers", [1, 3])
def test_keys_act_at_once_in_every_worker(
    tmp_path: Path, hub: FakeHub, place: dict[str, str], workers: int
) -> None:
    options = (NEVER, f"--workers={workers}")
    with Serving(tmp_path, hub, *options) as serving:
        assert status_of(serving.endpoint + CONFIG) == 401
        endpoint = endpoint_of(key(place, "create", "ci"))
        assert endpoint.startswith(f"{serving.url}pulp/content/~2.")
        # Each curl is a connection of its own, which any worker may take.
        assert {status_of(endpoint + CONFIG) for _ in range(6 * workers)} == {200}
        assert key(place, "revoke", "ci").returncode == 0
        assert {status_of(endpoint + CONFIG) for _ in range(6 * workers)} == {401}
        assert serving.stop() == 0
        secret = endpoint.partition("~")[2].partition("/")[0]
        assert secret not in serving.log.read_text()
        kept = b"".join(p.read_bytes() for p in (tmp_path / "data").rglob("*") if p.is_file())
        assert secret.encode() not in kept
        assert secret.split(".")[3].encode() not in kept


def test_keys_are_made_and_revoked_without_a_server(
    tmp_path: Path, hub: FakeHub, place: dict[str, str]
) -> None:
    url = "http://cache.example.org:8484"
    endpoint = endpoint_of(key(place, "create", "alice", "--expires", "1.5", "--url", url))
    gone = endpoint_of(key(place, "create", "bob"))
    assert endpoint.startswith(f"{url}/pulp/content/~2.")
    assert endpoint.endswith("/hf")
    assert gone.startswith("http://127.0.0.1:8484/pulp/content/~2.")
    assert key(place, "revoke", "bob").stdout == "The key bob is revoked.\n"
    with Serving(tmp_path, hub, NEVER) as serving:
        here = endpoint.replace(f"{url}/", serving.url)
        assert status_of(here + CONFIG) == 200
        assert status_of(gone.replace("http://127.0.0.1:8484/", serving.url) + CONFIG) == 401
        assert serving.stop() == 0
    (listed,) = json.loads(key(place, "ls", "--json").stdout)
    assert listed["name"] == "alice"
    assert listed["last_used"] is not None
    text = key(place, "ls").stdout
    assert re.search(r"^alice +just now +20\d\d-\d\d-\d\d +just now$", text, re.MULTILINE)
    assert endpoint.partition("~")[2][:40] not in text


def test_a_key_does_not_open_what_its_giver_may_read(
    tmp_path: Path, hub: FakeHub, place: dict[str, str]
) -> None:
    password = {"JUPYTER_HF_CACHE_ADMIN_PASSWORD": "pw"}
    with Serving(tmp_path, hub, NEVER, **password) as serving:
        token = (
            "-X",
            "PUT",
            "-d",
            '{"token": "hf_reader"}',
            "-H",
            "Content-Type: application/json",
        )
        api = f"{serving.url}hf-cache/v1/tokens/default"
        assert curl("-u", "admin:pw", *token, api)[0] == 200
        endpoint = endpoint_of(key(place, "create", "guest"))
        assert status_of(serving.endpoint + PRIVATE, "-u", "admin:pw") == 200
        assert status_of(endpoint + PRIVATE) == 401
        assert status_of(endpoint + CONFIG) == 200
        own = ("-H", "Authorization: Bearer hf_reader")
        assert status_of(endpoint + PRIVATE, *own) == 200
        assert status_of(f"{serving.url}hf-cache/v1/status", *own) == 401


def test_an_expired_key_opens_nothing(tmp_path: Path, hub: FakeHub, place: dict[str, str]) -> None:
    with Serving(tmp_path, hub, NEVER):
        endpoint = endpoint_of(key(place, "create", "short", "--expires", f"{3 / 86400:.6f}"))
        over = time.time() + 3
        wait_until(lambda: time.time() > over)
        assert status_of(endpoint + CONFIG) == 401
        assert "(over)" in key(place, "ls").stdout


def test_mistakes_are_told_in_a_line(place: dict[str, str]) -> None:
    assert key(place, "create", "a").returncode == 0
    for words, code, told in (
        (("create", "a"), 1, "There is a key named a"),
        (("create", "a b"), 1, "name of a key"),
        (("revoke", "nobody"), 1, "no key named nobody"),
        (("create", "c", "--expires", "-1"), 2, "--expires"),
        (("create", "c", "--expires", "soon"), 2, "--expires"),
        (("create", "c", "--url", "cache"), 2, "--url"),
        ((), 2, "ACTION"),
    ):
        done = key(place, *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_the_directories_of_the_server_are_used(place: dict[str, str], tmp_path: Path) -> None:
    elsewhere = f"--HfCache.data_dir={tmp_path / 'elsewhere'}"
    assert key(place, "create", "there", elsewhere).returncode == 0
    assert key(place, "ls").stderr == "There are no keys.\n"
    assert "there" in key(place, "ls", elsewhere).stdout
    assert (tmp_path / "elsewhere" / "state" / "access").is_dir()
