"""What is passed on: all that is not a read of a repo, and nobody's secrets but their own."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fake_hub import FakeHub
from recording_server import Handler, Recorder, recording_server, redirect, reply
from serving import RunningCache

from jupyter_hf_cache.web.context import AccessOptions
from jupyter_hf_cache.web.guard import HostRules

ALICE = {"Authorization": "Bearer hf_alice"}
MIB = 1 << 20
SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"


def store_token(cache: RunningCache, token: str = "hf_reader") -> None:
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"hf_token": token})


class TestWhoami:
    def test_is_asked_with_the_callers_own_token(self, cache: RunningCache) -> None:
        store_token(cache)
        for trusted in (False, True):
            answer = cache.get("/api/whoami-v2", trusted=trusted, headers=ALICE)
            assert answer.json()["name"] == "alice"
            assert answer.headers["Content-Security-Policy"] == SANDBOX

    def test_is_never_asked_with_the_stored_one(self, cache: RunningCache, hub: FakeHub) -> None:
        store_token(cache)
        for url in ("/api/whoami-v2", "/api/models?author=org", "/api/models/org/private/settings"):
            cache.get(url, trusted=True)
            cache.get(url)
        assert hub.counters.requests
        assert all(record.authorization is None for record in hub.counters.requests)

    def test_is_not_kept(self, cache: RunningCache, hub: FakeHub) -> None:
        for _ in range(2):
            cache.get("/api/whoami-v2", headers=ALICE)
        assert hub.counters.count(path_contains="whoami") == 2
        hub.accounts.revoke("hf_alice")
        answer = cache.get("/api/whoami-v2", headers=ALICE)
        assert answer.status_code == 401
        expected = "Invalid credentials in Authorization header"
        assert answer.headers["X-Error-Message"] == expected

    def test_strangers_ask_nothing(self, cache: RunningCache, hub: FakeHub) -> None:
        for method, url in (
            ("GET", "/api/whoami-v2"),
            ("GET", "/api/agent-harnesses"),
            ("POST", "/api/repos/create"),
            ("GET", "/api/models/org/large/xet-write-token/main"),
            ("POST", "/org/large.git/info/lfs/objects/batch"),
        ):
            answer = cache.request(method, url, json={} if method == "POST" else None)
            assert answer.status_code == 401, url
            assert answer.headers["X-Error-Message"]
        assert hub.counters.requests == []


def push(
    cache: RunningCache, repo: str, files: dict[str, bytes], *, trusted: bool = True
) -> requests.Response:
    """Commit as huggingface_hub does: ask how, upload what is large, then commit."""

    def post(path: str, **options: Any) -> requests.Response:
        headers = {**ALICE, **options.pop("headers", {})}
        return cache.request("POST", path, trusted=trusted, headers=headers, **options)

    rows = [{"path": p, "size": len(b), "sample": ""} for p, b in files.items()]
    plan = post(f"/api/models/{repo}/preupload/main", json={"files": rows})
    assert plan.status_code == 200, plan.text
    lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "push"}}]
    for row in plan.json()["files"]:
        body = files[row["path"]]
        if row["uploadMode"] == "regular":
            content = base64.b64encode(body).decode()
            value = {"path": row["path"], "content": content, "encoding": "base64"}
            lines.append({"key": "file", "value": value})
            continue
        oid = hashlib.sha256(body).hexdigest()
        batch = post(
            f"/{repo}.git/info/lfs/objects/batch",
            json={"operation": "upload", "objects": [{"oid": oid, "size": len(body)}]},
        )
        actions = batch.json()["objects"][0]["actions"]
        assert requests.put(actions["upload"]["href"], data=body, timeout=30).status_code == 200
        assert actions["verify"]["href"].startswith(cache.host), "verified through the cache"
        verified = requests.post(
            actions["verify"]["href"], json={"oid": oid}, headers=ALICE, timeout=30
        )
        assert verified.status_code == 200
        value = {"path": row["path"], "algo": "sha256", "oid": oid, "size": len(body)}
        lines.append({"key": "lfsFile", "value": value})
    return post(
        f"/api/models/{repo}/commit/main",
        data="\n".join(json.dumps(line) for line in lines),
        headers={"Content-Type": "application/x-ndjson"},
    )


class TestWrites:
    FILES = {"README.md": b"# New\n", "model.safetensors": b"weights" * 1000}

    def create(self, cache: RunningCache) -> requests.Response:
        body = {"name": "new", "organization": "org", "type": "model"}
        return cache.request("POST", "/api/repos/create", trusted=True, json=body, headers=ALICE)

    def test_a_new_repo_is_made_filled_and_read(self, cache: RunningCache, hub: FakeHub) -> None:
        for url in ("/api/models/org/new", "/org/new/resolve/main/README.md"):
            assert cache.get(url, headers=ALICE).status_code == 404
        created = self.create(cache)
        assert created.status_code == 200
        assert created.json()["url"] == f"{hub.url}/org/new"
        assert cache.get("/api/models/org/new", headers=ALICE).json()["sha"], "404 is forgotten"
        pushed = push(cache, "org/new", self.FILES)
        sha = pushed.json()["commitOid"]
        assert pushed.json()["commitUrl"] == f"{hub.url}/org/new/commit/{sha}"
        for headers in (ALICE, {}):
            assert cache.get("/api/models/org/new", headers=headers).json()["sha"] == sha
            for path, body in self.FILES.items():
                answer = cache.get(f"/org/new/resolve/main/{path}", headers=headers)
                assert (answer.content, answer.headers["X-Repo-Commit"]) == (body, sha)

    def test_a_push_is_seen_at_once_by_everybody(self, cache: RunningCache) -> None:
        everybody: list[dict[str, str]] = [{}, ALICE, {"Authorization": "Bearer hf_bob"}]
        reads = ("/api/models/org/large", "/api/models/org/large/tree/main")

        def seen() -> list[bool]:
            found = []
            for headers in everybody:
                for url in reads:
                    found.append("NOTES.md" in cache.get(url, headers=headers).text)
                head = cache.head("/org/large/resolve/main/NOTES.md", headers=headers)
                found.append(head.status_code == 200)
            return found

        assert not any(seen())
        assert push(cache, "org/large", {"NOTES.md": b"new\n"}).status_code == 200
        assert all(seen())

    def test_branches_tags_and_likes(self, cache: RunningCache, hub: FakeHub) -> None:
        def call(method: str, path: str, **options: Any) -> int:
            url = f"/api/models/org/large/{path}"
            return cache.request(method, url, trusted=True, headers=ALICE, **options).status_code

        assert cache.get("/api/models/org/large/refs").json()["tags"] == []
        assert call("POST", "tag/main", json={"tag": "v2"}) == 200
        assert call("POST", "branch/feature%2Fx", json={}) == 200
        refs = cache.get("/api/models/org/large/refs").json()
        assert [row["name"] for row in refs["tags"]] == ["v2"]
        assert "feature/x" in [row["name"] for row in refs["branches"]]
        assert cache.get("/org/large/resolve/feature%2Fx/README.md").status_code == 200
        assert call("DELETE", "branch/feature%2Fx") == 200
        assert call("POST", "like") == 200

    def test_refusals_come_back_as_they_are(self, cache: RunningCache) -> None:
        bob = {"Authorization": "Bearer hf_bob"}
        answer = cache.request(
            "POST", "/api/models/org/large/branch/x", trusted=True, json={}, headers=bob
        )
        assert answer.status_code == 403
        assert "rights" in answer.headers["X-Error-Message"]
        assert "rights" in answer.json()["error"]

    def test_a_second_creation_is_a_409(self, cache: RunningCache, hub: FakeHub) -> None:
        assert self.create(cache).status_code == 200
        again = self.create(cache)
        assert again.status_code == 409
        assert again.json()["url"] == f"{hub.url}/org/new"

    def test_a_trusted_caller_without_a_token_writes_nothing(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        store_token(cache, "hf_alice")
        answer = cache.request(
            "POST", "/api/repos/create", trusted=True, json={"name": "x", "organization": "org"}
        )
        assert answer.status_code == 401
        assert hub.catalogue.get("models", "org/x") is None

    def test_a_read_only_cache_says_so(self, tmp_path: Path, hub: FakeHub) -> None:
        with RunningCache(tmp_path, hub, read_only=True) as cache:
            for method, url in (
                ("POST", "/api/repos/create"),
                ("DELETE", "/api/repos/delete"),
                ("PUT", "/api/models/org/large/settings"),
                ("POST", "/api/models/org/large/commit/main"),
            ):
                answer = cache.request(method, url, trusted=True, json={}, headers=ALICE)
                assert answer.status_code == 403
                assert "read-only" in answer.headers["X-Error-Message"]
            assert hub.counters.requests == []
            question = {"paths": ["README.md"]}
            url = "/api/models/org/large/paths-info/main"
            assert cache.request("POST", url, json=question).status_code == 200


class TestMinting:
    """Routes that hand out URLs or tokens: the right to content comes first."""

    ROUTES = (
        ("GET", "/api/models/org/{}/xet-read-token/main", None),
        ("POST", "/org/{}.git/info/lfs/objects/batch", {"operation": "download", "objects": []}),
    )

    @pytest.mark.parametrize(("method", "url", "body"), ROUTES)
    def test_the_right_is_asked_for_first(
        self, cache: RunningCache, hub: FakeHub, method: str, url: str, body: object
    ) -> None:
        for repo, token, status in (
            ("private", "hf_bob", 404),
            ("gated", "hf_bob", 403),
            ("disabled", "hf_alice", 403),
            ("private", "hf_revoked", 401),
        ):
            headers = {"Authorization": f"Bearer {token}"}
            hub.counters.reset()
            answer = cache.request(
                method, url.format(repo), trusted=True, json=body, headers=headers
            )
            assert answer.status_code == status, repo
            assert [r.path.rpartition("/")[2] for r in hub.counters.requests] == ["auth-check"]
        for repo in ("private", "gated", "large"):
            answer = cache.request(method, url.format(repo), trusted=True, json=body, headers=ALICE)
            assert answer.status_code == 200, repo

    def test_lfs_downloads_are_no_writes(self, tmp_path: Path, hub: FakeHub) -> None:
        entry = hub.catalogue.get("models", "org/large").head.files["model.bin"]
        objects = [{"oid": entry.etag, "size": entry.size}]
        url = "/org/large.git/info/lfs/objects/batch"
        with RunningCache(tmp_path, hub, read_only=True) as cache:
            body = {"operation": "download", "objects": objects}
            answer = cache.request("POST", url, trusted=True, json=body, headers=ALICE)
            assert answer.json()["objects"][0]["actions"]["download"]["href"]
            body["operation"] = "upload"
            answer = cache.request("POST", url, trusted=True, json=body, headers=ALICE)
            assert answer.status_code == 403


class TestSecrets:
    """What opens this server never leaves it."""

    JUPYTER = {
        "Cookie": "username-localhost=secret-cookie; _xsrf=secret-xsrf",
        "X-XSRFToken": "secret-xsrf",
        "Referer": "http://127.0.0.1/lab?token=secret-token",
        "X-Forwarded-User": "secret-user",
        "Proxy-Authorization": "Basic secret-proxy",
        "X-Amzn-Trace-Id": "harmless",
    }
    REQUESTS = (
        ("GET", "/api/whoami-v2?token=secret-token&x=1", None),
        ("POST", "/api/repos/create?token=secret-token", {"name": "x"}),
        ("GET", "/org/large/resolve/main/README.md?token=secret-token", None),
        ("GET", "/org/large/resolve/main/model.bin", None),
        ("GET", "/api/models/org/large?token=secret-token", None),
        ("GET", "/api/models?search=x&token=secret-token", None),
        ("POST", "/api/models/org/large/paths-info/main?token=secret-token", {"paths": ["x"]}),
        ("GET", "/login", None),
    )

    @pytest.mark.parametrize("bearer", ["hf_alice", None])
    def test_none_reaches_the_upstream(
        self, cache: RunningCache, hub: FakeHub, bearer: str | None
    ) -> None:
        headers = dict(self.JUPYTER)
        del headers["X-Forwarded-User"]  # it would make the capability worthless
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        for method, url, body in self.REQUESTS:
            cache.request(method, url, trusted=True, json=body, headers=headers)
        cache.wait_idle()
        assert hub.counters.count() > len(self.REQUESTS)
        for record in hub.counters.requests:
            told = record.uri + json.dumps(dict(record.headers))
            assert "secret" not in told
            assert "~" not in told
            assert "/user/" not in told
            allowed = {None} if record.host == "cdn" else {None, bearer and f"Bearer {bearer}"}
            assert record.authorization in allowed

    def test_a_servers_own_credential_is_no_token_of_the_hub(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        url = f"{cache.endpoint}/org/large/resolve/main/README.md"
        own = f"token {cache.context.cache_token}"
        assert requests.get(url, auth=("admin", "password"), timeout=30).status_code == 200
        assert requests.get(url, headers={"Authorization": own}, timeout=30).status_code == 200
        assert all(record.authorization is None for record in hub.counters.requests)

    def test_the_upstreams_cookies_stop_here(self, cache: RunningCache, hub: FakeHub) -> None:
        answer = cache.get("/login", trusted=True, headers=ALICE)
        assert answer.status_code == 200
        assert "Set-Cookie" not in answer.headers
        cache.get("/api/whoami-v2", trusted=True, headers=ALICE)
        cache.get("/org/large/resolve/main/README.md", trusted=True)
        assert all("cookie" not in record.headers for record in hub.counters.requests)

    def test_a_netrc_is_not_read(
        self, cache: RunningCache, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login hf password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(netrc))
        for method, url, body in self.REQUESTS:
            base = cache.trusted
            session = requests.Session()
            session.trust_env = False
            session.request(method, base + url, json=body, timeout=30)
        cache.wait_idle()
        assert hub.counters.requests
        assert all(record.authorization is None for record in hub.counters.requests)


@pytest.fixture
def upstream() -> Iterator[Recorder]:
    with recording_server() as recorder:
        yield recorder


@pytest.fixture
def before_recorder(cache: RunningCache, upstream: Recorder) -> RunningCache:
    """The cache with a recording server as its upstream."""
    remote = cache.service.config.remotes()[0]
    cache.service.config.update_remote(remote.id, {"url": upstream.url})
    return cache


class TestRedirects:
    def test_another_port_gets_no_token(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        with recording_server() as other:
            upstream.default = redirect(f"{other.url}/api/models/org/x")
            for url in ("/api/whoami-v2", "/api/models/org/x", "/org/x/resolve/main/f.json"):
                answer = before_recorder.get(url, trusted=True, headers=ALICE)
                assert "Location" not in answer.headers
                assert other.url not in str(answer.headers)
            assert all("authorization" not in seen.headers for seen in other.seen)

    def test_the_upstreams_own_stays_below_the_endpoint(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        upstream.default = redirect("/api/other?x=1")
        answer = before_recorder.get("/api/settings", trusted=True, headers=ALICE)
        assert answer.status_code == 307
        assert answer.headers["Location"].startswith(before_recorder.host)
        assert answer.headers["Location"].endswith("/hf/api/other?x=1")

    def test_the_storage_of_kernels_and_buckets_is_asked_here_without_a_token(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        with recording_server() as storage:
            storage.default = lambda handler: reply(handler, 206, b"bytes")
            upstream.default = redirect(
                f"{storage.url}/signed?x=1", 302, X_Linked_Size="5", X_Linked_ETag='"e"'
            )
            for path in ("/kernels/o/n/resolve/main/a.so", "/buckets/o/b/resolve/a.bin"):
                headers = {**ALICE, "Range": "bytes=0-4"}
                answer = before_recorder.get(path, trusted=True, headers=headers)
                assert (answer.status_code, answer.content) == (206, b"bytes")
                assert upstream.seen[-1].headers["authorization"] == "Bearer hf_alice"
                assert "authorization" not in storage.seen[-1].headers
                assert storage.seen[-1].headers["range"] == "bytes=0-4"
                head = before_recorder.head(path, trusted=True, headers=ALICE)
                # Clients fail on a redirect that leads nowhere.
                assert (head.status_code, "Location" in head.headers) == (200, False)
                assert (head.headers["Content-Length"], head.headers["ETag"]) == ("5", '"e"')
            assert [seen.method for seen in storage.seen] == ["GET", "GET"]


class TestPages:
    """A page of the Hub opened through the cache would be a stranger's page on this origin."""

    @pytest.mark.parametrize(
        "path", ["/org/large", "/login", "/", "/org/large/blob/main/README.md"]
    )
    def test_a_browser_is_sent_to_the_real_page(
        self, cache: RunningCache, hub: FakeHub, path: str
    ) -> None:
        for headers in (
            {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none"},
            {"Accept": "text/html,application/xhtml+xml"},
        ):
            answer = cache.get(path, trusted=True, headers=headers)
            assert answer.status_code == 404
            if path != "/":
                assert hub.url + path in answer.text
            assert answer.headers["Content-Type"].startswith("text/plain")
        assert hub.counters.requests == []

    def test_what_is_no_page_is_passed_on_harmless(self, cache: RunningCache) -> None:
        answer = cache.get("/org/large", trusted=True)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert answer.headers["Content-Security-Policy"] == SANDBOX


class TestBuckets:
    """Their files come by Xet alone, so what is said of Xet stays."""

    def test_what_leads_to_a_file_stays_and_leads_through_here(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        route = "/api/buckets/org/b/xet-read-token"
        upstream.default = lambda handler: reply(
            handler,
            200,
            b'[{"path": "a", "xetHash": "h"}]',
            Content_Type="application/json",
            X_Xet_Hash="h",
            Link=f'<{upstream.url}{route}>; rel="xet-auth"',
        )
        listed = before_recorder.get("/api/buckets/org/b/tree", trusted=True, headers=ALICE)
        assert listed.json() == [{"path": "a", "xetHash": "h"}]
        head = before_recorder.head("/buckets/org/b/resolve/a", trusted=True, headers=ALICE)
        assert head.headers["X-Xet-Hash"] == "h"
        assert head.headers["X-Xet-Refresh-Route"].startswith(before_recorder.host)
        assert head.headers["X-Xet-Refresh-Route"].endswith(f"/hf{route}")

    def test_elsewhere_nothing_is_said_of_xet(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        upstream.default = lambda handler: reply(
            handler,
            200,
            b'[{"path": "a", "xetHash": "h"}]',
            Content_Type="application/json",
            X_Xet_Hash="h",
            Link=f'<{upstream.url}/api/x>; rel="xet-auth"',
        )
        answer = before_recorder.get("/api/models/o/n/unknown", trusted=True, headers=ALICE)
        assert answer.json() == [{"path": "a"}]
        assert not [name for name in answer.headers if "xet" in name.lower() or name == "Link"]


class TestStreams:
    SIZE = 48 * MIB

    def test_a_body_goes_up_while_it_comes_in(
        self,
        before_recorder: RunningCache,
        upstream: Recorder,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        arrived = threading.Event()
        lengths: list[int] = []

        def read_body(handler: Handler) -> bytes:
            total = 0
            while line := handler.rfile.readline().strip():
                size = int(line, 16)
                total += len(handler.rfile.read(size))
                handler.rfile.readline()
                if total:
                    arrived.set()
                if size == 0:
                    break
            lengths.append(total)
            return b""

        upstream.default = lambda handler: reply(
            handler, 200, b"{}", Content_Type="application/json"
        )
        monkeypatch.setattr(Handler, "read_body", read_body)

        def body() -> Iterator[bytes]:
            yield b"x" * MIB
            assert arrived.wait(20), "the first piece is upstream before the last is sent"
            for _ in range(self.SIZE // MIB - 1):
                yield b"x" * MIB

        tracemalloc.start()
        try:
            answer = before_recorder.request(
                "POST",
                "/api/models/org/x/commit/main",
                trusted=True,
                headers=ALICE,
                data=body(),
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert answer.status_code == 200
        assert lengths == [self.SIZE]
        assert peak < self.SIZE // 2

    def test_an_answer_comes_down_while_it_arrives(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        seen = threading.Event()

        def trickle(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "application/octet-stream")
            handler.send_header("Content-Length", str(2 * MIB))
            handler.end_headers()
            handler.wfile.write(b"a" * MIB)
            handler.wfile.flush()
            assert seen.wait(20)
            handler.wfile.write(b"b" * MIB)

        upstream.default = trickle
        with before_recorder.get(
            "/api/something", trusted=True, headers=ALICE, stream=True
        ) as answer:
            assert answer.raw.read(1000) == b"a" * 1000
            seen.set()
            assert len(answer.raw.read()) == 2 * MIB - 1000

    def test_events_come_one_by_one_and_end_with_their_reader(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        url = "/api/spaces/org/page/logs/run"
        with cache.get(url, trusted=True, headers=ALICE, stream=True) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            assert hub.streams.listeners == 1, "the head came before the first event"
            lines = answer.iter_lines(chunk_size=1)
            for text in ("building", "running"):
                hub.streams.say(text)
                assert text in next(line for line in lines if line).decode()
        cache.wait_until(lambda: hub.streams.listeners == 0)

    def test_events_end_when_the_upstream_ends_them(
        self, cache: RunningCache, hub: FakeHub
    ) -> None:
        hub.streams.say("done")
        hub.streams.over = True
        answer = cache.get("/api/spaces/org/page/logs/build", trusted=True, headers=ALICE)
        assert answer.text.startswith('data: {"data": "done"')

    def test_a_refused_upload_gets_its_refusal(
        self, before_recorder: RunningCache, upstream: Recorder
    ) -> None:
        answer = before_recorder.request(
            "POST", "/api/models/org/x/commit/main", data=b"x" * (8 * MIB)
        )
        assert answer.status_code == 401
        assert upstream.seen == []


def test_a_public_host_may_not_write(tmp_path: Path, hub: FakeHub) -> None:
    access = AccessOptions(hosts=HostRules(names=frozenset({"cache.test"})))
    with RunningCache(tmp_path, hub, access=access) as cache:
        answer = cache.request(
            "POST",
            "/api/repos/create",
            json={"name": "x"},
            headers={**ALICE, "X-Forwarded-For": "192.0.2.1"},
        )
        assert answer.status_code in (401, 403)
        assert hub.counters.requests == []
