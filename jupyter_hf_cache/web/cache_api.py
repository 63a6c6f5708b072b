"""The cache API: what people and tools see and do about the cache, below `hf-cache/v1/`.

Responsible for: status, repos, fills, tokens and the switch for kernels, as JSON.
Not responsible for: Pulp's names (`web.pulp_api`); the lists themselves (`service.inventory`).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, ClassVar, Literal

from jupyter_hf_cache import __version__
from jupyter_hf_cache.errors import BadRequest, NotFound
from jupyter_hf_cache.service import CacheService
from jupyter_hf_cache.service.board import RUNNING
from jupyter_hf_cache.service.completeness import Completeness, MissingFile
from jupyter_hf_cache.service.inventory import KeptRepo
from jupyter_hf_cache.service.mirrors import mirrors_of
from jupyter_hf_cache.storage.records import REPO_TYPES, RepoRef
from jupyter_hf_cache.upstream.fill_report import FillReport
from jupyter_hf_cache.web.handler import CacheHandler

PREFIX = "hf-cache/v1/"
_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000
_MAX_NONCE = 200


class HelloHandler(CacheHandler):
    """Lets a client make sure that this server knows the secret, before it sends anything to it."""

    surface: ClassVar[Literal["content", "api", "open"]] = "open"

    async def get(self) -> None:
        """Answer HMAC-SHA-256 of `nonce`, keyed with the token of the runtime file."""
        nonce = self.get_query_argument("nonce", "")
        if not nonce or len(nonce) > _MAX_NONCE:
            raise BadRequest("Give a nonce of 1 to 200 characters.")
        key = self.context.cache_token.encode()
        self.json({"proof": hmac.new(key, nonce.encode(), hashlib.sha256).hexdigest()})


class StatusHandler(CacheHandler):
    """Everything at a glance; answers also while the cache is not open, and says why."""

    async def get(self) -> None:
        """Answer the status."""
        body: dict[str, Any] = {
            "version": __version__,
            "endpoint": self.full_url("pulp/content/hf"),
            "kernel_endpoint": None,
            "inject": {"on": False, "reason": None},
            "problems": [],
        }
        injection = self.context.injection
        if injection is not None:
            body["inject"] = injection.state()
            body["kernel_endpoint"] = injection.endpoint
        if self.context.problem is not None:
            body["problems"] = [self.context.problem]
        else:
            body |= await self.context.run(_status, self.context.service)
            served = self.context.service.config.distributions()
            if served:
                body["endpoint"] = self.full_url(f"pulp/content/{served[0].base_path}")
        self.json(body)


def _status(service: CacheService) -> dict[str, Any]:
    repos = service.inventory.repos()
    running = [fill for fill in service.board.reports() if fill.state in RUNNING]
    service.ready.settle()
    return {
        "cache_dir": str(service.options.cache_dir),
        "usage": {
            "bytes": service.budget.used(),
            "limit_bytes": service.budget.limit,
            "free_bytes": max(0, service.budget.free_on_disk()),
            "repos": len(repos),
            "files": sum(len(repo.files) for repo in repos),
        },
        "fills": {
            "running": len(running),
            "bytes_done": sum(fill.done for fill in running),
            "bytes_total": sum(fill.size for fill in running),
            "speed_bytes_per_second": round(sum(fill.speed for fill in running)),
        },
        "upstreams": [
            {"remote": one.name, "url": one.upstream_url, "state": state, "reason": reason}
            for remote in service.config.remotes()
            for one in (remote, *mirrors_of(remote))
            for state, reason in [service.breaker.state(one.id)]
        ],
        **service.usage.report(),
        "problems": [*service.problems, *service.config.problems()],
    }


class ReposHandler(CacheHandler):
    """The repos of which something is kept."""

    async def get(self) -> None:
        """List them, last used first; `q` and `type` filter, `limit` and `offset` page."""
        repos = await self.context.run(self.context.service.inventory.repos)
        wanted, kind = self.get_query_argument("q", "").lower(), self.get_query_argument("type", "")
        if kind and kind not in REPO_TYPES:
            raise BadRequest(f"type is one of {', '.join(REPO_TYPES)}.")
        found = [
            repo
            for repo in repos
            if wanted in repo.repo.id.lower() and (not kind or repo.repo.type == kind)
        ]
        limit, offset = self._number("limit", _DEFAULT_LIMIT), self._number("offset", 0)
        page = found[offset : offset + min(limit, _MAX_LIMIT)]
        self.json({"count": len(found), "results": [_repo(repo) for repo in page]})

    def _number(self, name: str, default: int) -> int:
        text = self.get_query_argument(name, str(default))
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise BadRequest(f"{name} is a whole number, not {text[:40]!r}.")
        return int(text)


class RepoHandler(CacheHandler):
    """One repo."""

    async def get(self, kind: str, repo_id: str) -> None:
        """Answer the repo with its files."""
        kept = await self.context.run(self.context.service.inventory.repo, RepoRef(kind, repo_id))
        files = [
            {
                "path": file.path,
                "commit": file.commit,
                "size_bytes": file.size,
                "digest": file.digest,
                "shared_with": file.shared_with,
            }
            for file in sorted(kept.files, key=lambda file: (file.commit, file.path))
        ]
        body = _repo(kept) | {"files": files}
        for revision in body["revisions"]:
            revision |= await self.context.run(self._completeness, kept, revision["commit"])
        self.json(body)

    def _completeness(self, kept: KeptRepo, commit: str) -> dict[str, Any]:
        service = self.context.service
        remotes = [one for one in service.config.remotes() if one.name == kept.remote]
        if not remotes:
            # Its remote is gone: nobody reads it any more.
            return _completeness(Completeness(kept.repo, kept.remote, commit, commit))
        return _completeness(service.completeness.best(remotes, kept.repo, commit))

    async def delete(self, kind: str, repo_id: str) -> None:
        """Delete what no other repo shares; `dry_run=1` only says what that would free."""
        dry_run = self.get_query_argument("dry_run", "0") in ("1", "true")
        inventory = self.context.service.inventory
        gone = await self.context.run(
            lambda: inventory.delete(RepoRef(kind, repo_id), dry_run=dry_run)
        )
        self.json(
            {
                "freed_bytes": gone.freed,
                "kept_shared_bytes": gone.kept_shared,
                "in_use_bytes": gone.in_use,
                "files": gone.files,
            }
        )


class CompletenessHandler(CacheHandler):
    """Whether a snapshot loads without the Hub."""

    async def get(self, kind: str, repo_id: str) -> None:
        """Answer for `revision` (main), of one `remote` or of the best there is."""
        revision = self.get_query_argument("revision", "main")
        name = self.get_query_argument("remote", "")
        repo, service = RepoRef(kind, repo_id), self.context.service
        remotes = [one for one in service.config.remotes() if name in ("", one.name)]
        if not remotes:
            raise NotFound(f"There is no remote named {name!r}.")
        found = await self.context.run(service.completeness.best, remotes, repo, revision)
        self.json(
            {"type": repo.type, "id": repo.id, "remote": found.remote, "revision": revision}
            | {"commit": found.commit}
            | _completeness(found)
            | {
                "files": found.files,
                "size_bytes": found.size,
                "missing": _sizes(found.missing),
                "passed_through": _sizes(found.passed_through),
            }
        )


def _completeness(found: Completeness) -> dict[str, Any]:
    known = found.complete is not None
    return {
        "complete": found.complete,
        "missing_files": len(found.missing) if known else None,
        "missing_bytes": found.missing_size if known else None,
    }


def _sizes(files: tuple[MissingFile, ...]) -> list[dict[str, Any]]:
    return [{"path": file.path, "size_bytes": file.size} for file in files[:_MAX_LIMIT]]


class RefreshHandler(CacheHandler):
    """What is known of one repo, not what is kept."""

    async def post(self, kind: str, repo_id: str) -> None:
        """Have the upstream asked at the next look, however lately it was asked."""
        await self.context.run(self.context.service.refresh, RepoRef(kind, repo_id))
        self.set_status(204)
        await self.finish()


def _repo(kept: KeptRepo) -> dict[str, Any]:
    by_commit: dict[str, dict[str, int]] = {}
    for file in kept.files:
        by_commit.setdefault(file.commit, {})[file.path] = file.size
    names = {commit: name for name, commit in kept.revisions.items()}
    return {
        "type": kept.repo.type,
        "id": kept.repo.id,
        "remote": kept.remote,
        "size_bytes": kept.size,
        "files": len(kept.files),
        "last_used": _iso(kept.used),
        "private": kept.private,
        "gated": kept.gated,
        "revisions": [
            {
                "revision": names.get(commit),
                "commit": commit,
                "files": len(files),
                "size_bytes": sum(files.values()),
            }
            for commit, files in by_commit.items()
        ],
    }


class FillsHandler(CacheHandler):
    """Running and recently ended fills, of all processes."""

    async def get(self) -> None:
        """List them, running ones first."""
        reports = await self.context.run(self.context.service.board.reports)
        self.json({"results": [_fill(report) for report in reports]})


def _fill(report: FillReport) -> dict[str, Any]:
    _, kind, repo, _, file, _ = report.claim
    left = report.size - report.done
    running = report.state == "running"
    states = {"verified": "verifying", "kept": "done", "unkept": "done", "paused": "failed"}
    return {
        "digest": report.blob,
        "type": kind,
        "repo": repo,
        "file": file,
        "size_bytes": report.size,
        "done_bytes": report.done,
        "speed_bytes_per_second": round(report.speed),
        "eta_seconds": round(left / report.speed) if running and report.speed > 0 else None,
        "readers": report.readers,
        "started": _iso(report.started),
        "state": states.get(report.state, report.state),
        "error": report.error,
    }


class TokensHandler(CacheHandler):
    """Which remotes have a token."""

    async def get(self) -> None:
        """List remotes, never tokens."""
        rows = await self.context.run(self.context.service.tokens.all)
        self.json({"results": [{"remote": name, "set": is_set} for name, is_set in rows]})


class TokenHandler(CacheHandler):
    """The token of one remote: written and forgotten, never read."""

    async def put(self, remote: str) -> None:
        """Store `{"token": "hf_…"}`."""
        body = self.json_body()
        if not isinstance(body, dict) or not isinstance(body.get("token"), str):
            raise BadRequest('The body is {"token": "hf_…"}.')
        await self.context.run(self.context.service.tokens.set, remote, body["token"])
        self.json({"remote": remote, "set": True})

    async def delete(self, remote: str) -> None:
        """Forget it."""
        await self.context.run(self.context.service.tokens.forget, remote)
        self.set_status(204)
        await self.finish()


class TokenTestHandler(CacheHandler):
    """Whose token it is."""

    async def post(self, remote: str) -> None:
        """Ask the remote's Hub."""
        self.json(asdict(await self.context.run(self.context.service.tokens.test, remote)))


