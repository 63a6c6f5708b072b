"""The cache's handlers as Jupyter handlers, and Jupyter's logins as entrance.

Responsible for: the base class that gives them Jupyter's settings, and asking Jupyter's identity
provider and authorizer.
Not responsible for: when they are asked (`web.entrance`): never about a token of the Hub.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

from jupyter_core.utils import ensure_async
from jupyter_server.auth.identity import IdentityProvider
from jupyter_server.auth.security import passwd_check
from jupyter_server.base.handlers import JupyterHandler

from jupyter_hf_cache.errors import Refused
from jupyter_hf_cache.web.context import WebContext
from jupyter_hf_cache.web.credentials import Login, same
from jupyter_hf_cache.web.guard import SAFE_METHODS
from jupyter_hf_cache.web.routes import HandlerList, Route, routes

RESOURCE = "hf_cache"
"""What Jupyter's authorizer is asked about."""


class JupyterBase(JupyterHandler):
    """Mixed in behind each of the cache's handlers.

    `JupyterHandler.prepare` stays out of it: it asks the identity provider about every request,
    which on a JupyterHub sends the caller's token to the hub.
    """

    auth_resource = RESOURCE


def jupyter_routes(context: WebContext, handlers: HandlerList | None = None) -> list[Route]:
    """The routes for `ExtensionApp.handlers`, which puts the base URL in front.

    Args:
        handlers: all of them by default.
    """
    return routes(context, handlers, base=JupyterBase)


class JupyterAuthenticator:
    """Jupyter's token, password and login; see `web.credentials.Authenticator`.

    Args:
        provider: the server's identity provider.
        admin_password: accepted by Basic as well, if not empty.
    """

    def __init__(self, provider: IdentityProvider, admin_password: str = "") -> None:
        self._provider = provider
        self._admin_password = admin_password

    @property
    def open_to_all(self) -> bool:
        """The server runs without token and password: whoever reaches it runs code anyway."""
        return not self._provider.auth_enabled

    async def login(self, handler: Any) -> Login | None:
        """Ask the identity provider, then the authorizer.

        Raises:
            Refused: 403, a known user who may not use the cache.
        """
        user = await ensure_async(self._provider.get_user(handler))
        handler.current_user = handler._jupyter_current_user = user
        if user is None:
            return None
        action = "read" if handler.request.method in SAFE_METHODS else "write"
        if not await ensure_async(
            handler.authorizer.is_authorized(handler, user, action, RESOURCE)
        ):
            raise Refused(
                f"You are not allowed to {action} here.",
                advice="Ask whoever runs this Jupyter server.",
            )
        by_token = self._provider.is_token_authenticated(handler)
        return Login(user.username, "token" if by_token else "cookie")

    async def check_password(self, user: str, password: str) -> bool:
        """The server's token, the configured admin password, or the Jupyter password; any user
        name.
        """
        if self.open_to_all or self.is_own(password):
            return True
        hashed = getattr(self._provider, "hashed_password", "")
        if not (hashed and password):
            return False
        # Made to be slow.
        return bool(await asyncio.to_thread(passwd_check, hashed, password))

    def is_own(self, secret: str) -> bool:
        """The server's token, the hub's token of this server, or the admin password."""
        own = (self.token, os.environ.get("JUPYTERHUB_API_TOKEN", ""), self._admin_password)
        return any([same(secret, known) for known in own])

    @property
    def token(self) -> str:
        """The server's token, "" if it has none."""
        return cast("str | None", self._provider.token) or ""
