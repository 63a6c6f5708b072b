"""A Hub behind TLS, with an authority of its own and with client certificates, as a remote."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Pair, make_pair, server_context
from door import Door
from fake_hub import BigFile, FakeHub
from recording_server import Handler, Recorder, recording_server
from serving import RunningCache

from jupyter_hf_cache.errors import UpstreamUnreachable
from jupyter_hf_cache.storage.records import ANONYMOUS, Remote
from jupyter_hf_cache.upstream.client import UpstreamClient

REPO = "org/behind-tls"
MODEL = BigFile(3 << 20, seed=31)
FILES: dict[str, bytes | BigFile] = {
    **{f"part-{number}.json": b"{}" for number in range(12)},
    "model.bin": MODEL,
}


class ClientCertDoor(Door):
    """A door that only opens to who shows a certificate of an authority."""

    def __init__(self, url: str, folder: Path, clients: Pair) -> None:
        self._clients = clients
        super().__init__(url, folder)

    def _context(self, *, days: int, issuer: Pair | None = None) -> ssl.SSLContext | None:
        context = super()._context(days=days, issuer=issuer)
        assert context is not None
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._clients.cert)
        return context


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        hub.page_size = 5
        hub.repo("models", REPO).commit(FILES)
        yield hub


@pytest.fixture
def door(hub: FakeHub, tmp_path: Path) -> Iterator[Door]:
    folder = tmp_path / "door"
    folder.mkdir()
    with Door(hub.url, folder) as door:
        yield door


@pytest.fixture
def cache(hub: FakeHub, tmp_path: Path) -> Iterator[RunningCache]:
    with RunningCache(tmp_path, hub) as cache:
        yield cache


def patch(cache: RunningCache, **changes: Any) -> None:
    """Change the remote as an operator does."""
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, changes)


def reason(cache: RunningCache, path: str, **options: Any) -> str:
    answer = cache.get(path, **options)
    assert answer.status_code == 521
    return str(answer.headers["X-Error-Message"])


def test_everything_comes_over_tls(cache: RunningCache, hub: FakeHub, door: Door) -> None:
    patch(cache, url=door.url, ca_cert=door.authority)
    info = cache.get(f"/api/models/{REPO}")
    tree = cache.get(f"/api/models/{REPO}/tree/main?recursive=true")
    model = cache.get(f"/{REPO}/resolve/main/model.bin")
    small = cache.get(f"/{REPO}/resolve/main/part-3.json")

    assert [answer.status_code for answer in (info, tree, model, small)] == [200] * 4
    assert model.content == MODEL.read(0, MODEL.size)
    assert door.tries > 0


def test_a_change_of_the_authority_acts_at_once(cache: RunningCache, door: Door) -> None:
    path = f"/{REPO}/resolve/main/part-1.json"
    patch(cache, url=door.url)
    assert "not trusted: its issuer" in reason(cache, path)
    patch(cache, ca_cert=make_pair("Somebody else").cert)
    assert "not trusted" in reason(cache, path)
    patch(cache, ca_cert=door.authority)
    assert cache.get(path).status_code == 200
    patch(cache, ca_cert=None)
    assert "not trusted" in reason(cache, f"/{REPO}/resolve/main/part-2.json")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_validation_can_be_switched_off_and_on(cache: RunningCache, door: Door) -> None:
    patch(cache, url=door.url, tls_validation=False)
    assert cache.get(f"/{REPO}/resolve/main/part-1.json").status_code == 200
    patch(cache, tls_validation=True)
    assert "not trusted" in reason(cache, f"/{REPO}/resolve/main/part-2.json")


def test_connections_are_used_again(cache: RunningCache, door: Door) -> None:
    patch(cache, url=door.url, ca_cert=door.authority)
    for number in range(12):
        assert cache.head(f"/{REPO}/resolve/main/none-{number}.json").status_code == 404
    assert door.tries == 1


def test_a_client_certificate_opens_what_it_is_asked_for(
    cache: RunningCache, hub: FakeHub, tmp_path: Path
) -> None:
    folder = tmp_path / "checked"
    folder.mkdir()
    clients = make_pair("Clients")
    mine = make_pair("this cache", issuer=("Clients", clients))
    path = f"/{REPO}/resolve/main/model.bin"
    with ClientCertDoor(hub.url, folder, clients) as door:
        patch(cache, url=door.url, ca_cert=door.authority)
        assert cache.get(path, trusted=True).status_code == 521
        stranger = make_pair("a stranger", issuer=("Others", make_pair("Others")))
        patch(cache, client_cert=stranger.cert, client_key=stranger.key)
        assert cache.get(path, trusted=True).status_code == 521
        patch(cache, client_cert=mine.cert, client_key=mine.key)
        answer = cache.get(path, trusted=True)
        assert (answer.status_code, answer.content) == (200, MODEL.read(0, MODEL.size))

        # It is the remote's own credential: nobody else is let in by it.
        assert cache.get(f"/{REPO}/resolve/main/part-1.json").status_code == 521
        bob = {"Authorization": "Bearer hf_bob"}
        assert cache.get(f"/{REPO}/resolve/main/part-1.json", headers=bob).status_code == 521


def test_a_mirror_may_be_certified_by_another_authority(tmp_path: Path) -> None:
    """The remote's `ca_cert` is the only trust for itself, and one of several for its mirrors."""
    known = make_pair("Known to everybody")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(known.cert)
    pair = make_pair("mirror", issuer=("Known to everybody", known))
    with recording_server(server_context(tmp_path, pair)) as server:
        remote = Remote(id="1", name="hub", url=server.url, ca_cert=make_pair("Own").cert)
        for believed in (False, True):
            client = UpstreamClient(
                remote,
                user_agent="test/1",
                environ={"REQUESTS_CA_BUNDLE": str(bundle)},
                believed=believed,
            )
            with contextlib.closing(client):
                if believed:
                    with pytest.raises(UpstreamUnreachable, match="not trusted"):
                        client.request("GET", "/x", credential=ANONYMOUS)
                else:
                    client.request("GET", "/x", credential=ANONYMOUS).close()


# --- details of the client ---


@contextlib.contextmanager
def asking(url: str, **fields: Any) -> Iterator[UpstreamClient]:
    client = UpstreamClient(
        Remote(id="1", name="hub", url=url, **fields), user_agent="test/1", environ={}
    )
    try:
        yield client
    finally:
        client.close()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_the_server_is_told_which_name_is_meant(tmp_path: Path) -> None:
    context = server_context(tmp_path, make_pair("server"))
    names: list[str | None] = []
    context.sni_callback = lambda socket, name, context: names.append(name)
    with recording_server(context) as server:
        url = f"https://localhost:{server.port}"
        with (
            asking(url, tls_validation=False) as client,
            client.request("GET", "/x", credential=ANONYMOUS) as answer,
        ):
            assert answer.status == 200
    assert names == ["localhost"]


def test_an_upstream_may_be_an_ipv6_address() -> None:
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6
        daemon_threads = True

    recorder = Recorder()
    try:
        server = Server(("::1", 0), type("H", (Handler,), {"recorder": recorder}))
    except OSError:
        pytest.skip("no IPv6 here")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with (
            asking(f"http://[::1]:{server.server_port}/hf") as client,
            client.request("GET", "/x", credential=ANONYMOUS) as answer,
        ):
            assert answer.read(10) == b"ok"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert recorder.paths() == ["/hf/x"]
    assert recorder.seen[0].headers["host"] == f"[::1]:{server.server_port}"
