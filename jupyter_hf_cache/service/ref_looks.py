"""Where a moving ref points now, found out once for all who want to know.

Responsible for: one question to the upstream for all requests of one identity about the files of a
branch, tag or PR ref, and what of it each of them may use.
Not responsible for: the question itself (`service.inquiry`), or files at a commit
(`service.files`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.inquiry import Inquiry, Question
from jupyter_hf_cache.service.revisions import Revisions
from jupyter_hf_cache.storage.records import Claim, Revision
from jupyter_hf_cache.upstream.flight import SingleFlight
from jupyter_hf_cache.upstream.policy import is_fresh


@dataclass(frozen=True, slots=True)
class Renewal:
    """A moving ref as it was found just now.

    Args:
        asked: Unix time in seconds.
        file, claim: what the ref was asked about, and what was said of it; "" and None if nobody
            had to be asked.
    """

    commit: str
    asked: float
    file: str = ""
    claim: Claim | None = None


class RefLooks:
    """Looks at moving refs. Thread-safe; blocks on upstream."""

    def __init__(self, inquiry: Inquiry, revisions: Revisions) -> None:
        self._inquiry = inquiry
        self._revisions = revisions
        self._flight = SingleFlight()

    def is_current(self, pointer: Revision, question: Question, caller: Caller) -> bool:
        """Return whether it is known well enough for this question where a ref points."""
        since = self._inquiry.since(question, caller)
        return is_fresh(pointer, caller.lifetimes.revision, time.time(), since)

    def renew(self, question: Question, caller: Caller) -> Renewal:
        """Find out where a moving ref points, by asking about the file of the first who wants to
        know.

        Raises:
            UpstreamAnswer: there is no such ref, or it is not for this caller.
            UpstreamError: nobody can be asked.
        """
        key = (caller.scope, caller.identity, question.repo, question.revision)
        while True:
            renewal = self._flight.do(key, lambda: self._look(question, caller))
            if renewal.asked >= question.began:
                return renewal
            # Asked for others, before this question came.
            if self.is_current(Revision(renewal.commit, renewal.asked), question, caller):
                return renewal

    def _look(self, question: Question, caller: Caller) -> Renewal:
        pointer = self._revisions.get(caller, question.repo, question.revision)
        if pointer is not None and self.is_current(pointer, question, caller):
            # An equal question was answered between a look at what is known and here.
            return Renewal(pointer.commit, pointer.checked)
        asked = time.time()
        claim = self._inquiry.look(question, caller).claim
        return Renewal(claim.commit, asked, question.file, claim)
