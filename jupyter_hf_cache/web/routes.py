"""The one list of routes.

Responsible for: collecting every module's `ROUTES` and making them ready for an app.
Not responsible for: what a route does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tornado.web import RequestHandler

from jupyter_hf_cache.web import cache_api, content, pulp_api, snapshots_api
from jupyter_hf_cache.web.context import WebContext
from jupyter_hf_cache.web.handler import CacheHandler

HandlerList = Sequence[tuple[str, type[CacheHandler]]]
Verb = Callable[..., Awaitable[None]]
Route = tuple[str, type[RequestHandler], dict[str, Any]]

_VERBS = ("get", "head", "post", "put", "patch", "delete", "options")


def content_handlers() -> HandlerList:
    """What clients of the Hub talk to."""
    return content.ROUTES


def all_handlers() -> HandlerList:
    """Content, Pulp's REST API and the cache API; patterns are relative to the base URL."""
    return [
        *content_handlers(),
        *pulp_api.ROUTES,
        *cache_api.ROUTES,
        *snapshots_api.ROUTES,
    ]


def routes(
    context: WebContext,
    handlers: HandlerList | None = None,
    *,
    base: type[RequestHandler] | None = None,
) -> list[Route]:
    """Tornado routes for an app.

    Args:
        handlers: all of them by default.
        base: the app's own handler class, mixed in behind each handler.

    Returns:
        Patterns relative to the base URL, without a leading slash.
    """
    chosen = all_handlers() if handlers is None else handlers
    return [(pattern, bind(handler, base), {"context": context}) for pattern, handler in chosen]


def bind(
    handler: type[CacheHandler], base: type[RequestHandler] | None = None
) -> type[CacheHandler]:
    """The class that Tornado runs: the handler over the app's base, its verbs called with the body
    read.

    The verbs are marked for jupyter_server, which otherwise refuses callers that its own login does
    not know: `CacheHandler.prepare` decides who comes in.
    """
    verbs = {
        verb: _with_body(getattr(handler, verb))
        for verb in _VERBS
        if getattr(handler, verb) is not RequestHandler._unimplemented_method
    }
    bases = (handler,) if base is None else (handler, base)
    return type(handler.__name__, bases, {**verbs, "__module__": handler.__module__})


def _with_body(method: Callable[..., Any]) -> Verb:
    @functools.wraps(method)
    async def verb(self: CacheHandler, *args: str, **kwargs: str) -> None:
        self.take_body()
        result = method(self, *args, **kwargs)
        if inspect.isawaitable(result):
            await result

    # The attribute that jupyter_server.auth.allow_unauthenticated sets; written here because the
    # stand-alone server has no jupyter_server.
    setattr(verb, "__allow_unauthenticated", True)
    return verb
