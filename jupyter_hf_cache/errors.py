"""The errors a request can end with.

Responsible for: one tree of exceptions in which each knows its HTTP status, the Hub's error code
where clients look for one, and what the reader can do about it.
Not responsible for: turning them into an HTTP answer (`web.errors`).

    HfCacheError
    ├── BadRequest               400   the request itself is malformed
    │   └── BadPath              400   a path that could climb out, or cannot be decoded
    ├── NotAdmitted              401   no entrance to this cache
    ├── Refused                  403   entrance, but this is not allowed here
    ├── NotFound                 404   no such distribution, repo, ... in this cache
    ├── RangeNotSatisfiable      416
    ├── StorageError             507   nothing can be written
    │   └── OutOfSpace           507   the budget or the disk is full
    ├── UpstreamAnswer           (the upstream's own status, code and message)
    └── UpstreamError            502   the upstream failed or does not behave like a Hub
        ├── FillInterrupted      503   who fetched it for us stopped; asking again helps
        ├── UpstreamUnreachable  521   it could not be asked and nothing is kept
        │   ├── Offline          521   it is not to be asked
        │   └── NotAHub          521   something else answers in its place
        ├── UpstreamFailing      (429 or 5xx)  it answered that it cannot answer now
        └── VerificationFailed   502   bytes did not match their digest
"""

from __future__ import annotations

from collections.abc import Mapping


class HfCacheError(Exception):
    """Base of all errors that are answered to a client.

    Args:
        message: one sentence for the person reading it; never holds a secret.
        advice: the next step, or "".
        headers: extra response headers.
    """

    status: int = 500
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        advice: str = "",
        status: int | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.headers: dict[str, str] = dict(headers or {})
        if status is not None:
            self.status = status
        if code is not None:
            self.code = code

    @property
    def text(self) -> str:
        """Message and advice in one line, as `X-Error-Message` carries them."""
        return f"{self.message} {self.advice}".strip()


class BadRequest(HfCacheError):
    """The request cannot be understood (400)."""

    status = 400


class BadPath(BadRequest):
    """The path is malformed or could leave its directory (400)."""


class NotAdmitted(HfCacheError):
    """The caller has no entrance to this cache (401)."""

    status = 401


class Refused(HfCacheError):
    """The caller may come in, but not do this (403)."""

    status = 403


class NotFound(HfCacheError):
    """This cache has no such thing (404)."""

    status = 404


class RangeNotSatisfiable(HfCacheError):
    """The range starts at or past the end (416).

    Args:
        size: length of the whole file in bytes, for `Content-Range: bytes */size`.
    """

    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(
            f"The requested range is outside the file, which has {size} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        )
        self.size = size


class StorageError(HfCacheError):
    """The cache cannot write (507)."""

    status = 507


class OutOfSpace(StorageError):
    """The budget or the disk is full and nothing more may be evicted (507)."""


class UpstreamAnswer(HfCacheError):
    """A refusal of the upstream that is passed on as it came: status, code, message and body.

    Args:
        body: what the upstream sent, at most a few KiB.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message, status=status, code=code, headers=headers)
        self.body = body


class UpstreamError(HfCacheError):
    """The upstream failed, or does not behave like a Hub (502)."""

    status = 502


class UpstreamUnreachable(UpstreamError):
    """The upstream could not be asked and nothing is kept.

    521 and not 504: huggingface_hub repeats 500, 502, 503 and 504 for 23 seconds before it gives
    up, and takes any other status as final at once, with the same exception for its user.
    """

    status = 521


class Offline(UpstreamUnreachable):
    """The cache or the remote is set offline: nobody was asked (521)."""


class NotAHub(UpstreamUnreachable):
    """Something else answers in the upstream's place: a login page, a proxy, a portal (521)."""


class UpstreamFailing(UpstreamError):
    """The upstream answered 408, 429 or 5xx: asking again later may help."""


class FillInterrupted(UpstreamError):
    """The download that this answer followed cannot be followed any more; another one can (503)."""

    status = 503


class VerificationFailed(UpstreamError):
    """What arrived does not have the digest that the upstream itself named (502)."""
