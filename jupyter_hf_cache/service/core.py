"""The one object that web, command line and jupyterhub service talk to.

Responsible for: opening and closing everything that is kept, and what a change of the configuration
ends.
Not responsible for: requests (`dispatch`), the answers themselves (`files`, `metadata`,
`forwarding`, `inventory`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping

from jupyter_hf_cache.answers import Answer
from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.service.aftermath import Aftermath
from jupyter_hf_cache.service.board import Board
from jupyter_hf_cache.service.bodies import Bodies
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Asker, Caller, has_credential
from jupyter_hf_cache.service.callers import Callers
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.completeness import Completenesses
from jupyter_hf_cache.service.conversations import Conversations
from jupyter_hf_cache.service.dispatch import Dispatch
from jupyter_hf_cache.service.failover import Failover
from jupyter_hf_cache.service.files import Files
from jupyter_hf_cache.service.inquiry import Inquiry
from jupyter_hf_cache.service.inventory import Inventory
from jupyter_hf_cache.service.lasting import Lasting
from jupyter_hf_cache.service.listed import Listed
from jupyter_hf_cache.service.marks import Marks
from jupyter_hf_cache.service.metadata import Metadata
from jupyter_hf_cache.service.mirrors import mirrors_of, remote_id_of
from jupyter_hf_cache.service.names import Aliases, Owners
from jupyter_hf_cache.service.options import ServiceOptions
from jupyter_hf_cache.service.page_rights import PageRights
from jupyter_hf_cache.service.passing import Passing
from jupyter_hf_cache.service.proofs import Proofs
from jupyter_hf_cache.service.ready import ReadyAnswers
from jupyter_hf_cache.service.reconciling import Reconciling
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.snapshot_rows import SnapshotRows
from jupyter_hf_cache.service.snapshots import Snapshots
from jupyter_hf_cache.service.tokens import Tokens
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.budget import Budget, default_limit
from jupyter_hf_cache.storage.config_snapshot import Changed
from jupyter_hf_cache.storage.layout import check_layout
from jupyter_hf_cache.storage.ledger import Ledger
from jupyter_hf_cache.storage.own_cache import OwnCache
from jupyter_hf_cache.storage.records import Distribution, Remote, RepoRef
from jupyter_hf_cache.storage.state import StateTable
from jupyter_hf_cache.upstream.allowance import Allowances
from jupyter_hf_cache.upstream.client import UpstreamClient
from jupyter_hf_cache.upstream.fills import Fills
from jupyter_hf_cache.upstream.listings import Listings
from jupyter_hf_cache.upstream.rights import Rights
from jupyter_hf_cache.upstream.taints import Taints

logger = logging.getLogger(__name__)


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
        self._tell_of_sharing(self.config.distributions())

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
        self.allowances = Allowances(on_asked=self.usage.asked)
        self.breaker = Breaker(offline=self._why_offline)
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
        self.passing = Passing(allowed=options.pass_through_large_files, usage=self.usage)
        proofs = Proofs(self.store, self.fills, self.rights, options)
        self.bodies = Bodies(
            store=self.store,
            budget=self.budget,
            fills=self.fills,
            taints=self.taints,
            usage=self.usage,
            own=OwnCache(
                options.adopt_from if options.single_user else (), by_link=options.adopt_by_link
            ),
            passing=self.passing,
            proofs=proofs,
        )
        pages = PageRights(self.rights, single_user=options.single_user)
        self._listed = listed = Listed(self.listings, pages, self.breaker, self.generations)
        self.marks = Marks(self._tables["repos"])
        self.completeness = Completenesses(
            claims=self.claims,
            revisions=self.revisions,
            listings=self.listings,
            listed=listed,
            store=self.store,
            proofs=proofs,
            single_user=options.single_user,
        )
        self.conversations = Conversations(self._tables["repos"], self.secrets.identity)
        self.files = Files(
            inquiry=Inquiry(
                claims=self.claims,
                revisions=self.revisions,
                rights=self.rights,
                aliases=Aliases(),
                breaker=self.breaker,
                changes=self.changes,
                usage=self.usage,
            ),
            conversations=self.conversations,
            listed=listed,
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
            listed=listed,
            marks=self.marks,
            passing=self.passing,
            owners=Owners(self._tables["repos"], self._forget_former),
            revisions=self.revisions,
            rights=pages,
            usage=self.usage,
            breaker=self.breaker,
            changes=self.changes,
        )
        self.snapshots = Snapshots(
            rows=SnapshotRows(self._tables["repos"]),
            config=self.config,
            files=self.files,
            metadata=self.metadata,
            bodies=self.bodies,
            store=self.store,
            budget=self.budget,
        )
        self.ready = ReadyAnswers(
            self.generations, self.usage, self.budget, write=self.conversations.write
        )
        self.inventory = Inventory(self)
        self.tokens = Tokens(self)
        self._callers = Callers(self.config, self.secrets, options, self.breaker, self.allowances)
        self._dispatch = Dispatch(
            callers=self._callers,
            failover=Failover(
                callers=self._callers,
                files=self.files,
                claims=self.claims,
                revisions=self.revisions,
            ),
            files=self.files,
            metadata=self.metadata,
            aftermath=Aftermath(self.changes, self.rights),
            passing=self.passing,
            ready=self.ready,
            snapshots=self.snapshots,
            breaker=self.breaker,
            read_only=options.read_only,
        )
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
        self.allowances.close()
        self._listed.close()
        self.snapshots.stop()
        self.fills.stop()
        self.board.stop()
        self._reconciling.stop()
        with contextlib.suppress(StorageError):
            self.ready.settle()
            self.usage.close()
        self.budget.close()
        self._callers.close()
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
        return self._dispatch.answer(method, query, headers, asker, path, body)

    def needs_body(self, method: str, path: str) -> bool:
        """Return whether a request's body is read whole before it is answered."""
        return self._dispatch.needs_body(method, path)

    def only_asks(self, method: str, path: str) -> bool:
        """Return whether a request is a question and no change, nor a step towards one."""
        return self._dispatch.only_asks(method, path)

    def refresh(self, repo: RepoRef) -> None:
        """Make the next look at a repo ask its upstreams, whatever is known of it."""
        for remote in self.config.remotes():
            for one in (remote, *mirrors_of(remote)):
                self.changes.note(one.scope, repo)

    def _forget_former(self, caller: Caller, repo: RepoRef) -> None:
        """The name of a repo belongs to another one now: nothing of the former is given out under
        it. The bytes stay, for who names them by a claim of their own."""
        scope = caller.scope
        self.rights.forget(scope, lambda known: known == repo)
        self.claims.forget(caller.remote.origin_id, repo)
        self.revisions.forget_repo(scope, repo)
        self.listings.forget_repo(scope, repo)
        self.changes.note(scope, repo)

    def client(self, remote: Remote, *, with_credentials: bool) -> UpstreamClient:
        """Return the client of a remote as it is configured now."""
        return self._callers.client(remote, with_credentials=with_credentials)

    def _why_offline(self, remote_id: str) -> str:
        """Return why a remote is not to be asked, as it is configured now; "" if it may be."""
        if self.options.offline:
            return "This cache is offline."
        remote = self.config.remote(remote_id_of(remote_id))
        return f"The remote {remote.name!r} is offline." if remote and remote.offline else ""

    def _config_changed(self, changed: Changed) -> None:
        """Verdicts are kept by URL and credential, so those of another one are not found. Only
        extra headers may say who asks without being part of either."""
        for remote_id in changed.remotes:
            before, after = self._remotes.get(remote_id), self.config.remote(remote_id)
            upstreams = [
                one
                for remote in (before, after)
                if remote is not None
                for one in (remote, *mirrors_of(remote))
            ]
            for upstream in upstreams:
                self.breaker.forget(upstream.id)
            if after is None:
                self._remotes.pop(remote_id, None)
                continue
            self._remotes[remote_id] = after
            if before is not None and before.headers != after.headers:
                for upstream in upstreams:
                    self.rights.forget_all(upstream.scope)
        self._tell_of_sharing(
            one for one in self.config.distributions() if one.id in changed.distributions
        )

    def _tell_of_sharing(self, distributions: Iterable[Distribution]) -> None:
        """Write into the log that somebody's right was lent to everybody who comes in."""
        for one in distributions:
            remote = self.config.remote(one.remote) if one.remote else None
            if one.access == "shared" and remote is not None and has_credential(remote):
                logger.warning(
                    "Everybody who comes in reads %r with the stored credentials of the remote "
                    "%r (access: shared).",
                    one.base_path,
                    remote.name,
                )
