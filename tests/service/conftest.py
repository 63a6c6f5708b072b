"""A Hub of the suite and a cache before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from serving import RunningCache
from wall_clock import Clock


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path, hub) as cache:
        yield cache


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock
