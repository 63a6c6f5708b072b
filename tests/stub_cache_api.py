"""A cache API in a thread, for tests of its clients: canned answers, and a record of what came."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "jhc_of_the_stub"
BASE = "/a%40b/"
CAPABILITY = "~c4pability"
HOSTILE = '<img src=x onerror="alert(1)">'


def repo(id: str, type: str = "models", size: int = 440_473_133, **more: Any) -> dict[str, Any]:
    """One cached repo as the API lists it."""
    commit = hashlib.sha1(id.encode()).hexdigest()
    return {
        "type": type,
        "id": id,
        "size_bytes": size,
        "files": 2,
        "last_used": "2026-01-02T03:04:05.000000Z",
        "revisions": [{"revision": "main", "commit": commit, "files": 2, "size_bytes": size}],
        "private": False,
        "gated": False,
        "remote": "default",
        **more,
    }


@dataclass
class StubCacheApi:
    """The server. Change its fields to change its answers."""

    token: str = TOKEN
    repos: list[dict[str, Any]] = field(
        default_factory=lambda: [
            repo("google-bert/bert-base-uncased"),
            repo("rajpurkar/squad", "datasets", 32_000_000, gated=True),
        ]
    )
    tokens: dict[str, str] = field(default_factory=lambda: {"default": ""})
    inject: dict[str, Any] = field(default_factory=lambda: {"on": True, "reason": None})
    upstream: dict[str, Any] = field(
        default_factory=lambda: {
            "remote": "default",
            "url": "https://huggingface.co",
            "state": "reachable",
            "reason": None,
        }
    )
    fail: tuple[int, dict[str, Any]] | None = None
    raw: bytes | None = None
    honest: bool = True
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def __enter__(self) -> StubCacheApi:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                stub.seen.append((self.command, self.path, dict(self.headers), body))
                status, data = stub.respond(self.command, self.path, dict(self.headers), body)
                content = b"" if data is None else stub.raw or json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return self.origin + BASE

    @property
    def endpoint(self) -> str:
        return f"{self.url}pulp/content/{CAPABILITY}/hf"

    def write_runtime_file(self, folder: Path, pid: int | None = None, mode: int = 0o600) -> Path:
        """A runtime file of this server, as the real one leaves it."""
        pid = os.getpid() if pid is None else pid
        path = folder / f"hf-cache-{pid}.json"
        data = {"url": self.url, "token": self.token, "pid": pid, "version": "0.1"}
        path.write_text(json.dumps(data))
        path.chmod(mode)
        return path

    def calls(self, method: str) -> list[str]:
        """The paths that were asked for with a method, below the API's prefix."""
        prefix = f"{BASE}hf-cache/v1/"
        return [path.removeprefix(prefix) for verb, path, *_ in self.seen if verb == method]

    def respond(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any] | None]:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix(BASE)
        if path == "hf-cache/v1/hello":
            key = self.token if self.honest else "another"
            nonce = query["nonce"].encode()
            return 200, {"proof": hmac.new(key.encode(), nonce, hashlib.sha256).hexdigest()}
        if headers.get("Authorization") != f"token {self.token}":
            return 401, {"message": "No entrance.", "advice": ""}
        if self.fail:
            return self.fail
        if path == "pulp/api/v3/distributions/hugging_face/hugging-face/":
            found = [{"name": "team", "base_path": "teams/red"}]
            return 200, {"count": 1, "results": [d for d in found if d["name"] == query["name"]]}
        words = [unquote(word) for word in path.removeprefix("hf-cache/v1/").split("/")]
        return getattr(self, f"on_{words[0]}")(method, words[1:], query, body)

    def on_status(self, *_: Any) -> tuple[int, dict[str, Any]]:
        return 200, {
            "version": "0.1",
            "endpoint": f"{self.url}pulp/content/hf",
            "kernel_endpoint": self.endpoint,
            "inject": self.inject,
            "cache_dir": "/cache",
            "usage": {
                "bytes": 128_000_000_000,
                "limit_bytes": 300_000_000_000,
                "free_bytes": 172_000_000_000,
                "repos": 41,
                "files": 1204,
            },
            "fills": {
                "running": 2,
                "bytes_done": 1_600_000_000,
                "bytes_total": 2_500_000_000,
                "speed_bytes_per_second": 38_000_000,
            },
            "upstreams": [self.upstream],
            "today": {
                "hits": 96,
                "misses": 4,
                "bytes_from_cache": 61_000_000_000,
                "bytes_from_upstream": 1,
                "calls_saved": 1204,
            },
            "problems": [],
        }

    def on_repos(
        self, method: str, words: list[str], query: dict[str, str], _: bytes
    ) -> tuple[int, dict[str, Any]]:
        if not words:
            found = [
                r
                for r in self.repos
                if query.get("q", "") in r["id"] and query.get("type") in (None, r["type"])
            ]
            start, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
            return 200, {"count": len(found), "results": found[start : start + limit]}
        type, id = words[0], "/".join(words[1:])
        one = next((r for r in self.repos if (r["type"], r["id"]) == (type, id)), None)
        if one is None:
            return 404, {"message": f"{id} is not cached.", "advice": "See the list."}
        if method == "DELETE":
            if not query.get("dry_run"):
                self.repos.remove(one)
            return 200, {"freed_bytes": 438_000_000, "kept_shared_bytes": 2_000_000, "files": 5}
        file = {"commit": "0" * 40, "size_bytes": 570, "digest": "sha256:00", "shared_with": 2}
        return 200, {**one, "files": [{"path": f"{HOSTILE}.json", **file}]}

    def on_fills(self, *_: Any) -> tuple[int, dict[str, Any]]:
        fill = {"digest": "sha256:00", "repo": "o/n", "type": "models", "file": "a", "readers": 3}
        return 200, {"results": [{**fill, "size_bytes": 10, "done_bytes": 4, "state": "running"}]}

    def on_tokens(
        self, method: str, words: list[str], _: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, Any] | None]:
        if not words:
            listed = [{"remote": name, "set": bool(t)} for name, t in self.tokens.items()]
            return 200, {"results": listed}
        if words[0] not in self.tokens:
            return 404, {"message": f"There is no remote {words[0]}.", "advice": ""}
        if method == "PUT":
            self.tokens[words[0]] = json.loads(body)["token"]
            return 200, {"remote": words[0], "set": True}
        if method == "DELETE":
            self.tokens[words[0]] = ""
            return 204, None
        good = self.tokens[words[0]] == "hf_good"
        return 200, {
            "ok": good,
            "name": "alice" if good else None,
            "role": "read" if good else None,
            "error": None if good else "Invalid user token.",
        }

    def on_inject(self, _: str, __: list[str], ___: dict[str, str], body: bytes) -> Any:
        self.inject = {**json.loads(body), "reason": None}
        return 200, self.inject
