"""Fills without a network: an upstream that does as a test says, and readers that follow.

Responsible for: standing in for `transfer`, counting what it delivers, holding it where a test
wants it held; following a fill as a web handler does, but in threads.
Not responsible for: the wire (`test_transfer`, `tests/service`).
"""

from __future__ import annotations

import gc
import hashlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.records import ANONYMOUS
from jupyter_hf_cache.upstream.client import UpstreamClient
from jupyter_hf_cache.upstream.fill import Fill
from jupyter_hf_cache.upstream.growing import Growing
from jupyter_hf_cache.upstream.links import Links
from jupyter_hf_cache.upstream.pools import Pools
from jupyter_hf_cache.upstream.transfer import Ranges, Source

KIB = 1024
MIB = 1024 * KIB
STEP = 64 * KIB
DEADLINE = 30.0


def data_of(size: int, seed: int = 1) -> bytes:
    """The same bytes each time."""
    return random.Random(seed).randbytes(size)


def blob_of(data: bytes, algorithm: str = "sha256", origin_id: str = "origin") -> BlobId:
    """The blob of these bytes."""
    if algorithm == "sha256":
        return BlobId.of(Digest("sha256", hashlib.sha256(data).hexdigest()), origin_id)
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return BlobId.of(Digest("git-sha1", git.hexdigest()), origin_id)


def source(identity: str = "me", origin_id: str = "origin", path: str = "/org/m/file") -> Source:
    """A caller's way to the bytes."""
    claim = [origin_id, "models", "org/m", "c" * 40, path, "etag"]
    client = cast(UpstreamClient, SimpleNamespace(links=Links()))
    return Source(client, ANONYMOUS, identity, path, origin_id, claim)


class Upstream:
    """Stands in for `transfer`. Attributes may be changed while transfers run.

    Attributes:
        data: what it delivers.
        hold: transfers wait before they deliver a byte at this offset or behind it.
        held: which transfers that concerns, by (start, end).
        faults: called in turn with each transfer's (source, start, end); may raise or return.
        calls: (start, end, identity) of every transfer.
        delivered: bytes given out in total.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.faults: list[Callable[[Source, int, int], None]] = []
        self.calls: list[tuple[int, int, str]] = []
        self.delivered = 0
        self.cut_after: int | None = None
        self._hold = len(data) + 1
        self._held: Callable[[int, int], bool] = lambda start, end: True
        self._changed = threading.Condition()

    def hold(self, at: int, held: Callable[[int, int], bool] | None = None) -> None:
        """Let nothing from offset `at` on through, of the transfers for which `held` is true."""
        with self._changed:
            self._hold, self._held = at, held or (lambda start, end: True)
            self._changed.notify_all()

    def release(self) -> None:
        """Let everything through."""
        self.hold(len(self.data) + 1)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true that changes with a transfer."""
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE), "it did not happen"

    def transfer(
        self,
        way: Source,
        start: int,
        end: int,
        size: int,
        *,
        sink: Callable[[int, bytes], None],
        go_on: Callable[[], bool],
        ranges: Ranges = "preferred",
        spare: bool = False,
        background: Callable[[], bool] | None = None,
    ) -> None:
        """As `jupyter_hf_cache.upstream.transfer.transfer`."""
        with self._changed:
            assert size == len(self.data) and 0 <= start < end <= size
            self.calls.append((start, end, way.identity))
            fault = self.faults.pop(0) if self.faults else None
            self._changed.notify_all()
        if fault is not None:
            fault(way, start, end)
        for offset in range(start, end, STEP):
            if not self._pass(start, end, offset, go_on):
                return
            piece = self.data[offset : min(offset + STEP, end)]
            with self._changed:
                # Before it is: the last piece ends the fill, and with it the test.
                self.delivered += len(piece)
                self._changed.notify_all()
            sink(offset, piece)
            with self._changed:
                # What a test waits for may have come true with this piece.
                self._changed.notify_all()
            if not go_on():
                return

    def _pass(self, start: int, end: int, offset: int, go_on: Callable[[], bool]) -> bool:
        """Wait where the test holds this transfer; False when it is no longer wanted."""
        while True:
            with self._changed:
                if self._changed.wait_for(
                    lambda: offset < self._hold or not self._held(start, end), 0.05
                ):
                    return True
            # A stalled connection times out; then the fill looks whether it is still wanted.
            if not go_on():
                return False


class Gate(ThreadPoolExecutor):
    """A pool whose work waits while it is shut."""

    def __init__(self, workers: int = 2) -> None:
        super().__init__(workers)
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        """Let no further work begin."""
        self._open.clear()

    def open(self) -> None:
        """Let it begin."""
        self._open.set()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """As usual, but the work waits at the gate."""

        def work() -> Any:
            assert self._open.wait(DEADLINE)
            return fn(*args, **kwargs)

        return super().submit(work)


class Workshop:
    """Makes fills of `upstream.data` in one directory.

    Attributes:
        ended: fills in the order in which they ended.
    """

    def __init__(self, root: Path, upstream: Upstream) -> None:
        self.store = LocalBlobStore(root)
        self.upstream = upstream
        self.ended: list[Fill] = []
        self.hash = Gate()
        self._executors = [ThreadPoolExecutor(8), ThreadPoolExecutor(8), self.hash]
        self.pools = Pools(*self._executors)

    def fill(
        self,
        *,
        linger: float = 0.0,
        range_safe: bool = True,
        algorithm: str = "sha256",
        blob: BlobId | None = None,
        on_end: Callable[[Fill], None] | None = None,
        first: Source | None = None,
    ) -> Fill:
        """Start a fill without readers."""
        blob = blob or blob_of(self.upstream.data, algorithm)
        partial = self.store.partial(blob, len(self.upstream.data), "origin")
        assert partial is not None
        return Fill(
            blob,
            partial,
            first or source(),
            pools=self.pools,
            on_end=on_end or self.ended.append,
            linger=linger,
            range_safe=range_safe,
        )

    def joined(self, **options: Any) -> Fill:
        """Start a fill with one reader."""
        fill = self.fill(**options)
        assert fill.join(fill.sources[0])
        return fill

    def close(self) -> None:
        """End the pools."""
        self.hash.open()
        self.upstream.release()
        for executor in self._executors:
            executor.shutdown(wait=True)


def follow(fill: Growing, start: int, end: int, *, completing: bool) -> bytes:
    """Read [start, end) as it arrives."""
    changed = threading.Event()
    unwatch = fill.watch(changed.set)
    received = bytearray()
    try:
        while start + len(received) < end:
            offset = start + len(received)
            changed.clear()
            ready = min(fill.available(offset, completing=completing), end)
            if ready <= offset:
                assert changed.wait(DEADLINE), f"nobody said that there is more behind {offset}"
                continue
            received += fill.read(offset, ready - offset)
    finally:
        unwatch()
    return bytes(received)


def wait_over(fill: Fill) -> str:
    """Wait until the fill has given up its lease; how it ended."""
    assert fill.released.wait(DEADLINE), f"it is still {fill.state}"
    return str(fill.state)


def open_files() -> int:
    """How many descriptors this process holds, without those that earlier tests left to collect."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))
