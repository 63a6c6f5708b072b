"""Downloads that somebody waits for go before additional connections."""

from __future__ import annotations

import threading
import time

import pytest

from jupyter_hf_cache.upstream.pools import SparePool
from jupyter_hf_cache.upstream.slots import Crowded, Slots

DEADLINE = 30.0


def wait_until_crowded(slots: Slots) -> None:
    deadline = time.monotonic() + DEADLINE
    while not slots.crowded:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_without_a_limit_there_is_always_one() -> None:
    slots = Slots(None)
    with slots, slots, slots.spare(), slots.spare():
        assert not slots.crowded


def test_a_spare_one_is_refused_and_not_waited_for() -> None:
    slots = Slots(1)
    with slots, pytest.raises(Crowded), slots.spare():
        pass
    with slots.spare():
        pass
    with slots:
        pass


def test_who_waits_goes_before_spare_ones() -> None:
    slots = Slots(1)
    entered, leave = threading.Event(), threading.Event()

    def download() -> None:
        with slots:
            entered.set()
            leave.wait(DEADLINE)

    with slots.spare():
        waiting = threading.Thread(target=download)
        waiting.start()
        wait_until_crowded(slots)
        with pytest.raises(Crowded), slots.spare():
            pass
    assert entered.wait(DEADLINE)
    assert not slots.crowded
    leave.set()
    waiting.join(DEADLINE)


def test_a_pool_takes_what_it_can_begin_at_once() -> None:
    with SparePool(2) as pool:
        begun, leave = threading.Barrier(3), threading.Event()

        def work() -> None:
            begun.wait(DEADLINE)
            leave.wait(DEADLINE)

        assert pool.offer(work) and pool.offer(work)
        begun.wait(DEADLINE)
        assert not pool.offer(work)
        leave.set()
        deadline = time.monotonic() + DEADLINE
        done = threading.Event()
        while not pool.offer(done.set):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert done.wait(DEADLINE)
    assert not pool.offer(work), "it is shut down"
