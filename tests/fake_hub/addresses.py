"""Reading the Hub's URLs.

Responsible for: which repo, verb, revision and file a raw path names, and the same path for another
id.
Not responsible for: whether they exist, except where only that tells what a path means.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from . import errors
from .catalogue import Catalogue, Commit, Repo

API_VERBS = frozenset(
    (
        "revision",
        "tree",
        "paths-info",
        "refs",
        "commits",
        "auth-check",
        "xet-read-token",
        "xet-write-token",
        "preupload",
        "commit",
        "settings",
        "tag",
        "branch",
        "like",
        "likers",
        "logs",
        "super-squash",
        "user-access-request",
        "discussions",
        "parquet",
    )
)
WEB_VERBS = frozenset(("resolve", "raw", "blob", "tree", "commit", "commits", "discussions"))


@dataclass(frozen=True, slots=True)
class Address:
    """What a path says. `rest` holds the decoded segments after the verb."""

    type: str
    id: str
    verb: str
    rest: tuple[str, ...]
    raw: tuple[str, ...]
    id_at: int

    def with_id(self, id: str) -> str:
        """The same path for another repo id, its other segments as they were received."""
        width = 1 + self.id.count("/")
        before, after = self.raw[: self.id_at], self.raw[self.id_at + width :]
        return "/".join([*before, *(quote(part) for part in id.split("/")), *after])


def parse_api(path: str, catalogue: Catalogue) -> Address:
    """An address below /api/{type}/."""
    raw = tuple(path.split("/"))
    return _address(catalogue, unquote(raw[2]), raw, 3, API_VERBS)


def parse_web(path: str, catalogue: Catalogue) -> Address:
    """An address of a file, page or git route."""
    raw = tuple(path.split("/"))
    if len(raw) > 2 and raw[1] in ("datasets", "spaces"):
        return _address(catalogue, raw[1], raw, 2, WEB_VERBS)
    return _address(catalogue, "models", raw, 1, WEB_VERBS)


def _address(
    catalogue: Catalogue, type: str, raw: tuple[str, ...], id_at: int, verbs: frozenset[str]
) -> Address:
    segments = tuple(unquote(part) for part in raw[id_at:])
    while segments and not segments[-1]:
        segments = segments[:-1]
    width = 2 if len(segments) > 1 else 1
    # `org/parquet` is a verb of a repo `org`, unless there is a repo of this name.
    if width == 2 and segments[1] in verbs and not catalogue.get(type, "/".join(segments[:2])):
        width = 1
    id = "/".join(segments[:width])
    verb = segments[width] if len(segments) > width else ""
    return Address(type, id, verb, segments[width + 1 :], raw, id_at)


def take_revision(repo: Repo, rest: tuple[str, ...]) -> tuple[Commit, str]:
    """The commit named at the start of `rest`, and the path after it.

    A quoted revision is one segment. Some clients send `refs/pr/1` or `feature/slash` bare, so
    longer beginnings are tried when the first segment is no revision.

    Raises:
        HubError: no beginning of `rest` is a revision.
    """
    for width in range(1, len(rest) + 1):
        commit = repo.resolve("/".join(rest[:width]))
        if commit is not None:
            return commit, "/".join(rest[width:])
    raise errors.revision_not_found(rest[0] if rest else "")
