"""The base of all handlers of the REST API.

Responsible for: Pulp's shape of errors, reading bodies and parameters, and full URLs.
Not responsible for: who may come in and how long a body may be (`handler`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from jupyter_hf_cache.errors import HfCacheError
from jupyter_hf_cache.storage.config_store import ConfigStore
from jupyter_hf_cache.web.handler import CONTENT_PREFIX, CacheHandler
from jupyter_hf_cache.web.pulp_body import read_body
from jupyter_hf_cache.web.pulp_errors import detail, error_body
from jupyter_hf_cache.web.pulp_hrefs import API
from jupyter_hf_cache.web.pulp_schema import Body


class PulpHandler(CacheHandler):
    """A route below `/pulp/api/v3/`."""

    _refusal: HfCacheError | None = None

    async def prepare(self) -> None:
        """Decide about guard and entrance, but refuse only when a short body has been read.

        Tornado closes the connection under an answer that is given before the body was read: the
        client would see a reset instead of the answer, or find a kept connection closed.
        """
        try:
            await super().prepare()
        except HfCacheError as error:
            declared = self.request.headers.get("Content-Length", "0")
            if not declared.isdigit() or int(declared) > (self.body_limit or 0):
                raise
            self._refusal = error

    def take_body(self) -> None:
        """See `CacheHandler`; a caller who was refused comes no further."""
        if self._refusal is not None:
            raise self._refusal
        super().take_body()

    @property
    def store(self) -> ConfigStore:
        """The configuration; its methods belong into `context.run`."""
        store: ConfigStore = self.context.service.config
        return store

    @property
    def parameters(self) -> dict[str, list[str]]:
        """The decoded query parameters."""
        return {
            name: [value.decode("utf-8", "replace") for value in values]
            for name, values in self.request.query_arguments.items()
        }

    def read_body(self, model: type[Body]) -> dict[str, Any]:
        """Return the values in the request's body; see `pulp_body.read_body`."""
        return read_body(self.request, model)

    def content_url(self, base_path: str) -> str:
        """Return the full URL at which a base path is served."""
        return self.full_url(f"{CONTENT_PREFIX}{quote(base_path, safe='/')}/")

    def list_url(self, query: str) -> str:
        """Return the full URL of this list with another query."""
        below_api = self.request.path.rpartition(API)[2]
        return self.full_url(f"{API[1:]}{below_api}?{query}")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write an error as Pulp does."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        answer = self.describe_error(status_code, **kwargs)
        status, body = error_body(
            error,
            answer.status,
            method=self.request.method or "",
            credentials="Authorization" in self.request.headers,
        )
        if "WWW-Authenticate" in self._headers:
            self._set_challenge(self.request.headers)
        if status == 405:
            self.set_header("Allow", ", ".join(self._allowed()))
        self.json(body, status)

    def _set_challenge(self, headers: Mapping[str, str]) -> None:
        # A browser would open its own dialog over a page that asked by script.
        if headers.get("X-Requested-With", "").lower() == "xmlhttprequest":
            self.clear_header("WWW-Authenticate")
        else:
            self.set_header("WWW-Authenticate", 'Basic realm="api"')

    def _allowed(self) -> list[str]:
        own = (PulpHandler, CacheHandler)
        return [
            verb
            for verb in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
            if any(
                verb.lower() in vars(kind) for kind in type(self).__mro__ if issubclass(kind, own)
            )
        ]


class MissingHandler(PulpHandler):
    """An address of the REST API at which there is nothing."""

    async def get(self) -> None:
        """Answer 404."""
        raise detail(404, "Not found.")

    head = get
    post = get
    put = get
    patch = get
    delete = get
