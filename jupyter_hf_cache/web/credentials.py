"""What callers present, and who checks it.

Responsible for: reading the `Authorization` header, telling an upstream credential from one of
ours, the `Authenticator` that each app brings, and slowing down those who guess passwords.
Not responsible for: what follows from a valid credential (`entrance`).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tornado.web import RequestHandler

from jupyter_hf_cache.errors import HfCacheError

CACHE_TOKEN_PREFIX = "jhc_"  # noqa: S105 - a prefix, not a token
UPSTREAM_PREFIXES = ("hf_", "api_")


@dataclass(frozen=True, slots=True)
class Presented:
    """An `Authorization` header, read.

    Args:
        scheme: "none" (absent or unknown), "basic", or "token" (`token x` and `Bearer x`).
        secret: the token or password.
        user: of Basic.
    """

    scheme: Literal["none", "basic", "token"]
    secret: str = field(default="", repr=False)
    user: str = ""

    @property
    def for_upstream(self) -> bool:
        """It looks like a token of the Hub; git sends those by Basic, as the password."""
        return self.secret.startswith(UPSTREAM_PREFIXES)


NOTHING = Presented("none")


def read_authorization(header: str | None) -> Presented:
    """Read an `Authorization` header; what cannot be read counts as absent."""
    scheme, _, value = (header or "").strip().partition(" ")
    value = value.strip()
    if scheme.lower() in ("bearer", "token") and value:
        return Presented("token", value)
    if scheme.lower() == "basic" and value:
        return _read_basic(value)
    return NOTHING


def _read_basic(value: str) -> Presented:
    try:
        user, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return NOTHING
    return Presented("basic", password, user) if colon else NOTHING


def same(one: str, other: str) -> bool:
    """Compare two secrets in constant time; an empty one equals nothing."""
    return bool(one and other) and hmac.compare_digest(one.encode(), other.encode())


@dataclass(frozen=True, slots=True)
class Login:
    """A caller whom an `Authenticator` knows.

    Args:
        user: the name for logs and answers.
        by: "cookie" if nothing but the browser's cookie proves it, else "token".
    """

    user: str
    by: Literal["cookie", "token"]


class Authenticator(Protocol):
    """What an app knows about its own credentials."""

    @property
    def open_to_all(self) -> bool:
        """No login is configured at all: every caller that the guard lets through is the owner."""

    async def login(self, handler: Any) -> Login | None:
        """Who sent this request, by cookie, `Authorization: token`/`Bearer` or `?token=`.

        The handler shows only what may be shown to an identity provider: a token of the Hub has
            been taken
        out of its headers.
        """

    async def check_password(self, user: str, password: str) -> bool:
        """Whether this is the server's token, its password or the configured admin password.
        Blocking work is done in a thread."""

    def is_own(self, secret: str) -> bool:
        """Whether this is one of the server's own tokens, which must never travel upstream."""


class PasswordAuthenticator:
    """One admin password (Basic), and optionally tokens: the stand-alone server's authenticator.

    Args:
        password: "" switches Basic off.
        tokens: read at each request; accepted as `token x`, `Bearer x`, `?token=x` and as a
            password.
    """

    open_to_all = False

    def __init__(
        self, password: str = "", tokens: Callable[[], tuple[str, ...]] = lambda: ()
    ) -> None:
        self._password = password
        self._tokens = tokens

    async def login(self, handler: Any) -> Login | None:
        """See `Authenticator`."""
        presented = read_authorization(handler.request.headers.get("Authorization"))
        offered = [handler.get_query_argument("token", "")]
        if presented.scheme == "token":
            offered.append(presented.secret)
        known = [token for token in self._tokens() for secret in offered if same(token, secret)]
        return Login("admin", "token") if known else None

    async def check_password(self, user: str, password: str) -> bool:
        """See `Authenticator`; any user name will do."""
        return same(password, self._password) or any(
            [same(password, token) for token in self._tokens()]
        )

    def is_own(self, secret: str) -> bool:
        """See `Authenticator`."""
        return any([same(secret, own) for own in (self._password, *self._tokens())])


class Throttle:
    """Counts failed passwords per address; used on the event loop only.

    Args:
        limit: failures within `window` seconds after which an address has to wait.
        clock: monotonic seconds.
    """

    _MOST_ADDRESSES = 10_000

    def __init__(
        self,
        limit: int = 10,
        window: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._failures: dict[str, list[float]] = {}

    def check(self, address: str) -> None:
        """Let the address try.

        Raises:
            HfCacheError: 429; it failed too often.
        """
        recent = self._recent(address)
        if len(recent) >= self._limit:
            wait = max(1, int(recent[0] + self._window - self._clock()) + 1)
            raise HfCacheError(
                "Too many wrong passwords from your address.",
                advice=f"Try again in {wait} seconds.",
                status=429,
                headers={"Retry-After": str(wait)},
            )

    def failed(self, address: str) -> None:
        """Count a wrong password."""
        if len(self._failures) >= self._MOST_ADDRESSES:
            self._failures = {a: f for a in list(self._failures) if (f := self._recent(a))}
        self._failures[address] = [*self._recent(address), self._clock()][-self._limit :]

    def _recent(self, address: str) -> list[float]:
        horizon = self._clock() - self._window
        return [moment for moment in self._failures.get(address, ()) if moment > horizon]


class BoundCredentials:
    """An authenticator, bound to one request.

    Args:
        handler: whose request it is.

    Attributes:
        found: who logged in, once that was asked.
    """

    def __init__(self, authenticator: Authenticator, handler: RequestHandler) -> None:
        self._authenticator = authenticator
        self._handler = handler
        self.found: Login | None = None

    async def login(self, *, show_authorization: bool) -> Login | None:
        """Ask the identity provider, with or without the `Authorization` header."""
        with _hidden_authorization(self._handler, hide=not show_authorization):
            self.found = await self._authenticator.login(self._handler)
        return self.found

    async def check_password(self, user: str, password: str) -> bool:
        """Check Basic credentials."""
        return await self._authenticator.check_password(user, password)

    def is_own(self, secret: str) -> bool:
        """Whether a secret is one of this server's."""
        return self._authenticator.is_own(secret)


@contextlib.contextmanager
def _hidden_authorization(handler: RequestHandler, *, hide: bool) -> Iterator[None]:
    headers = handler.request.headers
    kept = headers.get_list("Authorization") if hide else []
    if kept:
        del headers["Authorization"]
    try:
        yield
    finally:
        for value in kept:
            headers.add("Authorization", value)
