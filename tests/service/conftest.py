"""A Hub of the suite and a cache before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from serving import RunningCache


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path, hub: FakeHub) -> Iterator[RunningCache]:
    with RunningCache(tmp_path, hub) as cache:
        yield cache
