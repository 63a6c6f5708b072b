"""The start of the service: no upstream, and no walk over what is kept, is waited for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from serving import RunningCache, lose

from jupyter_hf_cache.storage.budget import Budget

FILE = "/bert-base-uncased/resolve/main/config.json"
DEADLINE = 30.0


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[queue.Queue[Budget]]:
    """Comparing records and disk takes for ever; the queue tells whose has begun."""
    begun: queue.Queue[Budget] = queue.Queue()
    released = threading.Event()

    def reconcile(budget: Budget, stopped: Callable[[], bool] = lambda: False) -> None:
        begun.put(budget)
        while not (stopped() or released.wait(0.01)):
            pass

    monkeypatch.setattr(Budget, "reconcile", reconcile)
    yield begun
    released.set()


def test_a_start_asks_no_upstream(tmp_path: Path, hub: FakeHub) -> None:
    with RunningCache(tmp_path, hub):
        pass
    with RunningCache(tmp_path, hub) as cache:
        assert cache.service.config.match("hf/x") is not None
    assert hub.counters.requests == []


def test_requests_are_answered_while_records_and_disk_are_compared(
    tmp_path: Path, hub: FakeHub, request: pytest.FixtureRequest
) -> None:
    with RunningCache(tmp_path, hub) as cache:
        body = cache.get(FILE).content
    begun = request.getfixturevalue("held")
    with RunningCache(tmp_path, hub) as cache:
        assert begun.get(timeout=DEADLINE) is cache.service.budget
        assert cache.get(FILE).content == body


def test_of_several_that_start_together_one_compares(
    tmp_path: Path, hub: FakeHub, request: pytest.FixtureRequest
) -> None:
    with RunningCache(tmp_path, hub) as cache:
        assert cache.get(FILE).ok
        cache.wait_until(lambda: cache.service.budget.used() > 0)
    begun = request.getfixturevalue("held")
    with RunningCache(tmp_path, hub) as first:
        assert begun.get(timeout=DEADLINE) is first.service.budget
        with RunningCache(tmp_path, hub) as second:
            assert second.get(FILE).ok
        assert begun.empty()


def test_what_another_hand_removed_no_longer_counts_some_time_after_a_start(
    tmp_path: Path, hub: FakeHub
) -> None:
    with RunningCache(tmp_path, hub) as cache:
        cache.get(FILE).raise_for_status()
        cache.wait_until(lambda: cache.service.budget.used() > 0)
    lose(tmp_path / "cache/blobs")
    with RunningCache(tmp_path, hub) as cache:
        cache.wait_until(lambda: cache.service.budget.used() == 0)


def test_a_lost_ledger_is_made_again_before_anything_is_fetched(
    tmp_path: Path, hub: FakeHub
) -> None:
    with RunningCache(tmp_path, hub) as cache:
        cache.get(FILE).raise_for_status()
        cache.wait_until(lambda: cache.service.budget.used() > 0)
        used = cache.service.budget.used()
    lose(tmp_path / "cache/state/ledger")
    with RunningCache(tmp_path, hub) as cache:
        assert cache.service.budget.used() == used
