"""`jupyter hf-cache key`: named keys for people and programs elsewhere.

Responsible for: making, listing and revoking keys in the data directory, whether or not a server
runs on it: one that does acts on a change with its next request.
Not responsible for: the command line (`cli`), or what a key opens (`web.entrance`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from jupyter_hf_cache.discovery import CacheClientError, find_server
from jupyter_hf_cache.endpoint import Address, default_base_path
from jupyter_hf_cache.errors import HfCacheError
from jupyter_hf_cache.presentation import ago, table
from jupyter_hf_cache.service.lasting import Lasting
from jupyter_hf_cache.standalone import ServeApp
from jupyter_hf_cache.storage.keys import NamedKey
from jupyter_hf_cache.web.capability import Capabilities, verifier_of
from jupyter_hf_cache.web.context import CAPABILITY_PURPOSE

_DAY = 86400.0


class KeysUnavailable(Exception):
    """The keys cannot be read or changed; the text says why and what to do."""


def create(name: str, days: float | None, url: str, options: Sequence[str]) -> str:
    """Make a key.

    Args:
        days: until it expires; None: never.
        url: of the server as clients reach it; "" for the one that runs, or would.
        options: of `serve`, where they say which directories to use.

    Returns:
        The endpoint with the key, which nobody can be told again.

    Raises:
        KeysUnavailable: with the reason.
    """
    with _opened(options) as (app, lasting):
        expires = None if days is None else time.time() + days * _DAY
        capabilities = Capabilities([lasting.secrets.derive(CAPABILITY_PURPOSE)])
        key = capabilities.issue_key(expires)
        lasting.keys.create(name, verifier_of(key), expires)
        address = _address(url or _url_of_server(app.port))
        return address.endpoint(default_base_path(lasting) or "hf", key)


def revoke(name: str, options: Sequence[str]) -> bool:
    """Take a key back; False if there is none of that name.

    Raises:
        KeysUnavailable: with the reason.
    """
    with _opened(options) as (_, lasting):
        return lasting.keys.revoke(name)


def find_all(options: Sequence[str]) -> list[NamedKey]:
    """Every key, by name.

    Raises:
        KeysUnavailable: with the reason.
    """
    with _opened(options) as (_, lasting):
        return lasting.keys.all()


def as_json(keys: Sequence[NamedKey]) -> list[dict[str, Any]]:
    """Keys for programs; times are ISO 8601 in UTC."""
    return [
        {
            "name": key.name,
            "created": _iso(key.created),
            "expires": _iso(key.expires),
            "last_used": _iso(key.used),
        }
        for key in keys
    ]


def as_text(keys: Sequence[NamedKey]) -> str:
    """Keys for people, one a line."""
    rows = [
        (key.name, ago(_iso(key.created)), _expiry(key.expires), ago(_iso(key.used)))
        for key in keys
    ]
    return table(("NAME", "CREATED", "EXPIRES", "LAST USED"), rows)


@contextmanager
def _opened(options: Sequence[str]) -> Iterator[tuple[ServeApp, Lasting]]:
    app = ServeApp()
    app.initialize(list(options))
    try:
        lasting = Lasting(app.cache.service_options())
        try:
            yield app, lasting
        finally:
            lasting.close()
    except HfCacheError as error:
        raise KeysUnavailable(error.text) from None
    except OSError as error:
        raise KeysUnavailable(f"{error.filename} cannot be used: {error.strerror}.") from None


def _url_of_server(port: int) -> str:
    try:
        return find_server().url
    except CacheClientError:
        return f"http://127.0.0.1:{port}/"


def _address(url: str) -> Address:
    parts = urlsplit(url)
    return Address(f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/") + "/")


def _expiry(expires: float | None) -> str:
    if expires is None:
        return "never"
    day = time.strftime("%Y-%m-%d", time.localtime(expires))
    return f"{day} (over)" if expires <= time.time() else day


def _iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds")
