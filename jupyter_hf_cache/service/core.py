"""The one object that web, command line and jupyterhub service talk to.

Responsible for: opening and closing everything that is kept, finding distribution and remote of a
request, and handing it to the part that answers it.
Not responsible for: the answers themselves (`files`, `metadata`, `forwarding`, `inventory`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace

from jupyter_hf_cache import __version__
from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.errors import NotFound, StorageError, UpstreamAnswer
from jupyter_hf_cache.protocol.digests import Digest, Hasher, lfs_pointer
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, parse
from jupyter_hf_cache.protocol.rewrite import lfs_batch_downloads
from jupyter_hf_cache.service.board import Board
from jupyter_hf_cache.service.bodies import Bodies
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import (
    ANONYMOUS_IDENTITY,
    Asker,
    Caller,
    check_allowed,
    choose_credential,
    identity_of,
    is_owner,
    is_public_only,
    without_credentials,
)
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.files import Files
from jupyter_hf_cache.service.forwarding import forward
from jupyter_hf_cache.service.heads import missing_file
from jupyter_hf_cache.service.inventory import Inventory
from jupyter_hf_cache.service.lasting import Lasting
from jupyter_hf_cache.service.metadata import Metadata
from jupyter_hf_cache.service.options import ServiceOptions
from jupyter_hf_cache.service.ready import ReadyAnswers
from jupyter_hf_cache.service.reconciling import Reconciling
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.tokens import Tokens
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.budget import Budget, default_limit
from jupyter_hf_cache.storage.config_snapshot import Changed
from jupyter_hf_cache.storage.layout import check_layout
from jupyter_hf_cache.storage.ledger import Ledger
from jupyter_hf_cache.storage.own_cache import OwnCache
from jupyter_hf_cache.storage.records import Distribution, Remote
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream.client import UpstreamClient
from jupyter_hf_cache.upstream.fills import Fills
from jupyter_hf_cache.upstream.listings import Listings
from jupyter_hf_cache.upstream.rights import Rights
from jupyter_hf_cache.upstream.taints import Taints

logger = logging.getLogger(__name__)

USER_AGENT = f"jupyter-hf-cache/{__version__}"
_JSON_KINDS = frozenset({Kind.INFO, Kind.TREE, Kind.PATHS_INFO, Kind.REFS, Kind.COMMITS, Kind.LIST})


class CacheService:
    """One open cache. Thread-safe; every method blocks and belongs in a worker thread.

    Attributes:
        config: remotes and distributions.
        secrets: the installation's key.
        keys: who may come in by a key of their own.
        generations: counters by which the processes on one directory tell each other of changes.
        ready: answers in memory, which the event loop may give by itself.
        board: what all processes fetch.
        problems: what people should know, in words.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self.problems: list[str] = []
        check_layout(options.cache_dir)
        self._lasting = Lasting(options)
        self.secrets = self._lasting.secrets
        self.generations = self._lasting.generations
        self.config = self._lasting.config
        self.keys = self._lasting.keys
        state = options.state_dir or options.cache_dir / "state"
        self._cache_tables = {name: StateTable(state / name) for name in ("repos", "files")}
        self._tables = {**self._lasting.tables, **self._cache_tables}
        self._open_parts()
        self._remotes = {remote.id: remote for remote in self.config.remotes()}
        self.config.on_change = self._config_changed
        self._make_defaults()

    @classmethod
    def open(cls, options: ServiceOptions) -> CacheService:
        """Open the cache without asking any upstream.

        Raises:
            StorageError: it cannot be opened, with the reason and what to set.
        """
        try:
            return cls(options)
        except OSError as error:
            raise StorageError(
                f"The cache in {options.cache_dir} cannot be opened: {error.strerror or error}.",
                advice="Set HfCache.cache_dir to a writable local directory.",
            ) from error

    def _open_parts(self) -> None:
        options = self.options
        self.store = LocalBlobStore(
            options.cache_dir, on_removed=lambda: self.generations.advance("content")
        )
        limit = options.cache_size_limit
        state = options.state_dir or options.cache_dir / "state"
        self._ledger = Ledger(state / "ledger")
        self.budget = Budget(
            self.store,
            self._ledger,
            limit=limit if limit is not None else default_limit(options.cache_dir),
            min_free=options.min_free_space,
        )
        self._reconciling = Reconciling(self.budget, state / "reconcile.lock")
        self.taints = Taints(self._tables["files"])
        self.usage = Usage(self._tables["usage"])
        self.rights = Rights(self._tables["access"], self.generations)
        self.claims = Claims(self._tables["files"], self.generations)
        self.revisions = Revisions(self._tables["repos"], self.generations)
        self.listings = Listings(self._tables["repos"])
        self.breaker = Breaker()
        self.changes = Changes(self._tables["repos"], self.generations)
        self.fills = Fills(
            self.store,
            self.budget,
            self.taints,
            linger=options.linger,
            on_kept=lambda blob, size: None,
            on_fetched=self.usage.fetched,
            on_adopted=self.usage.adopted,
            on_begun=lambda: self.board.note(),
        )
        self.board = Board(self._tables["repos"], self.fills)
        self.bodies = Bodies(
            store=self.store,
            budget=self.budget,
            fills=self.fills,
            taints=self.taints,
            usage=self.usage,
            own=OwnCache(
                options.adopt_from if options.single_user else (), by_link=options.adopt_by_link
            ),
        )
        self.files = Files(
            claims=self.claims,
            revisions=self.revisions,
            rights=self.rights,
            bodies=self.bodies,
            usage=self.usage,
            breaker=self.breaker,
            changes=self.changes,
            single_user=options.single_user,
        )
        self.metadata = Metadata(
            listings=self.listings,
            revisions=self.revisions,
            rights=self.rights,
            usage=self.usage,
            breaker=self.breaker,
            changes=self.changes,
            single_user=options.single_user,
        )
        self.ready = ReadyAnswers(self.generations, self.usage, self.budget)
        self.inventory = Inventory(self)
        self.tokens = Tokens(self)
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, bool], tuple[Remote, UpstreamClient]] = {}
        self._repair()

    def _repair(self) -> None:
        """Make records and disk agree after a crash or lost tables."""
        for name, table in self._tables.items():
            if table.was_corrupt:
                self.problems.append(f"The table {name} was corrupt; it was set aside and rebuilt.")
        if self._tables["files"].was_corrupt or self._tables["files"].count("claim/") == 0:
            self.inventory.rebuild()
        if self._ledger.totals() == (0, 0):
            # New or lost: until what lies about is counted, too much could be kept.
            self.budget.reconcile()
        else:
            self._reconciling.start()

    def _make_defaults(self) -> None:
        """Create remote and distribution `default` unless somebody made other plans."""
        self.problems.extend(self.config.problems())
        self.config.create_first(
            {"name": "default", "url": self.options.default_upstream},
            {"name": "default", "base_path": "hf"},
        )

    def close(self) -> None:
        """Stop fills, write what is pending, close the tables."""
        self.fills.stop()
        self.board.stop()
        self._reconciling.stop()
        with contextlib.suppress(StorageError):
            self.ready.settle()
            self.usage.close()
        self.budget.close()
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for _, client in clients:
            client.close()
        for table in self._cache_tables.values():
            table.close()
        self._ledger.close()
        self._lasting.close()

    # -- requests

    def answer(
        self,
        method: str,
        query: str,
        headers: Mapping[str, str],
        asker: Asker,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Answer:
        """Answer one request below `/pulp/content/`.

        Args:
            path: raw path from the base_path on, without a capability.
            body: of POST paths-info as bytes; of forwarded requests as an iterator.

        Raises:
            HfCacheError: anything that is answered with an error.
        """
        epoch = self.ready.epoch()
        distribution, rest = self._distribution(path)
        if rest in ("", "/"):
            raise NotFound(
                f"This is the endpoint of the distribution {distribution.name!r}.",
                advice="Set HF_ENDPOINT to this address without the trailing slash.",
            )
        request = parse(method, rest, query)
        if isinstance(body, bytes) and request.mints and lfs_batch_downloads(body):
            request = replace(request, writes=False)
        check_allowed(asker, request, read_only=self.options.read_only)
        caller = self.caller(asker, distribution, request.kind)
        try:
            if caller.public_only and caller.identity != ANONYMOUS_IDENTITY:
                self._check_own_right(request, caller, headers, body)
                caller = self._as_anonymous(caller)
                return self._dispatch(request, caller, headers, body)
            answer = self._dispatch(request, caller, headers, body)
            if request.kind is Kind.RESOLVE:
                self.ready.remember(epoch, path, query, headers, asker, answer)
            return answer
        except UpstreamAnswer as refused:
            _name_the_refusal(refused, caller)
            raise

    def needs_body(self, method: str, path: str) -> bool:
        """Return whether a request's body is read whole before it is answered: the questions of
        paths-info, and the LFS batch, of which only the body tells whether it writes."""
        if method != "POST":
            return False
        _, rest = self._distribution(path)
        request = parse(method, rest)
        return request.kind is Kind.PATHS_INFO or request.path.endswith("/info/lfs/objects/batch")

    def _dispatch(
        self,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> Answer:
        if request.kind is Kind.RESOLVE:
            return self.files.answer(request, caller, headers)
        if request.kind is Kind.RAW:
            return self._raw(request, caller, headers)
        if request.kind in _JSON_KINDS:
            data = body if isinstance(body, bytes) else b""
            return self.metadata.answer(request, caller, headers, data)
        if request.mints and request.repo is not None:
            # It hands out URLs or tokens, so the right to content comes first.
            self.files.check_right(caller, request.repo)
        try:
            return forward(request, caller, headers, body)
        finally:
            if request.writes:
                self.changes.note(caller.scope, request.repo)

    def _raw(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Answer:
        """Answer `raw`: the file as git has it, which for an LFS file is its pointer."""
        claim = self.files.find(request, caller, headers).claim
        if claim.absent:
            raise missing_file(claim.commit)
        digest = Digest.from_etag(claim.etag)
        if digest is None or digest.algorithm != "sha256" or claim.size is None:
            return self.files.answer(request, caller, headers)
        pointer = lfs_pointer(digest.hex, claim.size)
        hasher = Hasher("git-sha1", len(pointer))
        hasher.update(pointer)
        answer = {
            "X-Repo-Commit": claim.commit,
            "ETag": f'"{hasher.hexdigest()}"',
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(pointer)),
        }
        return Answer(200, answer, BytesBody(pointer) if request.method == "GET" else None, "hit")

    def _check_own_right(
        self,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
    ) -> None:
        """Where only public content is given out, a caller's own token opens nothing, but a wrong
        one is refused all the same: nobody gets anonymous content for a bad token."""
        if request.kind in (Kind.RESOLVE, Kind.RAW):
            self.files.find(replace(request, method="HEAD"), caller, headers)
        else:
            data = body if isinstance(body, bytes) else b""
            self.metadata.answer(request, caller, headers, data).close()

    def _as_anonymous(self, caller: Caller) -> Caller:
        return replace(
            caller.as_anonymous(), client=self.client(caller.remote, with_credentials=False)
        )

    # -- who and where from

    def _distribution(self, path: str) -> tuple[Distribution, str]:
        match = self.config.match(path)
        if match is None:
            raise NotFound(
                "No distribution is served at this address.",
                advice="List them with GET /pulp/api/v3/distributions/.",
            )
        return match

    def caller(self, asker: Asker, distribution: Distribution, kind: Kind) -> Caller:
        """Return how this request is sent upstream.

        Raises:
            NotFound: the distribution has no remote.
        """
        remote = self.config.remote(distribution.remote) if distribution.remote else None
        if remote is None:
            raise NotFound(f"The distribution {distribution.name!r} has no remote to read from.")
        credential = choose_credential(
            asker, distribution, remote, kind, single_user=self.options.single_user
        )
        return Caller(
            distribution=distribution,
            remote=remote,
            client=self.client(remote, with_credentials=credential.source == "remote"),
            credential=credential,
            identity=identity_of(credential, remote, self.secrets.identity),
            owner=is_owner(asker, single_user=self.options.single_user),
            public_only=is_public_only(asker, distribution) and kind is not Kind.FORWARD,
            base=asker.base.rstrip("/") + "/" + distribution.base_path,
            lifetimes=self.options.lifetimes.of(remote),
            offline=self.options.offline or remote.offline,
        )

    def client(self, remote: Remote, *, with_credentials: bool) -> UpstreamClient:
        """Return the client of a remote as it is configured now."""
        key = (remote.id, with_credentials)
        with self._lock:
            known = self._clients.get(key)
            if known is not None and known[0] == remote:
                return known[1]
            wanted = remote if with_credentials else without_credentials(remote)
            client = UpstreamClient(wanted, user_agent=USER_AGENT)
            self._clients[key] = (remote, client)
        return client

    def _config_changed(self, changed: Changed) -> None:
        """Verdicts are kept by URL and credential, so those of another one are not found. Only
        extra headers may say who asks without being part of either."""
        for remote_id in changed.remotes:
            before, after = self._remotes.get(remote_id), self.config.remote(remote_id)
            self.breaker.forget(remote_id)
            if after is None:
                self._remotes.pop(remote_id, None)
                continue
            self._remotes[remote_id] = after
            if before is not None and before.headers != after.headers:
                self.rights.forget_all(before.scope)
                self.rights.forget_all(after.scope)


def _name_the_refusal(refused: UpstreamAnswer, caller: Caller) -> None:
    """Add the code that the Hub leaves out when it refuses an anonymous caller.

    huggingface_hub tells a missing repo from any other 401 by the address, and only by an https
    one. A refused token stays without a code.
    """
    if refused.status == 401 and refused.code is None and caller.identity == ANONYMOUS_IDENTITY:
        refused.code = "RepoNotFound"