class InjectHandler(CacheHandler):
    """Whether new kernels and terminals are pointed at the cache."""

    async def get(self) -> None:
        """Answer the state."""
        self.json(self._injection().state())

    async def put(self) -> None:
        """Switch: `{"on": true}`."""
        body = self.json_body()
        if not isinstance(body, dict) or not isinstance(body.get("on"), bool):
            raise BadRequest('The body is {"on": true} or {"on": false}.')
        injection = self._injection()
        injection.switch(body["on"])
        self.json(injection.state())

    def _injection(self) -> Any:
        if self.context.injection is None:
            raise NotFound("This server starts no kernels, so there is nothing to switch.")
        return self.context.injection


def _iso(when: float) -> str | None:
    return datetime.fromtimestamp(when, timezone.utc).isoformat() if when else None


_REPO = rf"{PREFIX}repos/(models|datasets|spaces)/([^/]+(?:/[^/]+)?)"
_REMOTE = r"([^/]+)"
ROUTES: list[tuple[str, type[CacheHandler]]] = [
    (rf"{PREFIX}hello", HelloHandler),
    (rf"{PREFIX}status", StatusHandler),
    (rf"{PREFIX}repos", ReposHandler),
    (rf"{_REPO}/completeness", CompletenessHandler),
    (rf"{_REPO}/refresh", RefreshHandler),
    (_REPO, RepoHandler),
    (rf"{PREFIX}fills", FillsHandler),
    (rf"{PREFIX}tokens", TokensHandler),
    (rf"{PREFIX}tokens/{_REMOTE}/test", TokenTestHandler),
    (rf"{PREFIX}tokens/{_REMOTE}", TokenHandler),
    (rf"{PREFIX}inject", InjectHandler),
]
