"""The configuration of one generation, in memory.

Responsible for: reading all rows of one generation, finding the distribution of a content path, and
telling what differs between two generations.
Not responsible for: when to look again, or any change (`config_store`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from jupyter_hf_cache.storage.config_rows import open_distribution, open_remote
from jupyter_hf_cache.storage.records import Distribution, Remote
from jupyter_hf_cache.storage.secrets import SecretBox
from jupyter_hf_cache.storage.state import StateTable

GENERATION = "generation"
REMOTES = "remote/"
DISTRIBUTIONS = "distribution/"


@dataclass(frozen=True, slots=True)
class Changed:
    """The ids of what is new, different or gone since the last look."""

    remotes: frozenset[str]
    distributions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All remotes and distributions of one generation.

    Args:
        by_path: distributions by the segments of their base path.
        unreadable: by id of a remote, the fields whose secrets another key sealed.
    """

    generation: int = -1
    remotes: dict[str, Remote] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    by_path: dict[tuple[str, ...], Distribution] = field(default_factory=dict)
    unreadable: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def match(self, path: str) -> tuple[Distribution, str] | None:
        """Find the distribution of a percent-encoded path; see `ConfigStore.match`."""
        depth = max(map(len, self.by_path), default=0)
        segments = path.split("/", depth)
        for length in range(1, min(depth, len(segments)) + 1):
            found = self.by_path.get(tuple(unquote(segment) for segment in segments[:length]))
            if found is not None:
                return found, path[len("/".join(segments[:length])) :]
        return None

    def difference(self, before: Snapshot) -> Changed:
        """Return what is not as it was in `before`."""
        return Changed(
            remotes=_changed_keys(before.remotes, self.remotes),
            distributions=_changed_keys(before.distributions, self.distributions),
        )


def load_snapshot(table: StateTable, box: SecretBox) -> Snapshot:
    """Read all rows of one generation, without a lock that would hold up writers."""
    while True:
        generation = table.get(GENERATION) or 0
        remote_rows = list(table.items(REMOTES))
        distribution_rows = list(table.items(DISTRIBUTIONS))
        if (table.get(GENERATION) or 0) == generation:
            break
    opened = [open_remote(row, box) for _, row in remote_rows]
    distributions = [open_distribution(row) for _, row in distribution_rows]
    return Snapshot(
        generation=generation,
        remotes={remote.id: remote for remote, _ in opened},
        distributions={one.id: one for one in distributions},
        by_path={tuple(one.base_path.split("/")): one for one in distributions},
        unreadable={remote.id: names for remote, names in opened if names},
    )


def _changed_keys(before: Mapping[str, object], after: Mapping[str, object]) -> frozenset[str]:
    return frozenset(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
