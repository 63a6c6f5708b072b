"""Answers that are ready in memory: a small kept file costs neither a thread nor a disk.

Responsible for: remembering answers about files for as long as they would be given again without
asking anybody, in bounded memory, and counting what is answered from here.
Not responsible for: who may come in (`web.entrance`, decided anew for each request), what an answer
says and how long it holds (`service.files`), or sending it (`web.content`).

An answer is found again only by a caller who came in the same way with the same token, until the
right to read or the moving ref has to be looked at again, and only while nothing was changed:
`storage.generations` counts changes of the configuration, of rights and of what is kept, in this
process and in every other one on the directory.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jupyter_hf_cache.answers import Answer, BytesBody, Spoken
from jupyter_hf_cache.protocol.xet import is_too_large
from jupyter_hf_cache.service.caller import Asker
from jupyter_hf_cache.service.heads import not_modified, wants_fresh
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.budget import Budget
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.interface import BlobId

MOST_BYTES = 32 * 1024 * 1024
MOST_ANSWERS = 8192
# What an answer takes beside its body: head, key, and the room both have in the books.
_OVERHEAD = 2048

Epoch = tuple[int, ...]
Key = tuple[str, str, str, str, bytes, bool]


@dataclass(eq=False, slots=True)
class ReadyAnswer:
    """An answer 200 to GET or HEAD, without conditions.

    Args:
        headers: complete, as of `Answer`.
        body: the whole file; None if only its head is known.
        etag: unquoted.
        blob: the kept blob that the body was read from.
        until: Unix time in seconds.
        spoken: what it tells clients of a moving ref.
        rendered: what the sender made of the headers; its own affair.
    """

    headers: Mapping[str, str]
    body: bytes | None
    etag: str
    blob: BlobId | None
    epoch: Epoch
    noted: float
    until: float
    spoken: Spoken | None = None
    rendered: object = field(default=None, repr=False)

    @property
    def cost(self) -> int:
        """Bytes of memory, roughly."""
        return _OVERHEAD + len(self.body or b"")

    def covers(self, other: ReadyAnswer) -> bool:
        """Whether `other` says nothing that is not said here."""
        same = (self.epoch, self.etag) == (other.epoch, other.etag)
        return same and other.body is None and self.body is not None


class ReadyAnswers:
    """A bounded store of answers, least recently used out first. Thread-safe.

    `find` neither blocks nor touches a disk: it is for the event loop. `settle` writes, and belongs
    in a worker thread.

    Args:
        most_bytes: of memory, bodies and heads together.
        clock: Unix time in seconds.
        write: called when what was given is settled: writes what clients were told.
    """

    def __init__(
        self,
        generations: Generations,
        usage: Usage,
        budget: Budget,
        *,
        most_bytes: int = MOST_BYTES,
        most_answers: int = MOST_ANSWERS,
        clock: Callable[[], float] | None = None,
        write: Callable[[], None] = lambda: None,
    ) -> None:
        self._generations = generations
        self._usage = usage
        self._budget = budget
        self._most_bytes = most_bytes
        self._most_answers = most_answers
        self._clock = clock or (lambda: time.time())
        self._write = write
        self._salt = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._answers: OrderedDict[Key, ReadyAnswer] = OrderedDict()
        self._bytes = 0
        self._used: set[ReadyAnswer] = set()
        self._calls = self._hits = self._bytes_given = 0

    def epoch(self) -> Epoch:
        """Return what an answer that is made now depends on; taken before it is made."""
        return self._generations.values()

    def find(
        self, method: str, path: str, query: str, headers: Mapping[str, str], asker: Asker
    ) -> tuple[int, ReadyAnswer] | None:
        """Return status (200 or 304) and answer of a request that was let in, and count it; None
        if it has to be answered the long way.

        Args:
            path, query, asker: as `CacheService.answer` takes them.
        """
        if not self._answers or method not in ("GET", "HEAD") or "Range" in headers:
            return None
        if "Cache-Control" in headers and wants_fresh(headers):
            return None
        key = self._key(path, query, asker)
        epoch, now = self._generations.values(), self._clock()
        with self._lock:
            found = self._answers.get(key)
            if found is None:
                return None
            if found.epoch != epoch or not found.noted <= now < found.until:
                self._drop(key)
                return None
            unchanged = "If-None-Match" in headers and not_modified(headers, found.etag)
            if method == "GET" and not unchanged and found.body is None:
                return None
            if found.spoken is not None and not _may_be_said(found.spoken, method, headers, asker):
                return None
            self._answers.move_to_end(key)
            self._calls += 1
            if method == "GET" and not unchanged and found.body is not None:
                self._hits += 1
                self._bytes_given += len(found.body)
                self._used.add(found)
            return (304 if unchanged else 200), found

    def remember(
        self,
        epoch: Epoch,
        path: str,
        query: str,
        headers: Mapping[str, str],
        asker: Asker,
        answer: Answer,
    ) -> None:
        """Keep an answer that may be given again.

        Args:
            epoch: from before the answer was made.
            path, query, headers, asker: of the request.
        """
        if answer.status != 200 or not answer.until or "Range" in headers:
            return
        if is_too_large(int(answer.headers.get("X-Linked-Size", "0"))):
            return  # it names the endpoint as this caller knows it, or depends on their program
        body = answer.body.data if isinstance(answer.body, BytesBody) else None
        ready = ReadyAnswer(
            headers=dict(answer.headers),
            body=body,
            etag=answer.headers.get("ETag", "").strip('"'),
            blob=answer.blob,
            epoch=epoch,
            noted=self._clock(),
            until=answer.until,
            spoken=answer.spoken,
        )
        if ready.cost > self._most_bytes:
            return
        key = self._key(path, query, asker)
        with self._lock:
            known = self._answers.get(key)
            if known is not None and known.covers(ready):
                # A HEAD knows less; of the same file, it may know it for longer.
                known.noted, known.until = ready.noted, ready.until
                return
            self._drop(key)
            self._answers[key] = ready
            self._bytes += ready.cost
            while self._bytes > self._most_bytes or len(self._answers) > self._most_answers:
                self._drop(next(iter(self._answers)))

    def _drop(self, key: Key) -> None:
        dropped = self._answers.pop(key, None)
        if dropped is not None:
            self._bytes -= dropped.cost

    def _key(self, path: str, query: str, asker: Asker) -> Key:
        token = asker.bearer
        # Not the token itself: it would stay in memory for as long as nobody asks for much else.
        proof = hashlib.blake2b(token.encode(), key=self._salt).digest() if token else b""
        return path, query, asker.kind, asker.via, proof, asker.same_machine

    def settle(self) -> None:
        """Pass what was counted on to the day's counters and to the last-use times."""
        with self._lock:
            calls, hits, size, used = self._calls, self._hits, self._bytes_given, self._used
            self._calls = self._hits = self._bytes_given = 0
            self._used = set()
        self._usage.add(hits=hits, bytes_from_cache=size, bytes_served=size, calls_saved=calls)
        for answer in used:
            if answer.blob is not None:
                self._budget.note_used(answer.blob)
        self._write()

    def __len__(self) -> int:
        return len(self._answers)


def _may_be_said(spoken: Spoken, method: str, headers: Mapping[str, str], asker: Asker) -> bool:
    """Return whether an answer fits to what this client was told before, and note it."""
    agent = headers.get("User-Agent", "")
    if method == "HEAD":
        spoken.head(asker.base, agent)
        return True
    return not spoken.contradicts(asker.base, agent)
