"""Where the bytes of a file's answer come from.

Responsible for: choosing between a kept blob, a fill to follow, and streaming through unkept;
ranges, conditions and taints; proving another origin's blob before it is served.
Not responsible for: whether the caller may have them (decided before), or sending them
(`web.content`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from jupyter_hf_cache.answers import Answer, BlobBody, BytesBody, FillBody
from jupyter_hf_cache.errors import RangeNotSatisfiable, UpstreamError
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.protocol.paths import HubRequest, resolve_path
from jupyter_hf_cache.protocol.ranges import ByteRange, is_open_ended, parse_range
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.heads import (
    file_headers,
    not_modified,
    range_applies,
    say_which_bytes,
)
from jupyter_hf_cache.service.passing import Passing
from jupyter_hf_cache.service.proofs import Proofs
from jupyter_hf_cache.service.unkept import stream_parts, stream_unkept
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.service.wanted import Wanted
from jupyter_hf_cache.storage.blockmap import whole_blocks
from jupyter_hf_cache.storage.budget import Budget
from jupyter_hf_cache.storage.interface import BlobId, BlobStore
from jupyter_hf_cache.storage.own_cache import OwnCache, OwnCopy
from jupyter_hf_cache.storage.records import Claim, RepoRef
from jupyter_hf_cache.upstream.fills import Fills
from jupyter_hf_cache.upstream.taints import Taints
from jupyter_hf_cache.upstream.transfer import Source

logger = logging.getLogger(__name__)

# A file this small is fetched whole for any range of it: cheaper than keeping a partial, and
# verified.
SMALL = 1024 * 1024
# Up to here a file that the user has is taken over for any part of it; of a larger one parts are
# fetched: a few bytes are not worth a copy.
OWN_FOR_A_PART = 512 * 1024 * 1024
_MAX_CLAIMS_IN_SIDECAR = 64
_PROVED_IN_MEMORY = 20_000


class Bodies:
    """Builds answers with bytes. Thread-safe; blocks on disk, and on upstream where a proof is
    due."""

    def __init__(
        self,
        *,
        store: BlobStore,
        budget: Budget,
        fills: Fills,
        taints: Taints,
        usage: Usage,
        own: OwnCache,
        passing: Passing,
        proofs: Proofs,
    ) -> None:
        self._store = store
        self._budget = budget
        self._fills = fills
        self._taints = taints
        self._usage = usage
        self._own = own
        self._passing = passing
        self._proofs = proofs

    def at_hand(
        self, repo: RepoRef, caller: Caller, claim: Claim, headers: Mapping[str, str]
    ) -> bool:
        """Return whether a GET with these headers can be answered from disk alone."""
        digest = Digest.from_etag(claim.etag)
        if is_empty(claim) or digest is None or claim.size is None:
            return is_empty(claim)
        blob = BlobId.of(digest, caller.remote.origin_id)
        try:
            parts = self._ranges(claim, headers, resumable=True)
        except RangeNotSatisfiable:
            return True
        whole = parts is None or is_open_ended(headers.get("Range", ""))
        kept = caller.remote.policy != "streamed"
        if kept and caller.owner and self._own_copy(repo, claim, whole=whole) is not None:
            return True
        if self._store.size_of(blob) is not None:
            return self._proofs.is_given_unasked(blob, repo, caller)
        if parts is None or whole:
            return False
        size, origin_id = claim.size, caller.remote.origin_id
        return all(self._store.holds(blob, size, origin_id, part.start, part.end) for part in parts)

    def head(
        self,
        request: HubRequest,
        caller: Caller,
        claim: Claim,
        headers: Mapping[str, str],
        stale: str,
    ) -> Answer:
        """Answer HEAD: what a GET would say, without bytes.

        Raises:
            RangeNotSatisfiable: with the size.
            Refused: this client can load the file only by Xet, which it is not shown.
        """
        answer_headers = file_headers(claim, request.file or "", stale)
        answer_headers |= self._passing.headers(request, caller, claim, headers)
        if not_modified(headers, claim.etag):
            return Answer(304, answer_headers, result="hit")
        if claim.size is None:
            return Answer(200, answer_headers, result="hit")
        wanted = self._ranges(claim, headers, resumable=True)
        status, _ = say_which_bytes(answer_headers, claim.size, wanted)
        return Answer(status, answer_headers, result="hit")

    def answer(
        self,
        request: HubRequest,
        caller: Caller,
        claim: Claim,
        headers: Mapping[str, str],
        stale: str,
    ) -> Answer:
        """Answer GET.

        Raises:
            RangeNotSatisfiable: with the size.
            UpstreamError: the bytes cannot be had.
            StorageError: the disk refuses.
        """
        answer_headers = file_headers(claim, request.file or "", stale)
        answer_headers |= self._passing.headers(request, caller, claim, headers)
        if not_modified(headers, claim.etag):
            return Answer(304, answer_headers, result="hit")
        source = _source(request, caller, claim)
        digest = Digest.from_etag(claim.etag)
        if digest is None or claim.size is None:
            if not source.client.believed:
                raise UpstreamError("A mirror has this file, but names no digest to verify it by.")
            return stream_unkept(source, claim, answer_headers, on_damage=lambda sent: None)
        blob = BlobId.of(digest, caller.remote.origin_id)
        resumable = not self._taints.is_tainted(blob)
        head = dict(answer_headers)
        answer = self._answer(blob, claim, source, headers, head, resumable=resumable)
        if resumable and answer.status == 206 and self._taints.is_tainted(blob):
            # An earlier fill failed while this one was waited for.
            answer.close()
            return self._answer(blob, claim, source, headers, answer_headers, resumable=False)
        return answer

    def _answer(
        self,
        blob: BlobId,
        claim: Claim,
        source: Source,
        headers: Mapping[str, str],
        answer_headers: dict[str, str],
        *,
        resumable: bool,
    ) -> Answer:
        size = claim.size or 0
        kept = not resumable and self._store.size_of(blob) is not None
        ranges = self._ranges(claim, headers, resumable=resumable, kept=kept)
        open_ended = is_open_ended(headers.get("Range", ""))
        if open_ended and not source.client.believed and self._store.size_of(blob) is None:
            # What this continues may have come from elsewhere, and was verified by nobody.
            ranges = None
        status, framing = say_which_bytes(answer_headers, size, ranges)
        parts = ranges or [ByteRange(0, size)]
        wanted = Wanted(
            parts,
            framing,
            completing=any(
                part.end == size and (ranges is None or part.start == 0 or open_ended)
                for part in parts
            ),
        )
        return self._with_bytes(Answer(status, answer_headers), blob, claim, source, wanted)

    def _with_bytes(
        self,
        answer: Answer,
        blob: BlobId,
        claim: Claim,
        source: Source,
        wanted: Wanted,
    ) -> Answer:
        if answer.status == 200 and is_empty(claim):
            answer.body, answer.result = BytesBody(b""), "hit"
            return answer
        reader = self._proofs.open(blob, claim, source)
        if reader is None and source.client.remote.policy != "streamed":
            follows = self._follow(blob, claim, source, wanted)
            if follows:
                self._usage.miss(wanted.size)
                answer.body, answer.result = wanted.arrange(follows, follows), "miss"
                return answer
            reader = self._proofs.open(blob, claim, source)
        if reader is None:
            if not (wanted.completing or source.client.believed):
                raise UpstreamError(
                    "Parts of a file that comes from a mirror are given out when the whole of it "
                    "was verified, and it cannot be kept now."
                )
            self._usage.miss(wanted.size)
            self._usage.fetched(wanted.size)
            if wanted.framing is not None:
                return stream_parts(source, answer.headers, wanted.framing)
            return stream_unkept(
                source,
                claim,
                answer.headers,
                None if wanted.completing else wanted.parts[0],
                on_damage=lambda sent: self._taints.taint(blob, sent=sent, quarantined=Path()),
            )
        self._budget.note_used(blob)
        self._usage.hit(wanted.size)
        kept = [BlobBody(reader, part.start, part.end) for part in wanted.parts]
        answer.body, answer.result = wanted.arrange(kept, [reader]), "hit"
        answer.blob = blob
        return answer

    def begin(self, request: HubRequest, caller: Caller, claim: Claim) -> FillBody | None:
        """Join or start the fill of a whole file of which nobody reads; None when it is kept, or
        cannot be kept now.

        Raises:
            UpstreamError: it failed twice just now.
        """
        digest = Digest.from_etag(claim.etag)
        if digest is None or claim.size is None:
            return None
        blob = BlobId.of(digest, caller.remote.origin_id)
        wanted = Wanted([ByteRange(0, claim.size)], None, completing=True)
        follows = self._follow(blob, claim, _source(request, caller, claim), wanted)
        return follows[0] if follows else None

    def _follow(self, blob: BlobId, claim: Claim, source: Source, wanted: Wanted) -> list[FillBody]:
        """Join or start the fill, once for each part; empty if the bytes cannot be kept now."""
        size = claim.size or 0
        whole = wanted.completing or size <= SMALL
        if source.owner:
            source = replace(source, own=self._own_copy(source.repo, claim, whole=whole))
        self._proofs.check_delivery(blob, source, size)
        joined: list[FillBody] = []
        try:
            for part in wanted.parts:
                blocks = None if whole else whole_blocks(part.start, part.end, size)
                fill = self._fills.open(
                    blob,
                    size,
                    source,
                    range_safe=_believable(source),
                    part=blocks if source.own is None else None,
                )
                if fill is None:
                    break
                joined.append(FillBody(fill, part.start, part.end, completing=whole))
                if blocks is None:
                    fill.want_all()
                else:
                    fill.want(*blocks)
            else:
                return joined
        except BaseException:
            self._leave(joined)
            raise
        self._leave(joined)
        return []

    @staticmethod
    def _leave(joined: list[FillBody]) -> None:
        for body in joined:
            body.close()

    def _ranges(
        self,
        claim: Claim,
        headers: Mapping[str, str],
        *,
        resumable: bool,
        kept: bool = False,
    ) -> list[ByteRange] | None:
        """Return the ranges to answer with, or None for the whole file.

        Not `resumable`: somebody may hold wrong bytes under this digest. Completing those would
        forge a file under the right name, so a resume gets the whole file, and a bounded range an
        error: one that clients repeat while it may pass, and once the right bytes are `kept` one
        that they do not.
        """
        value = headers.get("Range")
        if not value or claim.size is None or not range_applies(headers, claim):
            return None
        ranges = parse_range(value, claim.size)
        if ranges is not None and not resumable:
            if is_open_ended(value):
                return None
            raise UpstreamError(
                "Damaged bytes of this file were sent lately, so for seven days parts of it are "
                "not given out: they would complete a damaged file.",
                advice="Download the whole file again, without hf_transfer or several connections.",
                status=501 if kept else 503,
            )
        return ranges

    def _own_copy(self, repo: RepoRef, claim: Claim, *, whole: bool) -> OwnCopy | None:
        """Return the user's own file that should have these bytes, if it is worth taking over."""
        digest = Digest.from_etag(claim.etag)
        if digest is None or claim.size is None or not (whole or claim.size <= OWN_FOR_A_PART):
            return None
        return self._own.find(digest, claim.size, repo)


_EMPTY = frozenset(
    {
        "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
)


def is_empty(claim: Claim) -> bool:
    """Return whether the file has no bytes: nobody has to be asked for them, and none are kept."""
    return claim.size == 0 and claim.etag in _EMPTY


def _source(request: HubRequest, caller: Caller, claim: Claim) -> Source:
    repo, file = request.repo or RepoRef("models", ""), request.file or ""
    return Source(
        client=caller.client,
        credential=caller.credential,
        identity=caller.identity,
        path=resolve_path(repo, claim.commit, file),
        origin_id=caller.remote.origin_id,
        claim=[caller.remote.origin_id, repo.type, repo.id, claim.commit, file, claim.etag],
        html=file.lower().endswith((".html", ".htm", ".xhtml")),
        owner=caller.owner,
        elsewhere=bool(caller.remote.mirrors),
        background=caller.background,
    )


def _believable(source: Source) -> bool:
    """Return whether bytes may be given out before the digest is known: over TLS, or from this
    machine, and not from a mirror."""
    parts = urlsplit(source.client.remote.upstream_url)
    host = (parts.hostname or "").lower()
    near = host in ("localhost", "::1") or host.startswith("127.")
    return source.client.believed and (parts.scheme == "https" or near)
