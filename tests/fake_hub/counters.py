"""What the fake Hub was asked, for tests to look at.

Responsible for: one record per request to either origin, and questions over them.
Not responsible for: deciding anything. Records may be read from any thread while requests run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Host = Literal["hub", "cdn"]


@dataclass(slots=True, eq=False)
class Record:
    """One request and, as far as it got, its answer.

    Attributes:
        headers: request headers, names in lower case.
        status: 0 until an answer began.
        bytes_sent: body bytes handed to the connection, counted just before they are written.
        done: the answer ended, or the connection is gone.
    """

    host: Host
    method: str
    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    status: int = 0
    bytes_sent: int = 0
    done: bool = False

    @property
    def uri(self) -> str:
        """Path and query as received; a CDN URL names the file in its query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


class Counters:
    """All records since the last reset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)

    def reset(self) -> None:
        """Forget everything; requests under way are no longer counted."""
        with self._lock:
            self._records = []

    @property
    def requests(self) -> list[Record]:
        """All records, oldest first."""
        with self._lock:
            return list(self._records)

    def select(
        self,
        method: str | None = None,
        path_contains: str | None = None,
        host: Host | None = None,
        status: int | None = None,
    ) -> list[Record]:
        """The records that match every condition; `path_contains` looks at path and query."""
        return [
            r
            for r in self.requests
            if (method is None or r.method == method)
            and (path_contains is None or path_contains in r.uri)
            and (host is None or r.host == host)
            and (status is None or r.status == status)
        ]

    def count(
        self,
        method: str | None = None,
        path_contains: str | None = None,
        host: Host | None = None,
        status: int | None = None,
    ) -> int:
        """How many requests match."""
        return len(self.select(method, path_contains, host, status))

    def bytes(self, host: Host | None = None, path_contains: str | None = None) -> int:
        """Body bytes sent in all matching answers."""
        return sum(r.bytes_sent for r in self.select(None, path_contains, host))

    def wait_until(self, condition: Callable[[Counters], bool], timeout: float = 10.0) -> bool:
        """Block until the condition holds; False if it does not within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def summary(self) -> str:
        """One line per request, for the message of a failed assertion."""
        return "\n".join(
            f"{r.host} {r.method} {r.uri} -> {r.status} ({r.bytes_sent} bytes)"
            for r in self.requests
        )
