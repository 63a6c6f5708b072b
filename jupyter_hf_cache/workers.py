"""The supervisor of `jupyter hf-cache serve --workers N`.

Responsible for: starting workers on one set of listening sockets, starting others for those that
die, and passing on the wish to stop.
Not responsible for: what a worker does (`worker`), or requests: it answers none, so that nothing
a client sends can end it.

Workers are fresh interpreters, not forks: this process may have threads. They accept from the same
sockets, so that a connection that waits is taken by whoever is free, and none is lost with the one
that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import Logger, LoggerAdapter
from typing import Any, cast

from jupyter_hf_cache.server import CLOSE_SECONDS, Stop
from jupyter_hf_cache.worker import DRAIN, END, Assignment

# Not `-m`: that would look for modules in the directory from which the server was started.
_COMMAND = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from jupyter_hf_cache.worker import main; sys.exit(main())"
)
_SOON = 5.0
_MOST_EARLY_DEATHS = 5
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 15.0
_GRACE_SECONDS = 5.0


class CannotStart(Exception):
    """The server cannot start or go on; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What all workers have in common.

    Args:
        assignment: of the first one.
        environ: without secrets that a process hands on to its children.
        drain_seconds: how long running answers get.
    """

    assignment: Assignment
    environ: dict[str, str]
    drain_seconds: float


class _Worker:
    """One running process.

    Attributes:
        ready: it takes requests.
        failure: why it could not start, in its own words.
    """

    def __init__(self, process: asyncio.subprocess.Process, number: int) -> None:
        self.process = process
        self.number = number
        # Both are pipes, because they were asked for.
        self._orders = cast("asyncio.StreamWriter", process.stdin)
        self._reports = cast("asyncio.StreamReader", process.stdout)
        self.started = time.monotonic()
        self.ready = False
        self.failure = ""
        self.base_path = ""

    async def get_ready(self) -> bool:
        """Wait until it takes requests, or has ended."""
        while line := await self._reports.readline():
            said = json.loads(line)
            self.failure = said.get("failed", "")
            if "ready" in said:
                self.ready, self.base_path = True, said["ready"]
                return True
        await self.process.wait()
        return False

    def stop(self, how: bytes) -> None:
        """Tell it to stop."""
        if not self.ready:
            # It does not listen yet, and has nothing to finish.
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        self.order(how)

    def order(self, what: bytes) -> None:
        """Write to it; one that has ended does not hear."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._orders.write(what)

    def describe_end(self) -> str:
        """How it ended, for people."""
        code = self.process.returncode or 0
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"


class Supervisor:
    """Keeps a number of workers running.

    Args:
        sockets: listening; closed when the server stops.
    """

    def __init__(
        self,
        count: int,
        orders: Orders,
        sockets: Sequence[Any],
        log: Logger | LoggerAdapter[Any],
    ) -> None:
        self._count = count
        self._orders = orders
        self._sockets = list(sockets)
        self._log = log
        self._workers: dict[int, _Worker] = {}
        self._early_deaths = 0
        self._hopeless: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, stop: Stop) -> str | None:
        """Start all workers and wait until they take requests.

        The first one goes ahead: what is made once is made by it, and what fails is said once.

        Returns:
            The base path of the default distribution; None when told to stop in the meantime.

        Raises:
            CannotStart: a worker could not.
        """
        starting = asyncio.create_task(self._start_all())
        asked = asyncio.create_task(stop.asked.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            self._close_sockets()
            await self._end_all(DRAIN, 0.0)
            return None
        await starting
        for worker in self._workers.values():
            if not worker.ready:
                await self._end_all(DRAIN, 0.0)
                raise CannotStart(
                    worker.failure or f"Worker {worker.number} {worker.describe_end()}."
                )
        return self._workers[1].base_path

    async def _start_all(self) -> None:
        first = await self._start(1)
        if await first.get_ready():
            others = [await self._start(number) for number in range(2, self._count + 1)]
            for worker in others:
                await worker.get_ready()

    async def run(self, stop: Stop) -> None:
        """Keep them running until told to stop; then end with them.

        Raises:
            CannotStart: they die as soon as they are started.
        """
        keepers = [asyncio.create_task(self._keep(number)) for number in list(self._workers)]
        asked = asyncio.create_task(stop.asked.wait())
        try:
            ends: set[asyncio.Future[Any]] = {asked, self._hopeless, *keepers}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            self._close_sockets()
            await self._stop(stop)
        finally:
            asked.cancel()
        for done in (self._hopeless, *keepers):
            if done.done() and not done.cancelled():
                done.result()

    async def _start(self, number: int) -> _Worker:
        assignment = self._orders.assignment
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._orders.environ,
            pass_fds=assignment.sockets,
            start_new_session=True,
        )
        worker = self._workers[number] = _Worker(process, number)
        worker.order(replace(assignment, number=number).line())
        return worker

    async def _keep(self, number: int) -> None:
        """Have a worker in this place, always."""
        early = 0
        while True:
            worker = self._workers[number]
            if not worker.ready:
                await worker.get_ready()
            await worker.process.wait()
            worker.ready = False
            lived = time.monotonic() - worker.started
            early = early + 1 if lived < _SOON else 0
            self._note_death(worker, early > 0)
            pause = min(_FIRST_PAUSE * 2 ** (early - 1), _LONGEST_PAUSE) if early else 0.0
            self._log.warning(
                "worker %d (process %d) %s; starting another%s",
                number,
                worker.process.pid,
                worker.failure or worker.describe_end(),
                f" in {pause:g} s" if pause else "",
            )
            await asyncio.sleep(pause)
            await self._start_another(number)

    async def _start_another(self, number: int) -> None:
        while True:
            try:
                await self._start(number)
            except OSError as error:
                self._log.error("worker %d cannot be started: %s", number, error)
                await asyncio.sleep(_LONGEST_PAUSE)
            else:
                return

    def _note_death(self, worker: _Worker, early: bool) -> None:
        killed = worker.process.returncode in (-signal.SIGKILL, -signal.SIGTERM)
        if not early:
            self._early_deaths = 0
        elif not killed:
            self._early_deaths += 1
        serving = any(other.ready for other in self._workers.values())
        if self._early_deaths >= _MOST_EARLY_DEATHS and not serving and not self._hopeless.done():
            reason = worker.failure or f"The last one {worker.describe_end()}."
            self._hopeless.set_exception(
                CannotStart(f"workers die as soon as they are started. {reason}")
            )

    async def _stop(self, stop: Stop) -> None:
        self._log.info("stopping: %d workers finish what runs", len(self._workers))
        ending = asyncio.create_task(self._end_all(DRAIN, self._orders.drain_seconds))
        hurry = asyncio.create_task(stop.at_once.wait())
        await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ending.done():
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
            await self._end_all(END, 0.0)

    def _close_sockets(self) -> None:
        for one in self._sockets:
            one.close()

    async def _end_all(self, order: bytes, seconds: float) -> None:
        """Have all workers end; those that have not after some seconds are killed."""
        for worker in self._workers.values():
            worker.stop(order)
        waits = [asyncio.create_task(one.process.wait()) for one in self._workers.values()]
        if not waits:
            return
        try:
            await asyncio.wait(waits, timeout=seconds + CLOSE_SECONDS + _GRACE_SECONDS)
        finally:
            for wait in waits:
                wait.cancel()
        for worker in self._workers.values():
            if worker.process.returncode is None:
                self._log.warning("worker %d does not end and is killed", worker.number)
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
                await worker.process.wait()
