"""May this request talk to the cache at all? One function, first match wins.

1. a capability or named key in the path, sent directly or through a trusted proxy
2. the server's own login: Basic, a cache-only token, `token`/`Bearer`/`?token=`, a cookie
3. directly from this machine, where `allow_anonymous` says so
4. from anywhere, where `allow_anonymous` is "network"
5. else 401

A token of the Hub (`hf_…`) is no entrance: it decides what may be read afterwards, and it is never
shown to Jupyter's identity provider, which on a JupyterHub would send it on.

Responsible for: that decision.
Not responsible for: whether the caller may read a repo (`upstream.rights`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from jupyter_hf_cache.errors import NotAdmitted
from jupyter_hf_cache.web import capability
from jupyter_hf_cache.web.capability import Capabilities, Grant
from jupyter_hf_cache.web.credentials import (
    CACHE_TOKEN_PREFIX,
    Login,
    Presented,
    Throttle,
    read_authorization,
    same,
)
from jupyter_hf_cache.web.guard import SAFE_METHODS
from jupyter_hf_cache.web.network import Sender

AllowAnonymous = Literal["never", "loopback", "network"]
Via = Literal["capability", "key", "login", "basic", "cache-token", "loopback", "network"]


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a caller came in.

    Args:
        kind: "trusted" is known here; "own-token" brings a token of the Hub; "anonymous" brings
            nothing.
        via: which rule let it in. "network" reads public content and nothing else; a "key" opens
            the tokens stored in this server only where a distribution shares them.
        bearer: the caller's own token for the upstream, never a credential of this server.
        same_machine: loopback peer and nothing in between.
        user: name for logs, if known.
        path: content only: raw (still percent-encoded) path below `/pulp/content/`, without a
            capability.
        base: content only: absolute URL as the client saw it, up to `/pulp/content/` or
            `/pulp/content/~capability/`.
    """

    kind: Literal["trusted", "own-token", "anonymous"]
    via: Via
    bearer: str | None = field(repr=False)
    same_machine: bool
    user: str | None = None
    path: str = field(default="", repr=False)
    base: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """What `admit` needs to know of a request.

    Args:
        surface: "content" or "api".
        sender: from `network.identify`.
        authorization: the header, or None.
        may_login: there is a cookie or `?token=`, or the server has no login at all.
        path: content only: raw path below `/pulp/content/`.
        root: content only: absolute URL of `/pulp/content/`.
    """

    surface: Literal["content", "api"]
    method: str
    sender: Sender
    authorization: str | None = field(default=None, repr=False)
    may_login: bool = False
    path: str = field(default="", repr=False)
    root: str = ""


FindKey = Callable[[str], Awaitable["str | None"]]


