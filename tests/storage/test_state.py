"""State tables: many writers, foreign rows, damage, and disks that refuse."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diskcache
import pytest

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.state import StateTable, key_of


@pytest.fixture
def table(tmp_path: Path) -> Iterator[StateTable]:
    table = StateTable(tmp_path / "table")
    yield table
    table.close()


def rows_on_disk(table: StateTable) -> list[tuple[object, ...]]:
    with sqlite3.connect(table.directory / "cache.db") as connection:
        rows = connection.execute("SELECT key, raw, mode, filename, value FROM Cache").fetchall()
    connection.close()
    return rows


def write_foreign(table: StateTable, key: str, mode: int, value: object) -> None:
    connection = sqlite3.connect(table.directory / "cache.db")
    with connection:
        connection.execute(
            "INSERT OR REPLACE INTO Cache (key, raw, mode, filename, value) VALUES (?, 1, ?, ?, ?)",
            (key, mode, None, value),
        )
    connection.close()


class Bomb:
    """Unpickling it would leave a mark."""

    went_off = False

    def __reduce__(self) -> tuple[object, ...]:
        return setattr, (Bomb, "went_off", True)


class TestRows:
    @pytest.mark.parametrize(
        "value", [None, 0, 1.5, "ä\n", [], {}, {"a": [1, None, {"b": "c"}]}, "x" * 100_000]
    )
    def test_values_come_back_equal(self, table: StateTable, value: object) -> None:
        table.set("key", value)
        assert table.get("key") == value
        assert dict(table.items()) == {"key": value}

    def test_they_are_json_text_in_the_row(self, table: StateTable) -> None:
        value = {"long": "x" * 200_000}
        table.set("a/b", value)
        ((key, raw, _, filename, text),) = rows_on_disk(table)
        assert (key, raw, filename) == ("a/b", 1, None)
        assert isinstance(text, str) and json.loads(text) == value
        names = {path.name for path in table.directory.iterdir()}
        assert names <= {"cache.db", "cache.db-wal", "cache.db-shm"}

    def test_what_is_not_json_is_refused(self, table: StateTable) -> None:
        with pytest.raises(TypeError):
            table.set("key", object())
        with pytest.raises(TypeError):
            table.set(5, "value")  # type: ignore[arg-type]
        assert table.count() == 0

    @pytest.mark.parametrize("mode", [1, 2, 4])
    def test_a_foreign_pickle_is_never_loaded(self, table: StateTable, mode: int) -> None:
        table.set("a", 1)
        write_foreign(table, "b", mode, sqlite3.Binary(pickle.dumps(Bomb())))
        table.set("c", 3)
        assert table.get("b") is None
        assert list(table.items()) == [("a", 1), ("c", 3)]
        assert not Bomb.went_off

    @pytest.mark.parametrize("value", ["no json", "", 7, None, b"\xff\x00"])
    def test_a_foreign_value_does_not_spoil_the_listing(
        self, table: StateTable, value: object
    ) -> None:
        table.set("a", 1)
        write_foreign(table, "b", 1, value)
        assert table.get("b") is None
        assert list(table.items()) == [("a", 1)]
        table.set("b", 2)
        assert table.get("b") == 2

    def test_a_value_that_is_damaged_inside_is_none(self, table: StateTable) -> None:
        table.set("a", 1)
        connection = sqlite3.connect(table.directory / "cache.db")
        with connection:
            connection.execute("UPDATE Cache SET value = CAST(x'22ff22' AS TEXT)")
        connection.close()
        assert table.get("a") is None
        table.set("a", 2)
        assert table.get("a") == 2

    def test_deleting_says_whether_there_was_something(self, table: StateTable) -> None:
        table.set("a", 1)
        assert table.delete("a") is True
        assert table.delete("a") is False


class TestRanges:
    @pytest.fixture
    def names(self, table: StateTable) -> list[str]:
        names = [key_of("claim", f"org/m{n:03}", file) for n in range(230) for file in "ab"]
        for name in reversed(names):
            table.set(name, name)
        table.set("clain/x", 0)
        table.set("clai", 0)
        return names

    def test_a_prefix_is_listed_in_order_across_pages(
        self, table: StateTable, names: list[str]
    ) -> None:
        assert [key for key, _ in table.items("claim/")] == names
        assert table.count("claim/") == len(names)

    @pytest.mark.parametrize("limit", [0, 1, 199, 200, 201, 400, 10_000])
    def test_pages_of_any_length_add_up(
        self, table: StateTable, names: list[str], limit: int
    ) -> None:
        seen: list[str] = []
        while limit:
            page = [
                key for key, _ in table.items("claim/", after=(seen or [None])[-1], limit=limit)
            ]
            seen += page
            if len(page) < limit:
                break
        assert seen == (names if limit else [])

    def test_one_prefix_is_deleted_and_no_neighbour(
        self, table: StateTable, names: list[str]
    ) -> None:
        assert table.delete_prefix("claim/") == len(names)
        assert sorted(key for key, _ in table.items()) == ["clai", "clain/x"]

    def test_a_part_cannot_leave_its_range(self) -> None:
        assert key_of("claim", "a/b", "c").startswith(key_of("claim", "a/b") + "/")
        assert not key_of("claim", "a/b", "c").startswith(key_of("claim", "a") + "/")


class TestTransactions:
    def test_updates_of_eight_threads_and_two_processes_all_count(self, table: StateTable) -> None:
        code = textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from jupyter_hf_cache.storage.state import StateTable
            table = StateTable(Path(sys.argv[1]))
            sys.stdin.readline()
            for _ in range(100):
                table.update("count", lambda old: (old or 0) + 1)
            """
        )
        others = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(table.directory)], stdin=subprocess.PIPE
            )
            for _ in range(2)
        ]

        def count() -> None:
            for _ in range(25):
                table.update("count", lambda old: (old or 0) + 1)
            table.close()

        for other in others:
            assert other.stdin is not None
            other.stdin.write(b"\n")
            other.stdin.close()
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(count) for _ in range(8)]:
                future.result()
        assert [other.wait(60) for other in others] == [0, 0]
        assert table.get("count") == 2 * 100 + 8 * 25

    def test_a_failing_change_leaves_the_row(self, table: StateTable) -> None:
        table.set("a", 1)
        with pytest.raises(RuntimeError), table.transact():
            table.set("a", 2)
            table.set("b", 2)
            raise RuntimeError
        assert dict(table.items()) == {"a": 1}

    def test_a_change_to_none_deletes(self, table: StateTable) -> None:
        table.set("a", 1)
        assert table.update("a", lambda old: None) is None
        assert table.count() == 0

    def test_readers_never_see_half_a_transaction(self, table: StateTable) -> None:
        done = threading.Event()
        torn: list[object] = []

        def read() -> None:
            while not done.is_set():
                found = dict(table.items())
                if found and found["a"] != found["b"]:
                    torn.append(found)
            table.close()

        reader = threading.Thread(target=read)
        reader.start()
        for n in range(200):
            with table.transact():
                table.set("a", n)
                table.set("b", n)
        done.set()
        reader.join()
        assert torn == []


