"""`jupyter hf-cache serve` as its own process, asked by curl."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serve_process import DEADLINE, Serving, curl, refuses, wait_until

from jupyter_hf_cache.discovery import find_server

REMOTES = "pulp/api/v3/remotes/hugging_face/hugging-face/"
BIG = BigFile(8 << 20, seed=3)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        repo = hub.repo("models", "tiny/model")
        repo.commit({"config.json": b'{"tiny": true}', "model.bin": BIG})
        yield hub


@pytest.fixture
def start_download(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """curl in the background, into model.bin."""
    running: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> subprocess.Popen[bytes]:
        command = ["curl", "-sS", "-f", "-o", str(tmp_path / "model.bin"), url]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def run(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter_hf_cache.standalone", *options],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_it_serves_what_it_prints(tmp_path: Path, hub: FakeHub) -> None:
    with Serving(tmp_path, hub) as serving:
        config = f"{serving.endpoint}/tiny/model/resolve/main/config.json"
        assert curl("-L", config) == (200, '{"tiny": true}')
        invented = re.findall(r"password of this run is (\S+)", serving.printed)[0]
        assert curl(serving.url + REMOTES)[0] == 401
        assert curl("-u", "admin:wrong", serving.url + REMOTES)[0] == 401
        status, body = curl("-u", f"admin:{invented}", serving.url + REMOTES)
        assert status == 200
        assert [remote["url"] for remote in json.loads(body)["results"]] == [hub.url]
        assert invented not in serving.log.read_text()


def test_pages_of_named_origins_may_read_through_every_worker(tmp_path: Path, hub: FakeHub) -> None:
    pages = ("https://one.example.org", "https://two.example.org")
    options = ["--workers=2", *(f"--cors-origin={origin}" for origin in pages)]
    with Serving(tmp_path, hub, *options) as serving:
        config = f"{serving.endpoint}/tiny/model/resolve/main/config.json"
        for origin in [*pages * 3, "https://three.example.org"]:
            answer = requests.get(config, headers={"Origin": origin}, timeout=DEADLINE)
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            expected = (200, origin) if origin in pages else (403, None)
            assert (answer.status_code, allowed) == expected
    assert "is no origin" in run("--cors-origin=one.example.org").stderr


def test_the_port_keeps_connections_open(tmp_path: Path, hub: FakeHub) -> None:
    with Serving(tmp_path, hub) as serving:
        url = f"{serving.endpoint}/tiny/model/resolve/main/config.json"
        done = subprocess.run(
            ["curl", "-sS", "-o", os.devnull, "-o", os.devnull, "-w", "%{num_connects} ", url, url],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["1", "0"]


def test_clients_find_it_and_it_tidies_up(tmp_path: Path, hub: FakeHub) -> None:
    with Serving(tmp_path, hub) as serving:
        server = find_server({"JUPYTER_RUNTIME_DIR": str(serving.runtime_dir)})
        assert (server.url, server.pid) == (serving.url, serving.process.pid)
        status, _ = curl(
            "-H", f"Authorization: token {server.token}", f"{server.url}hf-cache/v1/status"
        )
        assert status == 200
        assert serving.stop() == 0
        assert list(serving.runtime_dir.glob("hf-cache-*")) == []


@pytest.mark.parametrize("where", ["environment", "file in the environment", "option"])
def test_the_admin_password_can_be_chosen(tmp_path: Path, hub: FakeHub, where: str) -> None:
    file = tmp_path / "password"
    file.write_text("chosen\n")
    variable = "JUPYTER_HF_CACHE_ADMIN_PASSWORD"
    options = [f"--HfCache.admin_password_file={file}"] if where == "option" else []
    environ = {
        "environment": {variable: "chosen"},
        "file in the environment": {f"{variable}_FILE": str(file)},
        "option": {},
    }[where]
    with Serving(tmp_path, hub, *options, **environ) as serving:
        assert "password of this run" not in serving.printed
        assert "chosen" not in serving.printed
        assert curl("-u", "anybody:chosen", serving.url + REMOTES)[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_answers_are_finished_before_it_ends(
    tmp_path: Path,
    hub: FakeHub,
    start_download: Callable[[str], subprocess.Popen[bytes]],
    number: int,
) -> None:
    hub.fault("stall", "model.bin", host="cdn", at=1 << 20)
    target = tmp_path / "model.bin"
    with Serving(tmp_path, hub) as serving:
        port = int(serving.url.rpartition(":")[2].strip("/"))
        download = start_download(f"{serving.endpoint}/tiny/model/resolve/main/model.bin")
        wait_until(lambda: target.exists() and target.stat().st_size > 0)
        serving.process.send_signal(number)
        wait_until(lambda: refuses(port))
        assert serving.process.poll() is None
        hub.faults.release()
        assert download.wait(DEADLINE) == 0
        assert serving.process.wait(DEADLINE) == 0
        assert "1 still running" in serving.log.read_text()
    assert hashlib.sha256(target.read_bytes()).hexdigest() == BIG.sha256()


def test_an_answer_that_never_ends_does_not_hold_it_for_ever(
    tmp_path: Path, hub: FakeHub, start_download: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    hub.fault("stall", "model.bin", host="cdn", at=1 << 20)
    target = tmp_path / "model.bin"
    with Serving(tmp_path, hub, "--ServeApp.stop_seconds=0.2") as serving:
        download = start_download(f"{serving.endpoint}/tiny/model/resolve/main/model.bin")
        wait_until(lambda: target.exists() and target.stat().st_size > 0)
        assert serving.stop() == 0
        assert download.wait(DEADLINE) != 0
    hub.faults.release()


def test_a_taken_port_is_one_line_and_exit_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port), "--cache-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"jupyter hf-cache serve: cannot listen on 127\.0\.0\.1 port {port} \(.*\)\. .*--port\.\n",
        done.stderr,
    )


def test_a_store_that_cannot_open_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(
        *("--port", "0", "--cache-dir", str(tmp_path / "file" / "x")),
        JUPYTER_DATA_DIR=str(tmp_path / "data"),
        JUPYTER_CONFIG_DIR=str(tmp_path / "config"),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("jupyter hf-cache serve: ")
    assert done.stderr.count("\n") == 1


def test_a_password_file_that_is_missing_is_one_line_and_exit_1(tmp_path: Path) -> None:
    done = run("--port", "0", f"--HfCache.admin_password_file={tmp_path / 'nope'}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nope" in done.stderr


def test_unknown_addresses_show_and_log_no_capability(tmp_path: Path, hub: FakeHub) -> None:
    with Serving(tmp_path, hub) as serving:
        status, body = curl(f"{serving.url}wrong/pulp/content/~s3cret/hf/x")
        assert status == 404
        assert "s3cret" not in body
        assert curl("-H", "Host: evil.example.org", f"{serving.url}x")[0] == 403
        assert serving.stop() == 0
        assert "s3cret" not in serving.log.read_text()
