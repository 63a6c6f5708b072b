"""The token a remote reads with: set, tested, forgotten. Never read back.

Responsible for: these three for the cache API.
Not responsible for: sealing it (`storage.config_store`) or the tokens callers bring themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_hf_cache.errors import BadRequest, HfCacheError, NotFound
from jupyter_hf_cache.storage.records import Credential, Remote

if TYPE_CHECKING:
    from jupyter_hf_cache.service.core import CacheService

_MAX_TOKEN = 4096
_MAX_WHOAMI = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TokenTest:
    """Whom a stored token belongs to, or why it does not work."""

    ok: bool
    name: str | None = None
    role: str | None = None
    error: str | None = None


class Tokens:
    """Stored tokens of remotes. Thread-safe; `test` asks the upstream."""

    def __init__(self, service: CacheService) -> None:
        self._service = service

    def all(self) -> list[tuple[str, bool]]:
        """Return (remote name, whether a token is set) of every remote."""
        return [(remote.name, bool(remote.hf_token)) for remote in self._service.config.remotes()]

    def set(self, remote_name: str, token: str) -> None:
        """Store a token.

        Raises:
            NotFound: no such remote.
            BadRequest: that is no token.
        """
        token = token.strip()
        printable = token.isascii() and token.isprintable() and " " not in token
        if not token or len(token) > _MAX_TOKEN or not printable:
            raise BadRequest("That is not a token.", advice="Copy it from your Hub settings.")
        self._service.config.update_remote(self._remote(remote_name).id, {"hf_token": token})

    def forget(self, remote_name: str) -> None:
        """Delete a stored token; with it go the verdicts that were learnt with it."""
        self._service.config.update_remote(self._remote(remote_name).id, {"hf_token": None})

    def test(self, remote_name: str) -> TokenTest:
        """Ask the remote's Hub whose token it is.

        Raises:
            NotFound: no such remote.
        """
        remote = self._remote(remote_name)
        if not remote.hf_token:
            return TokenTest(False, error="No token is set.")
        client = self._service.client(remote, with_credentials=True)
        credential = Credential(remote.hf_token, "remote")
        try:
            with client.request(
                "GET",
                "/api/whoami-v2",
                credential=credential,
                follow="same-origin",
                read_timeout=10.0,
            ) as response:
                if response.status != 200:
                    message = response.headers.get("X-Error-Message", "")
                    return TokenTest(False, error=message or f"The Hub answered {response.status}.")
                return _read(response.read(_MAX_WHOAMI))
        except HfCacheError as error:
            return TokenTest(False, error=error.message)

    def _remote(self, name: str) -> Remote:
        for remote in self._service.config.remotes():
            if remote.name == name:
                return remote
        raise NotFound(f"There is no remote named {name!r}.")


def _read(data: bytes) -> TokenTest:
    try:
        answer = json.loads(data)
        name = answer["name"]
    except (ValueError, KeyError, TypeError):
        return TokenTest(False, error="The upstream's answer is not that of a Hub.")
    auth = answer.get("auth")
    token = auth.get("accessToken") if isinstance(auth, dict) else None
    role = token.get("role") if isinstance(token, dict) else None
    return TokenTest(True, name=str(name), role=str(role) if role else None)
