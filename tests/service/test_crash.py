"""Killed in the middle of fills, and started again on what was left."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cache_process
import pytest
import requests
from fake_hub import BigFile, FakeHub

from jupyter_hf_cache.service import CacheService, ServiceOptions

MIB = 1 << 20
CRASHES = int(os.environ.get("HF_CACHE_CRASHES", "8"))
CLIENTS = 5


class Process:
    """A cache in a process of its own."""

    def __init__(self, root: Path, hub: FakeHub) -> None:
        script = Path(cache_process.__file__)
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(root), hub.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(script.parent)},
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        assert self.endpoint, "it did not start"

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self._process.kill()
        self._process.communicate()

    def stop(self) -> None:
        """As a server is stopped."""
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.rate = 8.0 * MIB
        yield hub


def files_of(number: int) -> dict[str, BigFile | bytes]:
    """What the repo of one round holds."""
    rng = random.Random(number)
    big = {
        f"weights-{n}.bin": BigFile(rng.randrange(MIB, 4 * MIB), seed=100 * number + n)
        for n in range(3)
    }
    return {**big, "config.json": b'{"round": %d}' % number}


def contents(file: BigFile | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read(0, file.size)


def url(number: int, name: str) -> str:
    return f"/org/round-{number}/resolve/main/{name}"


class Clients:
    """Downloads files over and over, whole and in parts, until the server is gone.

    Attributes:
        complete: bodies that were received completely.
        wrong: those that were not right.
    """

    def __init__(self, endpoint: str, wanted: dict[str, bytes], seed: int) -> None:
        self.complete = 0
        self.wrong: list[str] = []
        self._endpoint = endpoint
        self._wanted = wanted
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed * 100 + n),))
            for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, rng: random.Random) -> None:
        names = list(self._wanted)
        while not self._end.is_set():
            name = rng.choice(names)
            whole = self._wanted[name]
            headers, expected = {}, whole
            if rng.random() < 0.4:
                start = rng.randrange(len(whole))
                end = rng.randrange(start, len(whole))
                headers, expected = {"Range": f"bytes={start}-{end}"}, whole[start : end + 1]
            try:
                answer = requests.get(self._endpoint + name, headers=headers, timeout=30)
            except requests.RequestException:
                continue
            self.complete += 1
            right = answer.content == (expected if answer.status_code == 206 else whole)
            if answer.status_code not in (200, 206) or not right:
                self.wrong.append(f"{answer.status_code} {name} {headers}: {answer.text[:200]}")

    def end(self) -> None:
        """Wait for the requests that run."""
        self._end.set()
        for thread in self._threads:
            thread.join(60)


def check_what_is_kept(root: Path, hub: FakeHub, sizes: int) -> None:
    """Open the cache as the next process would, and look at every file."""
    options = ServiceOptions(
        root / "cache", root / "data", root / "config", default_upstream=hub.url, min_free_space=0
    )
    service = CacheService.open(options)
    try:
        assert service.problems == []
        kept = list(service.store.blobs())
        assert len(kept) == sizes
        for blob, size in kept:
            data = (service.store.blob_dir / blob.path).read_bytes()
            sidecar = service.store.sidecar(blob)
            assert sidecar is not None and sidecar.size == size == len(data)
            assert sidecar.sha256 == hashlib.sha256(data).hexdigest()
        assert {row["size"] for _, row in service.budget.rows()} == {size for _, size in kept}
        assert service.store.leftovers() == []
        assert not list(service.store.partial_dir.glob("*.map"))
        assert service.budget.used() == sum(size for _, size in kept)
    finally:
        service.close()


def wait_for_fills(endpoint: str) -> None:
    """Wait until nothing runs any more."""
    api = endpoint.removesuffix("/pulp/content/hf") + "/hf-cache/v1/fills"
    for _ in range(3000):
        answer = requests.get(api, auth=("admin", "password"), timeout=30).json()
        if all(fill["state"] not in ("running", "verifying") for fill in answer["results"]):
            return
        threading.Event().wait(0.02)
    pytest.fail("the fills did not end")


@pytest.mark.timeout(60 + 20 * CRASHES)
def test_nothing_wrong_is_ever_served_or_kept(tmp_path: Path, hub: FakeHub) -> None:
    rng = random.Random(2024)
    everything: dict[str, bytes] = {}
    complete = 0
    for number in range(CRASHES):
        files = files_of(number)
        hub.repo("models", f"org/round-{number}").commit(files)
        fresh = {url(number, name): contents(file) for name, file in files.items()}
        everything |= fresh
        older = dict(rng.sample(sorted(everything.items()), min(2, len(everything))))
        process = Process(tmp_path, hub)
        clients = Clients(process.endpoint, fresh | older, number)
        threading.Event().wait(rng.uniform(0.0, 1.2))
        process.kill()
        clients.end()
        complete += clients.complete
        assert clients.wrong == []
    assert complete, "some download came through before its server died"

    process = Process(tmp_path, hub)
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda name: requests.get(process.endpoint + name, timeout=60), everything)
        )
    assert [answer.content for answer in answers] == list(everything.values())
    wait_for_fills(process.endpoint)
    process.stop()
    check_what_is_kept(tmp_path, hub, len(everything))


def test_two_servers_on_one_cache_do_not_disturb_each_other(tmp_path: Path, hub: FakeHub) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: Process(tmp_path, hub), range(2)))
    everything: dict[str, bytes] = {}
    for number in range(2):
        files = files_of(number)
        hub.repo("models", f"org/round-{number}").commit(files)
        everything |= {url(number, name): contents(file) for name, file in files.items()}
    jobs = [(process, name) for name in everything for process in both] * 2

    def download(job: tuple[Process, str]) -> bool:
        process, name = job
        return requests.get(process.endpoint + name, timeout=60).content == everything[name]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(download, jobs))
    for process in both:
        wait_for_fills(process.endpoint)
    hub.counters.reset()
    assert all(download(job) for job in jobs)
    assert hub.counters.count(host="cdn") == 0, "what one kept the other serves"
    for process in both:
        process.stop()
    check_what_is_kept(tmp_path, hub, len(everything))
