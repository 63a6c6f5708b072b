"""Where the Hub sent a caller for the bytes of a file.

Responsible for: remembering it for a short time, so that a file's head and its many ranges cost the
Hub one question; reading from a signed URL when it ends; and knowing where the small files of a
commit lie once the Hub named the place of one of them.
Not responsible for: asking (`upstream.transfer`), or what is done when one is refused.

The Hub redirects each small file to an address of its own, `/api/resolve-cache/...`, which holds
repo, commit and path. Whoever was sent there for one file goes there at once for its neighbours: a
snapshot of many small files costs half as many requests. Bytes are verified all the same, and where
nothing is found the Hub is asked the long way.

A signed URL opens a file to whoever holds it. So it stays in memory, with the client of its remote,
for the identity that was given it and no other, and no longer than a right to read is believed.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timezone
from urllib.parse import parse_qs, quote, urlsplit

LONGEST_SECONDS = 60.0
"""After this the Hub is asked again, which asks for the caller's right too."""

_MARGIN_SECONDS = 10.0
_KEPT = 512
_SMALL_FILES = "/api/resolve-cache/"
_RESOLVE = re.compile(r"(.+/resolve/([0-9a-f]{40})/)(.+)")

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
        self._places: OrderedDict[LinkKey, tuple[float, str]] = OrderedDict()

    def get(self, key: LinkKey) -> str | None:
        """Return the URL that still opens the file, as far as one can know."""
        with self._lock:
            until, url = self._links.get(key, (0.0, None))
            if url is not None and self._monotonic() >= until:
                del self._links[key]
                return None
            return url

    def small_file(self, key: LinkKey, etag: str) -> str | None:
        """Return where a small file should be, if the Hub named the place of another one of the
        same commit lately.

        Args:
            etag: of the file, unquoted; a large file is never there.
        """
        path = _RESOLVE.fullmatch(key[1])
        if path is None or len(etag) != 40:
            return None
        with self._lock:
            until, place = self._places.get((key[0], path[1]), (0.0, ""))
        if self._monotonic() >= until:
            return None
        return f"{place}{path[3]}?{quote(key[1], safe='')}=&etag=%22{etag}%22"

    def put(self, key: LinkKey, url: str) -> None:
        """Remember a URL that the Hub gave just now."""
        self.note_place(key, url)
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

    def note_place(self, key: LinkKey, url: str) -> None:
        """Remember where the small files of a commit are, if this is the address of one."""
        path, (place, _, _) = _RESOLVE.fullmatch(key[1]), url.partition("?")
        if path is None or _SMALL_FILES not in place or not place.endswith(f"/{path[2]}/{path[3]}"):
            return
        with self._lock:
            until = self._monotonic() + LONGEST_SECONDS
            self._places[key[0], path[1]] = (until, place[: -len(path[3])])
            self._places.move_to_end((key[0], path[1]))
            while len(self._places) > _KEPT:
                self._places.popitem(last=False)

    def forget(self, key: LinkKey, url: str | None = None) -> None:
        """Forget what is known for `key`; with `url` only if it is that one still."""
        path = _RESOLVE.fullmatch(key[1])
        with self._lock:
            _, known = self._links.get(key, (0.0, None))
            if known is not None and url in (None, known):
                del self._links[key]
            if path is not None and known in (None, url):
                self._places.pop((key[0], path[1]), None)


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
