"""One fetch for everybody: several processes on one cache directory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cache_process
import pytest
import requests
from fake_hub import BigFile, FakeHub

MIB = 1 << 20
BLOCK = 256 * 1024
SIZE = 24 * MIB
BIG = BigFile(SIZE, seed=5)
URL = "/org/shared/resolve/main/model.bin"
SECONDS = 60.0


class Process:
    """A cache in a process of its own, on the shared directory below `root`."""

    def __init__(self, root: Path, hub: FakeHub) -> None:
        script = Path(cache_process.__file__)
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(root), hub.url, "{}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(script.parent)},
        )
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        assert self.endpoint, "it did not start"

    def get(self, start: int | None = None, end: int | None = None) -> requests.Response:
        """Begin to download the file, or a part of it."""
        span = "" if start is None else f"bytes={start}-{'' if end is None else end - 1}"
        headers = {"Range": span} if span else {}
        return requests.get(self.endpoint + URL, headers=headers, stream=True, timeout=SECONDS)

    def whole(self) -> bytes:
        """Download the file."""
        with self.get() as answer:
            assert answer.status_code == 200
            return answer.content

    def fills(self) -> list[dict[str, object]]:
        """What it says about its fills."""
        api = self.endpoint.removesuffix("/pulp/content/hf") + "/hf-cache/v1/fills"
        answer = requests.get(api, auth=("admin", "password"), timeout=SECONDS)
        return list(answer.json()["results"])

    def signal(self, number: int) -> None:
        """Stop it, let it go on, or kill it."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """As the kernel does when memory is short."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repo("models", "org/shared").commit({"model.bin": BIG})
        yield hub


@pytest.fixture
def start(tmp_path: Path, hub: FakeHub) -> Iterator[Callable[[int], list[Process]]]:
    """Starts some processes on one directory."""
    running: list[Process] = []

    def begin(count: int) -> list[Process]:
        with ThreadPoolExecutor(count) as pool:
            running.extend(pool.map(lambda _: Process(tmp_path, hub), range(count)))
        return running

    yield begin
    for process in running:
        process.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


Start = Callable[[int], list[Process]]


@pytest.mark.parametrize("count", [1, 3])
def test_fifty_cold_clients_cost_one_transfer_and_all_begin_before_it_ends(
    start: Start, hub: FakeHub, count: int
) -> None:
    processes = start(count)
    hub.rate = 16.0 * MIB
    hub.fault("stall", "", host="cdn", at=8 * MIB)

    def let_go_on() -> None:
        assert hub.faults.wait_until_stalled(timeout=SECONDS)
        hub.faults.release()

    all_began = threading.Barrier(50, action=let_go_on)

    def download(number: int) -> bool:
        with processes[number % count].get() as answer:
            head = answer.raw.read(MIB)
            all_began.wait(SECONDS)
            return bool(head + answer.raw.read() == BIG.read(0, SIZE))

    with ThreadPoolExecutor(50) as pool:
        assert all(pool.map(download, range(50)))
    # What is on its way to a connection that makes room for others may come twice.
    assert SIZE <= hub.counters.bytes("cdn") < SIZE + 8 * MIB


def test_a_follower_sees_bytes_while_they_arrive(start: Start, hub: FakeHub) -> None:
    owner, follower = start(2)
    hub.fault("stall", "", host="cdn", at=8 * MIB)
    with owner.get() as first, follower.get() as second:
        for answer in (first, second):
            assert answer.raw.read(6 * MIB) == BIG.read(0, 6 * MIB)
        assert hub.faults.wait_until_stalled()
        hub.faults.release()
        for answer in (first, second):
            assert answer.raw.read() == BIG.read(6 * MIB, SIZE - 6 * MIB)
    assert hub.counters.bytes("cdn") == SIZE


def test_the_tail_is_read_at_one_while_another_fills_from_the_start(
    start: Start, hub: FakeHub
) -> None:
    owner, follower = start(2)
    hub.fault("stall", "", host="cdn", at=4 * MIB)
    with owner.get() as first:
        assert first.raw.read(2 * MIB) == BIG.read(0, 2 * MIB)
        assert hub.faults.wait_until_stalled()
        with follower.get(SIZE - 100_000, SIZE - 50_000) as tail:
            assert tail.status_code == 206
            assert tail.content == BIG.read(SIZE - 100_000, 50_000)
        hub.faults.release()
        assert first.raw.read() == BIG.read(2 * MIB, SIZE - 2 * MIB)
    assert hub.counters.bytes("cdn") <= SIZE + 8 * MIB


