"""Rows that all processes share, their totals, and whose they are."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.ledger import Entry, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


@pytest.fixture
def other(tmp_path: Path, ledger: Ledger) -> Iterator[Ledger]:
    other = Ledger(tmp_path)
    yield other
    other.close()


class TestTotals:
    def test_they_follow_every_change(self, ledger: Ledger) -> None:
        ledger.put(Entry("a", 1, 10, 0.0), Entry("b", 2, 20, 0.0))
        assert ledger.totals() == (3, 30)
        ledger.put(Entry("a", 5, 50, 0.0))
        assert ledger.totals() == (7, 70)
        ledger.remove("b")
        ledger.remove("b")
        assert ledger.totals() == (5, 50)
        ledger.touch({"a": 7.0})
        ledger.pin("a", pinned=True)
        assert ledger.totals() == (5, 50)

    def test_they_are_there_again(self, tmp_path: Path, ledger: Ledger) -> None:
        ledger.put(Entry("a", 1, 10, 0.0))
        again = Ledger(tmp_path)
        assert again.totals() == (1, 10) and not again.was_corrupt
        again.close()

    def test_what_fails_half_way_changes_nothing(self, ledger: Ledger) -> None:
        with pytest.raises(KeyError), ledger.transaction():
            ledger.put(Entry("a", 1, 10, 0.0))
            raise KeyError
        assert ledger.totals() == (0, 0)
        ledger.put(Entry("b", 1, 10, 0.0))
        assert ledger.totals() == (1, 10)

    def test_threads_and_processes_take_turns(self, ledger: Ledger, other: Ledger) -> None:
        def add(one: Ledger) -> None:
            for _ in range(50):
                with one.transaction():
                    size = one.totals()[0]
                    one.put(Entry("a", size + 1, 0, 0.0))

        threads = [threading.Thread(target=add, args=(one,)) for one in (ledger, other) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.totals() == (300, 0)


class TestOrder:
    def test_least_recently_used_first_page_by_page(self, ledger: Ledger) -> None:
        ledger.put(*(Entry(f"k{n}", 1, 1, float(n % 5)) for n in range(20)))
        found: list[Entry] = []
        while page := ledger.oldest(found[-1] if found else None, 3):
            found += page
        assert [entry.used for entry in found] == sorted(n % 5 for n in range(20))
        assert len({entry.key for entry in found}) == 20

    def test_pinned_and_owned_ones_are_not_among_them(self, ledger: Ledger) -> None:
        ledger.put(Entry("a", 1, 1, 1.0, pinned=True), Entry("b", 1, 1, 2.0, owner="me"))
        assert ledger.oldest(None, 10) == []
        assert [entry.key for entry in ledger.owned()] == ["b"]
        ledger.pin("a", pinned=False)
        assert [entry.key for entry in ledger.oldest(None, 10)] == ["a"]

    def test_what_is_promised_is_the_room_of_owned_ones(self, ledger: Ledger) -> None:
        assert ledger.promised() == 0
        ledger.put(Entry("a", 1, 5, 1.0), Entry("b", 1, 7, 2.0, owner="me"))
        ledger.put(Entry("c", 1, 11, 2.0, owner="you"))
        assert ledger.promised() == 18

    def test_a_use_is_never_set_back(self, ledger: Ledger) -> None:
        ledger.put(Entry("a", 1, 1, 5.0))
        ledger.touch({"a": 3.0, "gone": 9.0})
        assert ledger.get("a") == Entry("a", 1, 1, 5.0) and ledger.get("gone") is None
        ledger.touch({"a": 7.0})
        assert ledger.get("a") == Entry("a", 1, 1, 7.0)

    def test_neither_it_nor_the_totals_read_all_rows(self, ledger: Ledger, tmp_path: Path) -> None:
        connection = sqlite3.connect(tmp_path / "ledger.db")
        for query in (
            "SELECT key FROM entry WHERE pinned = 0 AND owner = '' AND (used, key) > (1, 'a') "
            "ORDER BY used, key LIMIT 5",
            "SELECT key FROM entry WHERE owner != ''",
        ):
            plan = " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query))
            assert "INDEX entry_" in plan and "TEMP B-TREE" not in plan, plan
        connection.close()

    def test_keys_with_a_prefix(self, ledger: Ledger) -> None:
        ledger.put(*(Entry(f"blob/{n:04}", 1, 1, 0.0) for n in range(1200)))
        ledger.put(Entry("blob", 1, 1, 0.0), Entry("partial/a", 1, 1, 0.0))
        assert len(list(ledger.entries("blob/"))) == 1200
        assert len(list(ledger.entries(""))) == 1202


class TestOwners:
    def test_each_lives_as_long_as_it_is_open(self, ledger: Ledger, tmp_path: Path) -> None:
        other = Ledger(tmp_path)
        assert ledger.lives(ledger.token) and ledger.lives(other.token)
        assert other.lives(ledger.token)
        other.close()
        assert not ledger.lives(other.token)
        assert not ledger.lives("never-seen")

    def test_the_mark_of_a_killed_one_is_removed(self, ledger: Ledger, tmp_path: Path) -> None:
        mark = tmp_path / "killed.alive"
        mark.touch()
        assert not ledger.lives("killed")
        assert not mark.exists()

    def test_old_marks_go_and_those_of_the_living_stay(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        old, new = tmp_path / "old.alive", tmp_path / "new.alive"
        mine = tmp_path / f"{ledger.token}.alive"
        other = Ledger(tmp_path)
        for mark in (old, new):
            mark.touch()
        for mark in (old, mine, tmp_path / f"{other.token}.alive"):
            os.utime(mark, (0, 0))
        ledger.tidy()
        assert not old.exists() and new.exists()
        assert ledger.lives(other.token) and other.lives(ledger.token)
        other.close()


class TestDamage:
    def test_one_with_damaged_names_is_moved_aside(self, tmp_path: Path) -> None:
        Ledger(tmp_path).close()
        file = tmp_path / "ledger.db"
        data = file.read_bytes()
        assert b"TABLE entry" in data
        file.write_bytes(data.replace(b"entry", b"\x82ntry").replace(b"CREATE", b"CR\x82ATE"))
        ledger = Ledger(tmp_path)
        assert ledger.was_corrupt
        ledger.close()

    def test_one_of_an_unknown_format_is_moved_aside(self, tmp_path: Path) -> None:
        Ledger(tmp_path).close()
        with (tmp_path / "ledger.db").open("r+b") as file:
            file.seek(44)  # the schema's format
            file.write(b"\xff\xff\xff\xff")
        ledger = Ledger(tmp_path)
        assert ledger.was_corrupt
        ledger.close()

    @pytest.mark.parametrize(
        "contents", [b"not a database" * 1000, b"SQLite format 3\0" + b"x" * 9]
    )
    def test_a_corrupt_one_is_moved_aside(self, tmp_path: Path, contents: bytes) -> None:
        (tmp_path / "ledger.db").write_bytes(contents)
        ledger = Ledger(tmp_path)
        assert ledger.was_corrupt and ledger.totals() == (0, 0)
        ledger.put(Entry("a", 1, 1, 0.0))
        ledger.close()
        assert [one.read_bytes() for one in tmp_path.glob("ledger.corrupt-*")] == [contents]
        again = Ledger(tmp_path)
        assert again.totals() == (1, 1) and not again.was_corrupt
        again.close()

    def test_one_that_cannot_be_opened_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError):
            Ledger(tmp_path / "file")
        (tmp_path / "state" / "ledger.db").mkdir(parents=True)
        with pytest.raises(StorageError, match="cannot be opened"):
            Ledger(tmp_path / "state")

    def test_nobody_else_may_read_it(self, ledger: Ledger, tmp_path: Path) -> None:
        assert stat.S_IMODE((tmp_path / "ledger.db").stat().st_mode) == 0o600

    def test_a_closed_one_refuses_in_words(self, tmp_path: Path) -> None:
        ledger = Ledger(tmp_path)
        ledger.close()
        with pytest.raises(StorageError):
            ledger.totals()
