"""What the name of a repo stands for.

Responsible for: where renamed repos are now, for some minutes and per identity; and noticing that a
name belongs to another repo than before, so that everything learnt of the former one is forgotten.
Not responsible for: following a rename (`upstream.lookup`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.storage.pruning import Pruning
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.storage.state import StateTable, key_of

logger = logging.getLogger(__name__)

METADATA_LIFETIMES = 5
"""An alias is believed for so many times the lifetime of a repo's page: five minutes by default."""

_MOST = 10_000
_PREFIX = "owner"

_Key = tuple[str, str, RepoRef]


@dataclass(frozen=True, slots=True)
class _Alias:
    """Args:
    asked: Unix time in seconds.
    """

    repo: RepoRef
    asked: float


class Aliases:
    """Where old names lead, in memory. Thread-safe.

    Kept per identity: that a private repo has a new name is told only to those who may read it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._aliases: OrderedDict[_Key, _Alias] = OrderedDict()

    def get(self, caller: Caller, repo: RepoRef, since: float) -> RepoRef | None:
        """Return where a name led a moment ago.

        Args:
            since: Unix time; what was learnt before is not believed.
        """
        with self._lock:
            alias = self._aliases.get((caller.scope, caller.identity, repo))
        lifetime = METADATA_LIFETIMES * caller.lifetimes.metadata
        if alias is None or alias.asked <= since or not 0 <= time.time() - alias.asked < lifetime:
            return None
        return alias.repo

    def put(self, caller: Caller, repo: RepoRef, moved: RepoRef, asked: float) -> None:
        """The upstream sent a question about `repo` on to `moved`."""
        with self._lock:
            key = (caller.scope, caller.identity, repo)
            self._aliases[key] = _Alias(moved, asked)
            self._aliases.move_to_end(key)
            while len(self._aliases) > _MOST:
                self._aliases.popitem(last=False)

    def forget(self, caller: Caller, repo: RepoRef) -> None:
        """It leads there no more."""
        with self._lock:
            self._aliases.pop((caller.scope, caller.identity, repo), None)


class Owners:
    """Which repo a name belongs to, by the id that the Hub gives a repo for life. Thread-safe;
    blocks on disk.

    Args:
        forget: called when a name belongs to another repo than before: everything that was learnt
            under it at this remote is to be forgotten.
    """

    def __init__(self, table: StateTable, forget: Callable[[Caller, RepoRef], None]) -> None:
        self._table = table
        self._forget = forget
        self._pruning = Pruning(table, _PREFIX + "/", most=_MOST)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, str] = OrderedDict()

    def note(self, caller: Caller, repo: RepoRef, object_id: str) -> None:
        """The page of a repo says which one it is.

        Raises:
            StorageError: what was learnt of the former one cannot be forgotten.
        """
        key = key_of(_PREFIX, caller.scope, repo.type, repo.id)
        with self._lock:
            if self._known.get(key) == object_id:
                return
        former = self._table.get(key)
        if former is not None and former != object_id:
            logger.warning("%s is another repository than before: what was kept is forgotten", repo)
            self._forget(caller, repo)
        try:
            self._table.set(key, object_id)
            self._pruning.written()
        except StorageError as error:
            logger.warning("which repository %s is is not written: %s", repo, error.message)
        with self._lock:
            self._known[key] = object_id
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
