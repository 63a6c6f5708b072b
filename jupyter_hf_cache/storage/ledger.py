"""The ledger: what takes room in a cache directory, and for whom room is reserved.

Responsible for: one row for each kept blob, partial and quarantined file, and each running
reservation, shared by all processes on a directory; their totals; the order of last use; telling
whose reservations died with their process.
Not responsible for: what may be reserved and what is evicted (`budget`), or the files (`blobs`).

A SQLite file of its own and no state table: totals are kept by triggers and the order of last use
by an index, so that neither reserving nor evicting ever reads all rows. Nothing in it is more than
a copy of what lies on disk, but for last uses and pins: a corrupt ledger is moved aside and made
again from the files.

Each process holds a lock on a file named by its token for as long as it lives; a reservation whose
token nobody holds was left by a killed process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.state import is_damage

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 10.0
_OLD_SECONDS = 3600.0
_PAGE = 500
_LAST = "\U0010ffff"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    key TEXT PRIMARY KEY, size INTEGER NOT NULL, room INTEGER NOT NULL, used REAL NOT NULL,
    pinned INTEGER NOT NULL, owner TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_used ON entry (used, key) WHERE pinned = 0 AND owner = '';
CREATE INDEX IF NOT EXISTS entry_owner ON entry (owner) WHERE owner != '';
CREATE TABLE IF NOT EXISTS total (
    id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER NOT NULL, room INTEGER NOT NULL
);
INSERT OR IGNORE INTO total SELECT 1, 0, 0;
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entry BEGIN
    UPDATE total SET size = size + NEW.size, room = room + NEW.room;
END;
CREATE TRIGGER IF NOT EXISTS entry_removed AFTER DELETE ON entry BEGIN
    UPDATE total SET size = size - OLD.size, room = room - OLD.room;
END;
CREATE TRIGGER IF NOT EXISTS entry_changed AFTER UPDATE OF size, room ON entry BEGIN
    UPDATE total SET size = size + NEW.size - OLD.size, room = room + NEW.room - OLD.room;
END;
"""
_FIELDS = "key, size, room, used, pinned, owner"
_PUT = (
    f"INSERT INTO entry ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "  # noqa: S608
    "size = excluded.size, room = excluded.room, used = excluded.used, pinned = excluded.pinned, "
    "owner = excluded.owner"
)
_GET = f"SELECT {_FIELDS} FROM entry WHERE key = ?"  # noqa: S608
_RANGE = f"SELECT {_FIELDS} FROM entry WHERE key > ? AND key < ? ORDER BY key LIMIT ?"  # noqa: S608
_OWNED = f"SELECT {_FIELDS} FROM entry WHERE owner != ''"  # noqa: S608
_PROMISED = "SELECT TOTAL(room) FROM entry WHERE owner != ''"
_OLDEST = (
    f"SELECT {_FIELDS} FROM entry WHERE pinned = 0 AND owner = '' AND (used, key) > (?, ?) "  # noqa: S608
    "ORDER BY used, key LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or reservation.

    Args:
        key: "blob/…", "partial/…" or "quarantine/…".
        size: bytes of contents, for people.
        room: bytes that it takes on disk, or may come to take.
        used: Unix time in seconds of the last use.
        owner: token of the process that works on it, or "".
    """

    key: str
    size: int
    room: int
    used: float
    pinned: bool = False
    owner: str = ""


class Ledger:
    """The ledger of one directory. Safe in any number of threads and processes; every method
    blocks on disk and raises StorageError when the disk refuses.

    Args:
        directory: on a disk of this machine; created if missing (0700).

    Attributes:
        token: names this process in its reservations.
        was_corrupt: it was moved aside, and is empty now.
    """

    def __init__(self, directory: Path) -> None:
        self.token = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.was_corrupt = False
        self._directory = directory
        self._lock = threading.RLock()
        self._depth = 0
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._life = self._life_of(self.token)
            self._life.acquire()
            self._connection = self._open_or_begin_anew()
        except (OSError, filelock.Timeout, sqlite3.Error) as error:
            raise StorageError(f"The ledger in {directory} cannot be opened: {error}.") from error

    def _open_or_begin_anew(self) -> sqlite3.Connection:
        path = self._directory / "ledger.db"
        try:
            return _connect(path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # The latter where damaged names are in the words of the former.
            if not is_damage(error):
                raise
            self.was_corrupt = True
            aside = f"ledger.corrupt-{time.time_ns()}"
            logger.warning("the ledger %s is corrupt (%s); moved to %s", path, error, aside)
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).rename(path.with_name(aside + suffix))
            return _connect(path)

    # -- reading and writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the enclosed calls one step that excludes every other process. May be nested."""
        with self._lock, self._storage_errors():
            if self._depth:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite ends a transaction by itself when the disk is full.
                with contextlib.suppress(sqlite3.OperationalError):
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def totals(self) -> tuple[int, int]:
        """Return the size and the room of all entries."""
        ((size, room),) = self._rows("SELECT size, room FROM total")
        return int(size), int(room)

    def get(self, key: str) -> Entry | None:
        """Return one entry."""
        return next(self._entries(_GET, key), None)

    def owned(self) -> list[Entry]:
        """Return the entries that some process works on."""
        return list(self._entries(_OWNED))

    def promised(self) -> int:
        """Return the room of the entries that some process works on, written or not."""
        ((room,),) = self._rows(_PROMISED)
        return int(room)

    def oldest(self, after: Entry | None, limit: int) -> list[Entry]:
        """Return entries that may be evicted, least recently used first, beginning behind
        `after`."""
        start = (after.used, after.key) if after is not None else (float("-inf"), "")
        return list(self._entries(_OLDEST, *start, limit))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the entries whose keys start with `prefix`, in order of their keys."""
        last = prefix
        while page := list(self._entries(_RANGE, last, prefix + _LAST, _PAGE)):
            yield from page
            last = page[-1].key

    def put(self, *entries: Entry) -> None:
        """Add entries, or replace those of the same keys."""
        rows = [(e.key, e.size, e.room, e.used, int(e.pinned), e.owner) for e in entries]
        with self.transaction():
            self._connection.executemany(_PUT, rows)

    def remove(self, key: str) -> None:
        """Remove an entry, if it is there."""
        with self.transaction():
            self._connection.execute("DELETE FROM entry WHERE key = ?", (key,))

    def touch(self, used: Mapping[str, float]) -> None:
        """Note later last uses of entries that are there."""
        rows = [(when, key, when) for key, when in used.items()]
        with self.transaction():
            self._connection.executemany(
                "UPDATE entry SET used = ? WHERE key = ? AND used < ?", rows
            )

    def pin(self, key: str, *, pinned: bool) -> bool:
        """Protect an entry from eviction, or no longer; False when it is not there."""
        with self.transaction():
            cursor = self._connection.execute(
                "UPDATE entry SET pinned = ? WHERE key = ?", (int(pinned), key)
            )
            return cursor.rowcount > 0

    def _entries(self, query: str, *values: object) -> Iterator[Entry]:
        for key, size, room, used, pinned, owner in self._rows(query, *values):
            yield Entry(key, size, room, used, bool(pinned), owner)

    def _rows(self, query: str, *values: object) -> list[Any]:
        with self._lock, self._storage_errors():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"The ledger in {self._directory} cannot be used: {error}."
            ) from error

    # -- whose reservations

    def lives(self, token: str) -> bool:
        """Return whether the process of a token still runs. The mark of a dead one is removed."""
        if token == self.token:
            return True
        life = self._life_of(token)
        if not Path(life.lock_file).exists():
            return False
        try:
            with life:
                # Tokens are never used twice, so nobody can be about to take this name.
                Path(life.lock_file).unlink(missing_ok=True)
        except (filelock.Timeout, OSError):
            return True
        return False

    def tidy(self) -> None:
        """Remove the marks of processes that were killed long ago."""
        for mark in self._directory.glob("*.alive"):
            with contextlib.suppress(OSError):
                # A new one is there for a moment before its process has locked it.
                if time.time() - mark.stat().st_mtime > _OLD_SECONDS:
                    self.lives(mark.stem)

    def _life_of(self, token: str) -> filelock.BaseFileLock:
        path = self._directory / f"{token}.alive"
        return filelock.FileLock(path, timeout=0, thread_local=False, is_singleton=False)

    def close(self) -> None:
        """Close the file, and let others see that this process is gone."""
        with self._lock:
            self._connection.close()
            with contextlib.suppress(OSError):
                Path(self._life.lock_file).unlink(missing_ok=True)
            self._life.release(force=True)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the ledger's file and check it.

    Raises:
        sqlite3.DatabaseError: it is corrupt; OperationalError: it cannot be used now.
    """
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(f"malformed: {answer}")
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection
