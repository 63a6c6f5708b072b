"""The client against the real service and handlers, before the suite's own Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub
from serving import RunningCache

from jupyter_hf_cache import cli
from jupyter_hf_cache.client import CacheApiError, CacheClient, ServerNotFound
from jupyter_hf_cache.discovery import Disbelieved, find_server, prove, read_runtime_file
from jupyter_hf_cache.runtime_file import write
from jupyter_hf_cache.widget import CachePanel

BERT = "hf-internal-testing/tiny-random-bert"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as running:
        yield running


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path) -> Iterator[RunningCache]:
    with RunningCache(tmp_path / "cache", hub) as running:
        yield running


@pytest.fixture
def runtime_dir(cache: RunningCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runtime file, as the server would have written it."""
    for name in ("JUPYTER_HF_CACHE_FILE", "JPY_PARENT_PID", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    write(tmp_path / "runtime", cache.host + "/", cache.context.cache_token, "0")
    return tmp_path / "runtime"


@pytest.fixture
def client(runtime_dir: Path) -> CacheClient:
    return CacheClient.find()


def load(cache: RunningCache, path: str) -> None:
    assert cache.get(path).status_code == 200
    cache.wait_idle()


def test_the_server_proves_that_it_knows_the_token(runtime_dir: Path) -> None:
    server = find_server()
    prove(server)
    with pytest.raises(Disbelieved, match="not this cache server"):
        prove(replace(server, token="jhc_wrong"))


def test_the_servers_runtime_file_is_believed(runtime_dir: Path, cache: RunningCache) -> None:
    (path,) = runtime_dir.iterdir()
    server = read_runtime_file(path)
    assert server.url == cache.host + "/"
    assert server.token == cache.context.cache_token


def test_the_inventory(client: CacheClient, cache: RunningCache) -> None:
    assert client.repos().count == 0
    load(cache, f"/{BERT}/resolve/main/config.json")
    load(cache, "/datasets/org/tables/resolve/main/README.md")
    assert {(r.type, r.id) for r in client.all_repos()} == {
        ("models", BERT),
        ("datasets", "org/tables"),
    }
    (only,) = client.repos("BERT", "models").repos
    assert only.revisions[0].revision == "main"
    assert len(only.revisions[0].commit) == 40
    assert only.last_used
    detail = client.repo("models", BERT)
    assert [file.path for file in detail.file_list] == ["config.json"]
    assert detail.file_list[0].size_bytes == only.size_bytes > 0
    status = client.status()
    assert (status.repos, status.files) == (2, 2)
    assert status.used_bytes > 0
    assert status.upstreams[0].state == "reachable"


def test_deletion(client: CacheClient, cache: RunningCache) -> None:
    load(cache, f"/{BERT}/resolve/main/config.json")
    would = client.delete("models", BERT, dry_run=True)
    assert client.repos().count == 1
    assert client.delete("models", BERT) == would
    assert client.repos().count == 0
    with pytest.raises(CacheApiError) as caught:
        client.delete("models", BERT)
    assert caught.value.status == 404


def test_fills_are_read(client: CacheClient, cache: RunningCache) -> None:
    load(cache, "/org/large/resolve/main/model.bin")
    assert all(fill.repo == "org/large" for fill in client.fills())
    assert client.fills()


def test_tokens(client: CacheClient) -> None:
    client.set_token("hf_alice")
    assert [(t.remote, t.set) for t in client.tokens()] == [("default", True)]
    tested = client.test_token()
    assert (tested.ok, tested.name) == (True, "alice")
    client.set_token("hf_nobody")
    refused = client.test_token()
    assert not refused.ok
    assert refused.error
    client.forget_token()
    assert not client.tokens()[0].set
    with pytest.raises(CacheApiError) as caught:
        client.set_token("hf_alice", "nobody")
    assert caught.value.status == 404


def test_the_endpoint_of_a_distribution(client: CacheClient, cache: RunningCache) -> None:
    assert client.endpoint() == cache.endpoint
    assert client.endpoint("default") == cache.endpoint
    with pytest.raises(CacheApiError, match="no distribution"):
        client.endpoint("nobody")


def test_a_wrong_token_is_refused_with_advice(cache: RunningCache) -> None:
    with pytest.raises(CacheApiError) as caught:
        CacheClient(cache.host, "jhc_wrong").status()
    assert caught.value.status == 401
    assert "jhc_wrong" not in caught.value.text


def test_a_server_without_kernels_has_nothing_to_switch(client: CacheClient) -> None:
    with pytest.raises(CacheApiError) as caught:
        client.set_injection(True)
    assert caught.value.status == 404


def test_the_command_line(client: CacheClient, cache: RunningCache, capsys: Any) -> None:
    load(cache, f"/{BERT}/resolve/main/config.json")
    assert cli.main(["ls"]) == 0
    assert BERT in capsys.readouterr().out
    assert cli.main(["ls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == BERT
    assert cli.main(["status"]) == 0
    assert "in 1 repo" in capsys.readouterr().out
    assert cli.main(["env"]) == 0
    assert f"export HF_ENDPOINT={cache.endpoint}" in capsys.readouterr().out
    assert cli.main(["rm", "--yes", BERT]) == 0
    assert client.repos().count == 0


def test_the_panel(client: CacheClient, cache: RunningCache) -> None:
    load(cache, f"/{BERT}/resolve/main/config.json")
    panel = CachePanel(client, start=lambda work: work())
    assert "in 1 repo" in repr(panel)
    panel._list.value = ("models", BERT)
    assert "config.json" in panel._detail.value


@pytest.mark.usefixtures("runtime_dir")
def test_a_stopped_server_is_not_found(cache: RunningCache, client: CacheClient) -> None:
    cache.close()
    cache.close = lambda: None  # type: ignore[method-assign]
    with pytest.raises(ServerNotFound, match="does not answer"):
        client.status()
    with pytest.raises(ServerNotFound, match="in reach"):
        CacheClient.find()
