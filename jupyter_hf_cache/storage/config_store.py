"""Remotes and distributions: what this cache serves, and from where.

Responsible for: keeping them in a state table with their secrets sealed, uniqueness and overlap
decided inside the transaction, a last good copy, an in-memory snapshot for the hot path, and
noticing what another process changed.
Not responsible for: judging values (`web.pulp_schema`) or what follows from a change (`on_change`).
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jupyter_hf_cache.errors import BadRequest, NotFound
from jupyter_hf_cache.storage.config_rows import (
    ConfigCopy,
    DamagedCopy,
    Row,
    open_distribution,
    open_remote,
    read_copy,
    seal_row,
    write_copy,
)
from jupyter_hf_cache.storage.config_snapshot import (
    DISTRIBUTIONS,
    GENERATION,
    REMOTES,
    Changed,
    Snapshot,
    load_snapshot,
)
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import Distribution, Remote
from jupyter_hf_cache.storage.secrets import SecretBox
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.storage.tasks import TaskLog

logger = logging.getLogger(__name__)

# A process that is killed between a change and its announcement must not be believed for ever.
LOOK_SECONDS = 0.5

Changes = Mapping[str, Any]


class ConfigConflict(BadRequest):
    """A value cannot be taken because of another record.

    Args:
        field: the field of the record that is in conflict.
        nested: the message belongs under the field's name once more, as Pulp has it for overlaps.
    """

    def __init__(self, field: str, message: str, *, nested: bool = False) -> None:
        super().__init__(message)
        self.field = field
        self.nested = nested


class ConfigStore:
    """The configured remotes and distributions; safe in any number of threads and processes.

    Reading (`remotes`, `remote`, `distributions`, `distribution`, `match`) answers from memory,
    until a change is announced by this or another process. Twice a second at most it looks at one
    row all the same, for a change that nobody could announce. Writing blocks on disk.

    Args:
        table: where the rows live.
        secrets: seals tokens, passwords and header values.
        copy: the file that holds the last good copy; used when `table` is new but the copy is not.
        generations: where changes are announced.

    Attributes:
        on_change: called with `Changed` after a change of this or another process was taken over,
            in the thread that noticed it. It must not call back into writing methods.
        tasks: the record of finished tasks.
    """

    def __init__(
        self, table: StateTable, secrets: SecretBox, copy: Path, generations: Generations
    ) -> None:
        self._table = table
        self._secrets = secrets
        self._copy = copy
        self._generations = generations
        self._heard = -1
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._checked = 0.0
        self._problems: list[str] = []
        self.on_change: Callable[[Changed], None] | None = None
        self.tasks = TaskLog(table)
        self._restore_lost_rows()
        self._refresh()

    # Reading.

    @property
    def generation(self) -> int:
        """A number that is higher after every change, in all processes."""
        return self._current().generation

    def remotes(self) -> list[Remote]:
        """Return all remotes, oldest first."""
        return sorted(self._current().remotes.values(), key=lambda one: (one.created, one.id))

    def remote(self, remote_id: str) -> Remote | None:
        """Return one remote, or None."""
        return self._current().remotes.get(remote_id)

    def distributions(self) -> list[Distribution]:
        """Return all distributions, oldest first."""
        return sorted(self._current().distributions.values(), key=lambda one: (one.created, one.id))

    def distribution(self, distribution_id: str) -> Distribution | None:
        """Return one distribution, or None."""
        return self._current().distributions.get(distribution_id)

    def match(self, path: str) -> tuple[Distribution, str] | None:
        """Find the distribution that serves a content path.

        Args:
            path: what follows `/pulp/content/`, still percent-encoded.

        Returns:
            The distribution whose `base_path` is a prefix of whole segments, and the rest of the
            path as it came: "" or starting with "/". None when there is no such distribution.
        """
        return self._current().match(path)

    def problems(self) -> list[str]:
        """Return sentences about what was lost or cannot be read, for people."""
        snapshot = self._current()
        unreadable = [
            f"The stored {', '.join(names)} of remote '{snapshot.remotes[remote_id].name}' "
            "cannot be read with the present key. Enter it again."
            for remote_id, names in snapshot.unreadable.items()
        ]
        return [*self._problems, *unreadable]

    # Writing.

    def create_first(self, remote: Changes, distribution: Changes) -> bool:
        """Add a remote and a distribution of it, unless there is any already.

        Of several processes that start together, one creates them.

        Args:
            remote: see `create_remote`.
            distribution: see `create_distribution`; without `remote`.

        Returns:
            Whether this call created them.
        """
        if self.remotes() or self.distributions():
            return False
        with self._writing():
            if self._table.count(REMOTES) or self._table.count(DISTRIBUTIONS):
                return False
            source = self._add_remote(remote)
            self._add_distribution({**distribution, "remote": source.id})
        return True

    def create_remote(self, values: Changes) -> Remote:
        """Add a remote.

        Args:
            values: fields of `Remote`; `name` and `url` at least, without `id` and times.

        Raises:
            ConfigConflict: the name is taken.
            StorageError: it cannot be written.
        """
        with self._writing():
            return self._add_remote(values)

    def update_remote(
        self, remote_id: str, changes: Changes | Callable[[Remote], Changes]
    ) -> Remote:
        """Change some fields of a remote; the others stay as they are, even those not readable.

        Args:
            changes: new values by field, or a function that makes them from the present record
                inside the transaction; it may raise to leave everything as it was.

        Raises:
            NotFound: there is no such remote.
            ConfigConflict: the name is taken.
            StorageError: it cannot be written.
        """
        key = key_of("remote", remote_id)
        with self._writing():
            row = self._existing_row(key)
            former, _ = open_remote(row, self._secrets)
            given = changes if isinstance(changes, Mapping) else changes(former)
            given = {**given, "updated": now()}
            remote = replace(former, **given)
            self._refuse_taken(REMOTES, "name", remote.name, own=key)
            self._table.set(key, row | seal_row(given, self._secrets))
        return remote

    def delete_remote(self, remote_id: str) -> None:
        """Remove a remote; its distributions stay, without a remote.

        Raises:
            NotFound: there is no such remote.
            StorageError: it cannot be written.
        """
        with self._writing():
            if not self._table.delete(key_of("remote", remote_id)):
                raise NotFound("There is no such remote.")
            for key, row in list(self._table.items(DISTRIBUTIONS)):
                if row.get("remote") == remote_id:
                    self._table.set(key, row | {"remote": None, "updated": now()})

    def create_distribution(self, values: Changes) -> Distribution:
        """Add a distribution.

        Args:
            values: fields of `Distribution`; `name` and `base_path` at least, without `id` and
                times.

        Raises:
            ConfigConflict: name or base path is taken, the base path overlaps with another one, or
                the remote does not exist.
            StorageError: it cannot be written.
        """
        with self._writing():
            return self._add_distribution(values)

    def update_distribution(
        self, distribution_id: str, changes: Changes | Callable[[Distribution], Changes]
    ) -> Distribution:
        """Change some fields of a distribution; see `update_remote`.

        Raises:
            NotFound: there is no such distribution.
            ConfigConflict: as in `create_distribution`.
            StorageError: it cannot be written.
        """
        key = key_of("distribution", distribution_id)
        with self._writing():
            row = self._existing_row(key)
            former = open_distribution(row)
            given = changes if isinstance(changes, Mapping) else changes(former)
            given = {**given, "updated": now()}
            distribution = replace(former, **given)
            self._refuse_distribution(distribution, key)
            self._table.set(key, row | given)
        return distribution

    def delete_distribution(self, distribution_id: str) -> None:
        """Stop serving a distribution; what is cached stays.

        Raises:
            NotFound: there is no such distribution.
            StorageError: it cannot be written.
        """
        with self._writing():
            if not self._table.delete(key_of("distribution", distribution_id)):
                raise NotFound("There is no such distribution.")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction that ends with a new generation, a new copy and a new snapshot."""
        with self._table.transact():
            yield
            generation = (self._table.get(GENERATION) or 0) + 1
            self._table.set(GENERATION, generation)
            # Inside the transaction, so that copies of two processes are written in their order.
            self._write_copy(generation)
        self._generations.advance("config")
        self._refresh()

    def _add_remote(self, values: Changes) -> Remote:
        moment = now()
        remote = Remote(id=str(uuid.uuid4()), **values, created=moment, updated=moment)
        self._refuse_taken(REMOTES, "name", remote.name)
        self._table.set(key_of("remote", remote.id), seal_row(asdict(remote), self._secrets))
        return remote

    def _add_distribution(self, values: Changes) -> Distribution:
        moment = now()
        distribution = Distribution(id=str(uuid.uuid4()), **values, created=moment, updated=moment)
        key = key_of("distribution", distribution.id)
        self._refuse_distribution(distribution, key)
        self._table.set(key, asdict(distribution))
        return distribution

    def _refuse_distribution(self, wanted: Distribution, own: str) -> None:
        self._refuse_taken(DISTRIBUTIONS, "name", wanted.name, own)
        self._refuse_taken(DISTRIBUTIONS, "base_path", wanted.base_path, own)
        self._refuse_overlap(wanted.base_path, own)
        if wanted.remote and self._table.get(key_of("remote", wanted.remote)) is None:
            raise ConfigConflict("remote", "Invalid hyperlink - Object does not exist.")

    def _refuse_taken(self, prefix: str, field: str, value: str, own: str | None = None) -> None:
        for key, row in self._table.items(prefix):
            if key != own and row[field] == value:
                raise ConfigConflict(field, "This field must be unique.")

    def _refuse_overlap(self, base_path: str, own: str) -> None:
        for key, row in self._table.items(DISTRIBUTIONS):
            other = row["base_path"]
            if key != own and (
                base_path.startswith(f"{other}/") or other.startswith(f"{base_path}/")
            ):
                raise ConfigConflict(
                    "base_path",
                    f"Overlaps with existing distribution '{row['name']}'",
                    nested=True,
                )

    def _existing_row(self, key: str) -> Row:
        row = self._table.get(key)
        if not isinstance(row, dict):
            raise NotFound(f"There is no such {key.partition('/')[0]}.")
        return row

    # The snapshot.

    def _current(self) -> Snapshot:
        if self._generations.value("config") != self._heard:
            self._refresh()
        elif time.monotonic() - self._checked >= LOOK_SECONDS and self._missed_a_change():
            # The others have missed it too, and so has what was made of it in memory.
            self._generations.advance("config")
            self._refresh()
        return self._snapshot

    def _missed_a_change(self) -> bool:
        with self._lock:
            if time.monotonic() - self._checked < LOOK_SECONDS:
                return False
            self._checked = time.monotonic()
            return (self._table.get(GENERATION) or 0) != self._snapshot.generation

    def _refresh(self) -> None:
        with self._lock:
            before = self._snapshot
            heard = self._generations.value("config")
            self._snapshot = load_snapshot(self._table, self._secrets)
            self._heard = heard
            self._checked = time.monotonic()
            changed = self._snapshot.difference(before)
        if self.on_change is not None and (changed.remotes or changed.distributions):
            self.on_change(changed)

    # The copy.

    def _write_copy(self, generation: int) -> None:
        copy = ConfigCopy(
            generation=generation,
            remotes={row["id"]: row for _, row in self._table.items(REMOTES)},
            distributions={row["id"]: row for _, row in self._table.items(DISTRIBUTIONS)},
        )
        try:
            write_copy(self._copy, copy)
        except OSError as error:
            # The table is what counts; a change is not refused because its second copy failed.
            logger.warning("the copy of the configuration cannot be written: %s", error)

    def _restore_lost_rows(self) -> None:
        if self._table.get(GENERATION) is not None:
            return
        try:
            copy = read_copy(self._copy, self._secrets)
        except DamagedCopy:
            aside = self._copy.with_name(f"{self._copy.name}.damaged")
            self._copy.replace(aside)
            self._note(f"The copy of the configuration was damaged; it is kept as {aside}.")
            copy = None
        if copy is None:
            if self._table.was_corrupt:
                self._note("The configuration was lost: remotes have to be created again.")
            return
        with self._table.transact():
            if self._table.get(GENERATION) is not None:
                return
            for remote_id, row in copy.remotes.items():
                self._table.set(key_of("remote", remote_id), row)
            for distribution_id, row in copy.distributions.items():
                self._table.set(key_of("distribution", distribution_id), row)
            self._table.set(GENERATION, copy.generation + 1)
        if copy.remotes or copy.distributions:
            self._note(f"The configuration was lost and has been restored from {self._copy}.")

    def _note(self, problem: str) -> None:
        logger.warning("%s", problem)
        self._problems.append(problem)


def now() -> str:
    """Return the present time as ISO 8601 in UTC with microseconds and "Z"."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
