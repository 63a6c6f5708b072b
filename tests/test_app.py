"""The extension in a real Jupyter server: entrance, start, injection, stop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub
from jupyter_server.auth.security import passwd
from jupyter_server.extension.manager import ExtensionManager
from jupyter_server.serverapp import ServerApp
from traitlets.config import Config

from jupyter_hf_cache import __version__
from jupyter_hf_cache.app import HfCacheApp
from jupyter_hf_cache.environment import OWN_UPSTREAM, OWN_URL, RUNTIME_FILE
from jupyter_hf_cache.web.capability import Capabilities

TOKEN = "jupyter-token-0123456789"
PASSWORD = "jupyter password"
REMOTES = "pulp/api/v3/remotes/hugging_face/hugging-face/"
FILE = "tiny/model/resolve/main/config.json"

pytestmark = pytest.mark.jupyter


needs_start_hook = pytest.mark.skipif(
    not hasattr(ExtensionManager, "start_all_extensions"),
    reason="this jupyter_server starts extensions by itself, at a time of its own",
)


@pytest.fixture
def hub() -> Any:
    with FakeHub.with_defaults() as hub:
        repo = hub.repo("models", "tiny/model")
        repo.commit({"config.json": b'{"tiny": true}'})
        yield hub


@pytest.fixture
def cache_options() -> dict[str, Any]:
    """Tests replace it to start the extension with other options."""
    return {}


@pytest.fixture
def server_options() -> dict[str, Any]:
    """Tests replace it to start Jupyter with other options."""
    return {}


@pytest.fixture
def jp_server_config(
    tmp_path: Path,
    hub: FakeHub,
    cache_options: dict[str, Any],
    server_options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Config:
    for name in ("HF_ENDPOINT", OWN_URL, OWN_UPSTREAM, RUNTIME_FILE, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return Config(
        {
            "ServerApp": {
                "jpserver_extensions": {
                    "jupyter_hf_cache": True,
                    "jupyter_server_terminals": False,
                },
                "allow_unauthenticated_access": False,
                **server_options,
            },
            "PasswordIdentityProvider": {"hashed_password": passwd(PASSWORD, "sha1")},
            "IdentityProvider": {"token": TOKEN},
            "HfCache": {
                "cache_dir": str(tmp_path / "cache"),
                "data_dir": str(tmp_path / "data" / "hf-cache"),
                "config_dir": str(tmp_path / "config"),
                "default_upstream": hub.url,
                "min_free_space": 0,
                **cache_options,
            },
        }
    )


@pytest.fixture
def extension(jp_serverapp: ServerApp, caplog: pytest.LogCaptureFixture) -> Iterator[HfCacheApp]:
    app: HfCacheApp = jp_serverapp.extension_manager.extension_points["hf_cache"].app
    heard_by = deaf_logger(getattr(app.log, "logger", app.log))
    if heard_by is not None:
        heard_by.addHandler(caplog.handler)
    yield app
    if heard_by is not None:
        heard_by.removeHandler(caplog.handler)


def deaf_logger(logger: logging.Logger) -> logging.Logger | None:
    """The logger at which older releases of traitlets end the way to pytest's handler, if any."""
    while logger.parent is not None:
        if not logger.propagate:
            return logger
        logger = logger.parent
    return None


