"""Proofs that an origin has the bytes of a blob, before others' are given out under its name.

Responsible for: opening a kept blob for a repo of an origin only if the origin delivered it for
that repo, or delivers random ranges of it now, or the caller may read it elsewhere at this origin;
the same before a download is joined that others began; and writing down what was proved.
Not responsible for: where else bytes come from (`service.bodies`).

A repo can be made that names the digest of somebody else's private file; that of a gated one is on
its page. Who only names it must not be handed what others brought here. Names in git's own terms
(git-sha1) an origin computes from the content, so nobody can name what they do not have there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence

from jupyter_hf_cache.errors import UpstreamError, UpstreamFailing, UpstreamUnreachable
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.claims import origin_delivers
from jupyter_hf_cache.service.options import ServiceOptions
from jupyter_hf_cache.storage.interface import BlobId, BlobReader, BlobStore
from jupyter_hf_cache.storage.records import Claim, Remote, RepoRef
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.upstream.fills import Fills
from jupyter_hf_cache.upstream.rights import Rights, decide_read, decide_read_unasked
from jupyter_hf_cache.upstream.transfer import Source, SourceLost, pieces

logger = logging.getLogger(__name__)

_MAX_CLAIMS_IN_SIDECAR = 64
_PROVED_IN_MEMORY = 20_000

Delivered = Iterable[Sequence[str]]
"""Claims for which bytes were delivered, each as of `Source.claim`: origin_id, type, repo, ..."""


class Proofs:
    """Opens what is proved. Thread-safe; blocks on disk, and on upstream where a proof is due."""

    def __init__(
        self, store: BlobStore, fills: Fills, rights: Rights, options: ServiceOptions
    ) -> None:
        self._store = store
        self._fills = fills
        self._rights = rights
        self._options = options
        self._lock = threading.Lock()
        self._proved: set[tuple[BlobId, str, RepoRef]] = set()
        self._delivered: set[tuple[BlobId, str, RepoRef]] = set()

    def open(self, blob: BlobId, claim: Claim, source: Source) -> BlobReader | None:
        """Open a kept blob if this origin's claim on it is proved, or can be now."""
        reader = self._store.open(blob)
        if reader is None:
            return None
        key = (blob, source.origin_id, source.repo)
        if key in self._proved:
            return reader
        try:
            if source.owner and self._is_own(blob, source):
                return reader
            if self._is_kin(blob, source) or self._is_proved_now(blob, claim, source, reader):
                return reader
        except BaseException:
            reader.close()
            raise
        reader.close()
        if self._store.sidecar(blob) is None:
            # Deleted since it was opened.
            return None
        raise UpstreamError(
            "The upstream names the digest of a file kept from elsewhere, but does not deliver its "
            "bytes."
        )

    def is_given_unasked(self, blob: BlobId, repo: RepoRef, caller: Caller) -> bool:
        """Return whether a kept blob is given out without a proof that its origin has to be asked
        for."""
        return self.is_given(blob, repo, caller.remote, caller.identity, owner=caller.owner)

    def is_given(
        self, blob: BlobId, repo: RepoRef, remote: Remote, identity: str, *, owner: bool
    ) -> bool:
        """Return the same of a caller of whom only the identity is known.

        Args:
            owner: it is the one user of this server.
        """
        if (blob, remote.origin_id, repo) in self._proved:
            return True
        sidecar = self._store.sidecar(blob)
        if sidecar is None:
            return False
        if owner and sidecar.own:
            return True
        by = _delivered_by(sidecar)
        return remote.origin_id in sidecar.origins and (
            _is_delivered(blob, remote.origin_id, repo, by)
            or self._may_read_one(remote, identity, by, owner=owner, unasked=True)
        )

    def _is_kin(self, blob: BlobId, source: Source) -> bool:
        """Return whether the origin delivered a kept blob for this repo, or for another one that
        the caller may read."""
        sidecar, origin_id = self._store.sidecar(blob), source.origin_id
        if sidecar is None or origin_id not in sidecar.origins:
            return False
        by = _delivered_by(sidecar)
        if _is_delivered(blob, origin_id, source.repo, by):
            self._remember(self._proved, blob, source)
            self.note_claim(blob, source)
            return True
        return self._may_read_one(source.client.remote, source.identity, by, owner=source.owner)

    def _is_proved_now(
        self, blob: BlobId, claim: Claim, source: Source, reader: BlobReader
    ) -> bool:
        try:
            return self._prove(blob, claim, source, reader)
        except (UpstreamUnreachable, UpstreamFailing):
            sidecar, remote = self._store.sidecar(blob), source.client.remote
            by = [] if sidecar is None else _delivered_by(sidecar)
            if sidecar is None or source.origin_id not in sidecar.origins:
                raise
            if self._may_read_one(remote, source.identity, by, owner=source.owner, unasked=True):
                return True
            raise

    def _may_read_one(
        self, remote: Remote, identity: str, by: Delivered, *, owner: bool, unasked: bool = False
    ) -> bool:
        """Return whether a caller may read one of the repos that a blob was delivered for.

        Args:
            owner: the caller is the one user of this server.
            unasked: nobody can be asked.
        """
        now, lifetimes = time.time(), self._options.lifetimes.of(remote)
        repos = {RepoRef(claim[1], claim[2]) for claim in by if claim[0] == remote.origin_id}
        for repo in repos:
            verdict = self._rights.verdict(remote.scope, identity, repo)
            if decide_read(verdict, lifetimes, now):
                return True
            if unasked and decide_read_unasked(
                verdict, lifetimes, now, single_user=self._options.single_user, owner=owner
            ):
                return True
        return False

    def _remember(
        self, known: set[tuple[BlobId, str, RepoRef]], blob: BlobId, source: Source
    ) -> None:
        with self._lock:
            if len(known) >= _PROVED_IN_MEMORY:
                known.clear()
            known.add((blob, source.origin_id, source.repo))

    def _is_own(self, blob: BlobId, source: Source) -> bool:
        """Return whether these are the user's own bytes: they may have them whoever names them."""
        sidecar = self._store.sidecar(blob)
        if sidecar is None or not sidecar.own:
            return False
        if source.claim not in sidecar.claims:
            self.note_claim(blob, source, proved=False)
        return True

    def _prove(self, blob: BlobId, claim: Claim, source: Source, reader: BlobReader) -> bool:
        sidecar = self._store.sidecar(blob)
        if sidecar is None:
            return False
        if reader.size != claim.size:
            return False
        try:
            delivered = origin_delivers(source, reader, reader.size)
        except SourceLost as lost:
            raise lost.error from lost
        if delivered:
            self._remember(self._proved, blob, source)
            self.note_claim(blob, source)
        return delivered

    def check_delivery(self, blob: BlobId, source: Source, size: int) -> None:
        """Before a download is joined that runs with the rights of other repos' readers only, see
        that the origin delivers the blob for this repo, too.

        Raises:
            UpstreamError, UpstreamAnswer: it does not, or cannot be asked.
        """
        running = self._fills.running(blob)
        if running is None or (blob, source.origin_id, source.repo) in self._delivered:
            return
        by = [one.claim for one in running.sources]
        remote = source.client.remote
        if (
            not size
            or running.origin_id != source.origin_id
            or _is_delivered(blob, source.origin_id, source.repo, by)
            or self._may_read_one(remote, source.identity, by, owner=source.owner)
        ):
            return
        try:
            next(pieces(source, 0, 1, size), None)
        except SourceLost as lost:
            raise lost.error from lost
        self._remember(self._delivered, blob, source)

    def note_claim(self, blob: BlobId, source: Source, *, proved: bool = True) -> None:
        """Write a newly served claim into the sidecar, from which lost tables are rebuilt.

        Args:
            proved: the origin delivered the bytes, or enough of them.
        """
        with self._lock:
            sidecar = self._store.sidecar(blob)
            if sidecar is None:
                return
            new_origin = proved and source.origin_id not in sidecar.origins
            new_claim = source.claim not in sidecar.claims
            if not (new_origin or new_claim) or len(sidecar.claims) >= _MAX_CLAIMS_IN_SIDECAR:
                return
            if new_origin:
                sidecar.origins.append(source.origin_id)
            if new_claim:
                sidecar.claims.append(source.claim)
            try:
                self._store.write_sidecar(blob, sidecar)
            except OSError as error:
                logger.info("sidecar of %s not updated: %s", blob, error)


def _is_delivered(blob: BlobId, origin_id: str, repo: RepoRef, by: Delivered) -> bool:
    """Return whether the origin delivered a blob for this very repo."""
    if blob.digest.algorithm != "sha256":
        return True
    return any(tuple(claim[:3]) == (origin_id, repo.type, repo.id) for claim in by)


def _delivered_by(sidecar: Sidecar) -> list[list[str]]:
    """Return for which claims a blob was delivered. The user's own file was for none."""
    return [] if sidecar.own else sidecar.claims
