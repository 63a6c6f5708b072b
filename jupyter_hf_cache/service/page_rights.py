"""The right to see pages of a repo: what kept verdicts allow, and what an answer proves.

Responsible for: reading and writing verdicts for JSON answers (info, trees, refs, commits).
Not responsible for: the verdicts themselves and the decisions made on them (`upstream.rights`), or
the right to files, beyond what a page says of it.
"""

from __future__ import annotations

import time
from dataclasses import replace

from jupyter_hf_cache.errors import UpstreamAnswer
from jupyter_hf_cache.protocol.paths import HubRequest, Kind
from jupyter_hf_cache.service.caller import ANONYMOUS_IDENTITY, Caller
from jupyter_hf_cache.service.questions import OPEN_PAGES, repo_of
from jupyter_hf_cache.storage.records import Verdict
from jupyter_hf_cache.upstream.listings import Listing
from jupyter_hf_cache.upstream.rights import Rights, Subject, decide_read, decide_read_unasked

_SUBJECTS = {
    Kind.TREE: Subject.LISTS,
    Kind.PATHS_INFO: Subject.LISTS,
    Kind.COMMITS: Subject.HISTORY,
}


class PageRights:
    """Verdicts as pages need and give them. Thread-safe; blocks on disk.

    Args:
        single_user: the server belongs to one person.
    """

    def __init__(self, rights: Rights, *, single_user: bool) -> None:
        self._rights = rights
        self._single_user = single_user

    def may_list(self, request: HubRequest, caller: Caller, now: float) -> bool:
        """Return whether a kept page may be shown on the strength of what is known."""
        verdicts = self._verdicts(request, caller)
        return any(decide_read(verdict, caller.lifetimes, now) for verdict in verdicts)

    def may_list_unasked(
        self, request: HubRequest, caller: Caller, known: Listing | None = None
    ) -> bool:
        """Return whether a kept page may be shown while nobody can be asked.

        Args:
            known: the page; a list of repos was given with the right to see it.
        """
        if request.repo is None:
            public = caller.identity == ANONYMOUS_IDENTITY
            checked = known.fetched if known is not None else 0.0
            verdicts = [Verdict(content=True, public=public, checked=checked)]
        else:
            verdicts = self._verdicts(request, caller)
        return any(
            decide_read_unasked(
                verdict,
                caller.lifetimes,
                time.time(),
                single_user=self._single_user,
                owner=caller.owner,
            )
            for verdict in verdicts
        )

    def is_fresh(self, request: HubRequest, caller: Caller, now: float) -> bool:
        """Return whether the right to pages was looked at lately, whatever came of it."""
        repo = repo_of(request)
        page = self._rights.verdict(caller.scope, caller.identity, repo, Subject.PAGES)
        return page is not None and 0 <= now - page.checked < caller.lifetimes.access

    def note(self, request: HubRequest, caller: Caller, listing: Listing) -> None:
        """Keep what an answer proves: that this identity may see this kind of page.

        It holds from when it was asked for: what was taken back since then is not in it.
        """
        repo, asked = request.repo, listing.fetched
        if repo is None:
            return
        scope, identity = caller.scope, caller.identity
        anonymous = identity == ANONYMOUS_IDENTITY
        subject = _SUBJECTS.get(request.kind, Subject.PAGES)
        if subject is not Subject.PAGES:
            seen = Verdict(content=True, public=anonymous, checked=asked)
            self._rights.grant(scope, identity, repo, seen, subject)
            return
        before = self._rights.verdict(scope, identity, repo, Subject.PAGES)
        if listing.restricted is None and before is not None and before.content:
            # It did not say whether the repo is still open: that ages from when it was said.
            return
        page = Verdict(
            content=listing.restricted is False,
            public=anonymous
            or listing.public
            or (listing.restricted is None and _was_public(before)),
            checked=asked,
        )
        self._rights.grant(scope, identity, repo, page, Subject.PAGES)
        if listing.public and page.content:
            open_to_all = Verdict(content=True, public=True, checked=asked)
            self._rights.grant(scope, identity, repo, open_to_all)

    def note_refusal(self, request: HubRequest, caller: Caller, refused: UpstreamAnswer) -> None:
        """End the right that a refusal speaks of."""
        if request.repo is not None:
            self._rights.note_refusal(caller.scope, caller.identity, request.repo, refused)

    def _verdicts(self, request: HubRequest, caller: Caller) -> list[Verdict]:
        """What the upstream said of this identity's right to this kind of page. Who may read the
        files of a repo may see its pages."""
        repo = repo_of(request)
        subjects = {Subject.FILES, Subject.PAGES, _SUBJECTS.get(request.kind, Subject.PAGES)}
        found = {
            subject: self._rights.verdict(caller.scope, caller.identity, repo, subject)
            for subject in subjects
        }
        page = found[Subject.PAGES]
        if page is not None and request.kind in OPEN_PAGES:
            # "No content" is said of a gated repo, whose own page is open.
            found[Subject.PAGES] = replace(page, content=True)
        return [verdict for verdict in found.values() if verdict is not None]


def _was_public(before: Verdict | None) -> bool:
    return before is not None and before.public
