"""The Hub origin's front door.

Responsible for: the headers on every Hub answer, sending each path to the module that knows it,
renamed repos, and asking `accounts` before anything is told.
Not responsible for: the answers themselves.
"""

from __future__ import annotations

import uuid
from urllib.parse import unquote

from . import accounts, api, community, errors, listing, pages, resolve, streams, writes
from .accounts import User
from .addresses import Address, parse_api, parse_web
from .catalogue import TYPES, Repo
from .errors import HubError
from .handler import OriginHandler
from .limits import bucket_of

GIT_ROUTES = ("/info/refs", "/git-upload-pack", "/git-receive-pack")
_FILE_VERBS = {"resolve": resolve.answer_resolve, "raw": resolve.answer_raw}


_PEOPLE = {
    "discussions": community.answer_discussions,
    "like": community.answer_like,
    "likers": community.answer_likers,
    "logs": streams.answer_log,
    "user-access-request": community.answer_access_requests,
}


class HubHandler(OriginHandler):
    """Every request to the Hub origin."""

    host = "hub"
    user: User | None = None
    allowed = True

    async def get(self) -> None:
        try:
            if not self.allowed:
                raise errors.rate_limited()
            self.user = self.hub.accounts.identify(self.request.headers.get("Authorization"))
            await self._route()
        except HubError as error:
            await self.refuse(error)

    async def head(self) -> None:
        await self.get()

    async def post(self) -> None:
        await self.get()

    async def put(self) -> None:
        await self.get()

    async def delete(self) -> None:
        await self.get()

    async def patch(self) -> None:
        await self.get()

    def set_common_headers(self) -> None:
        """What the real Hub puts on every answer, whether a proxy should pass it on or not."""
        path = self.request.path
        self.bucket = bucket_of(path)
        caller = self.request.headers.get("Authorization", "")
        self.allowed = self.hub.limits.spend(caller, self.bucket)
        for name, value in self.hub.limits.headers(caller, self.bucket).items():
            self.set_header(name, value)
        self.set_header("X-Request-Id", f"Root=1-{uuid.uuid4()}")
        self.set_header("X-Powered-By", "huggingface-moon")
        self.set_header("Access-Control-Allow-Origin", "https://huggingface.co")
        self.set_header("Vary", "Origin")
        self.set_header("Referrer-Policy", "strict-origin-when-cross-origin")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Strict-Transport-Security", "max-age=31536000; includeSubDomains")

    async def _route(self) -> None:
        path = self.request.path
        if path.startswith("/api/"):
            await self._route_api(path)
        elif ".git/" in path or path.endswith(GIT_ROUTES):
            await writes.answer_git(self, path)
        elif not await pages.answer_page(self, path):
            await self._route_web(path)

    async def _route_api(self, path: str) -> None:
        segments = path.split("/")
        kind = unquote(segments[2])
        if kind == "resolve-cache":
            await self._route_resolve_cache(segments)
        elif kind == "repos":
            await writes.answer_repos(self, unquote(segments[3]) if len(segments) > 3 else "")
        elif kind not in TYPES:
            await pages.answer_api(self, path)
        elif len(segments) == 3 or not segments[3]:
            await listing.answer_list(self, kind)
        else:
            await self._route_repo(parse_api(path, self.hub.catalogue))

    async def _route_repo(self, address: Address) -> None:
        repo = await self._repo_of(address)
        if repo is None:
            return
        if address.verb in _PEOPLE:
            await _PEOPLE[address.verb](self, repo, address)
        elif self.request.method in ("GET", "HEAD") or address.verb == "paths-info":
            await api.answer_repo(self, repo, address)
        else:
            await writes.answer_change(self, repo, address)

    async def _route_resolve_cache(self, segments: list[str]) -> None:
        type, *rest = (unquote(part) for part in segments[3:])
        if type not in TYPES or len(rest) < 3:
            raise errors.page_not_found()
        one = self.hub.catalogue.get(type, rest[0])
        width = 1 if one is not None else 2
        repo = accounts.check_visible(
            one or self.hub.catalogue.get(type, "/".join(rest[:2])), self.user
        )
        accounts.check_content(repo, self.user, self.hub.url)
        await resolve.answer_resolve_cache(self, repo, tuple(rest[width:]))

    async def _route_web(self, path: str) -> None:
        address = parse_web(path, self.hub.catalogue)
        answer = _FILE_VERBS.get(address.verb)
        if not address.id or (answer is None and address.verb):
            raise errors.page_not_found()
        repo = await self._repo_of(address)
        if repo is None:
            return
        if answer is None:
            await pages.answer_repo_page(self, repo)
            return
        accounts.check_content(repo, self.user, self.hub.url)
        await answer(self, repo, address)

    async def _repo_of(self, address: Address) -> Repo | None:
        """The repo of an address; None after a redirect to its present name was sent."""
        catalogue = self.hub.catalogue
        repo = catalogue.get(address.type, address.id)
        if repo is not None:
            return accounts.check_visible(repo, self.user)
        moved = catalogue.moved(address.type, address.id)
        repo = accounts.check_visible(moved, self.user)
        if address.verb == "resolve" and not self.hub.renamed_resolve_redirects:
            return repo
        query = f"?{self.request.query}" if self.request.query else ""
        await self.redirect_to(307, address.with_id(repo.id) + query)
        return None
