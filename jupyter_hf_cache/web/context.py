"""What every handler shares: one `WebContext` per server, none of it global.

Responsible for: holding the service (or the reason why there is none), the access rules, and the
two bounded thread pools that keep work off the event loop.
Not responsible for: opening the service (`app`, `standalone`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TypeVar

from jupyter_hf_cache.errors import HfCacheError
from jupyter_hf_cache.web.capability import Capabilities
from jupyter_hf_cache.web.cors import CorsRules
from jupyter_hf_cache.web.credentials import CACHE_TOKEN_PREFIX, Authenticator, Throttle
from jupyter_hf_cache.web.entrance import AllowAnonymous, Rules
from jupyter_hf_cache.web.guard import HostRules
from jupyter_hf_cache.web.network import IPNetwork

if TYPE_CHECKING:
    from jupyter_hf_cache.environment import Injection
    from jupyter_hf_cache.service import CacheService
    from jupyter_hf_cache.service.ready import ReadyAnswers

T = TypeVar("T")

CAPABILITY_PURPOSE = "capability"

_METADATA_THREADS = 32
_DISK_THREADS = 8
# Few, and behind the event loop where both want the processor: eight downloads must not make the
# page that somebody looks at slow.
_SENDING_THREADS = 4
_SENDING_NICENESS = 5
_THROUGH_THREADS = 32
_SETTLE_SECONDS = 1.0


class Unavailable(HfCacheError):
    """The cache is not open: still starting, or it cannot be opened (503)."""

    status = 503


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Who may talk to this server; from `config.HfCache`.

    Args:
        trusted_proxies: whose forwarding headers are believed.
        capability_ttl: seconds for which a capability made by this server is good.
        cors: other origins whose pages may read content. Jupyter's own apps have none: content
            would be one mistake away from the login.
    """

    allow_anonymous: AllowAnonymous = "loopback"
    hosts: HostRules = field(default_factory=HostRules)
    trusted_proxies: tuple[IPNetwork, ...] = ()
    capability_ttl: float = 30 * 86400.0
    cors: CorsRules = field(default_factory=CorsRules)


class ServiceSlot:
    """Holds the service once it is open, else why it is not. Written and read on the event loop."""

    def __init__(self, service: CacheService | None = None) -> None:
        self.service: CacheService | None = None
        self.capabilities: Capabilities | None = None
        self.problem: str | None = "The cache is still being opened."
        if service is not None:
            self.fill(service)

    def fill(self, service: CacheService) -> None:
        """The service is open."""
        self.service = service
        self.capabilities = Capabilities([service.secrets.derive(CAPABILITY_PURPOSE)])
        self.problem = None

    def fail(self, problem: str) -> None:
        """The service cannot be opened.

        Args:
            problem: what happened and what to set, for the log, the API and the UI.
        """
        self.problem = problem

    def take(self) -> CacheService | None:
        """Empty the slot, for closing what was in it."""
        service, self.service = self.service, None
        self.problem = "The cache is shutting down."
        return service


class Pools:
    """Bounded threads for blocking work: one pool for what waits for a table or a short answer of
    the upstream, one for reading files, one for sending them, one for bodies that pass through,
    which may take hours.
    """

    def __init__(self) -> None:
        self.metadata = ThreadPoolExecutor(_METADATA_THREADS, thread_name_prefix="hf-cache-meta")
        self.disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="hf-cache-disk")
        self.sending = ThreadPoolExecutor(
            _SENDING_THREADS, thread_name_prefix="hf-cache-send", initializer=_let_others_go_first
        )
        self.through = ThreadPoolExecutor(_THROUGH_THREADS, thread_name_prefix="hf-cache-through")

    def close(self) -> None:
        """Take no more work and drop what has not begun; does not wait."""
        for pool in (self.metadata, self.disk, self.sending, self.through):
            pool.shutdown(wait=False, cancel_futures=True)


def _let_others_go_first() -> None:
    # Elsewhere it would concern the whole process.
    if sys.platform.startswith("linux"):
        os.nice(_SENDING_NICENESS)


def new_cache_token() -> str:
    """A token that opens this process's API and content, and means nothing elsewhere."""
    return CACHE_TOKEN_PREFIX + secrets.token_urlsafe(32)


@dataclass(eq=False)
class WebContext:
    """The third item of every route.

    A second listener of the same server uses `dataclasses.replace` on it: slot, pools, throttle and
    the set of running requests stay shared.

    Args:
        base_url: starts and ends with "/", percent-encoded as Jupyter has it.
        cache_token: from `new_cache_token`, known to readers of the runtime file.
        injection: what was put into the environment of kernels; None in apps that start none.
        running: requests that are being answered; whoever detaches a connection calls
            `handler.on_finish()` when it is handed back.
        on_activity: called with the time (UTC) whenever content is asked for or sent.
    """

    slot: ServiceSlot
    authenticator: Authenticator
    options: AccessOptions = field(default_factory=AccessOptions)
    base_url: str = "/"
    cache_token: str = field(default_factory=new_cache_token, repr=False)
    injection: Injection | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("jupyter_hf_cache"))
    throttle: Throttle = field(default_factory=Throttle, repr=False)
    pools: Pools = field(default_factory=Pools, repr=False)
    running: set[object] = field(default_factory=set, repr=False)
    on_activity: list[Callable[[datetime], None]] = field(default_factory=list, repr=False)
    _settling: asyncio.TimerHandle | None = field(default=None, init=False, repr=False)

    @property
    def service(self) -> CacheService:
        """The open service.

        Raises:
            Unavailable: 503, with the reason.
        """
        if self.slot.service is None:
            raise Unavailable(self.slot.problem or "The cache is not open.")
        return self.slot.service

    @property
    def problem(self) -> str | None:
        """Why there is no service, or None if there is one."""
        return self.slot.problem

    @property
    def capabilities(self) -> Capabilities | None:
        """None while the service, and so the key, is not open."""
        return self.slot.capabilities

    @property
    def rules(self) -> Rules:
        """What `entrance.admit` needs to know of this server."""
        return Rules(
            self.options.allow_anonymous,
            self.capabilities,
            self.cache_token,
            self.throttle,
            self.find_key,
        )

    async def find_key(self, verifier: str) -> str | None:
        """The name of the key that this verifies, or None if there is none."""
        keys = self.service.keys
        if not keys.is_current:
            await self.run(keys.load)
        return keys.name_of(verifier)

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Run blocking metadata work (tables, upstream questions) in its pool."""
        return await self._submit(self.pools.metadata, function, *args)

    async def run_disk(self, function: Callable[..., T], *args: object) -> T:
        """Run blocking file work in its pool."""
        return await self._submit(self.pools.disk, function, *args)

    async def run_through(self, function: Callable[..., T], *args: object) -> T:
        """Run one step of passing a body through in its pool."""
        return await self._submit(self.pools.through, function, *args)

    def settle_soon(self, ready: ReadyAnswers) -> None:
        """Have what was answered from memory written down, once for all answers of a moment."""
        if self._settling is None:
            loop = asyncio.get_running_loop()
            self._settling = loop.call_later(_SETTLE_SECONDS, self._settle, ready)

    def _settle(self, ready: ReadyAnswers) -> None:
        self._settling = None
        # After the pools are closed the service does it itself.
        with contextlib.suppress(RuntimeError):
            self.pools.disk.submit(ready.settle)

    def touch(self) -> None:
        """Content is being asked for or sent: an idle culler must not end this server now."""
        now = datetime.now(timezone.utc)
        for report in self.on_activity:
            report(now)

    @staticmethod
    async def _submit(pool: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, functools.partial(function, *args))
