"""One call of an upstream: what stays the same from try to try.

Responsible for: time-outs within a deadline, and whether a call may be repeated or made elsewhere.
Not responsible for: sending it (`client`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import requests

from jupyter_hf_cache.protocol.headers import REDIRECTS
from jupyter_hf_cache.storage.records import Credential
from jupyter_hf_cache.upstream.failures import Failure

Body = bytes | Iterable[bytes] | None

IDEMPOTENT = frozenset({"GET", "HEAD"})
LEAST_TIMEOUT = 0.5
"""Seconds below which a try is not worth making."""

_WORTH_A_RETRY = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Call:
    """What stays the same from try to try and from redirect to redirect.

    Args:
        background: says, as often as it is asked, whether nobody waits for it.
        brief: it is given up soon, for there is another way.
    """

    method: str
    headers: Mapping[str, str] = field(repr=False)
    body: Body = field(repr=False)
    credential: Credential
    connect_timeout: float
    read_timeout: float
    deadline: float | None
    background: Callable[[], bool] = lambda: False
    brief: bool = False

    @property
    def streams(self) -> bool:
        """The body is an iterable, which can be sent once."""
        return self.body is not None and not isinstance(self.body, bytes)

    @property
    def content(self) -> bytes | None:
        """The body, if it can be sent again."""
        return self.body if isinstance(self.body, bytes) else None

    def timeouts(self, left: float | None) -> tuple[float, float]:
        """Connect and read time-out of a try that may take `left` seconds (None: no limit)."""
        most = [seconds for seconds in (left, self._until_deadline()) if seconds is not None]
        return (
            max(LEAST_TIMEOUT, min([self.connect_timeout, *most])),
            max(LEAST_TIMEOUT, min([self.read_timeout, *most])),
        )

    def may_repeat(self, result: requests.Response | Failure) -> bool:
        """Whether another try is harmless and may help."""
        if self.streams:
            return False
        if isinstance(result, Failure):
            return result.transient and (self.method in IDEMPOTENT or not result.sent)
        return (
            self.method in IDEMPOTENT
            and result.status_code in _WORTH_A_RETRY
            and "Retry-After" not in result.headers
        )

    def may_follow(self, status: int) -> bool:
        """Whether this request can be made again elsewhere as it is."""
        if status not in REDIRECTS or self.streams:
            return False
        return self.method in IDEMPOTENT or status in (307, 308)

    def _until_deadline(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()
