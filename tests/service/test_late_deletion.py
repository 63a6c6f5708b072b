"""A file that is deleted while an answer from it is being made."""

from __future__ import annotations

from typing import Any

import pytest
from fake_hub import BigFile, FakeHub
from serving import RunningCache

BIG = BigFile(3 * (1 << 20), seed=62)
URL = "/org/late/resolve/main/model.bin"


def test_it_is_fetched_again(
    cache: RunningCache, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo("models", "org/late").commit({"model.bin": BIG})
    cache.get(URL)
    cache.wait_idle()
    store = cache.service.store
    open_it = store.open

    def opened(blob: Any) -> Any:
        reader = open_it(blob)
        store.delete(blob)
        return reader

    hub.counters.reset()
    with monkeypatch.context() as patch:
        patch.setattr(store, "open", opened)
        assert cache.get(URL).content == BIG.read(0, BIG.size)
    cache.wait_idle()
    assert hub.counters.bytes("cdn") == BIG.size
