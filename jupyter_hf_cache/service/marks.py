"""What the Hub's pages said last about who may see a repo: the marks that lists show.

Responsible for: keeping "private" and "gated" per (remote, repo), with the time.
Not responsible for: the right to read, which never depends on a mark (`upstream.rights`).
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.paths import HubRequest, Kind
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.listings import Listing

logger = logging.getLogger(__name__)

# A mark that says nothing new is written again only when it is this old.
_REWRITE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a repo's page said.

    Args:
        private, gated: None where it did not say.
        noted: Unix time in seconds when it was asked for.
    """

    private: bool | None
    gated: bool | None
    noted: float

    def says_as_much(self, later: Mark) -> bool:
        """Return whether a mark need not be replaced by a later one."""
        same = (self.private, self.gated) == (later.private, later.gated)
        return same and 0 <= later.noted - self.noted < _REWRITE_SECONDS


class Marks:
    """Marks in a state table. Thread-safe; blocks on disk."""

    def __init__(self, table: StateTable) -> None:
        self._table = table

    def note(self, scope: str, request: HubRequest, page: Listing) -> None:
        """Keep what a repo's page says; where the disk refuses, nothing is shown."""
        if request.kind is not Kind.INFO or request.repo is None:
            return
        mark = Mark(page.private, page.gated, page.fetched)
        if mark.private is None and mark.gated is None:
            return
        former = self.of(scope, request.repo)
        if former is not None and former.says_as_much(mark):
            return
        try:
            self._table.set(_row_of(scope, request.repo), asdict(mark))
        except StorageError as error:
            logger.warning("the mark of %s is not written: %s", request.repo, error.message)

    def of(self, scope: str, repo: RepoRef) -> Mark | None:
        """Return the last mark, None if no page said anything."""
        row = self._table.get(_row_of(scope, repo))
        return Mark(**row) if row is not None else None


def _row_of(scope: str, repo: RepoRef) -> str:
    return key_of("mark", scope, repo.type, repo.id)
