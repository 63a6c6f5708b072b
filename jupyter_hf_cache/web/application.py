"""A Tornado application of our own, for servers that are not Jupyter's.

Responsible for: routes at the root, and an answer for every other path that shows and logs no
secret.
Not responsible for: listening (`standalone`, `endpoint`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from tornado.httpserver import HTTPServer
from tornado.web import Application

from jupyter_hf_cache.errors import NotFound
from jupyter_hf_cache.web.context import WebContext
from jupyter_hf_cache.web.handler import CacheHandler
from jupyter_hf_cache.web.routes import HandlerList, routes

# Handlers raise it for the bodies that they pass on.
_SMALL_BODY = 1 << 20


class MissingHandler(CacheHandler):
    """404 for whatever is no route."""

    surface: ClassVar[Literal["content", "api", "open"]] = "open"

    async def prepare(self) -> None:
        """Refuse after the guard."""
        await super().prepare()
        raise NotFound(
            "There is nothing at this address.",
            advice="Content is below pulp/content/, the REST API below pulp/api/v3/.",
        )


def make_server(context: WebContext, handlers: HandlerList | None = None) -> HTTPServer:
    """An HTTP server, with keep-alive, that listens nowhere yet.

    Args:
        context: its base URL is "/".
        handlers: all of them by default.
    """
    application = Application(
        [(f"/{path}", handler, args) for path, handler, args in routes(context, handlers)],
        default_handler_class=MissingHandler,
        default_handler_args={"context": context},
    )
    return HTTPServer(application, max_body_size=_SMALL_BODY)
