"""What upstreams said is not there.

Responsible for: keeping 404 answers for a short time, per identity, in memory.
Not responsible for: files missing from a commit, which is a fact for ever (`service.claims`), or
any other refusal: 401, 403, 429 and 5xx are never kept.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from jupyter_hf_cache.errors import UpstreamAnswer

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A refusal as data. An exception that is raised again and again would hold on to the frames
    of every request it ended."""

    asked: float
    status: int
    message: str
    code: str | None
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Negatives:
    """404 answers by whatever identifies the question. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusals: OrderedDict[Hashable, _Refusal] = OrderedDict()

    def note(self, key: Hashable, refused: UpstreamAnswer, asked: float) -> None:
        """Keep a refusal if it is one that may be kept.

        Args:
            asked: Unix time when the question was sent: a change may overtake the answer.
        """
        if refused.status != 404:
            return
        refusal = _Refusal(
            asked,
            refused.status,
            refused.message,
            refused.code,
            tuple(refused.headers.items()),
            refused.body,
        )
        with self._lock:
            self._refusals[key] = refusal
            self._refusals.move_to_end(key)
            while len(self._refusals) > _MOST:
                self._refusals.popitem(last=False)

    def find(self, key: Hashable, lifetime: float, changed: float = 0.0) -> UpstreamAnswer | None:
        """Return the refusal, ready to be raised, while it holds.

        Args:
            lifetime: seconds for which it holds.
            changed: Unix time of the last change that went through this cache; what was refused
                before it may be there now.
        """
        with self._lock:
            refusal = self._refusals.get(key)
        if refusal is None or refusal.asked <= changed:
            return None
        if not 0 <= time.time() - refusal.asked < lifetime:
            return None
        return UpstreamAnswer(
            refusal.status,
            refusal.message,
            code=refusal.code,
            headers=dict(refusal.headers),
            body=refusal.body,
        )
