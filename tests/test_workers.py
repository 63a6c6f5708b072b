"""`jupyter hf-cache serve --workers N`: one server, whichever process answers."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fake_hub import BigFile, FakeHub
from serve_process import DEADLINE, Serving, curl, refuses, wait_until

from jupyter_hf_cache.discovery import find_server
from jupyter_hf_cache.standalone import ServeApp

WORKERS = 4
BIG = BigFile(24 << 20, seed=5)
PASSWORD = "the-admin-password"
REMOTES = "pulp/api/v3/remotes/hugging_face/hugging-face/"
DISTRIBUTIONS = "pulp/api/v3/distributions/hugging_face/hugging-face/"
CONFIG = "/tiny/model/resolve/main/config.json"
MODEL = "/tiny/model/resolve/main/model.bin"

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="workers need POSIX"),
    pytest.mark.timeout(300),
]


def make_hub() -> FakeHub:
    hub = FakeHub.with_defaults()
    repo = hub.repo("models", "tiny/model")
    repo.commit({"config.json": b'{"tiny": true}', "model.bin": BIG})
    return hub


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with make_hub() as hub:
        yield hub


class Team(Serving):
    """A server with workers, of which each one can be asked."""

    def __init__(self, tmp_path: Path, hub: FakeHub, *options: str, workers: int = WORKERS) -> None:
        self.count = workers
        variable = {"JUPYTER_HF_CACHE_ADMIN_PASSWORD": PASSWORD}
        super().__init__(tmp_path, hub, f"--workers={workers}", *options, **variable)

    def workers(self) -> set[int]:
        """The processes that answer."""
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    def connect(self) -> http.client.HTTPConnection:
        """A fresh connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.connect()
        return connection

    def worker_of(self, connection: http.client.HTTPConnection) -> int:
        """The process that holds a connection; it must have answered on it."""
        port = connection.sock.getsockname()[1]
        for pid in self.workers():
            for held in psutil.Process(pid).net_connections("tcp"):
                if held.raddr and held.raddr.port == port:
                    return pid
        raise AssertionError("no worker holds this connection")

    def ask(self, path: str, method: str = "GET", *, admin: bool = False) -> tuple[int, int, bytes]:
        """The process that answered on a fresh connection, the status and the body."""
        connection = self.connect()
        try:
            login = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
            headers = {"Authorization": f"Basic {login}"} if admin else {}
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            return self.worker_of(connection), answer.status, body
        finally:
            connection.close()

    def ask_all(self, path: str, *, admin: bool = False) -> set[tuple[int, bytes]]:
        """Every answer given, on fresh connections, until each worker has given one."""
        answers: set[tuple[int, bytes]] = set()
        silent = self.workers()
        assert len(silent) == self.count

        def asked_everybody() -> bool:
            worker, status, body = self.ask(path, admin=admin)
            silent.discard(worker)
            answers.add((status, body))
            return not silent

        wait_until(asked_everybody)
        return answers

    def change(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Make a change through one connection."""
        data = () if body is None else ("-d", json.dumps(body))
        kind = ("-H", "Content-Type: application/json")
        status, text = curl("-u", f"admin:{PASSWORD}", "-X", method, *kind, *data, self.url + path)
        assert status < 300, text
        return json.loads(text) if text else None

    def path(self, rest: str) -> str:
        """The path of a file below the endpoint."""
        return f"/{self.endpoint.removeprefix(self.url)}{rest}"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[Team]:
    with Team(tmp_path_factory.mktemp("team"), hub) as team:
        yield team
        assert team.stop() == 0


def test_every_worker_answers_the_same(team: Team, hub: FakeHub) -> None:
    assert team.ask_all(team.path(CONFIG)) == {(200, b'{"tiny": true}')}
    ((status, _),) = team.ask_all(f"/{REMOTES}", admin=True)
    assert status == 200
    assert {status for status, _ in team.ask_all(f"/{REMOTES}")} == {401}


def test_clients_find_one_server_and_any_worker_believes_them(team: Team) -> None:
    server = find_server({"JUPYTER_RUNTIME_DIR": str(team.runtime_dir)})
    assert (server.url, server.pid) == (team.url, team.process.pid)
    assert len(list(team.runtime_dir.glob("hf-cache-*"))) == 1
    ((status, _),) = team.ask_all("/hf-cache/v1/hello?nonce=x")
    assert status == 200


def test_no_secret_is_on_a_command_line_or_in_an_environment(team: Team) -> None:
    token = find_server({"JUPYTER_RUNTIME_DIR": str(team.runtime_dir)}).token
    for worker in team.workers():
        process = psutil.Process(worker)
        shown = " ".join(process.cmdline()) + repr(process.environ())
        assert "worker" in shown
        assert PASSWORD not in shown
        assert token not in shown
    assert PASSWORD not in team.log.read_text()


def test_a_new_distribution_and_its_end_act_in_every_worker(team: Team) -> None:
    remote = team.change("GET", REMOTES)["results"][0]["pulp_href"]
    path = f"/pulp/content/more{CONFIG}"
    assert {status for status, _ in team.ask_all(path)} == {404}
    made = team.change(
        "POST", DISTRIBUTIONS, {"name": "more", "base_path": "more", "remote": remote}
    )
    assert {status for status, _ in team.ask_all(path)} == {200}
    href = made["pulp_href"].lstrip("/")
    team.change("PATCH", href, {"base_path": "moved"})
    assert {status for status, _ in team.ask_all(path)} == {404}
    assert {status for status, _ in team.ask_all(path.replace("more", "moved"))} == {200}
    team.change("DELETE", href)
    assert {status for status, _ in team.ask_all(path.replace("more", "moved"))} == {404}


def test_another_upstream_acts_in_every_worker(team: Team, hub: FakeHub) -> None:
    with FakeHub() as other:
        other.repo("models", "tiny/model").commit({"config.json": b'{"other": true}'})
        remote = team.change("GET", REMOTES)["results"][0]["pulp_href"].lstrip("/")
        assert team.ask_all(team.path(CONFIG)) == {(200, b'{"tiny": true}')}
        team.change("PATCH", remote, {"url": other.url})
        assert team.ask_all(team.path(CONFIG)) == {(200, b'{"other": true}')}
        team.change("PATCH", remote, {"url": hub.url})
        assert team.ask_all(team.path(CONFIG)) == {(200, b'{"tiny": true}')}


def test_a_stored_token_and_its_end_act_in_every_worker(team: Team, hub: FakeHub) -> None:
    repo = hub.repo("models", "org/secret", private=True)
    repo.commit({"config.json": b'{"secret": true}'})
    reader = hub.accounts.identify("Bearer hf_reader")
    assert reader is not None
    reader.reads.add(repo.id)
    path = team.path("/org/secret/resolve/main/config.json")
    assert {status for status, _ in team.ask_all(path, admin=True)} == {401}
    team.change("PUT", "hf-cache/v1/tokens/default", {"token": "hf_reader"})
    assert team.ask_all(path, admin=True) == {(200, b'{"secret": true}')}
    team.change("PUT", "hf-cache/v1/tokens/default", {"token": "hf_nobody_has_this"})
    assert {status for status, _ in team.ask_all(path, admin=True)} == {401}
    team.change("DELETE", "hf-cache/v1/tokens/default")
    assert {status for status, _ in team.ask_all(path, admin=True)} == {401}


def test_a_push_is_seen_by_every_worker(team: Team, hub: FakeHub) -> None:
    hub.repo("models", "alice/mine").commit({"notes.txt": b"old"})
    path = "/alice/mine/resolve/main/notes.txt"
    assert team.ask_all(team.path(path)) == {(200, b"old")}
    lines = [
        {"key": "header", "value": {"summary": "s"}},
        {
            "key": "file",
            "value": {
                "path": "notes.txt",
                "content": base64.b64encode(b"new").decode(),
                "encoding": "base64",
            },
        },
    ]
    status, text = curl(
        *("-H", "Authorization: Bearer hf_alice", "-H", "Content-Type: application/x-ndjson"),
        *("--data-binary", "\n".join(json.dumps(line) for line in lines)),
        f"{team.endpoint}/api/models/alice/mine/commit/main",
    )
    assert status == 200, text
    assert team.ask_all(team.path(path)) == {(200, b"new")}


def test_one_upstream_transfer_serves_clients_of_all_workers(
    team: Team, hub: FakeHub, tmp_path: Path
) -> None:
    shared = BigFile(32 << 20, seed=9)
    hub.repo("models", "tiny/shared").commit({"shared.bin": shared})
    hub.fault("stall", "shared.bin", host="cdn", at=1 << 20)
    url = f"{team.endpoint}/tiny/shared/resolve/main/shared.bin"
    files = [tmp_path / str(number) for number in range(8)]
    curls = [subprocess.Popen(["curl", "-sSfL", "-o", str(file), url]) for file in files]
    wait_until(lambda: all(file.exists() and file.stat().st_size for file in files))

    silent = team.workers()

    def all_have_shown_it() -> bool:
        worker, _, body = team.ask("/hf-cache/v1/fills", admin=True)
        shown = [fill for fill in json.loads(body)["results"] if fill["file"] == "shared.bin"]
        if [fill["readers"] for fill in shown] == [len(files)]:
            silent.discard(worker)
        return not silent

    wait_until(all_have_shown_it)
    hub.faults.release()
    assert [one.wait(DEADLINE) for one in curls] == [0] * len(files)
    assert {hashlib.sha256(file.read_bytes()).hexdigest() for file in files} == {shared.sha256()}
    assert hub.counters.bytes("cdn", "shared.bin") <= shared.size


def test_heads_are_answered_beside_64_clients_that_read_nothing(team: Team) -> None:
    assert curl("-o", os.devnull, "-L", team.endpoint + MODEL)[0] == 200
    with ExitStack() as stack:
        for _ in range(64):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", team.port)))
            stalled.sendall(f"GET {team.path(MODEL)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert stalled.recv(12) == b"HTTP/1.1 200"
        for _ in range(20):
            _, status, body = team.ask(team.path(CONFIG), "HEAD")
            assert (status, body) == (200, b"")
        assert team.ask_all(team.path(CONFIG)) == {(200, b'{"tiny": true}')}


@pytest.fixture
def start_curl(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, url: str, *options: str) -> subprocess.Popen[bytes]:
        command = ["curl", "-sS", "-fL", *options, "-o", str(tmp_path / name), url]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_workers_that_are_killed_during_downloads_are_replaced(
    tmp_path: Path, start_curl: Callable[..., subprocess.Popen[bytes]]
) -> None:
    with make_hub() as hub, Team(tmp_path, hub, workers=2) as team:
        hub.fault("stall", "model.bin", host="cdn", at=1 << 20)
        start_curl("first", team.endpoint + MODEL)
        wait_until(lambda: (tmp_path / "first").exists() and (tmp_path / "first").stat().st_size)
        before = team.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        hub.faults.release()
        # Connections that wait are not lost with a worker: the next one takes them.
        again = start_curl("again", team.endpoint + MODEL, "--retry", "3", "--retry-all-errors")
        assert again.wait(DEADLINE) == 0
        assert hashlib.sha256((tmp_path / "again").read_bytes()).hexdigest() == BIG.sha256()
        wait_until(lambda: len(team.workers()) == 2)
        assert not team.workers() & before
        assert team.ask_all(team.path(CONFIG)) == {(200, b'{"tiny": true}')}
        assert "SIGKILL; starting another" in team.log.read_text()
        assert team.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_answers_are_finished_before_it_ends(
    tmp_path: Path, start_curl: Callable[..., subprocess.Popen[bytes]], number: int
) -> None:
    with make_hub() as hub, Team(tmp_path, hub, workers=2) as team:
        hub.fault("stall", "model.bin", host="cdn", at=1 << 20)
        download = start_curl("model", team.endpoint + MODEL)
        wait_until(lambda: (tmp_path / "model").exists() and (tmp_path / "model").stat().st_size)
        team.process.send_signal(number)
        wait_until(lambda: refuses(team.port))
        assert team.process.poll() is None
        hub.faults.release()
        assert download.wait(DEADLINE) == 0
        assert team.process.wait(DEADLINE) == 0
        assert list(team.runtime_dir.glob("hf-cache-*")) == []
    assert hashlib.sha256((tmp_path / "model").read_bytes()).hexdigest() == BIG.sha256()


def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, start_curl: Callable[..., subprocess.Popen[bytes]]
) -> None:
    with make_hub() as hub, Team(tmp_path, hub, "--ServeApp.stop_seconds=600", workers=2) as team:
        hub.fault("stall", "model.bin", host="cdn", at=1 << 20)
        download = start_curl("model", team.endpoint + MODEL)
        wait_until(lambda: (tmp_path / "model").exists() and (tmp_path / "model").stat().st_size)
        workers = team.workers()
        team.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(team.port))
        team.process.send_signal(signal.SIGTERM)
        assert team.process.wait(DEADLINE) == 0
        assert download.wait(DEADLINE) != 0
        assert not any(psutil.pid_exists(pid) for pid in workers)
        hub.faults.release()


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    with make_hub() as hub, Team(tmp_path, hub, workers=2) as team:
        workers = team.workers()
        assert len(workers) == 2
        team.process.kill()
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers))
        assert refuses(team.port)


@pytest.mark.parametrize("started", [1, 2])
def test_it_can_be_stopped_while_workers_start(tmp_path: Path, started: int) -> None:
    with make_hub() as hub:
        # The second one is started when the first one is ready.
        team = Team(tmp_path, hub, workers=3)
        wait_until(lambda: len(team.workers()) >= started)
        workers = team.workers()
        assert team.stop() == 0
        assert not any(psutil.pid_exists(pid) for pid in workers)
        team.process.communicate()
    assert "Traceback" not in team.log.read_text()


def test_a_worker_that_is_told_to_end_is_replaced(tmp_path: Path) -> None:
    with make_hub() as hub, Team(tmp_path, hub, workers=2) as team:
        one = min(team.workers())
        os.kill(one, signal.SIGTERM)
        wait_until(lambda: len(team.workers() - {one}) == 2)
        assert team.ask_all(team.path(CONFIG)) == {(200, b'{"tiny": true}')}
        assert team.stop() == 0


def test_a_store_that_cannot_open_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with make_hub() as hub:
        team = Team(tmp_path, hub, workers=3)
        out, _ = team.process.communicate(timeout=DEADLINE)
    assert (team.process.returncode, out) == (1, "")
    assert re.fullmatch(r"jupyter hf-cache serve: .+\n", team.log.read_text())


def test_windows_is_refused_with_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jupyter_hf_cache.standalone.os", SimpleNamespace(name="nt"))
    app = ServeApp()
    app.initialize(["--workers=2"])
    with pytest.raises(SystemExit):
        app.start()
    assert "--workers needs Linux or macOS" in capsys.readouterr().err