class TestDamage:
    def opened_with(self, directory: Path, damage: bytes | None, at: int = 0) -> StateTable:
        table = StateTable(directory)
        for n in range(500):
            table.set(f"key/{n}", "x" * 200)
        table.close()
        file = directory / "cache.db"
        if damage is None:
            os.truncate(file, file.stat().st_size // 2 // 4096 * 4096 + 100)
        else:
            with file.open("r+b") as opened:
                opened.seek(at)
                opened.write(damage)
        return StateTable(directory)

    @pytest.mark.parametrize(
        ("damage", "at"),
        [
            (b"no database at all", 0),
            (b"\xff" * 40_000, 4096),
            (b"\xff\xff\xff\xff", 44),  # the schema's format
            (None, 0),
        ],
    )
    def test_a_corrupt_table_is_moved_aside_and_starts_anew(
        self, tmp_path: Path, damage: bytes | None, at: int
    ) -> None:
        directory = tmp_path / "table"
        table = self.opened_with(directory, damage, at)
        assert table.was_corrupt
        assert table.count() == 0
        table.set("a", 1)
        assert table.get("a") == 1
        table.close()
        (aside,) = tmp_path.glob("table.corrupt-*")
        assert (aside / "cache.db").exists()
        again = StateTable(directory)
        assert not again.was_corrupt
        again.close()

    @pytest.mark.parametrize(
        "error", [UnicodeDecodeError("utf-8", b"\x82", 0, 1, "no"), TypeError("no"), KeyError("no")]
    )
    def test_whatever_diskcache_stumbles_over_is_damage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        StateTable(tmp_path / "table").close()
        cache, errors = diskcache.Cache, [error]

        def stumble(*args: object, **options: object) -> diskcache.Cache:
            if errors:
                raise errors.pop()
            return cache(*args, **options)

        monkeypatch.setattr(diskcache, "Cache", stumble)
        table = StateTable(tmp_path / "table")
        assert table.was_corrupt
        table.close()

    def test_two_corrupt_tables_in_one_second_are_both_kept(self, tmp_path: Path) -> None:
        for _ in range(2):
            self.opened_with(tmp_path / "table", b"no database", 0).close()
        assert len(list(tmp_path.glob("table.corrupt-*"))) == 2

    def test_damage_found_while_running_is_a_storage_error(self, table: StateTable) -> None:
        for n in range(500):
            table.set(f"key/{n}", "x" * 200)
        table.close()
        with (table.directory / "cache.db").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 40_000)
        with pytest.raises(StorageError):
            list(table.items())


