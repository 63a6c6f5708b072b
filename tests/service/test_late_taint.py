"""Damage that is found while an answer is being made: no good tail for a bad head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_hub import BigFile, FakeHub
from serving import RunningCache

MIB = 1 << 20
BIG = BigFile(3 * MIB, seed=61)
URL = "/org/late/resolve/main/model.bin"


@pytest.fixture(autouse=True)
def repo(hub: FakeHub) -> None:
    hub.repo("models", "org/late").commit({"model.bin": BIG})


@pytest.fixture(params=["kept", "filling"])
def taints_late(
    request: pytest.FixtureRequest, cache: RunningCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taint the file at the moment at which its bytes are opened."""
    if request.param == "kept":
        cache.get(URL)
        cache.wait_idle()

    def tainting(open_it: Callable[..., Any]) -> Callable[..., Any]:
        def opened(blob: Any, *args: Any, **options: Any) -> Any:
            found = open_it(blob, *args, **options)
            if found is not None:
                cache.service.taints.taint(blob, sent=1, quarantined=Path("nowhere"))
            return found

        return opened

    place: Any = cache.service.store if request.param == "kept" else cache.service.fills
    monkeypatch.setattr(place, "open", tainting(place.open))


@pytest.mark.usefixtures("taints_late")
def test_a_resume_gets_the_whole_file(cache: RunningCache) -> None:
    answer = cache.get(URL, headers={"Range": "bytes=1000-"})
    assert (answer.status_code, answer.content) == (200, BIG.read(0, BIG.size))
    assert "Content-Range" not in answer.headers


@pytest.mark.usefixtures("taints_late")
@pytest.mark.parametrize("value", ["bytes=5-9", "bytes=5-9,20-30"])
def test_a_part_is_refused(cache: RunningCache, value: str, request: pytest.FixtureRequest) -> None:
    """At once where that will not pass: no client repeats a 501."""
    kept = "kept" in request.node.callspec.id
    answer = cache.get(URL, headers={"Range": value})
    assert answer.status_code == (501 if kept else 503)
    assert "whole file" in answer.headers["X-Error-Message"]
    assert BIG.read(5, 5) not in answer.content
    # A fill of parts ends when nobody follows it any more.
    cache.wait_idle()


@pytest.mark.usefixtures("taints_late")
def test_the_whole_file_needs_no_second_look(cache: RunningCache) -> None:
    assert cache.get(URL).content == BIG.read(0, BIG.size)
