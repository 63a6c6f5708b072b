"""The cache API: what it answers, to whom, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import ADMIN, RunningCache

from jupyter_hf_cache.web.credentials import Login, PasswordAuthenticator

MIB = 1 << 20
BIG = BigFile(2 * MIB, seed=3)


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        hub.repo("models", "org/api").commit({"model.bin": BIG, "config.json": b"{}"})
        hub.repo("datasets", "org/copy").commit({"model.bin": BIG})
        yield hub


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
    hub.faults.clear()
    with RunningCache(tmp_path, hub) as cache:
        yield cache


@pytest.fixture
def loaded(cache: RunningCache) -> RunningCache:
    for url in (
        "/datasets/org/copy/resolve/main/model.bin",
        "/org/api/resolve/main/config.json",
        "/org/api/resolve/main/model.bin",
    ):
        assert cache.get(url).status_code == 200
        cache.wait_idle()
    return cache


def answer_of(cache: RunningCache, method: str, path: str, **options: Any) -> Any:
    answer = cache.api(method, path, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


class TestAnswers:
    def test_status(self, loaded: RunningCache) -> None:
        status = answer_of(loaded, "GET", "status")
        assert status["endpoint"] == loaded.endpoint
        assert status["cache_dir"] == str(loaded.root / "cache")
        assert status["usage"]["bytes"] == 2 * MIB + 2
        assert (status["usage"]["repos"], status["usage"]["files"]) == (2, 3)
        assert status["usage"]["limit_bytes"] == 10**11
        assert status["fills"] == {
            "running": 0,
            "bytes_done": 0,
            "bytes_total": 0,
            "speed_bytes_per_second": 0,
        }
        assert [(u["remote"], u["state"]) for u in status["upstreams"]] == [
            ("default", "reachable")
        ]
        assert status["today"]["misses"] == 2 and status["today"]["hits"] == 1
        assert status["today"]["bytes_from_upstream"] == 2 * MIB + 2
        assert status["inject"] == {"on": False, "reason": None}
        assert status["problems"] == []
        assert "~" not in status["endpoint"], "no capability"

    def test_repos(self, loaded: RunningCache) -> None:
        listed = answer_of(loaded, "GET", "repos")
        assert listed["count"] == 2
        first, second = listed["results"]
        assert (first["type"], first["id"], first["remote"]) == ("models", "org/api", "default")
        assert (first["files"], first["size_bytes"]) == (2, 2 * MIB + 2)
        assert datetime.fromisoformat(first["last_used"]).tzinfo is not None
        (revision,) = first["revisions"]
        assert (revision["revision"], revision["files"]) == ("main", 2)
        assert len(revision["commit"]) == 40
        assert (second["type"], second["id"]) == ("datasets", "org/copy")

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"q": "API"}, ["org/api"]),
            ({"q": "nothing"}, []),
            ({"type": "datasets"}, ["org/copy"]),
            ({"type": "spaces"}, []),
            ({"limit": "1"}, ["org/api"]),
            ({"limit": "1", "offset": "1"}, ["org/copy"]),
            ({"offset": "7"}, []),
            ({"limit": "0"}, []),
            ({"limit": "999999999"}, ["org/api", "org/copy"]),
        ],
    )
    def test_repos_are_filtered_and_paged(
        self, loaded: RunningCache, query: dict[str, str], found: list[str]
    ) -> None:
        listed = answer_of(loaded, "GET", "repos", params=query)
        assert [repo["id"] for repo in listed["results"]] == found

    def test_a_repo_and_its_deletion(self, loaded: RunningCache) -> None:
        repo = answer_of(loaded, "GET", "repos/models/org/api")
        files = {file["path"]: file for file in repo["files"]}
        assert files["model.bin"]["digest"] == BIG.sha256()
        assert files["model.bin"]["shared_with"] == 1
        assert files["config.json"]["size_bytes"] == 2
        planned = answer_of(loaded, "DELETE", "repos/models/org/api", params={"dry_run": "1"})
        assert planned == {
            "freed_bytes": 2,
            "in_use_bytes": 0,
            "kept_shared_bytes": 2 * MIB,
            "files": 2,
        }
        assert answer_of(loaded, "GET", "repos")["count"] == 2
        assert answer_of(loaded, "DELETE", "repos/models/org/api") == planned
        assert loaded.api("GET", "repos/models/org/api").status_code == 404

    def test_fills(self, cache: RunningCache, hub: FakeHub) -> None:
        assert answer_of(cache, "GET", "fills") == {"results": []}
        hub.fault("stall", "", host="cdn", at=MIB)
        with requests.get(
            cache.endpoint + "/org/api/resolve/main/model.bin", stream=True, timeout=30
        ) as response:
            response.raw.read(1000)
            assert hub.faults.wait_until_stalled()
            cache.wait_until(lambda: cache.service.fills.reports()[0].done == MIB)
            (fill,) = answer_of(cache, "GET", "fills")["results"]
            assert (fill["type"], fill["repo"], fill["file"]) == ("models", "org/api", "model.bin")
            assert (fill["size_bytes"], fill["done_bytes"]) == (2 * MIB, MIB)
            assert (fill["state"], fill["readers"], fill["error"]) == ("running", 1, None)
            hub.faults.release()
            response.raw.read()
        cache.wait_idle()
        (fill,) = answer_of(cache, "GET", "fills")["results"]
        assert (fill["state"], fill["done_bytes"], fill["eta_seconds"]) == ("done", 2 * MIB, None)

    def test_a_failed_fill_says_why(
        self, cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jupyter_hf_cache.upstream.patience.BACKOFF_SECONDS", (0.0,))
        hub.fault("html", "", host="cdn", times=None)
        assert cache.get("/org/api/resolve/main/model.bin").status_code == 521
        (fill,) = answer_of(cache, "GET", "fills")["results"]
        assert fill["state"] == "failed"
        assert "web page" in fill["error"]

    def test_tokens(self, cache: RunningCache) -> None:
        assert answer_of(cache, "GET", "tokens") == {
            "results": [{"remote": "default", "set": False}]
        }
        put = answer_of(cache, "PUT", "tokens/default", json={"token": "hf_alice"})
        assert put == {"remote": "default", "set": True}
        tested = answer_of(cache, "POST", "tokens/default/test")
        assert (tested["ok"], tested["name"], tested["error"]) == (True, "alice", None)
        gone = cache.api("DELETE", "tokens/default")
        assert (gone.status_code, gone.content) == (204, b"")
        assert answer_of(cache, "GET", "tokens")["results"][0]["set"] is False

    def test_a_server_without_kernels_has_nothing_to_switch(self, cache: RunningCache) -> None:
        assert cache.api("GET", "inject").status_code == 404
        assert cache.api("PUT", "inject", json={"on": True}).status_code == 404


READS = ["status", "repos", "repos/models/org/api", "fills", "tokens", "inject"]
WRITES = [
    ("DELETE", "repos/models/org/api"),
    ("PUT", "tokens/default"),
    ("DELETE", "tokens/default"),
    ("POST", "tokens/default/test"),
    ("PUT", "inject"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path_factory.mktemp("shared"), hub) as cache:
        yield cache


class TestEntrance:
    @pytest.mark.parametrize(("method", "path"), [*(("GET", path) for path in READS), *WRITES])
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "token jhc_wrong"},
            {"Authorization": "Bearer hf_alice"},
            {"Cookie": "login=admin"},
        ],
        ids=["nothing", "wrong-token", "hub-token", "foreign-cookie"],
    )
    def test_without_a_login_there_is_no_answer(
        self, shared: RunningCache, method: str, path: str, headers: dict[str, str]
    ) -> None:
        answer = requests.request(
            method, f"{shared.host}/hf-cache/v1/{path}", headers=headers, timeout=30
        )
        by_form = "Cookie" in headers and method != "GET"
        assert answer.status_code == (403 if by_form else 401), answer.text
        assert set(answer.json()) == {"message", "advice"}

    def test_wrong_passwords_are_refused_and_slowed_down(self, cache: RunningCache) -> None:
        url = f"{cache.host}/hf-cache/v1/status"
        statuses = [
            requests.get(url, auth=("admin", "wrong"), timeout=30).status_code for _ in range(12)
        ]
        assert statuses[:10] == [401] * 10
        assert statuses[-1] == 429

    def test_the_token_of_the_runtime_file_opens_it(self, shared: RunningCache) -> None:
        answer = requests.get(
            f"{shared.host}/hf-cache/v1/status",
            headers={"Authorization": f"token {shared.context.cache_token}"},
            timeout=30,
        )
        assert answer.status_code == 200


class Cookies(PasswordAuthenticator):
    """Knows a cookie too, as Jupyter does."""

    async def login(self, handler: Any) -> Login | None:
        if handler.get_cookie("login") == "admin":
            return Login("admin", "cookie")
        return await super().login(handler)


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory, hub: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path_factory.mktemp("browsed"), hub) as cache:
        cache.context.authenticator = Cookies(ADMIN[1])
        yield cache


class TestXsrf:
    """Of a browser that is logged in by cookie."""

    def ask(
        self, browsed: RunningCache, method: str, path: str, *, xsrf: str | None, **options: Any
    ) -> requests.Response:
        headers = {"Cookie": "login=admin; _xsrf=abcdef", **options.pop("headers", {})}
        if xsrf is not None:
            headers["X-XSRFToken"] = xsrf
        url = f"{browsed.host}/hf-cache/v1/{path}"
        return requests.request(method, url, headers=headers, timeout=30, **options)

    def test_reading_needs_none(self, browsed: RunningCache) -> None:
        assert self.ask(browsed, "GET", "status", xsrf=None).status_code == 200

    @pytest.mark.parametrize(("method", "path"), WRITES)
    @pytest.mark.parametrize("xsrf", [None, "wrong", ""])
    def test_a_change_with_the_cookie_alone_is_refused(
        self, browsed: RunningCache, method: str, path: str, xsrf: str | None
    ) -> None:
        answer = self.ask(browsed, method, path, xsrf=xsrf)
        assert answer.status_code == 403
        assert "XSRF" in answer.json()["message"] + answer.json()["advice"]

    def test_with_the_token_the_change_is_made(self, browsed: RunningCache) -> None:
        body = {"token": "hf_x"}
        answer = self.ask(browsed, "PUT", "tokens/default", xsrf="abcdef", json=body)
        assert answer.status_code == 200
        assert self.ask(browsed, "DELETE", "tokens/default", xsrf="abcdef").status_code == 204

    @pytest.mark.parametrize(
        "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
    )
    def test_other_sites_get_nothing(self, browsed: RunningCache, headers: dict[str, str]) -> None:
        for path in READS:
            answer = self.ask(browsed, "GET", path, xsrf="abcdef", headers=headers)
            assert answer.status_code == 403


class TestBadValues:
    @pytest.mark.parametrize(
        "query",
        [
            {"limit": "-1"},
            {"limit": "x"},
            {"limit": ""},
            {"limit": "1.5"},
            {"limit": "9999999999"},
            {"offset": "-1"},
            {"offset": "²"},
            {"type": "model"},
            {"type": "x"},
        ],
    )
    def test_queries(self, shared: RunningCache, query: dict[str, str]) -> None:
        answer = shared.api("GET", "repos", params=query)
        assert answer.status_code == 400
        assert answer.json()["message"]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b'"hf_x"',
            b"{}",
            b'{"token": null}',
            b'{"token": 5}',
            b'{"token": ""}',
            b'{"token": "a b"}',
            b'{"token": ["hf_x"]}',
            b"[" * 100_000,
            b"\xff",
        ],
        ids=range(13),
    )
    def test_tokens(self, shared: RunningCache, body: bytes) -> None:
        answer = shared.api(
            "PUT", "tokens/default", data=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["message"]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "repos/models/org/none"),
            ("DELETE", "repos/models/org/none"),
            ("GET", "repos/widgets/org/none"),
            ("GET", "repos/models/a/b/c"),
            ("PUT", "tokens/nobody"),
            ("POST", "tokens/nobody/test"),
            ("DELETE", "tokens/nobody"),
            ("GET", "nothing"),
        ],
    )
    def test_what_is_not_there(self, shared: RunningCache, method: str, path: str) -> None:
        answer = shared.api(method, path, json={"token": "hf_x"})
        assert answer.status_code == 404

    @pytest.mark.parametrize("nonce", ["", "x" * 201])
    def test_nonces(self, shared: RunningCache, nonce: str) -> None:
        answer = requests.get(
            f"{shared.host}/hf-cache/v1/hello", params={"nonce": nonce}, timeout=30
        )
        assert answer.status_code == 400
