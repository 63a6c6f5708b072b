"""A Hub that is reached through a real forward proxy."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from door import Door
from fake_hub import BigFile, FakeHub
from recording_server import free_port
from serving import RunningCache

from jupyter_hf_cache.errors import UpstreamUnreachable
from jupyter_hf_cache.storage.records import ANONYMOUS, Credential, Remote
from jupyter_hf_cache.upstream.client import UpstreamClient

pytestmark = pytest.mark.proxy

REPO = "org/far-away"
MODEL = BigFile(3 << 20, seed=41)
USER, PASSWORD = "alice", "pR0xyS3cret"
ALICE = {"Authorization": "Bearer hf_alice"}
LOGIN = {"proxy_username": USER, "proxy_password": PASSWORD}


class Tap(Door):
    """A door before the proxy that remembers what goes in."""

    def __init__(self, url: str) -> None:
        self.heard = bytearray()
        super().__init__(url)

    def _relay(self, connection: socket.socket) -> None:
        with socket.create_connection(self._target, timeout=10) as target:
            target.settimeout(None)
            back = threading.Thread(target=_copy, args=(target, connection, None), daemon=True)
            back.start()
            _copy(connection, target, self.heard)
            back.join()


def _copy(source: socket.socket, sink: socket.socket, heard: bytearray | None) -> None:
    try:
        while data := source.recv(1 << 16):
            if heard is not None:
                heard += data
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """tinyproxy, which wants a login."""
    folder = tmp_path_factory.mktemp("proxy")
    port = free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\n"
        f'BasicAuth {USER} {PASSWORD}\nLogFile "{folder}/log"\nPidFile "{folder}/pid"\n'
    )
    program = shutil.which("tinyproxy")
    assert program is not None
    with subprocess.Popen([program, "-d", "-c", str(config)], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the proxy did not start"
        time.sleep(0.02)


@pytest.fixture
def tap(proxy: str) -> Iterator[Tap]:
    with Tap(proxy) as tap:
        yield tap


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", REPO).commit({"config.json": b"{}", "model.bin": MODEL})
        yield hub


@pytest.fixture
def door(hub: FakeHub, tmp_path: Path) -> Iterator[Door]:
    """The Hub behind TLS."""
    folder = tmp_path / "door"
    folder.mkdir()
    with Door(hub.url, folder) as door:
        yield door


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path) -> Iterator[RunningCache]:
    with RunningCache(tmp_path, hub) as cache:
        yield cache


def patch(cache: RunningCache, **changes: Any) -> None:
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, changes)


def test_http_goes_through_the_proxy(cache: RunningCache, hub: FakeHub, tap: Tap) -> None:
    patch(cache, proxy_url=tap.url, **LOGIN)
    answer = cache.get(f"/{REPO}/resolve/main/model.bin", headers=ALICE)

    assert (answer.status_code, answer.content) == (200, MODEL.read(0, MODEL.size))
    requests = [record for record in hub.counters.requests]
    assert {record.host for record in requests} == {"hub", "cdn"}
    assert all("via" in record.headers for record in requests), "nobody was asked directly"
    assert not any("proxy-authorization" in record.headers for record in requests)
    assert f"HEAD {hub.url}/{REPO}/resolve/main/model.bin".encode() in tap.heard


def test_tls_goes_through_a_tunnel_that_sees_no_secret(
    cache: RunningCache, hub: FakeHub, door: Door, tap: Tap
) -> None:
    patch(cache, url=door.url, ca_cert=door.authority, proxy_url=tap.url, **LOGIN)
    for path in ("config.json", "model.bin"):
        answer = cache.get(f"/{REPO}/resolve/main/{path}", headers=ALICE)
        assert answer.status_code == 200

    heard = bytes(tap.heard)
    assert f"CONNECT 127.0.0.1:{door.port} ".encode() in heard
    assert b"Proxy-Authorization: Basic " in heard
    for secret in (b"hf_alice", REPO.encode() + b"/resolve"):
        assert secret not in heard
    on_the_hub = [record for record in hub.counters.requests if record.host == "hub"]
    assert {record.headers.get("authorization") for record in on_the_hub} == {"Bearer hf_alice"}
    assert not any("proxy-authorization" in record.headers for record in on_the_hub)


@pytest.mark.parametrize("login", [{}, {"proxy_username": USER, "proxy_password": "wRoNg"}])
@pytest.mark.parametrize("tls", [False, True])
def test_a_missing_or_wrong_login_is_named(
    cache: RunningCache, door: Door, tap: Tap, tls: bool, login: dict[str, str]
) -> None:
    if tls:
        patch(cache, url=door.url, ca_cert=door.authority)
    patch(cache, proxy_url=tap.url, **login)
    answer = cache.get(f"/{REPO}/resolve/main/config.json", headers=ALICE)

    assert answer.status_code == 521
    reason = answer.headers["X-Error-Message"]
    assert "wants a user name and password, or refused them" in reason
    assert "proxy_username" in reason
    assert "wRoNg" not in str(answer.headers) + answer.text

    patch(cache, **LOGIN)
    answer = cache.get(f"/{REPO}/resolve/main/config.json", headers=ALICE)
    assert answer.status_code == 200, "a change acts with the next request"


def test_a_proxy_that_is_gone_is_named(cache: RunningCache, tap: Tap) -> None:
    patch(cache, proxy_url=tap.url, **LOGIN)
    tap.shut("refused")
    reason = cache.get(f"/{REPO}/resolve/main/config.json").headers["X-Error-Message"]
    assert f"The proxy 127.0.0.1:{tap.port} cannot be reached" in reason


def test_what_is_behind_the_proxy_may_be_gone(
    cache: RunningCache, hub: FakeHub, door: Door, tap: Tap
) -> None:
    """The proxy's own page about that is no answer of a Hub."""
    for tls in (False, True):
        if tls:
            patch(cache, url=door.url, ca_cert=door.authority)
            door.shut("refused")
        else:
            hub.pause()
        patch(cache, proxy_url=tap.url, **LOGIN)
        answer = cache.get(f"/{REPO}/resolve/main/config.json")
        assert answer.status_code == 521
        assert "X-Error-Code" not in answer.headers


