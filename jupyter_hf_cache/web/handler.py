"""The handler that all routes are made of.

Responsible for: guard and entrance before anything else, a bounded body, the shape of errors, URLs
as the client sees them, and an access line without secrets.
Not responsible for: what the routes do; how one becomes a Jupyter handler (`jupyter_web`).

Handlers read their bodies in streaming mode: `prepare` runs as soon as the headers are here, so
that a body nobody wants is refused before it is sent, and an upload can be passed on while it
arrives.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable
from http.cookies import SimpleCookie
from logging import DEBUG, INFO, WARNING, Logger, LoggerAdapter
from types import TracebackType
from typing import Any, ClassVar, Literal, cast

from tornado import httputil
from tornado.web import HTTPError, RequestHandler, stream_request_body

from jupyter_hf_cache.errors import BadRequest, HfCacheError, Refused, UpstreamAnswer
from jupyter_hf_cache.web import capability, entrance, errors, guard, network
from jupyter_hf_cache.web.context import WebContext
from jupyter_hf_cache.web.credentials import BoundCredentials, Login
from jupyter_hf_cache.web.entrance import Entrance

CONTENT_PREFIX = "pulp/content/"

# Longer bodies are refused at once; up to here they are read to their end first, because a client
# that is still sending when the connection closes often does not see the answer.
_POLITE_BODY = 16 << 20
_UNLIMITED = 1 << 62

_CONTENT_HEADERS = {
    "Content-Type": "application/octet-stream",
    "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The address may hold a capability.
    "Referrer-Policy": "no-referrer",
}


class TooLarge(HfCacheError):
    """The body is longer than this route takes (413)."""

    status = 413


@stream_request_body
class CacheHandler(RequestHandler):
    """Base of all handlers, in every app.

    Class attributes:
        surface: "content" (clients of the Hub), "api" (trusted callers only), "open" (the guard and
            nothing else).
        body_limit: bytes of a body that are collected into `request.body` before the verb runs;
            None if the route handles `data_received` itself, where a returned awaitable slows the
            sender down.

    Attributes:
        from_page: a page of another origin asks, whose reading the operator allowed; known after
            the guard.
    """

    surface: ClassVar[Literal["content", "api", "open"]] = "api"
    body_limit: ClassVar[int | None] = 1 << 20

    context: WebContext
    entrance: Entrance
    sender: network.Sender
    from_page: bool

    def initialize(self, context: WebContext) -> None:
        """Take the route's context."""
        self.context = context
        self._login: Login | None = None
        self._body = bytearray()
        self._body_size = 0

    def has_body(self) -> bool:
        """Whether something follows the headers."""
        headers = self.request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"

    @property
    def log(self) -> Logger:
        """The app's logger."""
        return self.context.log

    def set_default_headers(self) -> None:
        """Content is made harmless for browsers, its errors included; the API gets the app's own
        headers.
        """
        if self.surface == "content":
            for name, value in _CONTENT_HEADERS.items():
                self.set_header(name, value)
            self._set_cors_headers()
            return
        super().set_default_headers()
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    async def prepare(self) -> None:
        """Guard, then entrance. Sub-classes that override this await it first.

        The server's identity provider is asked only by `entrance.admit`, and never sees a token of
        the Hub.
        """
        self.pass_guard()
        if self.surface != "open":
            self.entrance = await self._admit()
        if self.surface == "content":
            self.request.query = _without_token(self.request.query)
            self._drop_cookies()
            self.context.touch()
        elif self._login is not None:
            self._check_cookie_write(self._login)
        self._check_body_size()

    def pass_guard(self) -> None:
        """The first part of `prepare`: the guard, before anybody is looked up.

        Raises:
            Refused: 403.
        """
        # Jupyter's handlers take a missing user for "not decided yet" and let XSRF checks pass.
        self.current_user = self._jupyter_current_user = None
        self.context.running.add(self)
        self.sender = self._identify_sender()
        self.from_page = self._is_from_allowed_page()
        guard.check(
            self.request.method or "",
            self.request.headers,
            self.sender,
            self.context.options.hosts,
            self._is_xsrf_valid,
            allowed_page=self.from_page,
        )
        self._set_cors_headers()

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Collect the body, up to `body_limit`."""
        self._body_size += len(chunk)
        if self.body_limit is not None and self._body_size <= self.body_limit:
            self._body += chunk
        elif self.body_limit is not None and self._body_size > _POLITE_BODY:
            with contextlib.suppress(TooLarge):
                self.send_error(TooLarge.status, exc_info=(TooLarge, self._too_large(), None))
        return None

    def take_body(self) -> None:
        """Put the collected body, and a form's fields, where Tornado's own methods look for them.
        Runs before the verb.

        Raises:
            TooLarge: 413.
            BadRequest: 400, a form that cannot be read.
        """
        if self.body_limit is None:
            return
        if self._body_size > self.body_limit:
            raise self._too_large()
        self.request.body = bytes(self._body)
        if self.surface != "content" and self.request.body:
            self._read_form()

    def json_body(self) -> Any:
        """The body as JSON.

        Raises:
            BadRequest: 400, it is not JSON.
        """
        try:
            return json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise BadRequest("The body is not valid JSON.") from None

    def json(self, body: Any, status: int = 200) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body))

    def full_url(self, path_below_base: str) -> str:
        """An absolute URL below the server's base URL, as this client would write it.

        Args:
            path_below_base: without a leading slash, percent-encoded.
        """
        sender = self.sender
        base = self.context.base_url
        prefix = "" if base.startswith(f"{sender.prefix}/") else sender.prefix
        return f"{sender.scheme}://{sender.host}{prefix}{base}{path_below_base}"

    def compute_etag(self) -> str | None:
        """None: an ETag names a blob here, and is never made up from an answer."""
        return None

    def on_finish(self) -> None:
        """The answer is complete, or was given up."""
        self.context.running.discard(self)
        if self.surface == "content":
            self.context.touch()

    def on_connection_close(self) -> None:
        """The client has gone; nobody needs to wait for this answer."""
        super().on_connection_close()
        self.context.running.discard(self)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with an error; where an answer has begun, break it off so that it cannot look
        complete.
        """
        if self._headers_written:
            stream = getattr(self.request.connection, "stream", None)
            if stream is not None:
                stream.close()
            self.on_finish()
            return
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the error in the surface's shape; Pulp's routes have their own."""
        answer = self.describe_error(status_code, **kwargs)
        if self.surface == "content":
            for name, value in errors.hub_headers(answer).items():
                self.set_header(name, value)
            is_json = answer.body.lstrip()[:1] in (b"{", b"[")
            self.set_header("Content-Type", "application/json" if is_json else "text/plain")
            self.finish(answer.body or answer.text + "\n")
        else:
            self.json(errors.api_body(answer), answer.status)

    def describe_error(self, status_code: int, **kwargs: Any) -> errors.ErrorAnswer:
        """What to say about an error; sets the status and the headers that belong to it."""
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        answer = errors.describe(error, status_code, self.request.method or "")
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, errors.header_text(value))
        # The Hub's own refusal keeps the Hub's own challenge, or none.
        ours = not isinstance(error, UpstreamAnswer)
        if answer.status == 401 and ours and not guard.is_browser(self.request.headers):
            self.set_header("WWW-Authenticate", 'Basic realm="jupyter-hf-cache"')
        return answer

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Only what nobody expected gets a traceback, and no line shows the request as it came."""
        if isinstance(value, (HfCacheError, HTTPError)):
            self.log.debug("%s: %s", self._request_line(), value)
        else:
            self.log.error(
                "unexpected error in %s",
                self._request_line(),
                exc_info=cast("Any", (typ, value, tb)),
            )

    def check_xsrf_cookie(self) -> None:
        """Tornado calls this before `prepare`, when nothing is known of the caller; `prepare`
        checks.
        """

    def _log(self) -> None:
        status = self.get_status()
        # Clients ask for many files that a repo may have; "no such file" is everyday.
        everyday = status < 400 or (status == 404 and self.surface == "content")
        level = DEBUG if everyday else INFO if status < 500 else WARNING
        if everyday and not _prints_debug(self.log):
            return
        self.log.log(
            level,
            "%d %s (%s) %.2f ms",
            status,
            self._request_line(),
            self.sender.client if hasattr(self, "sender") else "?",
            1000.0 * self.request.request_time(),
        )

    def _request_line(self) -> str:
        return f"{self.request.method} {capability.redact(self.request.uri or '')}"

    def _identify_sender(self) -> network.Sender:
        connection = getattr(self.request.connection, "context", None)
        address = getattr(connection, "address", None)
        return network.identify(
            # `request.remote_ip` may be what a header said, if the server was told to believe it.
            peer=address[0] if isinstance(address, tuple) else "",
            scheme=self.request.protocol,
            host=self.request.host,
            headers=self.request.headers,
            trusted_proxies=self.context.options.trusted_proxies,
        )

    def _is_from_allowed_page(self) -> bool:
        if self.surface != "content" or not self.context.options.cors.origins:
            return False
        origin = self.request.headers.get("Origin")
        allowed = self.context.options.cors.allows(origin)
        return allowed and not guard.is_own(origin or "", self.sender)

    def _set_cors_headers(self) -> None:
        # Before `initialize` there is no context; `prepare` comes after it.
        if self.surface != "content" or not hasattr(self, "context"):
            return
        cors = self.context.options.cors
        if cors.origins:
            for name, value in cors.headers(self.request.headers.get("Origin")).items():
                self.set_header(name, value)

    async def _admit(self) -> Entrance:
        content = self.surface == "content"
        prefix = self.context.base_url + CONTENT_PREFIX
        credentials = BoundCredentials(self.context.authenticator, self)
        admitted = await entrance.admit(
            entrance.Request(
                surface="content" if content else "api",
                method=self.request.method or "",
                sender=self.sender,
                authorization=self.request.headers.get("Authorization"),
                may_login=self.context.authenticator.open_to_all
                or "Cookie" in self.request.headers
                or "token" in self.request.query_arguments,
                path=self.request.path[len(prefix) :] if content else "",
                root=self.full_url(CONTENT_PREFIX) if content else "",
            ),
            self.context.rules,
            credentials,
        )
        self._login = credentials.found
        return admitted

    def _is_xsrf_valid(self) -> bool:
        try:
            super().check_xsrf_cookie()
        except HTTPError:
            return False
        return True

    def _check_cookie_write(self, login: Login) -> None:
        safe = self.request.method in guard.SAFE_METHODS
        if login.by == "cookie" and not safe and not self._is_xsrf_valid():
            raise Refused(
                "A change with the login cookie needs an XSRF token.",
                advice="Send the value of the _xsrf cookie as X-XSRFToken.",
            )

    def _drop_cookies(self) -> None:
        """A login by token makes Jupyter set a cookie; clients of the Hub have no use for it."""
        if hasattr(self, "_new_cookie"):
            self._new_cookie: Any = SimpleCookie()
        self.clear_header("Set-Cookie")

    def _check_body_size(self) -> None:
        # The server's own limit is for bodies that are kept in memory.
        with contextlib.suppress(AttributeError):
            self.request.connection.set_max_body_size(_UNLIMITED)  # type: ignore[union-attr]
        declared = self.request.headers.get("Content-Length", "")
        if self.body_limit is not None and declared.isdigit() and int(declared) > _POLITE_BODY:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is longer than the {self.body_limit} bytes taken here.")

    def _read_form(self) -> None:
        content_type = self.request.headers.get("Content-Type", "")
        if content_type.startswith("multipart/form-data") and "boundary=" not in content_type:
            # Older releases of Tornado take this for a form without fields.
            raise BadRequest("The form in the body has no boundary.")
        try:
            httputil.parse_body_arguments(
                content_type,
                self.request.body,
                self.request.body_arguments,
                self.request.files,
            )
        except (httputil.HTTPInputError, ValueError):
            raise BadRequest("The form in the body cannot be read.") from None


def _prints_debug(log: Logger | LoggerAdapter[Any]) -> bool:
    """Whether any handler prints DEBUG lines. Jupyter lets its loggers make every record and has
    their handlers drop it, which costs as much as a small answer."""
    logger: Logger | None = log.logger if isinstance(log, LoggerAdapter) else log
    if logger is None or not logger.isEnabledFor(DEBUG):
        return False
    while logger is not None:
        if any(handler.level <= DEBUG for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _without_token(query: str) -> str:
    """The query without Jupyter's `token`, which must not reach the upstream."""
    kept = [part for part in query.split("&") if part.partition("=")[0].lower() != "token"]
    return "&".join(kept)
