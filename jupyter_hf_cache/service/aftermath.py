"""What a change that goes through this cache means for what the cache keeps.

Responsible for: making everything older than the change be asked again, and forgetting who may read
where the change may be about that.
Not responsible for: passing the change on (`forwarding`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from jupyter_hf_cache.answers import Answer, StreamBody
from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.paths import HubRequest
from jupyter_hf_cache.service.changes import Changes
from jupyter_hf_cache.storage.records import REPO_TYPES, RepoRef
from jupyter_hf_cache.upstream.rights import Rights

logger = logging.getLogger(__name__)

REPOS = "/api/repos/"
"""Where repos are created, moved and deleted; which ones, only the body tells."""

# Somebody else made it; what is known here may be older than that.
_EXISTS = 409
# Changes to what is in a repo, or said about it. Any other may be to who reads it.
_OF_CONTENT = frozenset(
    {
        "preupload",
        "commit",
        "branch",
        "tag",
        "super-squash",
        "lfs-files",
        "discussions",
        "like",
        "xet-write-token",
    }
)


class Aftermath:
    """Takes note of changes. Thread-safe; blocks on disk."""

    def __init__(self, changes: Changes, rights: Rights) -> None:
        self._changes = changes
        self._rights = rights

    def follow(self, answer: Answer, request: HubRequest, scope: str, body: object) -> Answer:
        """Take note of a change that was answered, now and when the answer has come to its end: git
        carries a push out while it answers.

        What was refused changed nothing; who may not write cannot make the cache forget.
        """
        if 400 <= answer.status < 500 and answer.status != _EXISTS:
            return answer
        self.note(request, scope, body)
        stream = answer.body
        if isinstance(stream, StreamBody):
            stream.chunks = self._noting(stream.chunks, request, scope)
        return answer

    def note(self, request: HubRequest, scope: str, body: object) -> None:
        """A change was sent, and may have been carried out.

        Args:
            scope: of the remote it was sent to.
            body: of the request, where it was read whole.
        """
        if request.path.startswith(REPOS):
            self._changes.note(scope, None)
            for matches in _named_in(body):
                self._forget_rights(scope, matches)
            return
        repo = request.repo
        # A copy has a name that the address does not tell.
        self._changes.note(scope, None if request.path.endswith("/duplicate") else repo)
        if repo is not None and not request.git and not _is_of_content(request, repo):
            self._forget_rights(scope, repo.__eq__)

    def _forget_rights(self, scope: str, matches: Callable[[RepoRef], bool]) -> None:
        try:
            self._rights.forget(scope, matches)
        except StorageError as error:
            # The change itself succeeded; what was known of the right ends within `access_ttl`.
            logger.warning("verdicts are not forgotten on disk: %s", error.message)

    def _noting(self, chunks: Iterator[bytes], request: HubRequest, scope: str) -> Iterator[bytes]:
        try:
            yield from chunks
        finally:
            self.note(request, scope, None)


def _is_of_content(request: HubRequest, repo: RepoRef) -> bool:
    verb = request.path.removeprefix(f"/api/{repo.type}/{repo.id}/").partition("/")[0]
    return verb in _OF_CONTENT


def _named_in(body: object) -> list[Callable[[RepoRef], bool]]:
    """What tells the repos that a body names: by owner and name, or by the name alone, which means
    one of the caller's own."""
    data = _json_object(body)
    type_ = f"{data.get('type') or 'model'}s"
    if type_ not in REPO_TYPES:
        return []
    ids = [data.get("fromRepo"), data.get("toRepo")]
    name, owner = data.get("name"), data.get("organization")
    if isinstance(name, str):
        ids.append(f"{owner}/{name}" if isinstance(owner, str) else name)
    return [_matcher(type_, id) for id in ids if isinstance(id, str) and id]


def _matcher(type_: str, id: str) -> Callable[[RepoRef], bool]:
    if "/" in id:
        return RepoRef(type_, id).__eq__
    return lambda repo: repo.type == type_ and repo.id.rpartition("/")[2] == id


def _json_object(body: object) -> dict[str, Any]:
    try:
        data = json.loads(body) if isinstance(body, bytes) else None
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
