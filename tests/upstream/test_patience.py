"""How long a download waits before it asks again."""

from __future__ import annotations

import email.utils
import time

import pytest

from jupyter_hf_cache.errors import UpstreamError, UpstreamFailing, UpstreamUnreachable
from jupyter_hf_cache.upstream.patience import asked_wait, is_busy, pause_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 7 "}, 7.0),
        ({"Retry-After": "later"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api";r=12;t=55'}, None),
        ({"Retry-After": "3", "RateLimit": '"api";r=0;t=55'}, 3.0),
    ],
)
def test_what_a_busy_upstream_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers) == seconds


def test_a_moment_in_the_future() -> None:
    moment = email.utils.formatdate(time.time() + 100, usegmt=True)
    wait = asked_wait({"Retry-After": moment})
    assert wait is not None and 0 < wait <= 100


def busy(seconds: int) -> UpstreamError:
    return UpstreamFailing("busy", status=429, headers={"Retry-After": f"{seconds}"})


def test_pauses_grow_and_end() -> None:
    pauses = [pause_after(UpstreamError("x"), n, begun=True) for n in range(1, 6)]
    assert None not in pauses
    assert pauses == sorted(pauses, key=lambda pause: pause or 0.0)
    assert pause_after(UpstreamError("x"), 6, begun=True) is None


def test_what_is_asked_for_is_obeyed_up_to_a_minute() -> None:
    assert pause_after(busy(5), 1, begun=False) == 5.0
    assert pause_after(busy(30), 1, begun=True) == 30.0
    assert pause_after(busy(3600), 1, begun=True) == 60.0


def test_who_got_nothing_yet_is_told_of_a_long_wait() -> None:
    assert pause_after(busy(30), 1, begun=False) is None


def test_who_got_nothing_yet_is_told_that_nobody_is_there() -> None:
    gone = UpstreamUnreachable("gone")
    assert pause_after(gone, 1, begun=False) is None
    assert pause_after(gone, 1, begun=True) is not None


def test_busy_is_said_by_two_statuses() -> None:
    assert is_busy(busy(1))
    assert is_busy(UpstreamFailing("busy", status=503))
    assert not is_busy(UpstreamFailing("broken", status=500))
    assert not is_busy(UpstreamError("x"))
