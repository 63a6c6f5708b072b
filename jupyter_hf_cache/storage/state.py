"""State tables: small records in diskcache, as JSON text.

Responsible for: one table per directory, safe to use from any thread and any process on this
machine, with ranged listing and read-modify-write; noticing that a table is corrupt and moving it
aside.
Not responsible for: what the records mean, or keeping bodies of files (`blobs`).

diskcache's own `Disk` pickles what it does not know and writes long values to files; both are
turned off
here: a state directory that somebody else wrote to must never run code, and a value must live and
die with its row. `JSONDisk` is not used because it compresses its keys, so that ranges of keys
cannot be listed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import diskcache

from jupyter_hf_cache.errors import StorageError

logger = logging.getLogger(__name__)

_NO_LIMIT = 2**62
_PAGE = 200
_ROWS = "SELECT key, mode, filename, value FROM Cache WHERE key "
_RANGE_FROM = _ROWS + ">= ? AND key < ? ORDER BY key LIMIT ?"
_RANGE_BEHIND = _ROWS + "> ? AND key < ? ORDER BY key LIMIT ?"
# What SQLite says when a sound table cannot be opened now.
_IN_THE_WAY = (
    "lock", "busy", "full", "readonly", "read-only", "unable to open", "i/o error", "memory",
    "interrupted", "permission",
)  # fmt: skip
# What Python says of a damaged row.
_NO_TEXT = "Could not decode to UTF-8"
_COUNT = "SELECT COUNT(*) FROM Cache WHERE key >= ? AND key < ?"
_BEYOND = (
    "SELECT key FROM Cache WHERE key >= ? AND key < ? ORDER BY store_time DESC LIMIT -1 OFFSET ?"
)


class JSONTextDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys are text as they are, values are JSON text in the row itself."""

    def put(self, key: Any) -> tuple[str, bool]:
        """Accept text keys only, so that nothing is ever pickled."""
        if not isinstance(key, str):
            raise TypeError(f"state keys are text, not {type(key).__name__}")
        return key, True

    def get(self, key: Any, raw: bool) -> str:
        """Return the key as it stands in the row.

        Raises:
            ValueError: the row was not written by this class.
        """
        if not raw or not isinstance(key, str):
            raise ValueError("foreign key in a state table")
        return key

    def store(
        self, value: Any, read: bool, key: Any = diskcache.UNKNOWN
    ) -> tuple[int, int, str | None, str]:
        """Turn a value into JSON text that stays in the row."""
        return 0, diskcache.core.MODE_RAW, None, json.dumps(value, separators=(",", ":"))

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """Parse JSON text.

        Raises:
            ValueError: the row was not written by this class.
        """
        if mode != diskcache.core.MODE_RAW or filename or not isinstance(value, str):
            raise ValueError("foreign value in a state table")
        return json.loads(value)


def key_of(*parts: str) -> str:
    """Join parts to a key whose prefixes are ranges: each part is percent-encoded, "/"
    separates."""
    return "/".join(quote(part, safe=" ~@+=,:") for part in parts)


