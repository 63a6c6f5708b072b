"""The list of named keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_hf_cache.errors import BadRequest, StorageError
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.keys import Keys, NamedKey
from jupyter_hf_cache.storage.state import StateTable

Open = Callable[[], Keys]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_keys(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens the list as one more process does."""
    tables: list[StateTable] = []

    def open_it() -> Keys:
        tables.append(StateTable(tmp_path / "access"))
        return Keys(tables[-1], Generations(tmp_path / "generations"), clock)

    yield open_it
    for table in tables:
        table.close()


def known(keys: Keys, verifier: str) -> str | None:
    """As the web layer asks."""
    if not keys.is_current:
        keys.load()
    return keys.name_of(verifier)


def test_a_key_is_known_until_it_is_revoked_in_every_process(open_keys: Open) -> None:
    here, there = open_keys(), open_keys()
    assert known(there, "proof") is None
    here.create("ci", "proof", None)
    assert not there.is_current
    assert [known(keys, "proof") for keys in (here, there)] == ["ci", "ci"]
    assert here.revoke("ci")
    assert [known(keys, "proof") for keys in (here, there)] == [None, None]
    assert not here.revoke("ci")


def test_it_is_known_after_a_restart(open_keys: Open) -> None:
    open_keys().create("ci", "proof", None)
    assert known(open_keys(), "proof") == "ci"


def test_a_known_key_costs_no_disk(open_keys: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = open_keys()
    keys.create("ci", "proof", None)
    keys.load()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the disk was read")

    monkeypatch.setattr(StateTable, "get", fail)
    monkeypatch.setattr(StateTable, "items", fail)
    assert keys.is_current
    assert (keys.name_of("proof"), keys.name_of("other")) == ("ci", None)


def test_the_list_shows_all_but_the_key(open_keys: Open, clock: Clock) -> None:
    keys = open_keys()
    keys.create("beta", "proof-b", clock.now + 60)
    clock.now += 1
    keys.create("alpha", "proof-a", None)
    assert keys.all() == [
        NamedKey("alpha", 1_000_001.0, None, None),
        NamedKey("beta", 1_000_000.0, 1_000_060.0, None),
    ]
    assert "proof" not in repr(keys.all())


def test_uses_are_written_in_batches(open_keys: Open, clock: Clock) -> None:
    here, there = open_keys(), open_keys()
    here.create("ci", "proof", None)
    assert known(here, "proof") == "ci"
    assert there.all()[0].used is None
    here.flush()
    assert there.all()[0].used == 1_000_000.0
    clock.now += 31
    known(there, "proof")
    there.close()
    assert here.all()[0].used == 1_000_031.0


def test_a_use_is_written_though_nothing_else_happens(
    open_keys: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_hf_cache.storage.keys._FLUSH_SECONDS", 0.01)
    here, there = open_keys(), open_keys()
    here.create("ci", "proof", None)
    known(here, "proof")
    end = time.monotonic() + 30
    while there.all()[0].used is None:
        assert time.monotonic() < end, "it was not written"
        time.sleep(0.01)
    here.close()


def test_the_latest_use_of_several_processes_counts(open_keys: Open, clock: Clock) -> None:
    here, there = open_keys(), open_keys()
    here.create("ci", "proof", None)
    known(here, "proof")
    clock.now += 5
    known(there, "proof")
    there.flush()
    here.flush()
    assert here.all()[0].used == 1_000_005.0


def test_a_use_of_a_revoked_key_leaves_nothing_behind(open_keys: Open) -> None:
    here, there = open_keys(), open_keys()
    here.create("ci", "proof", None)
    known(there, "proof")
    here.revoke("ci")
    there.flush()
    here.create("ci", "another proof", None)
    assert here.all()[0].used is None
    assert known(there, "proof") is None


def test_a_disk_that_refuses_is_no_obstacle_to_a_use(
    open_keys: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = open_keys()
    keys.create("ci", "proof", None)
    assert known(keys, "proof") == "ci"

    def refuse(*_: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(StateTable, "set", refuse)
    keys.flush()


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "x" * 65, "ä", "a\n"])
def test_a_name_that_cannot_be_typed_is_refused(open_keys: Open, name: str) -> None:
    with pytest.raises(BadRequest, match="name of a key"):
        open_keys().create(name, "proof", None)


@pytest.mark.parametrize("name", ["a", "alice@example.org", "ci-2.x_y", "x" * 64])
def test_other_names_are_taken_once(open_keys: Open, name: str) -> None:
    keys = open_keys()
    keys.create(name, "proof", None)
    assert known(keys, "proof") == name
    with pytest.raises(BadRequest, match="There is a key named"):
        keys.create(name, "another", None)
    assert keys.revoke(name)
