"""One worker process of `jupyter hf-cache serve --workers N`.

Responsible for: taking over what the supervisor hands down, serving with it, and stopping when the
supervisor says so or is gone.
Not responsible for: starting it again (`workers`).

Everything secret comes through standard input: a command line and an environment can be read by
others, or are handed on. The first line is the assignment, each later one an order. What the worker
has to say goes the other way, a line of JSON each; its log is the supervisor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import IO, TYPE_CHECKING, Any

from jupyter_hf_cache.endpoint import default_base_path
from jupyter_hf_cache.server import SharedSocket, Stop, serve
from jupyter_hf_cache.startup import describe_failure, open_in_thread

if TYPE_CHECKING:
    from jupyter_hf_cache.service import CacheService
    from jupyter_hf_cache.standalone import ServeApp

DRAIN = b"drain\n"
END = b"end\n"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is told before it starts.

    Args:
        number: from 1; for the log.
        argv: the options of `serve`, as they were given.
        sockets: descriptors of the listening sockets, which the process inherits.
    """

    number: int
    argv: list[str]
    password: str = field(repr=False)
    cache_token: str = field(repr=False)
    sockets: list[int]

    def line(self) -> bytes:
        """The first line of the worker's standard input."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Work until told to stop; the exit code."""
    # A terminal's Ctrl-C reaches everybody; what it means is for the supervisor to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    report = _take_over_stdout()
    # Without a buffer, in which an order could be lost.
    with open(0, "rb", buffering=0, closefd=False) as orders:
        line = orders.readline()
    if not line:
        return 0
    assignment = Assignment(**json.loads(line))
    from jupyter_hf_cache.standalone import ServeApp

    app = ServeApp()
    app.initialize(assignment.argv)
    app.log_format = app.log_format.replace("%(name)s", f"%(name)s worker {assignment.number}")
    if _is_called_off():
        return 0
    sockets = [SharedSocket(fileno=fd) for fd in assignment.sockets]
    for one in sockets:
        one.set_inheritable(False)
    try:
        service = open_in_thread(app.cache).result()
    except Exception as error:
        report({"failed": describe_failure(error)})
        return 1
    asyncio.run(_work(app, service, sockets, assignment, report))
    return 0


def _take_over_stdout() -> Callable[[dict[str, Any]], None]:
    """Keep standard output for reports; whatever else prints, prints to the log."""
    reports: IO[bytes] = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def report(what: dict[str, Any]) -> None:
        # A supervisor that is gone is noticed by its silence.
        with contextlib.suppress(BrokenPipeError):
            reports.write(json.dumps(what).encode() + b"\n")

    return report


def _is_called_off() -> bool:
    """Whether there is an order already, which can only be to stop, or nobody left to give one."""
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable)


async def _work(
    app: ServeApp,
    service: CacheService,
    sockets: list[SharedSocket],
    assignment: Assignment,
    report: Callable[[dict[str, Any]], None],
) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()
    # Whoever signals a whole group reaches the supervisor too, so that this never counts twice.
    loop.add_signal_handler(signal.SIGTERM, stop.asked.set)
    orders = asyncio.create_task(_obey(stop))
    context = app.make_context(service, assignment.password, assignment.cache_token)
    serving = asyncio.create_task(serve(context, sockets, stop, app.stop_seconds))
    report({"ready": default_base_path(service)})
    await serving
    orders.cancel()


async def _obey(stop: Stop) -> None:
    """Do as the supervisor says; when it is gone, finish what runs."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while order := await reader.readline():
        stop.asked.set()
        if order == END:
            stop.at_once.set()
    stop.asked.set()


if __name__ == "__main__":
    sys.exit(main())
