"""Digests of which somebody may hold wrong bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream import taints as module
from jupyter_hf_cache.upstream.taints import TAINT_SECONDS, Taints

BLOB = BlobId(Digest("sha256", "a" * 64))
OTHER = BlobId(Digest("git-sha1", "b" * 40), "origin")
GOOD = bytes(range(256)) * 100


class Clean:
    """The clean copy."""

    size = len(GOOD)

    def read(self, offset: int, length: int) -> bytes:
        return GOOD[offset : offset + length]

    def close(self) -> None:
        pass


@pytest.fixture
def table(tmp_path: Path) -> Iterator[StateTable]:
    table = StateTable(tmp_path / "table")
    yield table
    table.close()


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "quarantined"
    path.write_bytes(GOOD[:5000] + b"?" + GOOD[5001:])
    return path


def test_only_the_tainted_one_is(table: StateTable, bad: Path) -> None:
    taints = Taints(table)
    taints.taint(BLOB, sent=10, quarantined=bad)
    assert taints.is_tainted(BLOB)
    assert not taints.is_tainted(OTHER)


def test_it_survives_a_restart(table: StateTable, bad: Path) -> None:
    Taints(table).taint(BLOB, sent=10, quarantined=bad)
    assert Taints(StateTable(table.directory)).is_tainted(BLOB)


def test_another_process_knows_at_once(table: StateTable, bad: Path) -> None:
    other = Taints(StateTable(table.directory))
    assert not other.is_tainted(BLOB)
    Taints(table).taint(BLOB, sent=10, quarantined=bad)
    assert other.is_tainted(BLOB)
    Taints(table).taint(OTHER, sent=10, quarantined=bad)
    assert other.is_tainted(OTHER)


def test_clean_ones_cost_no_table(
    table: StateTable, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taints = Taints(table)
    taints.taint(OTHER, sent=10, quarantined=bad)
    assert not taints.is_tainted(BLOB)
    monkeypatch.setattr(table, "get", None)
    monkeypatch.setattr(table, "items", None)
    assert not taints.is_tainted(BLOB)


def test_it_ends_after_a_week(
    table: StateTable, bad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taints = Taints(table)
    taints.taint(BLOB, sent=10, quarantined=bad)
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + TAINT_SECONDS - 60)
    assert taints.is_tainted(BLOB)
    monkeypatch.setattr(module.time, "time", lambda: now + TAINT_SECONDS + 60)
    assert not taints.is_tainted(BLOB)
    assert table.count("taint/") == 0


@pytest.mark.parametrize(("sent", "harmless"), [(0, True), (5000, True), (5001, False)])
def test_it_ends_when_what_was_sent_was_right(
    table: StateTable, bad: Path, sent: int, harmless: bool
) -> None:
    taints = Taints(table)
    taints.taint(BLOB, sent=sent, quarantined=bad)
    assert taints.clear_if_harmless(BLOB, Clean()) is harmless
    assert taints.is_tainted(BLOB) is not harmless
    assert Taints(table).is_tainted(BLOB) is not harmless


def test_one_harmful_copy_is_enough(table: StateTable, bad: Path) -> None:
    taints = Taints(table)
    taints.taint(BLOB, sent=5001, quarantined=bad)
    taints.taint(BLOB, sent=0, quarantined=bad)
    assert not taints.clear_if_harmless(BLOB, Clean())


@pytest.mark.parametrize("length", [0, 100])
def test_a_copy_that_is_gone_proves_nothing(table: StateTable, bad: Path, length: int) -> None:
    taints = Taints(table)
    taints.taint(BLOB, sent=5000, quarantined=bad)
    bad.write_bytes(GOOD[:length])
    assert not taints.clear_if_harmless(BLOB, Clean())
    bad.unlink()
    assert not taints.clear_if_harmless(BLOB, Clean())


def test_where_there_is_none_there_is_nothing_to_clear(table: StateTable) -> None:
    assert Taints(table).clear_if_harmless(BLOB, Clean())
