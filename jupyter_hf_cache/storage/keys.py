"""Named keys: capabilities for people and programs, which can be taken back one by one.

Responsible for: their records, of which none holds a key but only what proves one; saying from
memory whose key something proves to be; when each was used last.
Not responsible for: what a key looks like (`web.capability`) or opens (`web.entrance`).
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from jupyter_hf_cache.errors import BadRequest, StorageError
from jupyter_hf_cache.storage.delayed import Delayed
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

_KEYS = "key/"
_FLUSH_SECONDS = 30.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class NamedKey:
    """One key, as people see it. Times are Unix seconds.

    Args:
        expires: None: never.
        used: None: not yet; may be half a minute old.
    """

    name: str
    created: float
    expires: float | None
    used: float | None


class Keys:
    """Named keys in the table `access`. Thread-safe.

    `is_current` and `name_of` answer from memory, for the event loop; the rest blocks on disk. A
    key that is made or revoked is announced (`access`). With the table all keys are lost: nobody is
    let in by one.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        table: StateTable,
        generations: Generations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._table = table
        self._generations = generations
        self._clock = clock
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}
        self._seen = -1
        self._used: dict[str, float] = {}
        self._writing = Delayed(_FLUSH_SECONDS, self.flush)

    def create(self, name: str, verifier: str, expires: float | None) -> None:
        """Make a key known.

        Args:
            verifier: what `web.capability` makes of the key, and nobody can turn back.
            expires: Unix time in seconds, or None.

        Raises:
            BadRequest: the name cannot be used, or is taken.
            StorageError: it cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise BadRequest(
                "The name of a key is 1 to 64 letters, digits and . _ @ -, and begins with a "
                "letter or digit."
            )
        row = {"created": self._clock(), "expires": expires, "verifier": verifier}
        with self._table.transact():
            if self._table.get(_row_of(name)) is not None:
                raise BadRequest(f"There is a key named {name}.", advice="Revoke it first.")
            self._table.delete(_use_of(name))
            self._table.set(_row_of(name), row)
        self._generations.advance("access")

    def revoke(self, name: str) -> bool:
        """Forget a key, so that it opens nothing any more; False if there is none of that name."""
        with self._table.transact():
            found = self._table.delete(_row_of(name))
            self._table.delete(_use_of(name))
        if found:
            self._generations.advance("access")
        return found

    def all(self) -> list[NamedKey]:
        """Return every key by name, expired ones included."""
        return [
            NamedKey(
                name=key.removeprefix(_KEYS),
                created=row["created"],
                expires=row["expires"],
                used=self._table.get(_use_of(key.removeprefix(_KEYS))),
            )
            for key, row in self._table.items(_KEYS)
        ]

    @property
    def is_current(self) -> bool:
        """Whether memory holds what the table holds; if not, `load` comes first."""
        return self._seen == self._generations.value("access")

    def load(self) -> None:
        """Read which keys there are."""
        seen = self._generations.value("access")
        names = {row["verifier"]: key.removeprefix(_KEYS) for key, row in self._table.items(_KEYS)}
        with self._lock:
            self._names, self._seen = names, seen

    def name_of(self, verifier: str) -> str | None:
        """Return whose key this proves to be, and note that it was used; None if nobody's."""
        name = self._names.get(verifier)
        if name is not None:
            with self._lock:
                self._used[name] = self._clock()
            self._writing.want()
        return name

    def flush(self) -> None:
        """Write when keys were used."""
        with self._lock:
            used, self._used = self._used, {}
        try:
            for name, when in used.items():
                with self._table.transact():
                    if self._table.get(_row_of(name)) is not None:
                        self._table.set(
                            _use_of(name), max(when, self._table.get(_use_of(name)) or 0)
                        )
        except StorageError as error:
            logger.warning("when keys were used is not written: %s", error.message)

    def close(self) -> None:
        """Write what is pending, and nothing afterwards."""
        self._writing.stop()
        self.flush()


def _row_of(name: str) -> str:
    return _KEYS + key_of(name)


def _use_of(name: str) -> str:
    return key_of("key-use", name)
