"""Work that waits a while."""

from __future__ import annotations

import threading

from jupyter_hf_cache.storage.delayed import Delayed

DEADLINE = 30.0


def test_it_is_done_once_for_many_occasions_and_again_for_later_ones() -> None:
    done = threading.Semaphore(0)
    delayed = Delayed(0.05, done.release)
    for _ in range(100):
        delayed.want()
    assert done.acquire(timeout=DEADLINE)
    assert not done.acquire(timeout=0.2)
    delayed.want()
    assert done.acquire(timeout=DEADLINE)
    delayed.stop()


def test_after_the_end_nothing_is_done() -> None:
    done = threading.Semaphore(0)
    delayed = Delayed(0.01, done.release)
    delayed.stop()
    delayed.want()
    assert not done.acquire(timeout=0.1)


def test_the_end_waits_for_work_that_has_begun() -> None:
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(DEADLINE)
        over.set()

    delayed = Delayed(0.0, work)
    delayed.want()
    assert begun.wait(DEADLINE)
    stopping = threading.Thread(target=delayed.stop)
    stopping.start()
    go_on.set()
    stopping.join(DEADLINE)
    assert over.is_set()
