"""One request below a distribution, from its address to its answer.

Responsible for: reading what is asked, refusing what this entrance may not do, and handing the rest
to the part that answers it with the right of its caller.
Not responsible for: who the caller is (`service.callers`), or the answers themselves (`files`,
`metadata`, `forwarding`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.errors import NotFound, UpstreamAnswer, UpstreamError
from jupyter_hf_cache.protocol.digests import Digest, Hasher, lfs_pointer
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, parse
from jupyter_hf_cache.protocol.rewrite import lfs_batch_downloads
from jupyter_hf_cache.protocol.xet import asks_for_token
from jupyter_hf_cache.service.aftermath import REPOS, Aftermath
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import ANONYMOUS_IDENTITY, Asker, Caller, check_allowed
from jupyter_hf_cache.service.callers import Callers
from jupyter_hf_cache.service.failover import Failover
from jupyter_hf_cache.service.files import Files, final
from jupyter_hf_cache.service.forwarding import forward, git_challenge
from jupyter_hf_cache.service.heads import missing_file, warning
from jupyter_hf_cache.service.metadata import Metadata
from jupyter_hf_cache.service.passing import Passing
from jupyter_hf_cache.service.ready import ReadyAnswers
from jupyter_hf_cache.service.snapshots import Snapshots
from jupyter_hf_cache.storage.records import RepoRef

Body = bytes | Iterable[bytes] | None

_JSON_KINDS = frozenset({Kind.INFO, Kind.TREE, Kind.PATHS_INFO, Kind.REFS, Kind.COMMITS, Kind.LIST})


class Dispatch:
    """Answers requests. Thread-safe; blocks on disk and upstream.

    Args:
        read_only: nothing that changes something upstream is passed on.
    """

    def __init__(
        self,
        *,
        callers: Callers,
        failover: Failover,
        files: Files,
        metadata: Metadata,
        aftermath: Aftermath,
        passing: Passing,
        ready: ReadyAnswers,
        snapshots: Snapshots,
        breaker: Breaker,
        read_only: bool,
    ) -> None:
        self._callers = callers
        self._failover = failover
        self._files = files
        self._metadata = metadata
        self._aftermath = aftermath
        self._passing = passing
        self._ready = ready
        self._snapshots = snapshots
        self._breaker = breaker
        self._read_only = read_only

    def only_asks(self, method: str, path: str) -> bool:
        """Return whether a request is a question and no change, nor a step towards one."""
        _, rest = self._callers.distribution(path)
        request = parse(method, rest)
        asks = method in ("GET", "HEAD") or request.kind is Kind.PATHS_INFO
        return asks and not request.writes

    def needs_body(self, method: str, path: str) -> bool:
        """Return whether a request's body is read whole before it is answered: the questions of
        paths-info, the LFS batch, of which only the body tells whether it writes, and what creates,
        moves or deletes a repo, which only the body names."""
        if method not in ("POST", "DELETE"):
            return False
        _, rest = self._callers.distribution(path)
        request = parse(method, rest)
        if request.path.startswith(REPOS):
            return True
        return method == "POST" and (
            request.kind is Kind.PATHS_INFO or request.path.endswith("/info/lfs/objects/batch")
        )

    def answer(
        self,
        method: str,
        query: str,
        headers: Mapping[str, str],
        asker: Asker,
        path: str,
        body: Body,
    ) -> Answer:
        """Answer one request, see `CacheService.answer`.

        Raises:
            HfCacheError: anything that is answered with an error.
        """
        epoch = self._ready.epoch()
        distribution, rest = self._callers.distribution(path)
        if rest in ("", "/"):
            raise NotFound(
                f"This is the endpoint of the distribution {distribution.name!r}.",
                advice="Set HF_ENDPOINT to this address without the trailing slash.",
            )
        request = parse(method, rest, query)
        if isinstance(body, bytes) and request.mints and lfs_batch_downloads(body):
            request = replace(request, writes=False)
        check_allowed(asker, request, read_only=self._read_only)
        caller = self._callers.caller(asker, distribution, request)
        try:
            if caller.public_only and caller.identity != ANONYMOUS_IDENTITY:
                self._check_own_right(request, caller, headers, body)
                caller = self._callers.as_anonymous(caller)
                return self._dispatch(request, caller, headers, body)
            answer = self._dispatch(request, caller, headers, body)
            if request.kind is Kind.RESOLVE:
                self._ready.remember(epoch, path, query, headers, asker, answer)
            return answer
        except UpstreamAnswer as refused:
            _name_the_refusal(refused, caller)
            if refused.status == 401 and (challenge := git_challenge(request, headers)):
                # Others may be refused by the same exception.
                raise UpstreamAnswer(
                    401,
                    refused.message,
                    code=refused.code,
                    headers={**refused.headers, **challenge},
                    body=refused.body,
                ) from refused
            raise

    def _dispatch(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: Body
    ) -> Answer:
        return self._failover.answer(
            request, caller, headers, lambda asked, one: self._touched(asked, one, headers, body)
        )

    def _touched(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: Body
    ) -> Answer:
        answer = self._ask(request, caller, headers, body)
        commit = answer.headers.get("X-Repo-Commit", "")
        if request.kind in (Kind.RESOLVE, Kind.RAW) and request.repo is not None and commit:
            self._snapshots.touch(caller, request.repo, commit)
        return answer

    def _ask(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: Body
    ) -> Answer:
        if request.kind is Kind.RESOLVE:
            return self._files.answer(request, caller, headers)
        if request.kind is Kind.RAW:
            return self._raw(request, caller, headers)
        if request.kind in _JSON_KINDS:
            data = body if isinstance(body, bytes) else b""
            answer = self._metadata.answer(request, caller, headers, data)
            self._files.note_list(request, caller, headers, answer)
            return answer
        if asks_for_token(request) and request.repo is not None:
            return self._xet_token(request, request.repo, caller, headers)
        if request.mints and request.repo is not None:
            # It hands out URLs or tokens, so the right to content comes first.
            self._files.check_right(caller, request.repo)
        if not request.writes:
            return self._forward(request, caller, headers, body)
        try:
            answer = self._forward(request, caller, headers, body)
        except BaseException:
            # It may have been carried out all the same.
            self._aftermath.note(request, caller.scope, body)
            raise
        return self._aftermath.follow(answer, request, caller.scope, body)

    def _forward(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: Body
    ) -> Answer:
        with self._breaker.reaching(caller.remote.id):
            return forward(request, caller, headers, body)

    def _raw(self, request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Answer:
        """Answer `raw`: the file as git has it, which for an LFS file is its pointer."""
        found = self._files.find(request, caller, headers)
        claim = found.claim
        if claim.absent:
            raise missing_file(claim.commit)
        digest = Digest.from_etag(claim.etag)
        if digest is None or digest.algorithm != "sha256" or claim.size is None:
            return self._files.answer(request, caller, headers)
        pointer = lfs_pointer(digest.hex, claim.size)
        hasher = Hasher("git-sha1", len(pointer))
        hasher.update(pointer)
        answer = {
            "X-Repo-Commit": claim.commit,
            "ETag": f'"{hasher.hexdigest()}"',
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(pointer)),
        }
        if found.stale:
            answer["X-HF-Warning"] = warning(found.stale)
        return Answer(200, answer, BytesBody(pointer) if request.method == "GET" else None, "hit")

    def _xet_token(
        self, request: HubRequest, repo: RepoRef, caller: Caller, headers: Mapping[str, str]
    ) -> Answer:
        try:
            return self._passing.token(request, repo, caller, headers, self._files.check_right)
        except UpstreamError as error:
            raise final(error) from error

    def _check_own_right(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], body: Body
    ) -> None:
        """Where only public content is given out, a caller's own token opens nothing, but a wrong
        one is refused all the same: nobody gets anonymous content for a bad token."""
        if request.kind in (Kind.RESOLVE, Kind.RAW):
            self._files.find(replace(request, method="HEAD"), caller, headers)
        elif request.kind in _JSON_KINDS:
            data = body if isinstance(body, bytes) else b""
            self._metadata.answer(request, caller, headers, data).close()
        elif request.repo is not None:
            self._files.check_right(caller, request.repo)


def _name_the_refusal(refused: UpstreamAnswer, caller: Caller) -> None:
    """Add the code that the Hub leaves out when it refuses an anonymous caller.

    huggingface_hub tells a missing repo from any other 401 by the address, and only by an https
    one. A refused token stays without a code.
    """
    if refused.status == 401 and refused.code is None and caller.identity == ANONYMOUS_IDENTITY:
        refused.code = "RepoNotFound"
