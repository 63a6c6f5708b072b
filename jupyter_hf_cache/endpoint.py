"""The URL under which this process's kernels reach the cache.

Responsible for: which address to use, a second port where the server's own cannot be used by
clients of the Hub, and the test that the URL works.
Not responsible for: who gets it (`environment`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from jupyter_hf_cache import __version__
from jupyter_hf_cache.web.application import make_server
from jupyter_hf_cache.web.context import WebContext
from jupyter_hf_cache.web.credentials import Authenticator
from jupyter_hf_cache.web.handler import CONTENT_PREFIX
from jupyter_hf_cache.web.network import is_loopback_name
from jupyter_hf_cache.web.routes import HandlerList, content_handlers

if TYPE_CHECKING:
    from jupyter_hf_cache.service import CacheService
    from jupyter_hf_cache.service.lasting import Lasting
    from jupyter_hf_cache.storage.records import Distribution

VERSION_HEADER = "X-HF-Cache"
"""Every answer below `/pulp/content/` carries it, with this package's version."""

DEFAULT_NAME = "default"

_TEST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where content is served to this machine.

    Args:
        origin: "http://127.0.0.1:8888".
        base_url: starts and ends with "/".
    """

    origin: str
    base_url: str

    @property
    def url(self) -> str:
        """Origin and base URL."""
        return self.origin + self.base_url

    def endpoint(self, base_path: str, capability: str = "") -> str:
        """The value for `HF_ENDPOINT`; without a trailing slash, because clients add one."""
        ticket = f"~{capability}/" if capability else ""
        return f"{self.url}{CONTENT_PREFIX}{ticket}{base_path}"

    def leads_here(self, url: str) -> bool:
        """Whether an upstream URL is our own content path: such a cache would ask itself for
        ever.
        """
        theirs, ours = urlsplit(url), urlsplit(self.url)
        same_host = theirs.hostname == ours.hostname or (
            is_loopback_name(theirs.hostname or "") and is_loopback_name(ours.hostname or "")
        )
        same_port = (theirs.port or 80) == (ours.port or 80)
        return same_host and same_port and theirs.path.startswith(ours.path + CONTENT_PREFIX)


def connect_host(ip: str) -> str:
    """The host to connect to for a server that listens on `ip`, ready for a URL."""
    if ip in ("", "*", "0.0.0.0"):  # noqa: S104 - a comparison
        return "127.0.0.1"
    if ip == "::":
        # Tornado binds it for IPv6 alone.
        return "[::1]"
    return f"[{ip}]" if ":" in ip else ip


def default_distribution(service: CacheService | Lasting) -> Distribution | None:
    """The distribution that kernels are pointed at, or None if somebody has removed it."""
    named = [d for d in service.config.distributions() if d.name == DEFAULT_NAME]
    return named[0] if named else None


def default_base_path(service: CacheService | Lasting) -> str:
    """Where the default distribution is served, "" if there is none."""
    distribution = default_distribution(service)
    return distribution.base_path if distribution is not None else ""


def self_test(endpoint: str) -> str | None:
    """Ask our own endpoint for its root, which is a 404 of ours. Blocks for a few seconds at most.

    Returns:
        None if it works, else why it does not.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.head(f"{endpoint}/", timeout=_TEST_SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        return f"A test request to the cache's own port failed ({type(error).__name__})."
    if answer.headers.get(VERSION_HEADER) == __version__ and answer.status_code == 401:
        return "The cache's own port does not accept the endpoint: something forwards the requests."
    if answer.headers.get(VERSION_HEADER) != __version__ or answer.status_code != 404:
        return f"Something else answers on the cache's own port (status {answer.status_code})."
    return None


def open_content_port(
    context: WebContext, authenticator: Authenticator, handlers: HandlerList | None = None
) -> tuple[HTTPServer, Address]:
    """Listen on a free loopback port with the content routes and nothing else.

    For servers with a certificate, which clients of the Hub refuse if it is self-signed, and for
    servers on a Unix socket.

    Raises:
        OSError: no port can be bound.
    """
    inner = replace(context, base_url="/", authenticator=authenticator)
    server = make_server(inner, content_handlers() if handlers is None else handlers)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    return server, Address(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", "/")