class StateTable:
    """A mapping from text keys to JSON values in one directory.

    All methods block on disk and belong in a worker thread; all are safe in any number of threads
    and processes.

    Args:
        directory: created if missing (0700).

    Raises:
        StorageError: the directory cannot be written. A corrupt table does not raise: it is moved
        aside to
            `<directory>.corrupt-<time>`, `self.was_corrupt` is True and the table starts empty.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.was_corrupt = False
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._cache = self._open()
        except (sqlite3.DatabaseError, ValueError, TypeError, LookupError) as error:
            # The latter are what diskcache makes of damaged settings of its own.
            if not is_damage(error):
                raise StorageError(
                    f"The state in {directory} cannot be opened: {error}."
                ) from error
            self._move_aside(error)
            self._cache = self._open()
        except OSError as error:
            raise StorageError(f"The state in {directory} cannot be opened: {error}.") from error

    def _open(self) -> diskcache.Cache:
        cache = diskcache.Cache(
            str(self.directory),
            disk=JSONTextDisk,
            eviction_policy="none",
            cull_limit=0,
            size_limit=_NO_LIMIT,
            statistics=0,
            # What is mapped and cannot be read ends the process; a refused call is only an error.
            sqlite_mmap_size=0,
            timeout=10,
        )
        with contextlib.closing(
            sqlite3.connect(self.directory / "cache.db", timeout=10)
        ) as connection:
            (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            cache.close()
            raise sqlite3.DatabaseError(f"malformed: {answer}")
        return cache

    def _move_aside(self, error: Exception) -> None:
        self.was_corrupt = True
        aside = self.directory.with_name(f"{self.directory.name}.corrupt-{int(time.time())}")
        number = 0
        while aside.exists():
            number += 1
            aside = aside.with_name(f"{aside.name}.{number}")
        logger.warning(
            "state table %s is corrupt (%s); moved to %s", self.directory, error, aside.name
        )
        self.directory.rename(aside)
        self.directory.mkdir(mode=0o700)

    def get(self, key: str) -> Any | None:
        """Return the value of `key`, or None; also None for a row that something else wrote.

        Raises:
            StorageError: the table cannot be read.
        """
        with self._storage_errors("read"):
            try:
                return self._cache.get(key)
            except (ValueError, sqlite3.OperationalError) as foreign:
                if isinstance(foreign, sqlite3.Error) and _NO_TEXT not in str(foreign):
                    raise
                logger.warning("row %r of %s is ignored: %s", key, self.directory, foreign)
                return None

    def set(self, key: str, value: Any) -> None:
        """Write one value, durable against a killed process.

        Raises:
            StorageError: the disk is full or read-only.
        """
        with self._storage_errors():
            self._cache.set(key, value)

    def delete(self, key: str) -> bool:
        """Remove one key; False when it was not there."""
        with self._storage_errors():
            return bool(self._cache.delete(key))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every key that starts with `prefix`; returns how many there were."""
        keys = [key for key, _ in self.items(prefix)]
        with self.transact():
            return sum(self.delete(key) for key in keys)

    def keep_latest(self, prefix: str, most: int) -> list[str]:
        """Remove all but the `most` latest written keys with `prefix`; returns the removed ones."""
        rows = self._cache._sql(_BEYOND, (prefix, prefix + "\U0010ffff", most)).fetchall()
        keys = [key for (key,) in rows]
        with self.transact():
            for key in keys:
                self.delete(key)
        return keys

    def items(
        self, prefix: str = "", *, after: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield (key, value) in key order for keys with `prefix`, starting behind `after`.

        Reads page by page through the key index, so the cost is that of the rows returned. Rows
        that something else wrote are left out.
        """
        upper = prefix + "\U0010ffff"
        last, inclusive = (
            (after, False) if after is not None and after >= prefix else (prefix, True)
        )
        left = limit if limit is not None else _NO_LIMIT
        while left > 0:
            # diskcache lists only whole tables; the range needs its SQL connection, whose table and
            # index ("Cache", unique on key and raw) are fixed by the on-disk format.
            with self._storage_errors("read"):
                rows = self._cache._sql(
                    _RANGE_FROM if inclusive else _RANGE_BEHIND, (last, upper, min(_PAGE, left))
                ).fetchall()
            for key, mode, filename, value in rows:
                try:
                    yield key, self._cache.disk.fetch(mode, filename, value, False)
                except ValueError as foreign:
                    logger.warning("row %r of %s is ignored: %s", key, self.directory, foreign)
            if len(rows) < min(_PAGE, left):
                return
            left -= len(rows)
            last, inclusive = rows[-1][0], False

    def count(self, prefix: str = "") -> int:
        """Return how many keys start with `prefix`."""
        with self._storage_errors("read"):
            ((number,),) = self._cache._sql(_COUNT, (prefix, prefix + "\U0010ffff")).fetchall()
        return int(number)

    @contextlib.contextmanager
    def transact(self) -> Iterator[None]:
        """Make the enclosed calls one transaction, exclusive across threads and processes."""
        # No retry: diskcache takes a read-only disk for a busy one, and would try for ever. A busy
        # table is waited for by SQLite itself, up to the time-out given when it was opened.
        with self._storage_errors(), self._cache.transact(retry=False):
            yield

    def update(self, key: str, change: Callable[[Any | None], Any]) -> Any:
        """Replace the value by `change(value)` in one transaction and return the new value.

        `change` gets None for a missing key; returning None deletes the key.
        """
        with self.transact():
            value = change(self.get(key))
            if value is None:
                self.delete(key)
            else:
                self.set(key, value)
        return value

    def close(self) -> None:
        """Close this thread's connection; others close with their threads."""
        self._cache.close()

    @contextlib.contextmanager
    def _storage_errors(self, verb: str = "written") -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, diskcache.Timeout, OSError) as error:
            raise StorageError(
                f"The state in {self.directory} cannot be {verb}: {error}."
            ) from error


def is_damage(error: Exception) -> bool:
    """Return whether a table that cannot be opened is damaged: anything but a disk or a process
    that is in the way."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    return not any(words in str(error).lower() for words in _IN_THE_WAY)
