"""Signed URLs: where the Hub sent a caller for the bytes of a file.

Responsible for: remembering them for a short time, so that a file's head and its many ranges cost
the Hub one question; and reading from such a URL when it ends.
Not responsible for: asking (`upstream.transfer`), or what is done when one is refused.

A signed URL opens a file to whoever holds it. So it stays in memory, with the client of its remote,
for the identity that was given it and no other, and no longer than a right to read is believed.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timezone
from urllib.parse import parse_qs, urlsplit

LONGEST_SECONDS = 60.0
"""After this the Hub is asked again, which asks for the caller's right too."""

_MARGIN_SECONDS = 10.0
_KEPT = 512

LinkKey = tuple[str, str]
"""(identity, resolve path)."""


class Links:
    """Signed URLs in memory. Thread-safe.

    Args:
        monotonic, now: clocks; `now` gives Unix seconds.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._now = now
        self._lock = threading.Lock()
        self._links: OrderedDict[LinkKey, tuple[float, str]] = OrderedDict()

    def get(self, key: LinkKey) -> str | None:
        """Return the URL that still opens the file, as far as one can know."""
        with self._lock:
            until, url = self._links.get(key, (0.0, None))
            if url is not None and self._monotonic() >= until:
                del self._links[key]
                return None
            return url

    def put(self, key: LinkKey, url: str) -> None:
        """Remember a URL that the Hub gave just now."""
        left = LONGEST_SECONDS
        ends = expiry(url)
        if ends is not None:
            left = min(left, ends - self._now() - _MARGIN_SECONDS)
        if left <= 0:
            return
        with self._lock:
            self._links[key] = (self._monotonic() + left, url)
            self._links.move_to_end(key)
            while len(self._links) > _KEPT:
                self._links.popitem(last=False)

    def forget(self, key: LinkKey, url: str | None = None) -> None:
        """Forget what is known for `key`; with `url` only if it is that one still."""
        with self._lock:
            _, known = self._links.get(key, (0.0, None))
            if known is not None and url in (None, known):
                del self._links[key]


def expiry(url: str) -> float | None:
    """Return when a signed URL ends, in Unix seconds; None where it does not say.

    CloudFront names the moment, S3 and Google a beginning and a number of seconds.
    """
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    if (moment := _number(query.get("expires"))) is not None:
        return moment
    for maker in ("amz", "goog"):
        seconds = _number(query.get(f"x-{maker}-expires"))
        begin = _moment(query.get(f"x-{maker}-date", ""))
        if seconds is not None and begin is not None:
            return begin + seconds
    return None


def _number(text: str | None) -> float | None:
    digits = text is not None and text.isascii() and text.isdigit() and len(text) < 16
    return float(text) if digits and text is not None else None


def _moment(text: str) -> float | None:
    try:
        begin = datetime.strptime(text, "%Y%m%dT%H%M%SZ")
    except ValueError:
        return None
    return begin.replace(tzinfo=timezone.utc).timestamp()