async def _no_key(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the server allows.

    Args:
        capabilities: None while there is no key.
        cache_token: this process's `jhc_…` token.
        find_key: the name of a key by its verifier, or None if it was revoked.
    """

    allow_anonymous: AllowAnonymous
    capabilities: Capabilities | None
    cache_token: str = field(repr=False)
    throttle: Throttle
    find_key: FindKey = field(default=_no_key)


class Credentials(Protocol):
    """The app's authenticator, bound to one request."""

    async def login(self, *, show_authorization: bool) -> Login | None:
        """Ask the identity provider, with or without the `Authorization` header."""

    async def check_password(self, user: str, password: str) -> bool:
        """Check Basic credentials."""

    def is_own(self, secret: str) -> bool:
        """Whether a secret is one of this server's."""


async def admit(request: Request, rules: Rules, credentials: Credentials) -> Entrance:
    """Decide.

    Raises:
        NotAdmitted: 401.
        HfCacheError: 429 after too many wrong passwords.
    """
    ticket, path = (
        capability.split(request.path) if request.surface == "content" else (None, request.path)
    )
    grant = await _verify(ticket, request.sender, rules)
    found = await _find(request, rules, credentials, grant)
    base = f"{request.root}~{ticket}/" if found.via in ("capability", "key") else request.root
    return Entrance(
        found.kind,
        found.via,
        found.bearer,
        request.sender.same_machine,
        found.user,
        path,
        base,
    )


async def _find(
    request: Request, rules: Rules, credentials: Credentials, grant: Grant | None
) -> Entrance:
    presented = read_authorization(request.authorization)
    own = presented.secret.startswith(CACHE_TOKEN_PREFIX) or credentials.is_own(presented.secret)
    upstream = presented.for_upstream and not own
    if grant is not None:
        bearer = presented.secret if upstream or _is_foreign_token(presented, own) else None
        return _trusted("key" if grant.verifier else "capability", grant.subject, bearer)
    if not upstream and presented.scheme != "none":
        return await _by_secret(request, rules, credentials, presented)
    bearer = presented.secret if upstream else None
    if request.may_login:
        login = await credentials.login(show_authorization=False)
        if login is not None and _counts(login, request):
            return _trusted("login", login.user, bearer)
    return _without_login(request, rules, bearer)


async def _verify(ticket: str | None, sender: Sender, rules: Rules) -> Grant | None:
    """A capability counts where nobody unknown is in between: a URL that leaks from a notebook must
    not open the cache to everybody who reaches the proxy."""
    if not ticket or rules.capabilities is None or not sender.believable:
        return None
    grant = rules.capabilities.verify(ticket)
    if grant is None or not grant.verifier:
        return grant
    name = await rules.find_key(grant.verifier)
    return replace(grant, subject=name) if name is not None else None


def _is_foreign_token(presented: Presented, own: bool) -> bool:
    """Beside a capability any other bearer is meant for the upstream: other Hubs name their tokens
    otherwise.
    """
    return presented.scheme == "token" and not own


async def _by_secret(
    request: Request, rules: Rules, credentials: Credentials, presented: Presented
) -> Entrance:
    """A secret of ours, or what claims to be one. A wrong one is refused even where nobody needs
    any: who presents a credential expects what it opens."""
    if presented.scheme == "basic":
        rules.throttle.check(request.sender.client)
        if await credentials.check_password(presented.user, presented.secret):
            return _trusted("basic", presented.user or None, None)
        rules.throttle.failed(request.sender.client)
        raise NotAdmitted(
            "The password is wrong.",
            advice="It is the server's token or password, or the admin password.",
        )
    if presented.secret.startswith(CACHE_TOKEN_PREFIX):
        if same(presented.secret, rules.cache_token):
            return _trusted("cache-token", None, None)
        raise _refusal("This cache token is not known here: it belongs to a server that has ended.")
    login = await credentials.login(show_authorization=True)
    if login is None or not _counts(login, request):
        raise _refusal("This token is not known here.")
    return _trusted("login", login.user, None)


def _counts(login: Login, request: Request) -> bool:
    """On content a cookie is good for reading only: clients of the Hub cannot prove that they, and
    not a web page, sent a write."""
    return login.by == "token" or request.surface == "api" or request.method in SAFE_METHODS


def _without_login(request: Request, rules: Rules, bearer: str | None) -> Entrance:
    if request.surface == "content":
        kind: Literal["own-token", "anonymous"] = "own-token" if bearer else "anonymous"
        if request.sender.direct_loopback and rules.allow_anonymous in ("loopback", "network"):
            return Entrance(kind, "loopback", bearer, True)
        if rules.allow_anonymous == "network":
            # Everybody comes in, for public content. A token of the Hub opens nothing more from
            # afar, but a bad one is refused by the Hub here as everywhere.
            return Entrance(kind, "network", bearer, False)
        raise _refusal("You have no entrance to this cache.")
    raise NotAdmitted(
        "You have no entrance to this cache.",
        advice="Send the server's token or password (curl -u admin:…), or log in to Jupyter.",
    )


def _trusted(
    via: Literal["capability", "key", "login", "basic", "cache-token"],
    user: str | None,
    bearer: str | None,
) -> Entrance:
    return Entrance("trusted", via, bearer or None, False, user or None)


def _refusal(reason: str) -> NotAdmitted:
    return NotAdmitted(
        reason, advice="Restart the kernel, or take the endpoint from `jupyter hf-cache env`."
    )
