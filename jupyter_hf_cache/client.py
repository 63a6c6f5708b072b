"""Talking to a cache server from a notebook, a script or the command line.

Responsible for: one method per thing the cache API can do, its answers as records, its errors as
exceptions with a next step.
Not responsible for: finding the server (`discovery`), or showing anything.

Imports no server module: a kernel's environment may have this package without its server
dependencies.

>>> from jupyter_hf_cache.client import CacheClient
>>> client = CacheClient.find()                                       # doctest: +SKIP
>>> [repo.id for repo in client.repos(query="bert").repos]            # doctest: +SKIP
['google-bert/bert-base-uncased']
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.utils import get_environ_proxies

from .api_records import Completeness, Fill, Freed, Repo, RepoPage, Status, TokenState, TokenTest
from .discovery import API_PREFIX, CacheClientError, ServerNotFound, find_server

__all__ = ["CacheApiError", "CacheClient", "CacheClientError", "ServerNotFound"]

_PAGE = 100
_DISTRIBUTIONS = "pulp/api/v3/distributions/hugging_face/hugging-face/"


class CacheApiError(CacheClientError):
    """The server answered with an error.

    Args:
        status: the HTTP status.
        message: the server's words.
        advice: the server's next step, or "".
    """

    def __init__(self, status: int, message: str, advice: str = "") -> None:
        super().__init__(message, advice)
        self.status = status


class CacheClient:
    """A connection to one cache server: each call is one blocking request.

    Threads may share a client.

    Args:
        url: base URL of the server ("http://127.0.0.1:8888/base/").
        token: the cache-only token, or a Jupyter token. Sent to this server only.
        timeout: seconds for each request. Testing a token asks the upstream and needs most of them.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 20.0) -> None:
        self.url = url.rstrip("/") + "/"
        self._token = token
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"CacheClient({self.url!r})"

    @classmethod
    def find(
        cls, environ: Mapping[str, str] | None = None, *, timeout: float = 20.0
    ) -> CacheClient:
        """A client of this user's running server.

        Raises:
            ServerNotFound: none is in reach.
        """
        server = find_server(environ)
        return cls(server.url, server.token, timeout=timeout)

    def status(self) -> Status:
        """The whole cache in numbers."""
        return Status.read(self._ask("GET", "status"))

    def repos(
        self, query: str = "", type: str | None = None, *, limit: int = _PAGE, offset: int = 0
    ) -> RepoPage:
        """One page of the cached repos.

        Args:
            query: part of the name; "" for all.
            type: "models", "datasets", "spaces" or None.
        """
        wanted: dict[str, str | int] = {"limit": limit, "offset": offset}
        if query:
            wanted["q"] = query
        if type:
            wanted["type"] = type
        return RepoPage.read(self._ask("GET", "repos", params=wanted))

    def all_repos(self, query: str = "", type: str | None = None) -> Iterator[Repo]:
        """Every cached repo, fetched page by page as it is consumed."""
        offset = 0
        while True:
            page = self.repos(query, type, offset=offset)
            yield from page.repos
            offset += len(page.repos)
            if not page.repos or offset >= page.count:
                return

    def repo(self, type: str, id: str) -> Repo:
        """One cached repo with the list of its files."""
        return Repo.read(self._ask("GET", _repo_path(type, id)))

    def completeness(
        self, type: str, id: str, revision: str = "main", *, remote: str | None = None
    ) -> Completeness:
        """Whether a snapshot loads without the Hub, and what is missing; the Hub is not asked.

        Args:
            revision: a branch, tag, pull request or full commit.
            remote: name of the remote it came from; None for the one that has most of it.
        """
        params = {"revision": revision} | ({"remote": remote} if remote else {})
        return Completeness.read(
            self._ask("GET", f"{_repo_path(type, id)}/completeness", params=params)
        )

    def delete(self, type: str, id: str, *, dry_run: bool = False) -> Freed:
        """Remove a repo from the cache, or with `dry_run` only say what that would free."""
        params = {"dry_run": 1} if dry_run else {}
        return Freed.read(self._ask("DELETE", _repo_path(type, id), params=params))

    def fills(self) -> list[Fill]:
        """The running downloads."""
        return [Fill.read(item) for item in _results(self._ask("GET", "fills"))]

    def tokens(self) -> list[TokenState]:
        """Which remotes have a stored token."""
        return [TokenState.read(item) for item in _results(self._ask("GET", "tokens"))]

    def set_token(self, token: str, remote: str = "default") -> None:
        """Store an upstream token for a remote; it is encrypted there and never given back."""
        self._ask("PUT", _token_path(remote), json={"token": token})

    def test_token(self, remote: str = "default") -> TokenTest:
        """Ask the upstream whose token is stored."""
        return TokenTest.read(self._ask("POST", f"{_token_path(remote)}/test"))

    def forget_token(self, remote: str = "default") -> None:
        """Remove a remote's stored token."""
        self._ask("DELETE", _token_path(remote))

    def set_injection(self, on: bool) -> None:
        """Whether kernels and terminals started from now on get HF_ENDPOINT."""
        self._ask("PUT", "inject", json={"on": on})

    def endpoint(self, distribution: str | None = None) -> str:
        """The URL for HF_ENDPOINT, with the capability where the server gives one.

        Args:
            distribution: its name; None for the default one.

        Raises:
            CacheApiError: with status 404 when there is no distribution of that name.
        """
        status = self.status()
        endpoint = status.kernel_endpoint or status.endpoint
        if distribution is None:
            return endpoint
        found = self._send("GET", _DISTRIBUTIONS, params={"name": distribution})
        for item in _results(found):
            if item.get("name") == distribution and isinstance(item.get("base_path"), str):
                return _at_base_path(endpoint, item["base_path"])
        raise CacheApiError(
            404,
            f"There is no distribution named {distribution!r}.",
            "List them with GET /pulp/api/v3/distributions/hugging_face/hugging-face/.",
        )

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self._send(method, API_PREFIX + path, **options)

    def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One request and its JSON; every failure as a CacheClientError without the token in it."""
        url = self.url + path
        # A session per request: requests.Session is not documented as thread-safe.
        with requests.Session() as session:
            # No .netrc (it would replace the token) and no proxy for this machine; see _proxies.
            session.trust_env = False
            try:
                answer = session.request(
                    method,
                    url,
                    headers={
                        "Authorization": f"token {self._token}",
                        "Accept": "application/json",
                    },
                    proxies=_proxies(url),
                    timeout=self._timeout,
                    allow_redirects=False,
                    **options,
                )
            except requests.Timeout:
                raise CacheApiError(
                    504, f"The cache server at {self.url} did not answer in time.", "Try again."
                ) from None
            except requests.RequestException as error:
                raise ServerNotFound(
                    f"The cache server at {self.url} does not answer.",
                    "Is it still running? `jupyter hf-cache status` looks for another one.",
                    reasons=(f"{self.url}: {type(error).__name__}",),
                ) from None
        return _read_answer(answer)


def _read_answer(answer: requests.Response) -> dict[str, Any]:
    try:
        data = answer.json() if answer.content else {}
    except ValueError:
        data = None
    if answer.status_code >= 300:
        said = data if isinstance(data, dict) else {}
        raise CacheApiError(
            answer.status_code,
            str(said.get("message") or f"The cache server answered {answer.status_code}."),
            str(said.get("advice") or _advice(answer.status_code)),
        )
    if not isinstance(data, dict):
        raise CacheApiError(
            502,
            f"What answers at {urlsplit(answer.url).netloc} is not the cache API.",
            "Check the URL.",
        )
    return data


def _advice(status: int) -> str:
    if status in (401, 403):
        return "The server does not accept this token; was it restarted?"
    if status >= 500:
        return "The server's log has the details."
    return ""


def _results(data: dict[str, Any]) -> list[dict[str, Any]]:
    results = data.get("results")
    return [r for r in results if isinstance(r, dict)] if isinstance(results, list) else []


def _repo_path(type: str, id: str) -> str:
    return f"repos/{quote(type, safe='')}/{quote(id)}"


def _token_path(remote: str) -> str:
    return f"tokens/{quote(remote, safe='')}"


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine's own."""
    if not host or host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _proxies(url: str) -> dict[str, str]:
    """The environment's proxies for a server elsewhere; none for this machine."""
    if is_loopback(urlsplit(url).hostname):
        return {}
    return dict(get_environ_proxies(url, no_proxy=None))


def _at_base_path(endpoint: str, base_path: str) -> str:
    """The endpoint of another distribution of the same server, behind the same capability."""
    root, mark, rest = endpoint.partition("/pulp/content/")
    capability = rest.split("/", 1)[0] if rest.startswith("~") else ""
    middle = f"{capability}/" if capability else ""
    return f"{root}{mark}{middle}{base_path.strip('/')}"