def test_a_mirror_is_reached_the_same_way(cache: RunningCache, hub: FakeHub, tap: Tap) -> None:
    with FakeHub.with_defaults() as mirror:
        mirror.repo("models", REPO).commit({"config.json": b"{}", "model.bin": MODEL})
        patch(cache, proxy_url=tap.url, mirrors=[{"url": mirror.url}], **LOGIN)
        hub.pause()
        assert cache.get(f"/{REPO}/resolve/main/model.bin").status_code == 200
        assert mirror.counters.requests
        assert all("via" in record.headers for record in mirror.counters.requests)


@pytest.mark.parametrize(("no_proxy", "through"), [("", True), ("hub.invalid", False)])
def test_the_environment_names_a_proxy_and_who_is_asked_without(
    proxy: str, tap: Tap, no_proxy: str, through: bool
) -> None:
    environ = {"http_proxy": tap.url, "NO_PROXY": no_proxy}
    remote = Remote(id="1", name="hub", url="http://hub.invalid", max_retries=0)
    client = UpstreamClient(remote, user_agent="test/1", environ=environ)
    with pytest.raises(UpstreamUnreachable) as failed:
        client.request("GET", "/x", credential=Credential("hf_alice", "caller"))
    client.close()
    assert ("wants a user name and password" in failed.value.message) == through
    assert (b"GET http://hub.invalid/x" in tap.heard) == through


def test_the_environment_is_not_asked_where_the_remote_names_a_proxy(
    hub: FakeHub, tap: Tap
) -> None:
    environ = {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "*"}
    remote = Remote(id="1", name="hub", url=hub.url, proxy_url=tap.url, **LOGIN)
    client = UpstreamClient(remote, user_agent="test/1", environ=environ)
    with client.request("GET", f"/api/models/{REPO}", credential=ANONYMOUS) as answer:
        assert answer.status == 200
    client.close()
    assert tap.tries == 1