def test_a_follower_wants_all_where_the_owner_wants_a_part(start: Start, hub: FakeHub) -> None:
    owner, follower = start(2)
    hub.fault("stall", "", host="cdn", at=12 * MIB)
    with owner.get(10 * MIB, 14 * MIB) as part:
        assert part.raw.read(MIB) == BIG.read(10 * MIB, MIB)
        assert follower.whole() == BIG.read(0, SIZE)
        hub.faults.release()
        assert part.raw.read() == BIG.read(11 * MIB, 3 * MIB)
    assert hub.counters.bytes("cdn") <= SIZE + 9 * MIB


def test_when_the_owner_is_killed_followers_go_on_with_what_is_missing(
    start: Start, hub: FakeHub
) -> None:
    owner, *followers = start(3)
    hub.rate = 6.0 * MIB
    with owner.get() as first:
        first.raw.read(MIB)
        answers = [follower.get() for follower in followers]
        heads = [answer.raw.read(6 * MIB) for answer in answers]
        owner.kill()
        rests = [b"", b""]

        def read_on(number: int) -> None:
            rests[number] = answers[number].raw.read()

        threads = [threading.Thread(target=read_on, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    for head, rest in zip(heads, rests, strict=True):
        assert head + rest == BIG.read(0, SIZE)
    # What was on its way in blocks that were not whole is fetched again.
    assert hub.counters.bytes("cdn") <= SIZE + 16 * BLOCK


def test_a_stopped_owner_hangs_nobody_for_ever(start: Start, hub: FakeHub) -> None:
    owner, follower = start(2)
    hub.fault("stall", "", host="cdn", at=4 * MIB)
    with owner.get() as first:
        first.raw.read(MIB)
        assert hub.faults.wait_until_stalled()
        owner.signal(signal.SIGSTOP)
        with pytest.raises(requests.RequestException):
            follower.whole()
        assert follower.whole() == BIG.read(0, SIZE), "who asks again is served without it"
        owner.signal(signal.SIGCONT)
        hub.faults.release()
        assert first.raw.read() == BIG.read(MIB, SIZE - MIB)


def test_what_one_process_kept_the_others_serve(start: Start, hub: FakeHub) -> None:
    processes = start(2)
    assert processes[0].whole() == BIG.read(0, SIZE)
    wait_until(lambda: all(fill["state"] == "done" for fill in processes[0].fills()))
    hub.counters.reset()
    assert processes[1].whole() == BIG.read(0, SIZE)
    assert hub.counters.count(host="cdn") == 0


def resumed(processes: list[Process], rng: random.Random) -> bytes | None:
    """Download as clients do that resume by length, each time at another process."""
    received = b""
    for _ in range(20):
        process = rng.choice(processes)
        try:
            with process.get(len(received) if received else None) as answer:
                if answer.status_code == 200:
                    received = b""
                elif answer.status_code != 206:
                    continue
                for piece in answer.iter_content(64 * 1024):
                    received += piece
                    if rng.random() < 0.01:
                        break
        except requests.RequestException:
            continue
        if len(received) == SIZE:
            return received
    return None


@pytest.mark.parametrize("seed", range(3))
def test_bad_heads_and_good_tails_never_meet(start: Start, hub: FakeHub, seed: int) -> None:
    processes = start(2)
    hub.rate = 24.0 * MIB
    hub.fault("flip", "", host="cdn", at=3 * MIB, times=1)
    rngs = [random.Random(100 * seed + number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        bodies = list(pool.map(lambda rng: resumed(processes, rng), rngs))
    assert [body for body in bodies if body is not None], "nobody got anything"
    for body in bodies:
        assert body is None or body == BIG.read(0, SIZE)


def test_an_upstream_that_always_lies_completes_nothing(start: Start, hub: FakeHub) -> None:
    processes = start(2)
    hub.fault("swap", "", host="cdn", times=None)

    def is_complete(number: int) -> bool:
        try:
            with processes[number % 2].get() as answer:
                if answer.status_code == 200:
                    assert answer.content == BIG.read(0, SIZE)
                return answer.status_code == 200
        except requests.RequestException:
            return False

    with ThreadPoolExecutor(6) as pool:
        assert not any(pool.map(is_complete, range(6)))