class Running:
    """A started server, asked over a real connection."""

    def __init__(self, server: ServerApp, extension: HfCacheApp) -> None:
        self.server = server
        self.extension = extension
        self.capability = (
            extension.context.capabilities.issue(60) if extension.context.capabilities else ""
        )

    async def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        return await asyncio.to_thread(self._ask, method, path, headers or {}, body)

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            connection.request(method, f"/a%40b/{path}", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    async def log_in(self) -> tuple[str, str]:
        """Log in with the password as a browser does: (Cookie header, XSRF token)."""
        _, headers, _ = await self.ask("GET", "login")
        xsrf = re.findall(r"_xsrf=([^;]+)", str(headers))[0]
        status, headers, _ = await self.ask(
            "POST",
            "login",
            {"Cookie": f"_xsrf={xsrf}", "Content-Type": "application/x-www-form-urlencoded"},
            f"_xsrf={xsrf}&password={PASSWORD.replace(' ', '+')}".encode(),
        )
        assert status == 302
        cookies = dict(re.findall(r"Set-Cookie: ([\w-]+)=(\"[^\"]*\"|[^;]*)", str(headers)))
        login = next(f"{name}={value}" for name, value in cookies.items() if "username" in name)
        return f"{login}; _xsrf={xsrf}", xsrf


@pytest.fixture
def running(
    jp_serverapp: ServerApp,
    extension: HfCacheApp,
    http_server: object,
    jp_asyncio_loop: asyncio.AbstractEventLoop,
) -> Iterator[Running]:
    manager = jp_serverapp.extension_manager
    jp_asyncio_loop.run_until_complete(extension._start_jupyter_server_extension(jp_serverapp))
    yield Running(jp_serverapp, extension)
    jp_asyncio_loop.run_until_complete(manager.stop_all_extensions())


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


# -- start


async def test_kernels_get_a_tested_endpoint(running: Running, hub: FakeHub) -> None:
    port = running.server.port
    endpoint = os.environ["HF_ENDPOINT"]
    assert re.fullmatch(rf"http://localhost:{port}/a%40b/pulp/content/~[\w.-]+/hf", endpoint)
    assert os.environ[OWN_URL] == endpoint
    assert "localhost" in os.environ["NO_PROXY"].split(",")
    assert "localhost" in os.environ["no_proxy"].split(",")
    path = endpoint.partition("/a%40b/")[2]
    status, headers, body = await running.ask("GET", f"{path}/{FILE}")
    assert (status, body) == (200, b'{"tiny": true}')
    assert headers["X-HF-Cache"] == __version__


async def test_new_kernels_inherit_it(running: Running) -> None:
    sessions = running.server.session_manager
    env = sessions.get_kernel_env("x.ipynb")
    assert env["HF_ENDPOINT"] == running.extension.injection.endpoint


async def test_the_runtime_file_is_for_this_user_only(running: Running) -> None:
    path = Path(os.environ[RUNTIME_FILE])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_text())
    assert content["pid"] == os.getpid()
    assert content["url"] == f"http://localhost:{running.server.port}/a%40b/"
    status, _, body = await running.ask(
        "GET", "hf-cache/v1/status", {"Authorization": f"token {content['token']}"}
    )
    assert status == 200
    answer = json.loads(body)
    assert answer["inject"] == {"on": True, "reason": None}
    assert answer["kernel_endpoint"] == os.environ["HF_ENDPOINT"]
    assert "~" not in answer["endpoint"]


@needs_start_hook
async def test_stopping_puts_everything_back(
    jp_serverapp: ServerApp, extension: HfCacheApp, http_server: object
) -> None:
    before = dict(os.environ)
    await extension._start_jupyter_server_extension(jp_serverapp)
    path = Path(os.environ[RUNTIME_FILE])
    await jp_serverapp.extension_manager.stop_all_extensions()
    assert dict(os.environ) == before
    assert not path.exists()
    assert extension.context.problem == "The cache is shutting down."


