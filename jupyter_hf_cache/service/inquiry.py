"""Questions to the upstream about files.

Responsible for: asking about one file, or for the right alone, with the caller's own credential;
going straight to where a renamed repo is now; and keeping everything that the answer tells.
Not responsible for: whether to ask (`service.files`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jupyter_hf_cache.errors import UpstreamAnswer
from jupyter_hf_cache.protocol.paths import api_path, resolve_path
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.service.claims import Claims
from jupyter_hf_cache.service.names import Aliases
from jupyter_hf_cache.service.negatives import Negatives
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.service.usage import Usage
from jupyter_hf_cache.storage.records import RepoRef, Revision
from jupyter_hf_cache.upstream.lookup import METADATA_TIMEOUT, Look, look_up, refusal
from jupyter_hf_cache.upstream.rights import Rights

_DOWNLOAD_COUNTER = "X-HF-Download-Counter"


@dataclass(frozen=True, slots=True)
class Question:
    """One read of a file.

    Args:
        want_fresh: nothing that was known before it is good enough.
        headers: of the request.
        began: Unix time in seconds.
    """

    repo: RepoRef
    revision: str
    file: str
    want_body: bool
    want_fresh: bool
    headers: Mapping[str, str]
    began: float

    def at(self, commit: str) -> Question:
        """Return the same question at a commit that was found out just now."""
        return replace(self, revision=commit, want_fresh=False)

    def anew(self) -> Question:
        """Return the same question, asked now and not content with what is known."""
        return replace(self, want_fresh=True, began=time.time())


class Inquiry:
    """Asks upstreams about files. Thread-safe; blocks."""

    def __init__(
        self,
        *,
        claims: Claims,
        revisions: Revisions,
        rights: Rights,
        aliases: Aliases,
        breaker: Breaker,
        changes: Changes,
        usage: Usage,
    ) -> None:
        self._claims = claims
        self._revisions = revisions
        self._rights = rights
        self._aliases = aliases
        self._breaker = breaker
        self._changes = changes
        self._usage = usage
        self._negatives = Negatives()

    def since(self, question: Question, caller: Caller) -> float:
        """Return the Unix time before which nothing was learnt that answers this question."""
        changed = self._changes.last(caller.scope, question.repo)
        return max(changed, question.began) if question.want_fresh else changed

    def look(self, question: Question, caller: Caller) -> Look:
        """Ask about the file at the question's revision, and keep what is said.

        Raises:
            UpstreamAnswer: the Hub refuses, now or a moment ago.
            UpstreamError: it cannot be asked.
        """
        repo, revision, file = question.repo, question.revision, question.file
        identity = (caller.scope, caller.identity, repo)
        since = self.since(question, caller)
        for key in (identity, (*identity, revision), (*identity, revision, file)):
            if refused := self._negatives.find(key, caller.lifetimes.negative, since):
                self._usage.saved_call()
                raise refused
        began = time.time()
        try:
            look = self._ask(question, caller, since)
        except UpstreamAnswer as refused:
            self._note_refusal(question, caller, refused, began)
            raise
        self._keep(question, caller, look, began)
        return look

    def _ask(self, question: Question, caller: Caller, since: float) -> Look:
        repo = question.repo
        moved = self._aliases.get(caller, repo, since)
        if moved is not None:
            try:
                return self._look_up(question, caller, moved)
            except UpstreamAnswer:
                # It may have moved on, or somebody else has its old name by now.
                self._aliases.forget(caller, repo)
        asked = time.time()
        look = self._look_up(question, caller, repo)
        if look.repo != repo:
            self._aliases.put(caller, repo, look.repo, asked)
        return look

    def _look_up(self, question: Question, caller: Caller, repo: RepoRef) -> Look:
        counter = question.headers.get(_DOWNLOAD_COUNTER, "")
        # The Hub counts downloads by this header, which clients send with theirs.
        headers = {_DOWNLOAD_COUNTER: counter} if counter.isascii() and counter.isalnum() else {}
        with self._breaker.asking(caller.remote.id):
            return look_up(
                caller.client, caller.credential, repo, question.revision, question.file, headers
            )

    def _keep(self, question: Question, caller: Caller, look: Look, began: float) -> None:
        repo, file = question.repo, question.file
        if look.readable:
            self._grant(caller, repo, began)
        if look.link is not None:
            # Whoever asks for the head of a file mostly asks for its bytes next.
            path = resolve_path(repo, look.claim.commit, file)
            caller.client.links.put((caller.identity, path), look.link)
        self._claims.put(caller.remote.origin_id, repo, file, look.claim)
        # Not when the answer came: a change may have gone through in between.
        pointer = Revision(look.claim.commit, began)
        self._revisions.put(caller, repo, question.revision, pointer)

    def right(self, caller: Caller, repo: RepoRef) -> None:
        """Ask for the right to read a repo's files where no file is asked for.

        Raises:
            UpstreamAnswer: the Hub refuses.
            UpstreamError: it cannot be asked.
        """
        asked = time.time()
        try:
            with (
                self._breaker.asking(caller.remote.id),
                caller.client.request(
                    "GET",
                    api_path(repo, "auth-check"),
                    credential=caller.credential,
                    follow="same-origin",
                    read_timeout=METADATA_TIMEOUT,
                ) as response,
            ):
                if response.status >= 300:
                    raise refusal(response)
        except UpstreamAnswer as refused:
            self._end_right(caller, repo, refused)
            raise
        self._grant(caller, repo, asked)

    def _grant(self, caller: Caller, repo: RepoRef, asked: float) -> None:
        public = caller.credential.token is None and caller.credential.source == "none"
        self._rights.grant_files(caller.scope, caller.identity, repo, asked, public=public)

    def _end_right(self, caller: Caller, repo: RepoRef, refused: UpstreamAnswer) -> None:
        self._rights.note_refusal(caller.scope, caller.identity, repo, refused)

    def _note_refusal(
        self, question: Question, caller: Caller, refused: UpstreamAnswer, began: float
    ) -> None:
        """Keep a refusal for as much as it speaks of: all of the repo, of a revision, or a file."""
        repo, revision = question.repo, question.revision
        self._end_right(caller, repo, refused)
        key: tuple[object, ...] = (caller.scope, caller.identity, repo)
        if refused.code == "RevisionNotFound":
            # Not what it pointed at either, once nobody can be asked any more.
            self._revisions.forget(caller, repo, revision)
            key = (*key, revision)
        elif refused.code != "RepoNotFound":
            key = (*key, revision, question.file)
        self._negatives.note(key, refused, began)
