"""The wire below a client: connection pools with one trust, and outgoing bodies.

Responsible for: connection pools that trust what one TLS context trusts and nothing else.
Not responsible for: how a connection comes about (`connecting`), what that context trusts (`tls`),
or what is sent (`client`).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from jupyter_hf_cache.upstream.connecting import POOLS


class Adapter(HTTPAdapter):
    """Connection pools with one TLS context, which alone decides about trust."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_connections=16, pool_maxsize=32, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)
        if not proxy.lower().startswith("socks"):
            # Pools of a SOCKS proxy connect in a way of their own.
            manager.pool_classes_by_scheme = POOLS
        return manager

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Without requests' own trust settings, which would widen the context."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: requests would add its own authorities to the context."""


class Upload:
    """An outgoing body that remembers an error of its own source.

    Without it the transport reports a browser that hung up as a failure of the upstream.
    """

    def __init__(self, body: Any) -> None:
        self._body: Iterable[bytes] = body
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception as error:
            self.error = error
            raise
