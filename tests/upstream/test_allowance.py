"""What an upstream allows is obeyed per credential and kind, and left to those who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from jupyter_hf_cache.errors import UpstreamFailing
from jupyter_hf_cache.upstream.allowance import Allowances, Limit, read_limits

HUB = "https://hub.example"
FILE = "/org/m/resolve/main/config.json"
SMALL = "/api/resolve-cache/models/org/m/0123/config.json"
PAGE = "/api/models/org/m"
WEB = "/org/m"
ME, OTHER = "Bearer hf_me", "Bearer hf_other"


class Monotonic:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def allowances(clock: Monotonic) -> Iterator[Allowances]:
    allowances = Allowances(clock=clock)
    yield allowances
    allowances.close()


def limit(name: str, left: int, seconds: int, quota: int = 500) -> dict[str, str]:
    return {
        "RateLimit": f'"{name}";r={left};t={seconds}',
        "RateLimit-Policy": f'"fixed window";"{name}";q={quota};w=300',
    }


def ask(
    allowances: Allowances,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    who: str | None = ME,
    status: int = 200,
    origin: str = HUB,
    background: bool = False,
) -> None:
    with allowances.asking(origin, who, path, background=lambda: background) as asking:
        asking.answered(status, headers or {})


def is_held_back(allowances: Allowances, path: str, who: str | None = ME, **rest: str) -> bool:
    try:
        ask(allowances, path, who=who, **rest)  # type: ignore[arg-type]
    except UpstreamFailing:
        return True
    return False


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, []),
        ({"RateLimit": '"api";r=12;t=55'}, [Limit("api", 12, 55.0)]),
        (limit("resolvers", 0, 7, 3000), [Limit("resolvers", 0, 7.0, 3000)]),
        ({"RateLimit": '"api"; t=55; r=12'}, [Limit("api", 12, 55.0)]),
        ({"RateLimit": '"a";r=1;t=2, "b";r=3;t=4'}, [Limit("a", 1, 2.0), Limit("b", 3, 4.0)]),
        ({"RateLimit": '"api";r=12'}, []),
        ({"RateLimit": '"api";r=-1;t=5'}, []),
        ({"RateLimit": "nonsense"}, []),
        ({"RateLimit": f'"api";r=1;t={"9" * 50}'}, [Limit("api", 1, 3600.0)]),
        ({"RateLimit": '"api";r=0;t=999999999'}, [Limit("api", 0, 3600.0)]),
    ],
)
def test_headers_are_read(headers: dict[str, str], expected: list[Limit]) -> None:
    assert read_limits(headers) == expected


def test_nothing_is_sent_until_the_window_is_over(allowances: Allowances, clock: Monotonic) -> None:
    ask(allowances, PAGE, limit("api", 1, 55))
    ask(allowances, PAGE, limit("api", 0, 54))
    with pytest.raises(UpstreamFailing) as caught:
        ask(allowances, PAGE)
    assert caught.value.status == 429
    assert caught.value.headers == {"RateLimit": '"api";r=0;t=54', "Retry-After": "54"}
    clock.now += 53.5
    with pytest.raises(UpstreamFailing) as caught:
        ask(allowances, PAGE)
    assert caught.value.headers["Retry-After"] == "1"
    clock.now += 0.6
    ask(allowances, PAGE, limit("api", 499, 300))
    ask(allowances, PAGE)


def test_what_one_has_used_up_limits_nobody_else(allowances: Allowances) -> None:
    ask(allowances, PAGE, limit("api", 0, 55))
    assert is_held_back(allowances, PAGE)
    assert not is_held_back(allowances, PAGE, OTHER)
    assert not is_held_back(allowances, PAGE, None)
    assert not is_held_back(allowances, PAGE, origin="https://other.example")
    assert not is_held_back(allowances, FILE)
    assert not is_held_back(allowances, WEB)


def test_which_addresses_share_an_allowance_is_learnt(allowances: Allowances) -> None:
    ask(allowances, FILE, limit("resolvers", 0, 55))
    assert is_held_back(allowances, SMALL)
    ask(allowances, SMALL, limit("api", 9, 55), who=OTHER)
    assert not is_held_back(allowances, SMALL), "the Hub counts these among its API calls"
    assert is_held_back(allowances, FILE)


def test_a_refusal_counts_also_without_a_rate_limit(
    allowances: Allowances, clock: Monotonic
) -> None:
    ask(allowances, FILE, {"Retry-After": "20"}, status=429)
    clock.now += 19
    assert is_held_back(allowances, FILE)
    clock.now += 1
    ask(allowances, FILE, status=429)
    assert is_held_back(allowances, FILE)
    clock.now += 2
    assert not is_held_back(allowances, FILE)


def test_the_longer_wait_holds(allowances: Allowances, clock: Monotonic) -> None:
    ask(allowances, FILE, {**limit("resolvers", 0, 5), "Retry-After": "20"}, status=429)
    clock.now += 10
    assert is_held_back(allowances, FILE)


def test_who_am_i_has_a_limit_of_its_own(allowances: Allowances) -> None:
    ask(allowances, "/api/whoami-v2", limit("api", 0, 55), status=429)
    assert is_held_back(allowances, "/api/whoami-v2")
    assert not is_held_back(allowances, PAGE)


def test_requests_under_way_count(allowances: Allowances) -> None:
    ask(allowances, FILE, limit("resolvers", 2, 55))
    with allowances.asking(HUB, ME, FILE), allowances.asking(HUB, ME, FILE):
        assert is_held_back(allowances, FILE)
    # Both were cut off without an answer: the upstream still knows of two.
    assert not is_held_back(allowances, FILE)


def test_answers_may_overtake_each_other(allowances: Allowances) -> None:
    ask(allowances, FILE, limit("resolvers", 2, 55))
    with allowances.asking(HUB, ME, FILE) as first:
        ask(allowances, FILE, limit("resolvers", 0, 55))
        first.answered(200, limit("resolvers", 1, 55))
    assert is_held_back(allowances, FILE)


class TestBackground:
    def test_it_leaves_a_reserve(self, allowances: Allowances) -> None:
        ask(allowances, FILE, limit("resolvers", 101, 55, 500))
        ask(allowances, FILE, background=True)
        ask(allowances, FILE, limit("resolvers", 100, 55, 500))
        with in_background(allowances) as sent:
            assert not sent.is_set()
            ask(allowances, FILE)
            assert not sent.is_set()
            ask(allowances, FILE, limit("resolvers", 499, 300, 500))
            assert sent.wait(20)

    def test_it_goes_on_with_the_next_window(
        self, allowances: Allowances, clock: Monotonic
    ) -> None:
        ask(allowances, FILE, limit("resolvers", 0, 55))
        with in_background(allowances) as sent:
            assert not sent.is_set()
            clock.now += 60
            assert sent.wait(20)

    def test_it_goes_on_when_somebody_comes_to_wait_for_it(self, allowances: Allowances) -> None:
        ask(allowances, FILE, limit("resolvers", 1, 55))
        alone = True
        thread = threading.Thread(target=lambda: ask_in(allowances, lambda: alone))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        alone = False
        thread.join(20)
        assert not thread.is_alive()

    def test_it_is_let_go_at_the_end(self, allowances: Allowances) -> None:
        ask(allowances, FILE, limit("resolvers", 0, 55))
        with in_background(allowances) as sent:
            allowances.close()
        assert not sent.is_set(), "and held back like everybody"


def ask_in(allowances: Allowances, background: Callable[[], bool]) -> None:
    with allowances.asking(HUB, ME, FILE, background=background) as asking:
        asking.answered(200, {})


@contextmanager
def in_background(allowances: Allowances) -> Iterator[threading.Event]:
    """Ask in the background; the event says that it was sent."""
    sent = threading.Event()

    def run() -> None:
        try:
            ask(allowances, FILE, background=True)
        except UpstreamFailing:
            return
        sent.set()

    thread = threading.Thread(target=run)
    thread.start()
    yield sent
    thread.join(20)
    assert not thread.is_alive()


def test_every_request_is_counted() -> None:
    count: list[None] = []
    allowances = Allowances(on_asked=lambda: count.append(None))
    ask(allowances, FILE, limit("resolvers", 0, 55))
    assert is_held_back(allowances, FILE)
    ask(allowances, PAGE, status=0)
    assert len(count) == 2


def test_no_token_stays_in_memory(allowances: Allowances) -> None:
    ask(allowances, FILE, limit("resolvers", 3, 55))
    assert "hf_me" not in repr(vars(allowances))
