"""The client of the cache API, and the search for the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_cache_api import TOKEN, StubCacheApi, repo

from jupyter_hf_cache.client import CacheApiError, CacheClient, ServerNotFound, is_loopback
from jupyter_hf_cache.discovery import find_server, runtime_dirs


@pytest.fixture
def stub() -> Iterator[StubCacheApi]:
    with StubCacheApi() as server:
        yield server


@pytest.fixture
def client(stub: StubCacheApi) -> CacheClient:
    return CacheClient(stub.url, TOKEN)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_status_is_read(client: CacheClient, stub: StubCacheApi) -> None:
    status = client.status()
    assert status.used_bytes == 128_000_000_000
    assert status.running_total_bytes == 2_500_000_000
    assert status.kernel_endpoint == stub.endpoint
    assert status.upstreams[0].state == "reachable"


def test_the_capability_and_the_token_are_not_in_any_repr(client: CacheClient) -> None:
    assert "~c4p" not in repr(client.status())
    assert TOKEN not in repr(client)


def test_repos_are_filtered_by_the_server(client: CacheClient, stub: StubCacheApi) -> None:
    page = client.repos("squad", "datasets", limit=5)
    assert [r.id for r in page.repos] == ["rajpurkar/squad"]
    assert stub.calls("GET") == ["repos?limit=5&offset=0&q=squad&type=datasets"]


def test_all_repos_walks_every_page(client: CacheClient, stub: StubCacheApi) -> None:
    stub.repos = [repo(f"o/{i}") for i in range(250)]
    assert [r.id for r in client.all_repos()] == [f"o/{i}" for i in range(250)]
    assert len(stub.seen) == 3


def test_one_repo_lists_its_files(client: CacheClient) -> None:
    found = client.repo("models", "google-bert/bert-base-uncased")
    assert found.file_list[0].shared_with == 2
    assert found.files == 1


def test_a_strange_repo_name_stays_one_path(client: CacheClient, stub: StubCacheApi) -> None:
    stub.repos = [repo("o/a?b#c%2e")]
    assert client.repo("models", "o/a?b#c%2e").id == "o/a?b#c%2e"


def test_dry_run_deletes_nothing(client: CacheClient, stub: StubCacheApi) -> None:
    assert client.delete("datasets", "rajpurkar/squad", dry_run=True).freed_bytes == 438_000_000
    assert len(stub.repos) == 2
    client.delete("datasets", "rajpurkar/squad")
    assert len(stub.repos) == 1


def test_tokens_are_set_tested_and_forgotten(client: CacheClient, stub: StubCacheApi) -> None:
    client.set_token("hf_good")
    assert stub.tokens == {"default": "hf_good"}
    assert [(t.remote, t.set) for t in client.tokens()] == [("default", True)]
    tested = client.test_token()
    assert (tested.ok, tested.name, tested.role) == (True, "alice", "read")
    client.forget_token()
    assert stub.tokens == {"default": ""}
    assert client.test_token().error == "Invalid user token."


def test_fills_and_the_switch(client: CacheClient, stub: StubCacheApi) -> None:
    (fill,) = client.fills()
    assert (fill.done_bytes, fill.size_bytes, fill.readers) == (4, 10, 3)
    assert fill.eta_seconds is None
    client.set_injection(False)
    assert stub.inject["on"] is False


def test_the_endpoint_of_another_distribution_keeps_the_capability(
    client: CacheClient, stub: StubCacheApi
) -> None:
    assert client.endpoint() == stub.endpoint
    assert client.endpoint("team") == f"{stub.url}pulp/content/~c4pability/teams/red"
    with pytest.raises(CacheApiError, match="no distribution named 'nobody'"):
        client.endpoint("nobody")


@pytest.mark.parametrize(
    ("answer", "message", "advice"),
    [
        ((403, {"message": "Read only.", "advice": "Ask."}), "Read only.", "Ask."),
        ((500, {}), "answered 500", "log has the details"),
        ((401, {}), "answered 401", "restarted"),
        ((302, {}), "answered 302", ""),
    ],
)
def test_an_error_answer_has_message_and_advice(
    client: CacheClient,
    stub: StubCacheApi,
    answer: tuple[int, dict[str, str]],
    message: str,
    advice: str,
) -> None:
    stub.fail = answer
    with pytest.raises(CacheApiError) as caught:
        client.status()
    assert caught.value.status == answer[0]
    assert message in caught.value.message
    assert advice in caught.value.advice
    assert TOKEN not in caught.value.text


@pytest.mark.parametrize("raw", [b"<html>", b"[1]", b'"text"'])
def test_something_else_behind_the_url_is_an_error(
    client: CacheClient, stub: StubCacheApi, raw: bytes
) -> None:
    stub.raw = raw
    with pytest.raises(CacheApiError, match="not the cache API"):
        client.status()


def test_a_server_that_is_gone_is_not_found() -> None:
    with StubCacheApi() as stub:
        client = CacheClient(stub.url, TOKEN)
    with pytest.raises(ServerNotFound, match="does not answer") as caught:
        client.status()
    assert TOKEN not in str(caught.value.reasons)


def test_answers_of_another_version_are_read(client: CacheClient, stub: StubCacheApi) -> None:
    stub.raw = json.dumps({"new": 1, "usage": None, "upstreams": "?", "today": []}).encode()
    status = client.status()
    assert status.used_bytes == 0
    assert status.limit_bytes is None
    assert status.upstreams == ()


def test_a_proxy_and_a_netrc_of_the_environment_do_not_matter_here(
    client: CacheClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert client.status().repos == 41


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        (None, True),
        ("10.0.0.1", False),
        ("127.0.0.1.example.org", False),
        ("hub.example.org", False),
    ],
)
def test_loopback_hosts(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path), **more}


def test_the_running_server_is_found(stub: StubCacheApi, tmp_path: Path) -> None:
    stub.write_runtime_file(tmp_path)
    client = CacheClient.find(environment(tmp_path))
    assert client.url == stub.url
    assert client.status().repos == 41


def test_the_token_is_not_sent_before_the_server_has_proved_itself(
    stub: StubCacheApi, tmp_path: Path
) -> None:
    stub.write_runtime_file(tmp_path)
    stub.honest = False
    with pytest.raises(ServerNotFound) as caught:
        find_server(environment(tmp_path))
    assert "is not this cache server" in caught.value.reasons[0]
    assert stub.seen
    assert all(TOKEN not in str(request) for request in stub.seen)


def test_the_named_file_comes_first_and_a_stale_one_is_passed_over(
    stub: StubCacheApi, tmp_path: Path
) -> None:
    with StubCacheApi(token="jhc_other") as other:
        stub.write_runtime_file(tmp_path)
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        named = str(other.write_runtime_file(folder, pid=dead_pid()))
        found = find_server(environment(tmp_path, JUPYTER_HF_CACHE_FILE=named))
        assert found.url == other.url
    found = find_server(environment(tmp_path, JUPYTER_HF_CACHE_FILE=named))
    assert found.url == stub.url


def test_the_kernels_own_server_comes_before_newer_ones(stub: StubCacheApi, tmp_path: Path) -> None:
    with StubCacheApi() as newer:
        old = stub.write_runtime_file(tmp_path, pid=os.getpid())
        os.utime(old, (1, 1))
        newer.write_runtime_file(tmp_path, pid=os.getppid())
        assert find_server(environment(tmp_path)).url == newer.url
        mine = environment(tmp_path, JPY_PARENT_PID=str(os.getpid()))
        assert find_server(mine).url == stub.url


def test_a_file_of_a_dead_process_is_passed_over_without_a_request(
    stub: StubCacheApi, tmp_path: Path
) -> None:
    stub.write_runtime_file(tmp_path, pid=dead_pid())
    with pytest.raises(ServerNotFound) as caught:
        find_server(environment(tmp_path))
    assert "has ended" in caught.value.reasons[0]
    assert stub.seen == []


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o601])
def test_a_file_open_to_others_is_not_believed(
    stub: StubCacheApi, tmp_path: Path, mode: int
) -> None:
    stub.write_runtime_file(tmp_path, mode=mode)
    with pytest.raises(ServerNotFound) as caught:
        find_server(environment(tmp_path))
    assert "open to others" in caught.value.reasons[0]
    assert stub.seen == []


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
def test_a_file_of_another_user_is_not_believed(
    stub: StubCacheApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.write_runtime_file(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ServerNotFound) as caught:
        find_server(environment(tmp_path))
    assert "another user" in caught.value.reasons[0]
    assert stub.seen == []


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no symbolic links")
def test_a_link_is_not_believed(stub: StubCacheApi, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    real = stub.write_runtime_file(folder)
    (tmp_path / real.name).symlink_to(real)
    with pytest.raises(ServerNotFound) as caught:
        find_server(environment(tmp_path))
    assert "cannot be read" in caught.value.reasons[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"url": "http://127.0.0.1:1/", "token": "x"}',
        b'{"url": "file:///etc", "token": "x", "pid": PID}',
        b'{"url": "http://u:p@127.0.0.1:1/", "token": "x", "pid": PID}',
        b'{"url": "http://127.0.0.1:99999/", "token": "x", "pid": PID}',
        b'{"url": "http://127.0.0.1:1/", "token": "", "pid": PID}',
        b'{"url": "http://127.0.0.1:1/", "token": "x", "pid": PID}',
    ],
)
def test_a_broken_runtime_file_is_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"hf-cache-{os.getpid()}.json"
    path.write_bytes(content.replace(b"PID", str(os.getpid()).encode()))
    path.chmod(0o600)
    with pytest.raises(ServerNotFound) as caught:
        find_server(environment(tmp_path))
    assert len(caught.value.reasons) == 1


def test_an_empty_machine_is_told_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ServerNotFound, match="in reach") as caught:
        find_server(environment(tmp_path))
    assert "jupyter hf-cache serve" in caught.value.advice


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"JUPYTER_RUNTIME_DIR": "/r"}, "/r"),
        ({"JUPYTER_DATA_DIR": "/d"}, "/d/runtime"),
        ({"XDG_DATA_HOME": "/x"}, "/x/jupyter/runtime"),
        ({}, "/home/a/.local/share/jupyter/runtime"),
    ],
)
def test_the_runtime_folder_without_jupyter_core(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert runtime_dirs({"HOME": "/home/a", **variables}) == [Path(expected)]


def test_the_runtime_folder_is_jupyters_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = pytest.importorskip("jupyter_core.paths")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    assert runtime_dirs(os.environ) == [Path(paths.jupyter_runtime_dir())]


CLIENTS = ("client", "discovery", "cli", "magics", "widget", "kernel_switch", "summary")
SERVER_ONLY = {
    "tornado",
    "jupyter_server",
    "jupyterhub",
    "diskcache",
    "cryptography",
    "pydantic",
    "prometheus_client",
    "jupyter_events",
    "filelock",
    "jupyter_hf_cache.errors",
    "jupyter_hf_cache.storage",
    "jupyter_hf_cache.upstream",
    "jupyter_hf_cache.protocol",
    "jupyter_hf_cache.service",
    "jupyter_hf_cache.web",
    "jupyter_hf_cache.app",
    "jupyter_hf_cache.standalone",
}


@pytest.mark.parametrize("module", CLIENTS)
def test_a_client_imports_no_server_module(module: str) -> None:
    code = f"import sys, jupyter_hf_cache.{module}; print('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert f"jupyter_hf_cache.{module}" in loaded
    assert not loaded & SERVER_ONLY