class TestBehindAProxy:
    @pytest.fixture(autouse=True)
    def proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A proxy that refuses every connection."""
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def test_the_cache_is_asked_directly(self, running: Running) -> None:
        endpoint = os.environ["HF_ENDPOINT"]
        assert endpoint == running.extension.injection.endpoint
        answer = await asyncio.to_thread(requests.head, f"{endpoint}/", timeout=20)
        assert answer.headers["X-HF-Cache"] == __version__


class TestSwitchedOff:
    @pytest.fixture
    def cache_options(self) -> dict[str, Any]:
        return {"inject_env": False}

    async def test_kernels_are_left_alone_but_the_cache_works(self, running: Running) -> None:
        assert "HF_ENDPOINT" not in os.environ
        assert "NO_PROXY" not in os.environ
        status, _, _ = await running.ask("GET", f"pulp/content/hf/{FILE}")
        assert status == 200
        assert running.extension.injection.state()["on"] is False


class TestUsersOwnHub:
    @pytest.fixture
    def jp_server_config(
        self, jp_server_config: Config, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> Config:
        del jp_server_config.HfCache["default_upstream"]
        monkeypatch.setenv("HF_ENDPOINT", hub.url + "/")
        return jp_server_config

    async def test_becomes_the_upstream(self, running: Running, hub: FakeHub) -> None:
        assert os.environ["HF_ENDPOINT"] == running.extension.injection.endpoint
        assert os.environ[OWN_UPSTREAM] == hub.url
        remotes = running.extension.context.service.config.remotes()
        assert [(remote.name, remote.url) for remote in remotes] == [("default", hub.url)]
        assert running.extension.context.service.problems == []


class TestUsersOwnHubLater:
    @pytest.fixture(autouse=True)
    def endpoint(self, jp_server_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")

    async def test_people_are_told_that_the_remote_goes_elsewhere(
        self, running: Running, hub: FakeHub
    ) -> None:
        (problem,) = running.extension.context.service.problems
        assert "https://hub.example.org" in problem
        assert hub.url in problem


class TestOwnUrlAsUpstream:
    @pytest.fixture
    def cache_options(self, jp_http_port: int) -> dict[str, Any]:
        return {"default_upstream": f"http://127.0.0.1:{jp_http_port}/a%40b/pulp/content/hf"}

    async def test_the_cache_never_asks_itself(self, running: Running) -> None:
        assert "HF_ENDPOINT" not in os.environ
        assert "this cache" in str(running.extension.injection.state()["reason"])


Prepare = Callable[[Path, pytest.FixtureRequest, pytest.MonkeyPatch], dict[str, Any]]


def blocked_by_a_file(tmp_path: Path, *_: object) -> dict[str, Any]:
    (tmp_path / "file").write_text("in the way")
    return {"cache_dir": str(tmp_path / "file" / "cache")}


def of_a_newer_release(tmp_path: Path, *_: object) -> dict[str, Any]:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "VERSION").write_text("99.0\n")
    return {}


def on_a_network(
    _: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setattr("jupyter_hf_cache.config.network_type_of", lambda path: "nfs4")
    monkeypatch.setattr("jupyter_hf_cache.config.local_state_dir", lambda path: None)
    return {}


def disk_of_its_own(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("group network: mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", disk], check=True))
    return disk


def on_a_full_disk(
    tmp_path: Path, request: pytest.FixtureRequest, _: pytest.MonkeyPatch
) -> dict[str, Any]:
    disk = disk_of_its_own(tmp_path, request)
    with contextlib.suppress(OSError):
        (disk / "filler").write_bytes(bytes(1 << 20))
    return {"cache_dir": str(disk / "cache")}


def on_a_read_only_disk(
    tmp_path: Path, request: pytest.FixtureRequest, _: pytest.MonkeyPatch
) -> dict[str, Any]:
    disk = disk_of_its_own(tmp_path, request)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    return {"cache_dir": str(disk / "cache")}


class TestBrokenStore:
    @pytest.fixture(
        params=[
            blocked_by_a_file,
            of_a_newer_release,
            on_a_network,
            on_a_full_disk,
            on_a_read_only_disk,
        ]
    )
    def cache_options(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, Any]:
        prepare: Prepare = request.param
        return prepare(tmp_path, request, monkeypatch)

    async def test_jupyter_starts_and_says_why(
        self,
        jp_serverapp: ServerApp,
        extension: HfCacheApp,
        http_server: object,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await extension._start_jupyter_server_extension(jp_serverapp)
        running = Running(jp_serverapp, extension)
        warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert "HF_ENDPOINT" not in os.environ
        problem = running.extension.context.problem
        assert problem
        status, headers, body = await running.ask("GET", f"pulp/content/hf/{FILE}")
        assert status == 503
        assert problem.encode("ascii", "replace").decode() == headers["X-Error-Message"]
        status, _, body = await running.ask("GET", "api/status", basic("", "") | auth())
        assert status == 200
        status, _, body = await running.ask("GET", "hf-cache/v1/status", auth())
        assert status == 200
        assert problem in json.loads(body)["problems"]
        assert [problem in line for line in warnings] == [True]


class TestLostState:
    @pytest.fixture(params=["cache/state/files", "cache/state/repos", "data/hf-cache/state/config"])
    def cache_options(self, request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
        table = tmp_path / request.param
        table.mkdir(parents=True)
        (table / "cache.db").write_bytes(b"no database" * 1000)
        return {}

    async def test_a_corrupt_table_is_set_aside_and_the_cache_works(self, running: Running) -> None:
        assert os.environ["HF_ENDPOINT"]
        problems = running.extension.context.service.problems
        assert [problem for problem in problems if "corrupt" in problem]
        status, _, _ = await running.ask("GET", f"pulp/content/hf/{FILE}")
        assert status == 200


class TestSlowDisk:
    @needs_start_hook
    async def test_nothing_waits_for_it(
        self,
        jp_serverapp: ServerApp,
        extension: HfCacheApp,
        http_server: object,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("jupyter_hf_cache.app._START_HOOK_SECONDS", 0.01)
        opening = extension._opening
        await asyncio.wrap_future(opening)
        never: Any = type(opening)()
        extension._opening = never
        await extension._start_jupyter_server_extension(jp_serverapp)
        assert "HF_ENDPOINT" not in os.environ
        status, headers, _ = await Running(jp_serverapp, extension).ask(
            "GET", f"pulp/content/hf/{FILE}"
        )
        assert (status, headers["X-Error-Message"]) == (503, "The cache is still being opened.")
        await jp_serverapp.extension_manager.stop_all_extensions()
        opening.result().close()


class TestCertificate:
    @pytest.fixture
    def server_options(self) -> dict[str, Any]:
        # Any name will do: the test server itself listens without TLS.
        return {"certfile": "cert.pem"}

    async def test_kernels_get_a_plain_loopback_port(self, running: Running) -> None:
        endpoint = os.environ["HF_ENDPOINT"]
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)(/pulp/content/~[\w.-]+/hf)", endpoint)
        assert found is not None
        assert int(found[1]) != running.server.port

        def ask(path: str, headers: dict[str, str]) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
            try:
                connection.request("GET", path, None, headers)
                return connection.getresponse().status
            finally:
                connection.close()

        forwarded = {"X-Forwarded-For": "1.2.3.4"}
        assert await asyncio.to_thread(ask, f"{found[2]}/{FILE}", {}) == 200
        assert await asyncio.to_thread(ask, f"{found[2]}/{FILE}", forwarded) == 401
        assert await asyncio.to_thread(ask, f"/pulp/content/hf/{FILE}", forwarded | auth()) == 200
        assert await asyncio.to_thread(ask, f"/{REMOTES}", auth()) == 404


# -- entrance


def auth() -> dict[str, str]:
    return {"Authorization": f"token {TOKEN}"}


FORWARDED = {"X-Forwarded-For": "192.0.2.1"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
async def test_the_matrix(running: Running, method: str) -> None:
    """Who is let in by the real identity provider; POST and PUT go to no route that takes them."""
    cookie, xsrf = await running.log_in()
    forged = Capabilities([b"x" * 32]).issue(60)
    body = b"{}" if method in ("POST", "PUT") else None
    as_json = {"Content-Type": "application/json"}
    writes = method in ("POST", "PUT")

    async def content(headers: dict[str, str], ticket: str = "") -> int:
        # From elsewhere: whatever comes in here was let in by what it presents.
        path = f"pulp/content/{f'~{ticket}/' if ticket else ''}hf/{FILE}"
        return (await running.ask(method, path, FORWARDED | as_json | headers, body))[0]

    async def api(headers: dict[str, str]) -> int:
        return (await running.ask(method, REMOTES + "nope/", as_json | headers, body))[0]

    async def direct(ticket: str) -> int:
        path = f"pulp/content/~{ticket}/hf/{FILE}"
        return (await running.ask(method, path, as_json, body))[0]

    hf = {"Authorization": "Bearer hf_0123456789"}
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    cookies = {"Cookie": cookie}
    xsrfed = {"Cookie": cookie, "X-XSRFToken": xsrf}

    assert [await content(h) for h in ({}, hf)] == [401, 401]
    assert [await content({}, ticket) for ticket in (forged, running.capability)] == [401, 401]
    assert await direct(running.capability) not in (401, 503)
    inside = [await content(h) for h in (auth(), bearer, basic("x", TOKEN), basic("", PASSWORD))]
    assert not {401, 503} & set(inside)
    assert (await content(cookies) == 401) is writes
    assert (await content(xsrfed) == 401) is writes

    assert [await api(h) for h in ({}, hf, basic("admin", "wrong"))] == [401, 401, 401]
    for headers in (auth(), bearer, basic("admin", TOKEN), basic("admin", PASSWORD), xsrfed):
        assert await api(headers) not in (401, 403, 503)
    assert (await api(cookies) == 403) is writes


async def test_a_token_of_the_hub_is_never_shown_to_the_identity_provider(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = running.server.identity_provider
    seen: list[str | None] = []
    get_user = provider.get_user

    def spy(handler: Any) -> Any:
        seen.append(handler.request.headers.get("Authorization"))
        return get_user(handler)

    monkeypatch.setattr(type(provider), "get_user", lambda self, handler: spy(handler))
    cookie, _ = await running.log_in()
    seen.clear()
    hf = {"Authorization": "Bearer hf_0123456789"}
    path = f"pulp/content/hf/{FILE}"
    await running.ask("GET", path, hf)
    await running.ask("GET", f"pulp/content/~{running.capability}/hf/{FILE}", hf)
    await running.ask("GET", REMOTES, hf)
    assert seen == []
    await running.ask("GET", path, hf | {"Cookie": cookie})
    assert seen == [None]


@pytest.mark.parametrize("path", [f"pulp/content/hf/{FILE}", REMOTES, "hf-cache/v1/status"])
async def test_the_guard_stands_before_content_and_api(running: Running, path: str) -> None:
    for headers in (
        {"Host": "evil.example.org"},
        {"Origin": "http://evil.example.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
    ):
        status, answer, _ = await running.ask("GET", path, auth() | headers)
        assert status == 403, headers
        assert "WWW-Authenticate" not in answer


async def test_browsers_are_never_asked_for_basic(running: Running) -> None:
    _, plain, _ = await running.ask("GET", REMOTES)
    assert plain["WWW-Authenticate"].startswith("Basic")
    status, browser, _ = await running.ask("GET", REMOTES, {"Sec-Fetch-Site": "same-origin"})
    assert (status, browser["WWW-Authenticate"]) == (401, None)


async def test_content_is_harmless_for_browsers_and_sets_no_cookie(running: Running) -> None:
    for headers in (auth(), {}, {"Host": "evil.example.org"}):
        _, answer, _ = await running.ask("GET", f"pulp/content/hf/{FILE}", headers)
        assert answer["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Set-Cookie" not in answer
        assert "Access-Control-Allow-Origin" not in answer


async def test_no_secret_reaches_the_log_or_the_upstream(
    running: Running, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ticket = running.capability
    for path in (
        f"pulp/content/~{ticket}/hf/{FILE}",
        f"pulp/content/~{ticket}/hf/tiny/model/resolve/main/nope",
        f"pulp/content/%7E{ticket}/hf/x/y/resolve/main/nope",
        f"pulp/content/hf/api/models/tiny/model?token={TOKEN}",
        f"pulp/content/~{ticket}/nowhere/x",
    ):
        await running.ask("GET", path)
        await running.ask("GET", path, FORWARDED)
    ours = [
        r.getMessage() for r in caplog.records if r.name.startswith(("HfCacheApp", "jupyter_hf"))
    ]
    assert any("~…" in line for line in ours)
    everything = "\n".join(r.getMessage() for r in caplog.records)
    assert ticket not in everything
    assert TOKEN not in everything
    assert TOKEN not in "".join(str(record) for record in hub.counters.requests)


async def test_a_huge_body_is_refused_before_it_is_sent(running: Running) -> None:
    def declare() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", running.server.port, timeout=20)
        try:
            connection.putrequest("POST", f"/a%40b/{REMOTES}")
            connection.putheader("Authorization", f"token {TOKEN}")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(2 * 10**9))
            connection.endheaders()
            return connection.getresponse().status
        finally:
            connection.close()

    assert await asyncio.to_thread(declare) == 413
    status, _, _ = await running.ask(
        "POST", REMOTES, auth() | {"Content-Type": "application/json"}, b" " * (2 << 20)
    )
    assert status == 413


async def test_content_counts_as_activity(running: Running) -> None:
    settings = running.server.web_app.settings
    settings.pop("hf_cache_last_activity", None)
    await running.ask("GET", f"pulp/content/hf/{FILE}")
    assert running.server.web_app.last_activity() >= settings["hf_cache_last_activity"]
    assert running.extension.current_activity() is None


class TestHeartbeat:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("jupyter_hf_cache.app._HEARTBEAT_SECONDS", 0.01)

    async def test_a_download_that_makes_no_events_keeps_the_server_alive(
        self, running: Running, hub: FakeHub
    ) -> None:
        hub.repo("models", "tiny/big").commit({"model.bin": BigFile(8 << 20, seed=5)})
        hub.fault("stall", "model.bin", host="cdn", at=1 << 20)
        download = asyncio.create_task(
            running.ask("GET", "pulp/content/hf/tiny/big/resolve/main/model.bin")
        )
        assert await asyncio.to_thread(hub.faults.wait_until_stalled)
        settings = running.server.web_app.settings
        before = settings["hf_cache_last_activity"]
        end = time.monotonic() + 20
        while settings["hf_cache_last_activity"] <= before:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
        assert running.extension.current_activity() == {"transfers": 1}
        hub.faults.release()
        assert (await download)[0] == 200
