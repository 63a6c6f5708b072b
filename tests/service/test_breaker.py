"""When an upstream is left in peace, and when it is asked again."""

from __future__ import annotations

import threading

import pytest

from jupyter_hf_cache.errors import (
    UpstreamAnswer,
    UpstreamError,
    UpstreamFailing,
    UpstreamUnreachable,
)
from jupyter_hf_cache.service.breaker import Breaker


class Monotonic:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def breaker(clock: Monotonic) -> Breaker:
    return Breaker(clock)


def ask(breaker: Breaker, error: Exception | None = None) -> None:
    with breaker.asking("remote"):
        if error is not None:
            raise error


def rests(breaker: Breaker) -> bool:
    try:
        breaker.check("remote")
    except UpstreamError:
        return True
    return False


def test_who_cannot_be_reached_rests_at_once(breaker: Breaker, clock: Monotonic) -> None:
    with pytest.raises(UpstreamUnreachable):
        ask(breaker, UpstreamUnreachable("refused"))
    with pytest.raises(UpstreamUnreachable, match="refused"):
        ask(breaker)
    assert breaker.state("remote") == ("unreachable", "refused")
    clock.now += 2.0
    ask(breaker)
    assert breaker.state("remote") == ("reachable", "")
    assert not rests(breaker)


def test_the_rest_is_as_long_as_it_was_costly_to_find_out(
    breaker: Breaker, clock: Monotonic
) -> None:
    with pytest.raises(UpstreamUnreachable), breaker.asking("remote"):
        clock.now += 5.0
        raise UpstreamUnreachable("timed out")
    clock.now += 19.0
    assert rests(breaker)
    clock.now += 1.0
    assert not rests(breaker)


def test_one_that_fails_rests_after_a_few_in_a_row(breaker: Breaker, clock: Monotonic) -> None:
    failing = UpstreamFailing("busy", status=503)
    for _ in range(2):
        with pytest.raises(UpstreamFailing):
            ask(breaker, failing)
    ask(breaker)
    for _ in range(3):
        assert not rests(breaker)
        with pytest.raises(UpstreamFailing):
            ask(breaker, failing)
    assert rests(breaker)


def test_a_busy_hub_says_how_long(breaker: Breaker, clock: Monotonic) -> None:
    busy = UpstreamFailing("busy", status=503, headers={"Retry-After": "12"})
    for _ in range(3):
        with pytest.raises(UpstreamFailing):
            ask(breaker, busy)
    clock.now += 11.0
    with pytest.raises(UpstreamFailing) as caught:
        ask(breaker)
    assert (caught.value.status, caught.value.headers) == (503, busy.headers)
    clock.now += 1.0
    ask(breaker)


def test_the_limit_of_one_caller_rests_nobody(breaker: Breaker) -> None:
    limited = UpstreamFailing("slow down", status=429, headers={"RateLimit": '"api";r=0;t=12'})
    for _ in range(10):
        with pytest.raises(UpstreamFailing):
            ask(breaker, limited)
    ask(breaker)


@pytest.mark.parametrize(
    "error", [UpstreamAnswer(404, "Repository not found"), UpstreamError("That is no Hub.")]
)
def test_an_answer_is_an_answer(breaker: Breaker, error: Exception) -> None:
    for _ in range(10):
        with pytest.raises(type(error)):
            ask(breaker, error)
    assert breaker.state("remote")[0] == "reachable"


def test_after_the_rest_one_asks_and_the_others_wait_for_it(
    breaker: Breaker, clock: Monotonic
) -> None:
    with pytest.raises(UpstreamUnreachable):
        ask(breaker, UpstreamUnreachable("refused"))
    clock.now += 60.0
    inside, go_on, asked = threading.Event(), threading.Event(), []

    def probe() -> None:
        with breaker.asking("remote"):
            inside.set()
            assert go_on.wait(10)

    def follow() -> None:
        with breaker.asking("remote"):
            asked.append(go_on.is_set())

    first = threading.Thread(target=probe)
    first.start()
    assert inside.wait(10)
    others = [threading.Thread(target=follow) for _ in range(3)]
    for thread in others:
        thread.start()
    go_on.set()
    for thread in (first, *others):
        thread.join(10)
    assert asked == [True] * 3


def test_a_changed_remote_is_asked_at_once(breaker: Breaker) -> None:
    with pytest.raises(UpstreamUnreachable):
        ask(breaker, UpstreamUnreachable("refused"))
    breaker.forget("remote")
    ask(breaker)


def test_an_error_is_kept_without_its_frames(breaker: Breaker) -> None:
    with pytest.raises(UpstreamUnreachable):
        ask(breaker, UpstreamUnreachable("refused"))
    raised = []
    for _ in range(2):
        with pytest.raises(UpstreamUnreachable) as caught:
            ask(breaker)
        raised.append(caught.value)
    assert raised[0] is not raised[1]
