"""Streams of events, as of the log of a Space.

Responsible for: sending each line when a test says it, and knowing who still listens.
Not responsible for: what else there is to know of a Space.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING

from tornado.iostream import StreamClosedError

if TYPE_CHECKING:
    from .addresses import Address
    from .catalogue import Repo
    from .routes import HubHandler


class Streams:
    """The lines of one log, which every listener gets from its beginning. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self.over = False
        self.listeners = 0

    def say(self, line: str) -> None:
        """Add a line."""
        with self._lock:
            self._lines.append(line)

    def line(self, index: int) -> str | None:
        """The line at `index`, if it is there yet."""
        with self._lock:
            return self._lines[index] if index < len(self._lines) else None

    def came_or_went(self, change: int) -> None:
        """Count a listener."""
        with self._lock:
            self.listeners += change


async def answer_log(handler: HubHandler, repo: Repo, address: Address) -> None:
    """/logs/run and /logs/build."""
    streams = handler.hub.streams
    handler.begin(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    streams.came_or_went(1)
    index = 0
    try:
        await handler.flush()
        while not handler.gone.is_set():
            line = streams.line(index)
            if line is None and streams.over:
                return
            if line is None:
                await asyncio.sleep(0.01)
                continue
            event = {"data": line, "timestamp": "2026-01-01T00:00:00.000Z"}
            handler.write(f"data: {json.dumps(event)}\n\n")
            await handler.flush()
            index += 1
    except StreamClosedError:
        return
    finally:
        streams.came_or_went(-1)
        await handler.end()
