"""Every manner in which a Hub can be gone: one request finds out, the others answer from what is
kept, and what is not kept is refused at once with the reason."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from door import PLAIN_OUTAGES, TLS_OUTAGES, Door
from fake_hub import FakeHub
from serving import RunningCache
from wall_clock import Clock

from jupyter_hf_cache.upstream.transport import Adapter

TINY = "hf-internal-testing/tiny-random-bert"
FINAL = 521
READS = [
    ("GET", f"/api/models/{TINY}", {}),
    ("GET", f"/api/models/{TINY}/tree/main?recursive=true&expand=false", {}),
    ("GET", f"/api/models/{TINY}/refs", {}),
    ("GET", f"/api/models/{TINY}/commits/main", {}),
    ("GET", "/api/models?author=org&limit=2", {}),
    ("POST", f"/api/models/{TINY}/paths-info/main", {"data": {"paths": ["config.json"]}}),
    ("HEAD", f"/{TINY}/resolve/main/config.json", {}),
    ("GET", f"/{TINY}/resolve/main/config.json", {}),
    ("GET", f"/{TINY}/resolve/main/model.safetensors", {}),
    ("GET", f"/{TINY}/resolve/v1.0/vocab.txt", {"headers": {"Range": "bytes=0-4"}}),
    ("HEAD", f"/{TINY}/resolve/main/added_tokens.json", {}),
    ("GET", f"/{TINY}/raw/main/config.json", {}),
    ("GET", f"/{TINY}/raw/main/model.safetensors", {}),
]
ABSENT = [
    ("HEAD", "/org/large/resolve/main/model.bin"),
    ("GET", "/org/large/resolve/main/model.bin"),
    ("GET", f"/{TINY}/resolve/never/config.json"),
    ("GET", "/api/models/org/large"),
    ("GET", "/api/models/org/large/tree/main"),
    ("GET", "/api/models?search=never"),
    ("GET", "/api/whoami-v2"),
]
REASONS = {
    "refused": "refused the connection",
    "black hole": "timed out",
    "silent": "did not answer within",
    "hangs up": "closed the connection",
    "portal": "web page",
    "portal elsewhere": "redirects",
    "unknown issuer": "not trusted",
    "expired": "expired",
    "no tls": "speaks no TLS",
    "no name": "cannot be resolved",
}


class Tries:
    """How often a connection was used for a request, whatever came of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        send = Adapter.send

        def counted(adapter: Adapter, *args: Any, **options: Any) -> Any:
            self.count += 1
            return send(adapter, *args, **options)

        monkeypatch.setattr(Adapter, "send", counted)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Tries:
    return Tries(monkeypatch)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finding out is quick, and the rest after it does not end by itself."""
    monkeypatch.setattr("jupyter_hf_cache.upstream.client.CONNECT_TIMEOUT", 0.6)
    monkeypatch.setattr("jupyter_hf_cache.upstream.lookup.METADATA_TIMEOUT", 0.6)
    monkeypatch.setattr("jupyter_hf_cache.service.metadata.METADATA_TIMEOUT", 0.6)
    monkeypatch.setattr("jupyter_hf_cache.upstream.transfer.STALL_SECONDS", 0.6)
    monkeypatch.setattr("jupyter_hf_cache.upstream.client.DEFAULT_RETRIES", 1)
    monkeypatch.setattr("jupyter_hf_cache.service.breaker._SHORTEST_REST", 1000.0)
    monkeypatch.setattr("jupyter_hf_cache.service.breaker._LONGEST_REST", 1000.0)


@pytest.fixture(params=[*PLAIN_OUTAGES, *TLS_OUTAGES])
def outage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def door(hub: FakeHub, tmp_path: Path, outage: str) -> Iterator[Door]:
    folder = tmp_path if outage in TLS_OUTAGES else None
    with Door(hub.url, folder) as door:
        yield door


class Outside(RunningCache):
    """A cache whose remote is a door."""

    def __init__(self, root: Path, hub: FakeHub, door: Door, **options: Any) -> None:
        super().__init__(root, hub, **options)
        remote = self.service.config.remotes()[0]
        wanted = {"url": door.url, "ca_cert": door.authority or None}
        if remote.url != door.url:
            self.service.config.update_remote(remote.id, wanted)


def answers(cache: RunningCache) -> list[tuple[Any, ...]]:
    found = []
    for method, url, options in READS:
        answer = cache.request(method, url, **options)
        facts = [answer.headers.get(n) for n in ("X-Repo-Commit", "ETag", "X-Error-Code", "Link")]
        link = (facts.pop() or "").partition("/pulp/content")[2]
        found.append((answer.status_code, answer.content, *facts, link))
    cache.wait_idle()
    return found


@pytest.mark.usefixtures("patient")
def test_one_look_is_enough_and_everything_loads_again_after_a_restart(
    tmp_path: Path, hub: FakeHub, door: Door, clock: Clock, outage: str, tries: Tries
) -> None:
    with Outside(tmp_path, hub, door) as cache:
        before = answers(cache)
    clock.advance(30 * 24 * 3600)
    door.shut(outage)
    hub.pause()
    tries.count = 0
    with Outside(tmp_path, hub, door) as cache:
        for _ in range(3):
            assert answers(cache) == before
        # One question, and no more tries of it than the client makes.
        assert 1 <= tries.count <= 2
        for method, url, options in READS:
            answer = cache.request(method, url, **options)
            if answer.status_code < 300:
                assert answer.headers["X-HF-Warning"].startswith("Stale; "), url
        for method, url in ABSENT:
            answer = cache.request(method, url, trusted=True)
            assert answer.status_code == FINAL, url
            assert REASONS[outage] in answer.headers["X-Error-Message"]
            assert "X-Error-Code" not in answer.headers
        assert tries.count <= 2
        state, reason = cache.service.breaker.state(cache.service.config.remotes()[0].id)
        assert (state, REASONS[outage] in reason) == ("unreachable", True)


@pytest.mark.usefixtures("patient")
def test_a_download_that_finds_out_lets_the_others_know(
    tmp_path: Path, hub: FakeHub, door: Door, outage: str, tries: Tries
) -> None:
    """What is said of a file may be fresh while its bytes have to be fetched."""
    with Outside(tmp_path, hub, door) as cache:
        files = [f"/{TINY}/resolve/main/{name}" for name in ("config.json", "vocab.txt")]
        assert [cache.head(url).status_code for url in files] == [200, 200]
        door.shut(outage)
        hub.pause()
        tries.count = 0
        for url in files * 2:
            answer = cache.get(url)
            assert answer.status_code == FINAL
            if outage == "portal elsewhere":
                # A download follows the Hub to its storage, so to the portal, whose name is none.
                continue
            assert REASONS[outage] in answer.headers["X-Error-Message"]
        # A portal answers at once, and one odd page among good answers is none.
        assert 1 <= tries.count <= (16 if outage.startswith("portal") else 2)


def test_a_hub_that_is_back_is_asked_again(
    tmp_path: Path, hub: FakeHub, door: Door, outage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_hf_cache.upstream.client.CONNECT_TIMEOUT", 0.6)
    monkeypatch.setattr("jupyter_hf_cache.upstream.lookup.METADATA_TIMEOUT", 0.6)
    monkeypatch.setattr("jupyter_hf_cache.upstream.client.DEFAULT_RETRIES", 0)
    monkeypatch.setattr("jupyter_hf_cache.service.breaker._SHORTEST_REST", 0.1)
    monkeypatch.setattr("jupyter_hf_cache.service.breaker._LONGEST_REST", 0.3)
    url = "/org/large/resolve/main/README.md"
    with Outside(tmp_path, hub, door) as cache:
        door.shut(outage)
        assert cache.get(url).status_code == FINAL
        door.open()
        cache.wait_until(lambda: cache.get(url).status_code == 200, 60)
        assert "X-HF-Warning" not in cache.get(url).headers


class Names:
    """A resolver that knows one more name, or hangs, or knows nothing."""

    host = "hub.test"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = True
        resolve = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
            if host != self.host:
                return resolve(host, *args, **options)
            if not self.known:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return resolve("127.0.0.1", *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("patient")
def test_a_name_that_no_longer_resolves(
    tmp_path: Path, hub: FakeHub, clock: Clock, monkeypatch: pytest.MonkeyPatch, tries: Tries
) -> None:
    names = Names(monkeypatch)
    with RunningCache(tmp_path, hub) as cache:
        remote = cache.service.config.remotes()[0]
        url = hub.url.replace("127.0.0.1", names.host)
        cache.service.config.update_remote(remote.id, {"url": url})
        before = answers(cache)
        clock.advance(3600)
        names.known = False
        # New connections only: those that are open need no name.
        cache.service.client(remote, with_credentials=False).close()
        hub.pause()
        hub.resume()
        tries.count = 0
        for _ in range(3):
            assert answers(cache) == before
        assert 1 <= tries.count <= 2
        answer = cache.get("/org/large/resolve/main/README.md")
        assert answer.status_code == FINAL
        assert REASONS["no name"] in answer.headers["X-Error-Message"]
