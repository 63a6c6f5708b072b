"""When an upstream is left in peace, and when it is asked again."""

from __future__ import annotations

import threading

import pytest

from jupyter_hf_cache.errors import (
    NotAHub,
    Offline,
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


def test_what_is_no_hub_rests_like_one_that_is_gone(breaker: Breaker, clock: Monotonic) -> None:
    with pytest.raises(NotAHub):
        ask(breaker, NotAHub("a web page"))
    with pytest.raises(NotAHub, match="a web page"):
        ask(breaker)
    clock.now += 2.0
    ask(breaker)


def test_one_odd_page_among_good_answers_lets_nobody_rest(
    breaker: Breaker, clock: Monotonic
) -> None:
    ask(breaker)
    with pytest.raises(NotAHub):
        ask(breaker, NotAHub("a web page"))
    breaker.watch("remote").unreachable(NotAHub("a web page"), 0.0)
    assert not rests(breaker)
    clock.now += 5.0
    with pytest.raises(NotAHub):
        ask(breaker, NotAHub("a web page"))
    assert rests(breaker)


def test_who_waits_for_a_probe_waits_once(breaker: Breaker, clock: Monotonic) -> None:
    """A probe of a silent upstream takes seconds, and many files are asked for meanwhile."""
    with pytest.raises(UpstreamUnreachable):
        ask(breaker, UpstreamUnreachable("timed out"))
    clock.now += 60.0
    with breaker.asking("remote"):
        clock.now += 1.0
        for _ in range(100):
            # By the clock of the test, which stands still: nobody waits for anything real.
            with pytest.raises(UpstreamUnreachable):
                ask(breaker)


class TestPassedOn:
    """Requests whose answers are not judged."""

    def test_they_are_not_sent_to_who_is_gone(self, breaker: Breaker, clock: Monotonic) -> None:
        with pytest.raises(UpstreamUnreachable):
            ask(breaker, UpstreamUnreachable("refused"))
        with pytest.raises(UpstreamUnreachable), breaker.reaching("remote"):
            pytest.fail("it was sent")
        clock.now += 2.0
        with breaker.reaching("remote"):
            pass
        assert breaker.state("remote") == ("reachable", "")

    def test_they_go_to_who_only_fails(self, breaker: Breaker) -> None:
        for _ in range(3):
            with pytest.raises(UpstreamFailing):
                ask(breaker, UpstreamFailing("busy", status=503))
        passed = []
        with breaker.reaching("remote"):
            passed.append(True)
        assert passed
        assert rests(breaker), "an answer that nobody judged says nothing"

    def test_a_long_one_is_waited_for_by_nobody(self, breaker: Breaker, clock: Monotonic) -> None:
        with pytest.raises(UpstreamUnreachable):
            ask(breaker, UpstreamUnreachable("refused"))
        clock.now += 2.0
        with breaker.reaching("remote"):
            ask(breaker)

    def test_a_web_page_where_none_is_due_says_nothing_of_the_reads(self, breaker: Breaker) -> None:
        with pytest.raises(NotAHub), breaker.reaching("remote"):
            raise NotAHub("a web page")
        assert not rests(breaker)


class TestWatch:
    """What the clients of a remote learn and tell."""

    def test_a_download_that_finds_out_lets_the_others_know(self, breaker: Breaker) -> None:
        watch = breaker.watch("remote")
        assert not watch.doubted()
        watch.unreachable(UpstreamUnreachable("timed out"), 5.0)
        assert watch.doubted()
        assert rests(breaker)
        assert not breaker.watch("other").doubted()

    def test_doubt_ends_with_an_answer(self, breaker: Breaker, clock: Monotonic) -> None:
        watch = breaker.watch("remote")
        watch.unreachable(UpstreamUnreachable("timed out"), 0.0)
        clock.now += 2.0
        assert watch.doubted(), "the next question has one try"
        ask(breaker)
        assert not watch.doubted()

    def test_offline_is_looked_up_each_time(self, clock: Monotonic) -> None:
        why = {"remote": ""}
        breaker = Breaker(clock, offline=lambda remote_id: why[remote_id])
        watch = breaker.watch("remote")
        watch.check()
        why["remote"] = "It is offline."
        with pytest.raises(Offline, match="offline"):
            watch.check()
        assert breaker.state("remote") == ("offline", "It is offline.")
        with pytest.raises(Offline), breaker.asking("remote"):
            watch.check()
        why["remote"] = ""
        assert breaker.state("remote")[0] == "unknown", "it says nothing of the upstream"


def test_a_changed_remotes_mirrors_are_asked_at_once_too(breaker: Breaker) -> None:
    for name in ("remote~mirror", "remote2"):
        breaker.watch(name).unreachable(UpstreamUnreachable("refused"), 0.0)
    breaker.forget("remote")
    assert not breaker.watch("remote~mirror").doubted()
    assert breaker.watch("remote2").doubted()
