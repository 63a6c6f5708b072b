"""The pace of requests."""

from __future__ import annotations

import threading

from jupyter_hf_cache.upstream.rate_limit import RateLimit


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))


def test_requests_are_spaced() -> None:
    time = Time()
    limit = RateLimit(4, clock=lambda: time.now, sleep=time.sleep)
    for _ in range(4):
        limit.wait()
    assert time.slept == [0.25, 0.5, 0.75]


def test_a_pause_is_not_saved_up() -> None:
    time = Time()
    limit = RateLimit(1, clock=lambda: time.now, sleep=time.sleep)
    limit.wait()
    time.now += 60
    limit.wait()
    limit.wait()
    assert time.slept == [1.0]


def test_without_a_limit_nothing_waits() -> None:
    time = Time()
    for nothing in (None, 0):
        limit = RateLimit(nothing, clock=lambda: time.now, sleep=time.sleep)
        for _ in range(10):
            limit.wait()
    assert time.slept == []


def test_threads_get_different_times() -> None:
    time = Time()
    limit = RateLimit(10, clock=lambda: time.now, sleep=time.sleep)
    threads = [threading.Thread(target=limit.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(time.slept) == [round(n / 10, 6) for n in range(1, 20)]


def test_who_waits_in_the_background_comes_last() -> None:
    """It holds no place, so that others who come later go first."""
    time = Time()
    come: list[str] = []

    def sleep(seconds: float) -> None:
        if not come:
            # While it waits somebody comes who is waited for.
            come.append("first")
            limit.wait()
        time.now += seconds

    limit = RateLimit(1, clock=lambda: time.now, sleep=sleep)
    limit.wait()
    limit.wait(background=lambda: True)
    assert time.now == 102.0, "the other one went at 101, where it would have gone itself"
