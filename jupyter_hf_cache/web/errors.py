"""What an error looks like on the wire.

Responsible for: turning any exception into status, message, advice and headers, and these into the
two shapes that clients read: the Hub's (`X-Error-Code`, `X-Error-Message`, plain text) and the
cache API's JSON. No answer holds a stack trace.
Not responsible for: the errors themselves (`jupyter_hf_cache.errors`), or Pulp's error bodies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from tornado.web import HTTPError

from jupyter_hf_cache.errors import HfCacheError, UpstreamAnswer

_LONGEST_HEADER = 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error, ready to be written.

    Args:
        code: the Hub's error code, or None.
        body: the upstream's own body where its answer is passed on, else b"".
    """

    status: int
    message: str
    advice: str = ""
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        """Message and advice in one line."""
        return f"{self.message} {self.advice}".strip()


def describe(error: BaseException | None, status: int, method: str) -> ErrorAnswer:
    """Read any exception.

    Args:
        error: what ended the request, or None if only the status is known.
        status: Tornado's idea of the status; an `HfCacheError` has its own.
        method: the request's, for "not supported".
    """
    if isinstance(error, HfCacheError):
        return ErrorAnswer(
            error.status,
            error.message,
            error.advice,
            error.code,
            error.headers,
            error.body if isinstance(error, UpstreamAnswer) else b"",
        )
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return ErrorAnswer(status, f"{method} is not supported here.")
    if isinstance(error, HTTPError):
        return ErrorAnswer(status, error.log_message or error.reason or _phrase(status))
    if status >= 500:
        return ErrorAnswer(status, "The cache failed to answer this.", "The server's log says why.")
    return ErrorAnswer(status, _phrase(status))


def hub_headers(answer: ErrorAnswer) -> dict[str, str]:
    """The headers from which clients of the Hub take their exception and its text."""
    headers = {**answer.headers, "X-Error-Message": header_text(answer.text)}
    if answer.code:
        headers["X-Error-Code"] = header_text(answer.code)
    return headers


def api_body(answer: ErrorAnswer) -> dict[str, str]:
    """The body of an error of the cache API."""
    return {"message": answer.message, "advice": answer.advice}


def header_text(text: str) -> str:
    """The text as a header may carry it: one line of ASCII, not longer than 1 KiB."""
    ascii_only = _CONTROL.sub(" ", text).encode("ascii", "replace").decode("ascii")
    return ascii_only[:_LONGEST_HEADER].strip()


def _phrase(status: int) -> str:
    try:
        return f"{HTTPStatus(status).phrase}."
    except ValueError:
        return "Unknown error."
