"""The budget while fills run, in one process and in three: measured on the disk, not believed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cache_process
import pytest
import requests
from fake_hub import BigFile, FakeHub
from serving import RunningCache

from jupyter_hf_cache.storage.ledger import Ledger

MIB = 1 << 20
FILES = 10
LIMIT = 12 * MIB
REPO = "org/many"
_PATH = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []


class Huge(BigFile):
    """A file that nobody ever reads to its end, so its digest need not be right."""

    def sha256(self) -> str:
        return f"{self.seed:064x}"


@pytest.fixture
def files() -> dict[str, BigFile]:
    return {f"file-{n}.bin": BigFile(3 * MIB + 1000 * n, seed=n) for n in range(FILES)}


@pytest.fixture
def hub(files: dict[str, BigFile]) -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repo("models", REPO).commit(files)
        yield hub


class Watch:
    """Measures what a cache directory takes, over and over.

    Attributes:
        most: bytes, the most that was seen at one instant.
        promised: the same in the ledger.
    """

    def __init__(self, cache_dir: Path) -> None:
        self.most = self.promised = self.looks = 0
        self._places = [cache_dir / name for name in ("partial", "quarantine", "blobs")]
        self._ledger = Ledger(cache_dir / "state" / "ledger")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._end.is_set():
            first = self._blocks()
            second = self._blocks()
            # What was there before an instant and after it was there at the instant: files only
            # grow. They are known by their number, for names change.
            at_once = sum(min(taken, second.get(file, 0)) for file, taken in first.items())
            self.most = max(self.most, at_once)
            self.promised = max(self.promised, self._ledger.totals()[1])
            self.looks += 1

    def _blocks(self) -> dict[int, int]:
        taken = {}
        for place in self._places:
            for folder, _, names in os.walk(place):
                for name in names:
                    try:
                        info = Path(folder, name).stat()
                    except OSError:
                        continue
                    taken[info.st_ino] = info.st_blocks * 512
        return taken

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._ledger.close()


@contextmanager
def process(root: Path, hub: FakeHub, **options: object) -> Iterator[str]:
    """A cache in a process of its own; gives its endpoint."""
    script = Path(cache_process.__file__)
    running = subprocess.Popen(
        [sys.executable, str(script), str(root), hub.url, json.dumps(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(script.parent), *_PATH])},
    )
    try:
        assert running.stdout is not None
        endpoint = running.stdout.readline().strip()
        assert endpoint, "it did not start"
        yield endpoint
    finally:
        running.communicate()


def read_all(endpoints: list[str], files: dict[str, BigFile]) -> None:
    """Ten clients read every file twice, each in its own order."""

    def read(number: int) -> None:
        rng = random.Random(number)
        for name in rng.sample(sorted(files), len(files)) * 2:
            url = f"{rng.choice(endpoints)}/{REPO}/resolve/main/{name}"
            answer = requests.get(url, timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.content == files[name].read(0, files[name].size)

    with ThreadPoolExecutor(FILES) as clients:
        list(clients.map(read, range(FILES)))


def test_it_holds_while_ten_fill_at_once(
    tmp_path: Path, hub: FakeHub, files: dict[str, BigFile]
) -> None:
    with RunningCache(tmp_path, hub, cache_size_limit=LIMIT) as cache:
        with Watch(cache.root / "cache") as watch:
            read_all([cache.endpoint], files)
        cache.wait_idle()
        assert watch.looks > 3 and watch.most > 3 * MIB
        assert watch.most <= watch.promised <= LIMIT
        assert cache.service.budget.used() > 0


def test_it_holds_in_three_processes(
    tmp_path: Path, hub: FakeHub, files: dict[str, BigFile]
) -> None:
    with ExitStack() as stack:
        endpoints = [
            stack.enter_context(process(tmp_path, hub, cache_size_limit=LIMIT)) for _ in range(3)
        ]
        watch = stack.enter_context(Watch(tmp_path / "cache"))
        read_all(endpoints, files)
    assert watch.looks > 3 and watch.most > 3 * MIB
    assert watch.most <= watch.promised <= LIMIT


def test_a_hundred_footers_of_huge_files_take_their_blocks_only(tmp_path: Path) -> None:
    huge = {f"part-{n}.parquet": Huge(5 * 10**9, seed=n) for n in range(100)}
    limit = 100 * MIB
    with FakeHub() as hub:
        hub.repo("models", REPO).commit(huge)
        with RunningCache(tmp_path, hub, cache_size_limit=limit) as cache:

            def footer(name: str) -> None:
                headers = {"Range": "bytes=-65536"}
                answer = cache.get(f"/{REPO}/resolve/main/{name}", headers=headers)
                assert answer.status_code == 206
                assert answer.content == huge[name].read(5 * 10**9 - 65536, 65536)

            with Watch(cache.root / "cache") as watch, ThreadPoolExecutor(10) as clients:
                list(clients.map(footer, huge))
            cache.wait_idle()
            assert watch.most <= watch.promised <= limit
            kept = list((cache.root / "cache" / "partial").glob("*.map"))
            assert len(kept) == 100, "there was room for all of them"
            assert cache.service.budget.used() < limit
