"""How long and how often a download is tried again.

Responsible for: what an upstream asks for when it has too much to do, the pauses between failures,
and when giving up at once is kinder.
Not responsible for: asking again (`upstream.fetching`).
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping

from jupyter_hf_cache.errors import (
    NotAHub,
    Offline,
    UpstreamError,
    UpstreamFailing,
    UpstreamUnreachable,
)

ATTEMPTS_WITHOUT_PROGRESS = 5
LONGEST_WAIT = 60.0
BACKOFF_SECONDS = (0.05, 0.3, 1.0, 2.0, 4.0)
# huggingface_hub leaves after ten seconds without a byte.
_BEFORE_THE_FIRST_BYTE = 7.5

_USED_UP = re.compile(r";\s*r=0\s*;\s*t=(\d+)")


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which a busy upstream wants to be asked again, if it says so."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:9])
    if asked:
        try:
            moment = email.utils.parsedate_to_datetime(asked)
        except ValueError:
            return None
        return max(0.0, moment.timestamp() - time.time())
    window = _USED_UP.search(headers.get("RateLimit", ""))
    return float(window[1][:9]) if window else None


def is_busy(error: UpstreamError) -> bool:
    """Whether the upstream said that it has too much to do."""
    return isinstance(error, UpstreamFailing) and error.status in (429, 503)


def pause_after(error: UpstreamError, failures: int, *, begun: bool) -> float | None:
    """Return the seconds to wait before trying again, or None when it is time to give up.

    Who was sent nothing yet (not `begun`) is told at once that nobody is there, as the connection
    was tried several times already, and likewise that the upstream asks for a longer wait than a
    client has patience for: it can then wait that long itself.

    Args:
        failures: in a row, this one included, without a byte between them.
    """
    asked = asked_wait(error.headers) or 0.0
    gone = isinstance(error, UpstreamUnreachable)
    if isinstance(error, NotAHub):
        # A storage may slip once; a portal answers everything, and at once.
        gone = failures > 1
    if isinstance(error, Offline) or (not begun and (gone or asked > _BEFORE_THE_FIRST_BYTE)):
        return None
    if failures > ATTEMPTS_WITHOUT_PROGRESS:
        return None
    backoff = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
    return max(backoff, min(asked, LONGEST_WAIT))