class TestRefusingDisks:
    """Each in a process of its own, where limits and users can be changed."""

    def run(self, code: str, directory: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(directory)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def test_a_full_disk_is_a_storage_error_and_passes_with_the_cause(self, tmp_path: Path) -> None:
        said = self.run(
            """
            import resource, signal, sys
            from pathlib import Path
            from jupyter_hf_cache.errors import StorageError
            from jupyter_hf_cache.storage.state import StateTable

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            table = StateTable(Path(sys.argv[1]) / "table")
            table.set("a", 1)
            size = max(p.stat().st_size for p in table.directory.iterdir())
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 8192, resource.RLIM_INFINITY))
            try:
                for n in range(100):
                    table.update(f"b{n}", lambda old: "x" * 5000)
            except StorageError as error:
                print(error.message)
            else:
                sys.exit("it was written")
            assert table.get("a") == 1
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            table.update("c", lambda old: "x" * 5000)
            assert len(StateTable(table.directory).get("c")) == 5000
            """,
            tmp_path,
        )
        assert "cannot be written" in said

    @pytest.mark.skipif(os.geteuid() != 0, reason="group network: mounting needs root")
    def test_a_disk_without_a_free_byte_is_a_storage_error(self, tmp_path: Path) -> None:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True
        ).returncode:
            pytest.skip("group network: this machine does not allow mounts")
        try:
            table = StateTable(tmp_path / "table")
            table.set("a", 1)
            filler = tmp_path / "filler"
            with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            with pytest.raises(StorageError):
                for n in range(200):
                    table.set(f"b{n}", "x" * 50_000)
            assert table.get("a") == 1
            filler.unlink()
            table.set("c", "x" * 50_000)
            table.close()
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    @pytest.mark.parametrize("exists", [False, True])
    def test_a_directory_that_may_not_be_written(self, exists: bool) -> None:
        root = Path(tempfile.mkdtemp())
        try:
            if exists:
                StateTable(root / "table").close()
            root.chmod(0o555)
            for path in root.rglob("*"):
                path.chmod(0o555 if path.is_dir() else 0o444)
            said = self.run(
                """
                import os, sys
                from pathlib import Path
                from jupyter_hf_cache.errors import StorageError
                from jupyter_hf_cache.storage.state import StateTable
                if os.geteuid() == 0:
                    os.setuid(65534)
                try:
                    StateTable(Path(sys.argv[1]) / "table")
                except StorageError as error:
                    print(error.message)
                """,
                root,
            )
            assert "cannot be opened" in said
            assert not list(root.glob("*.corrupt-*"))
        finally:
            root.chmod(0o700)
            for path in root.rglob("*"):
                path.chmod(0o700)
            shutil.rmtree(root)


def test_the_directory_is_private(table: StateTable) -> None:
    assert table.directory.stat().st_mode & 0o077 == 0
