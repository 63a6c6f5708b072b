"""Clients in threads that read what they may and believe nothing.

Responsible for: downloads as the real clients do them (whole and resumed, in many ranges, footers
first, left half-way, several ranges in one request, HEAD), with every byte compared as it arrives.
Not responsible for: real clients (`agents`), or what happens to the server meanwhile.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from robustness import reference
from robustness.wanted import KIB, MIB, Wanted, Wrong

_STEP = 64 * KIB
_PAUSE_SECONDS = 0.05
_TRANSFER_RANGE = MIB


class Broken(Exception):
    """An answer that did not come, or not to its end, or a refusal: the client may ask again."""


class Refused(Broken):
    """A refusal with a status."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


class Client:
    """One client with one connection. For one thread.

    Args:
        endpoint: of a distribution.
        refusals: the statuses that a refusal may have; another one is `Wrong`.
        timeout: seconds of silence it bears.
        strict: also what is not complete must be right, as far as it came.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        refusals: frozenset[int] = frozenset(),
        timeout: float = 60.0,
        strict: bool = True,
    ) -> None:
        parts = urlsplit(endpoint)
        self._host, self._port, self._prefix = parts.hostname or "", parts.port, parts.path
        self._refusals = refusals
        self._timeout = timeout
        self._strict = strict
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection, also in the middle of an answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def head(self, wanted: Wanted) -> None:
        """Ask what a GET would say."""
        answer = self._ask("HEAD", wanted, None)
        self._read(answer, 0)
        if answer.status != 200:
            raise Wrong(f"HEAD {wanted.path} answered {answer.status}")
        self._check_head(wanted, answer, 0, wanted.size)

    def get(self, wanted: Wanted, header: str | None, start: int, end: int) -> int:
        """Get [start, end) by the Range `header`; the length of what came.

        An answer 200 with the whole file is right as well, if its bytes are.

        Raises:
            Broken: `received` of it came.
        """
        answer = self._ask("GET", wanted, header)
        if answer.status == 200:
            start, end = 0, wanted.size
        elif answer.status != 206 or header is None:
            raise Wrong(f"GET {wanted.path} {header} answered {answer.status}")
        self._check_head(wanted, answer, start, end)
        self._receive(wanted, answer, start, end)
        return end - start

    def download(self, wanted: Wanted, go_on: Callable[[], bool]) -> bool:
        """Download the whole file as huggingface_hub does: HEAD, GET, and on from where it broke.

        Returns:
            False when it was given up because `go_on()` turned false.
        """
        asked = False
        offset = 0
        body = bytearray()
        while go_on():
            try:
                if not asked:
                    self.head(wanted)
                    asked = True
                header = f"bytes={offset}-" if offset else None
                answer = self._ask("GET", wanted, header)
                if answer.status == 200:
                    offset = 0
                    body.clear()
                elif answer.status != 206 or header is None:
                    raise Wrong(f"GET {wanted.path} {header} answered {answer.status}")
                self._check_head(wanted, answer, offset, wanted.size)
                while data := self._read(answer, _STEP):
                    if self._strict:
                        wanted.check(offset, data, f"whole file, resumed by {header}")
                    body += data
                    offset += len(data)
                self._check_end(answer, wanted.size - offset)
                wanted.check(0, bytes(body), f"whole file, resumed by {header}")
                return True
            except Broken:
                time.sleep(_PAUSE_SECONDS)
                if offset and offset == wanted.size:
                    wanted.check(0, bytes(body), "whole file, cut at its end")
                    return True
        return False

    def leave(self, wanted: Wanted, after: int) -> None:
        """Begin a download and go away after some bytes."""
        answer = self._ask("GET", wanted, None)
        offset = 0
        while offset < after and (data := self._read(answer, min(_STEP, after - offset))):
            if self._strict:
                wanted.check(offset, data, "left early")
            offset += len(data)
        self.close()

    def several(self, wanted: Wanted, spans: Sequence[tuple[int, int]]) -> None:
        """Ask for several ranges at once."""
        header = "bytes=" + ",".join(f"{start}-{end - 1}" for start, end in spans)
        answer = self._ask("GET", wanted, header)
        kind = answer.getheader("Content-Type") or ""
        if answer.status == 206 and kind.lower().startswith("multipart/"):
            body = b""
            while data := self._read(answer, MIB):
                body += data
            self._check_end(answer, 0)
            check_parts(wanted, header, kind, body, spans)
            return
        low, high = min(start for start, _ in spans), max(end for _, end in spans)
        start, end = (0, wanted.size) if answer.status == 200 else (low, high)
        self._check_head(wanted, answer, start, end)
        self._receive(wanted, answer, start, end)

    # -- one answer

    def _ask(self, method: str, wanted: Wanted, header: str | None) -> http.client.HTTPResponse:
        headers = {"Range": header} if header else {}
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection(
                    self._host, self._port or 80, timeout=self._timeout
                )
            self._connection.request(method, self._prefix + wanted.path, headers=headers)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Broken(repr(error)) from error
        if answer.status < 400:
            return answer
        words = self._read(answer, 500)
        self.close()
        if answer.status not in self._refusals:
            raise Wrong(f"{method} {wanted.path} {header} answered {answer.status}: {words!r}")
        raise Refused(answer.status, str(answer.getheader("X-Error-Message")))

    def _read(self, answer: http.client.HTTPResponse, length: int) -> bytes:
        try:
            return answer.read(length)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Broken(repr(error)) from error

    def _receive(
        self, wanted: Wanted, answer: http.client.HTTPResponse, start: int, end: int
    ) -> None:
        offset, kept = start, b""
        while data := self._read(answer, _STEP):
            if self._strict:
                wanted.check(offset, data, f"answer {start}-{end}")
            else:
                kept += data
            offset += len(data)
        self._check_end(answer, end - offset)
        wanted.check(start, kept, f"complete answer {start}-{end}")

    def _check_end(self, answer: http.client.HTTPResponse, lacking: int) -> None:
        """Tell an answer that was cut from one that is too long or too short by its own words."""
        if answer.length:
            self.close()
            raise Broken(f"cut {answer.length} bytes before its end")
        if lacking:
            raise Wrong(f"an answer lacks {lacking} bytes of the length that it should have")

    def _check_head(
        self, wanted: Wanted, answer: http.client.HTTPResponse, start: int, end: int
    ) -> None:
        length, etag = answer.getheader("Content-Length"), answer.getheader("ETag")
        if length != str(end - start) or etag != f'"{wanted.etag}"':
            raise Wrong(f"{wanted.path} {start}-{end}: length {length}, ETag {etag}")
        if not answer.getheader("X-Repo-Commit"):
            raise Wrong(f"{wanted.path}: no commit")
        span = answer.getheader("Content-Range")
        if answer.status == 206 and span != f"bytes {start}-{end - 1}/{wanted.size}":
            raise Wrong(f"{wanted.path} {start}-{end}: Content-Range {span}")


def check_parts(
    wanted: Wanted, header: str, kind: str, body: bytes, spans: Sequence[tuple[int, int]]
) -> None:
    """Compare a multipart answer with the spans that were asked for.

    Raises:
        Wrong: it is another.
    """
    try:
        parts = reference.parts_of(kind, body)
    except reference.NoMultipart as error:
        raise Wrong(f"{wanted.path} {header}: no multipart answer: {error}") from error
    for start, end, size, data in parts:
        if size != wanted.size or len(data) != end - start:
            raise Wrong(f"{wanted.path} {header}: part {start}-{end}/{size}")
        wanted.check(start, data, f"part of {header}")
    for start, end in spans:
        if not any(part[0] <= start and end <= part[1] for part in parts):
            raise Wrong(f"{wanted.path} {header}: {start}-{end} is not there")


class Readers:
    """Threads that read random files in random ways until they are told to end.

    Args:
        endpoints: of the servers; each request goes to any of them.
        wanted: what there is; may be replaced while they run.
        seed: of their choices.
        options: of `Client`.

    Attributes:
        done: how many requests or downloads of each way came to their end.
        broken: how many broke off or were refused.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        wanted: Sequence[Wanted],
        *,
        seed: int,
        threads: int = 6,
        ways: Sequence[str] = ("whole", "whole", "ranges", "footer", "span", "leave", "several"),
        **options: object,
    ) -> None:
        self.wanted = list(wanted)
        self.done: Counter[str] = Counter()
        self.broken = 0
        self.refused: Counter[int] = Counter()
        self._endpoints = list(endpoints)
        self._ways = list(ways)
        self._options = options
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._wrong: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed}-{n}"),), daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Wait for the requests that run.

        Raises:
            Wrong: an answer was wrong.
        """
        self._ended.set()
        for thread in self._threads:
            thread.join(120)
        self.check()
        if any(thread.is_alive() for thread in self._threads):
            raise Wrong("a request hangs")

    def check(self) -> None:
        """Raise what a thread found, if anything."""
        if self._wrong:
            raise self._wrong[0]

    def _run(self, rng: random.Random) -> None:
        clients = [Client(one, **self._options) for one in self._endpoints]  # type: ignore[arg-type]
        try:
            while not self._ended.is_set():
                way, client = rng.choice(self._ways), rng.choice(clients)
                try:
                    self._read(way, client, rng.choice(self.wanted), rng)
                except Broken as error:
                    self._count(error)
                    time.sleep(_PAUSE_SECONDS)
                else:
                    with self._lock:
                        self.done[way] += 1
        except BaseException as wrong:
            self._wrong.append(wrong)
            self._ended.set()
        finally:
            for client in clients:
                client.close()

    def _count(self, error: Broken) -> None:
        with self._lock:
            self.broken += 1
            if isinstance(error, Refused):
                self.refused[error.status] += 1

    def _read(self, way: str, client: Client, wanted: Wanted, rng: random.Random) -> None:
        size = wanted.size
        if way == "head":
            client.head(wanted)
        elif way == "whole" or size == 0:
            if not client.download(wanted, lambda: not self._ended.is_set()):
                raise Broken("given up")
        elif way == "ranges":
            self._transfer(client, wanted, rng)
        elif way == "footer":
            length = min(size, rng.choice([8, KIB, 64 * KIB]))
            client.get(wanted, f"bytes=-{length}", size - length, size)
        elif way == "span":
            start, end = span_of(size, rng)
            header = f"bytes={start}-{end - 1 if rng.random() < 0.8 or end < size else ''}"
            client.get(wanted, header, start, end)
        elif way == "leave":
            client.leave(wanted, rng.randrange(size))
        elif way == "several":
            client.several(wanted, [span_of(size, rng) for _ in range(rng.randrange(2, 5))])
        else:
            raise ValueError(way)

    def _transfer(self, client: Client, wanted: Wanted, rng: random.Random) -> None:
        """All of a file in bounded ranges, as hf_transfer asks for it; each is tried thrice."""
        starts = list(range(0, wanted.size, _TRANSFER_RANGE))
        rng.shuffle(starts)
        for start in starts:
            end = min(start + _TRANSFER_RANGE, wanted.size)
            for attempt in range(3):
                try:
                    client.get(wanted, f"bytes={start}-{end - 1}", start, end)
                    break
                except Broken:
                    if attempt == 2 or self._ended.is_set():
                        raise
                    time.sleep(_PAUSE_SECONDS)


def span_of(size: int, rng: random.Random) -> tuple[int, int]:
    """A random span, short ones and those at borders more often than by chance."""
    edges = [0, size, size // 2, 256 * KIB, 64 * KIB, size - 64 * KIB]
    start = rng.choice([rng.randrange(size), rng.choice(edges)])
    start = min(max(0, start), size - 1)
    end = rng.choice(
        [size, start + 1 + rng.randrange(size - start), start + rng.randrange(1, 5000)]
    )
    return start, min(max(end, start + 1), size)


def everything(
    endpoint: str, wanted: Sequence[Wanted], *, seconds: float = 60.0, **options: object
) -> None:
    """Download each file once, again until it succeeds.

    Raises:
        Wrong: a byte was wrong, or a file could not be had.
    """
    deadline = time.monotonic() + seconds

    def one(file: Wanted) -> None:
        client = Client(endpoint, **options)  # type: ignore[arg-type]
        try:
            if not client.download(file, lambda: time.monotonic() < deadline):
                raise Wrong(f"{file.path} cannot be had any more")
        finally:
            client.close()

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(one, wanted):
            pass
