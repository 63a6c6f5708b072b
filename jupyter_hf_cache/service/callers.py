"""From a request to who asks what, of which remote.

Responsible for: finding the distribution and the remote behind an address, the `Caller` that a
request becomes, and one client per remote.
Not responsible for: which credential a caller is given (`service.caller`), or the answer
(`service.requests`).
"""

from __future__ import annotations

import threading
from dataclasses import replace

from jupyter_hf_cache import __version__
from jupyter_hf_cache.errors import NotFound
from jupyter_hf_cache.protocol.paths import HubRequest, Kind
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import (
    Asker,
    Caller,
    choose_credential,
    identity_of,
    is_owner,
    is_public_only,
    may_pass,
    without_credentials,
)
from jupyter_hf_cache.service.mirrors import MirrorRemote, mirrors_of
from jupyter_hf_cache.service.options import ServiceOptions
from jupyter_hf_cache.storage.config_store import ConfigStore
from jupyter_hf_cache.storage.records import ANONYMOUS, Distribution, Remote
from jupyter_hf_cache.storage.secrets import SecretBox
from jupyter_hf_cache.upstream.allowance import Allowances
from jupyter_hf_cache.upstream.client import UpstreamClient

USER_AGENT = f"jupyter-hf-cache/{__version__}"


class Callers:
    """Distributions, remotes and their clients, as they are configured now. Thread-safe."""

    def __init__(
        self,
        config: ConfigStore,
        secrets: SecretBox,
        options: ServiceOptions,
        breaker: Breaker,
        allowances: Allowances,
    ) -> None:
        self._config = config
        self._secrets = secrets
        self._options = options
        self._breaker = breaker
        self._allowances = allowances
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, bool], tuple[Remote, UpstreamClient]] = {}

    def distribution(self, path: str) -> tuple[Distribution, str]:
        """Return the distribution that serves a raw path, and the rest of the path.

        Raises:
            NotFound: none does.
        """
        match = self._config.match(path)
        if match is None:
            raise NotFound(
                "No distribution is served at this address.",
                advice="List them with GET /pulp/api/v3/distributions/.",
            )
        return match

    def caller(self, asker: Asker, distribution: Distribution, request: HubRequest) -> Caller:
        """Return how this request is sent upstream.

        Raises:
            NotFound: the distribution has no remote.
        """
        remote = self._config.remote(distribution.remote) if distribution.remote else None
        if remote is None:
            raise NotFound(f"The distribution {distribution.name!r} has no remote to read from.")
        single_user = self._options.single_user
        credential = choose_credential(
            asker, distribution, remote, request.kind, single_user=single_user
        )
        return Caller(
            distribution=distribution,
            remote=remote,
            client=self.client(remote, with_credentials=credential.source == "remote"),
            credential=credential,
            identity=identity_of(credential, remote, self._secrets.identity),
            owner=is_owner(asker, single_user=single_user),
            public_only=is_public_only(asker, distribution) and _reads(request),
            base=asker.base.rstrip("/") + "/" + distribution.base_path,
            lifetimes=self._options.lifetimes.of(remote),
            offline=self._options.offline or remote.offline,
            passes=may_pass(asker),
        )

    def as_anonymous(self, caller: Caller) -> Caller:
        """Return the same caller without any credential."""
        return replace(
            caller.as_anonymous(), client=self.client(caller.remote, with_credentials=False)
        )

    def mirrors(self, caller: Caller) -> list[Caller]:
        """Return who the same caller is to each mirror of the remote: nobody, unless the mirror may
        see tokens."""
        return [self._at_mirror(caller, mirror) for mirror in mirrors_of(caller.remote)]

    def _at_mirror(self, caller: Caller, mirror: MirrorRemote) -> Caller:
        credential = caller.credential
        if not mirror.send_token or credential.token is None:
            credential = ANONYMOUS
        return replace(
            caller,
            remote=mirror,
            client=self.client(mirror, with_credentials=credential.source == "remote"),
            credential=credential,
            identity=identity_of(credential, mirror, self._secrets.identity),
        )

    def client(self, remote: Remote, *, with_credentials: bool) -> UpstreamClient:
        """Return the client of a remote as it is configured now."""
        key = (remote.id, with_credentials)
        with self._lock:
            known = self._clients.get(key)
            if known is not None and known[0] == remote:
                return known[1]
            wanted = remote if with_credentials else without_credentials(remote)
            other, beside = self._clients.get((remote.id, not with_credentials), (None, None))
            client = UpstreamClient(
                wanted,
                user_agent=USER_AGENT,
                allowances=self._allowances,
                watch=self._breaker.watch(remote.id),
                believed=not isinstance(remote, MirrorRemote),
                beside=beside if other == remote else None,
            )
            self._clients[key] = (remote, client)
        return client

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for _, client in clients:
            client.close()


def _reads(request: HubRequest) -> bool:
    """Whether a request reads content or lists of it, as opposed to what callers ask about
    themselves, and to changes."""
    return request.kind is not Kind.FORWARD or (request.repo is not None and not request.writes)
