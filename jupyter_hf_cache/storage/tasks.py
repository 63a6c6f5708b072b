"""The record of what the REST API did asynchronously in Pulp's eyes.

Responsible for: keeping the newest tasks so that a client can read one after it got its address,
also after a restart.
Not responsible for: doing anything: the work is over before its task is written.
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from jupyter_hf_cache.storage.state import StateTable, key_of

KEPT_TASKS = 1000

_PREFIX = "task/"


@dataclass(frozen=True, slots=True)
class Task:
    """One finished piece of work.

    Args:
        name: what was done, e.g. "hugging_face.distribution.create".
        started: ISO 8601 in UTC with microseconds and "Z".
        finished: the same.
        created_resources: API addresses of what was created.
        reserved_resources: API addresses of what was worked on.
        result: what the work answered; never a secret.
    """

    id: str
    name: str
    started: str
    finished: str
    created_resources: list[str] = field(default_factory=list)
    reserved_resources: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None


class TaskLog:
    """The newest tasks, kept in a state table; blocks on disk, safe in any thread and process."""

    def __init__(self, table: StateTable) -> None:
        self._table = table

    def record(
        self,
        name: str,
        *,
        started: str,
        finished: str,
        created_resources: Sequence[str] = (),
        reserved_resources: Sequence[str] = (),
        result: dict[str, Any] | None = None,
    ) -> Task:
        """Keep one finished task, and forget the oldest above `KEPT_TASKS`."""
        task = Task(
            id=_ordered_id(),
            name=name,
            started=started,
            finished=finished,
            created_resources=list(created_resources),
            reserved_resources=list(reserved_resources),
            result=result,
        )
        with self._table.transact():
            self._table.set(key_of("task", task.id), asdict(task))
            surplus = self._table.count(_PREFIX) - KEPT_TASKS
            if surplus > 0:
                for key, _ in list(self._table.items(_PREFIX, limit=surplus)):
                    self._table.delete(key)
        return task

    def all(self) -> list[Task]:
        """Return the kept tasks, oldest first."""
        return [Task(**row) for _, row in self._table.items(_PREFIX)]

    def get(self, task_id: str) -> Task | None:
        """Return one task, or None."""
        row = self._table.get(key_of("task", task_id))
        return Task(**row) if row else None

    def delete(self, task_id: str) -> bool:
        """Forget one task; False when it was not there."""
        return self._table.delete(key_of("task", task_id))


def _ordered_id() -> str:
    """Return a UUID of version 7, whose order is that of time (RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000
    number = (milliseconds & (2**48 - 1)) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number))
