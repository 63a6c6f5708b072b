"""A disk that is too small, and fills up at any instant.

Responsible for: a server whose cache directory is on a small file system, another program that
fills it to the last byte now and then, clients that may be refused but never misled, and everything
working again once there is room.
Not responsible for: each single system call that may fail (`tests/storage`).
"""

from __future__ import annotations

import random
import threading
from pathlib import Path

from fake_hub import FakeHub
from robustness.crash import Victim
from robustness.directory import check_at_rest, small_disk
from robustness.readers import Readers, everything
from robustness.report import Counts
from robustness.wanted import MIB, Wanted, new_repo

DISK = 40 * MIB
_PIECE = 256 * 1024
# No room (507), or to be asked again; never 500, which would be a mistake.
REFUSALS = frozenset({502, 503, 507})


class Hog:
    """Another program on the disk: it takes all room at random instants, and gives it back.

    Args:
        path: the file it writes.
    """

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.filled = 0
        self._path = path
        self._rng = rng
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._rng.uniform(0.0, 0.4)):
            self.take()
            self._ended.wait(self._rng.uniform(0.0, 0.5))
            self._path.unlink()

    def take(self) -> None:
        """Write until the disk is full."""
        with self._path.open("wb", buffering=0) as file:
            for piece in (_PIECE, 4096, 1):
                try:
                    while file.write(bytes(piece)) == piece:
                        pass
                except OSError:
                    self.filled += 1

    def end(self) -> None:
        """Give everything back."""
        self._ended.set()
        self._thread.join(30)
        self._path.unlink(missing_ok=True)


def full_disk_round(root: Path, rng: random.Random, *, seconds: float, restarts: int = 1) -> Counts:
    """Read more than fits, while the disk is full again and again; then everything must be there.

    Args:
        root: an empty directory.
        seconds: of reading between two restarts.
        restarts: how often the server is killed and started, full disk or not.

    Raises:
        Wrong: a byte was wrong, or something does not work after there is room again.
    """
    counts = Counts()
    with FakeHub() as hub, small_disk(root / "cache", DISK) as disk:
        hub.rate = 16.0 * MIB
        wanted: list[Wanted] = []
        for number in range(4):
            sizes = [rng.randrange(MIB, 9 * MIB) for _ in range(3)]
            wanted += new_repo(hub, f"org/full-{number}", rng, big=sizes)
        wanted += new_repo(hub, "org/too-large", rng, big=[DISK + MIB])
        server = Victim(root, hub.url)
        server.start()
        readers = Readers([server.endpoint], wanted, seed=rng.randrange(1 << 30), refusals=REFUSALS)
        hog = Hog(disk / "others", rng)
        try:
            for number in range(restarts + 1):
                _read_for(readers, seconds)
                if number < restarts:
                    server.kill()
                    _start(server, hog)
            hog.end()
            readers.end()
            everything(server.endpoint, wanted, refusals=REFUSALS, seconds=120.0)
            server.wait_idle()
            code = server.stop()
        finally:
            hog.end()
            if server.running:
                server.kill()
        assert code == 0, f"the last server ended with {code}\n{server.text()}"
        counts.add(full=hog.filled, kept=check_at_rest(root, hub.url, leftovers=True))
    counts.add_readers(readers)
    return counts


def _read_for(readers: Readers, seconds: float) -> None:
    threading.Event().wait(seconds)
    readers.check()


def _start(server: Victim, hog: Hog) -> None:
    """Start on a disk that may be full; if that fails, with words, then once more with room."""
    server.launch()
    try:
        server.wait_ready()
    except AssertionError:
        if "jupyter hf-cache serve: " not in server.text():
            raise
        hog.end()
        server.start()
