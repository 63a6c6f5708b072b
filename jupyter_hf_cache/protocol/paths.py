"""What a URL of the Hub asks for.

Responsible for: reading a raw path below a distribution into a `HubRequest`, and writing the one
canonical form of each path, quoted as huggingface_hub quotes it.
Not responsible for: taking a raw path apart (`segments`), query parameters, who may ask, where the
answer comes from.

A rule of the Hub shapes this module. An id has one segment (`gpt2`) or two (`owner/name`), so the
verb (`resolve`, `tree`, ...) is looked for at the second and third place; where both places hold a
verb the longer id wins, because one-segment ids are a closed set of old names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote

from jupyter_hf_cache.errors import BadPath
from jupyter_hf_cache.protocol.segments import read_path, read_query, write_path
from jupyter_hf_cache.storage.records import REPO_TYPES, RepoRef


class Kind(str, Enum):
    """What is asked for; everything that is not a read of one repo or a list is FORWARD."""

    RESOLVE = "resolve"
    RAW = "raw"
    INFO = "info"
    TREE = "tree"
    PATHS_INFO = "paths_info"
    REFS = "refs"
    COMMITS = "commits"
    LIST = "list"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class HubRequest:
    """One request, read and made canonical.

    Args:
        method: upper case.
        path: below the distribution, starts with "/", re-encoded; safe to append to a remote's URL.
        query: raw query string without "?", "" if there is none.
        repo: the repository the path names, None where it names none.
        revision: decoded ("main", "refs/pr/1"); None where the URL has none.
        file: decoded path in the repo; for TREE the sub-path, "" for the root; else None.
        mints: the answer may hold signed URLs or tokens (LFS batch, git, Xet tokens).
        writes: it can change something upstream. An LFS batch counts as a write although it may be
            a download: only its body tells (`rewrite.lfs_batch_downloads`).
        git: git or git-lfs asks.
    """

    kind: Kind
    method: str
    path: str
    query: str
    repo: RepoRef | None = None
    revision: str | None = None
    file: str | None = None
    mints: bool = False
    writes: bool = False
    git: bool = False


@dataclass(frozen=True, slots=True)
class _Named:
    """A repo found at the start of a path: what follows its id begins with a verb, or is empty."""

    repo: RepoRef
    rest: list[str]


_READS = frozenset({"GET", "HEAD"})
_SAFE_METHODS = _READS | {"OPTIONS"}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ID_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_BARE_REF = {"pr": re.compile(r"\d+"), "convert": re.compile(r"[\w.-]+")}

# Verb -> fewest and most segments after it (None: any number).
_API_VERBS: dict[str, tuple[int, int | None]] = {
    "revision": (1, 3),
    "tree": (1, None),
    "paths-info": (1, 3),
    "refs": (0, 0),
    "commits": (1, 3),
    "auth-check": (0, 0),
    "preupload": (1, 3),
    "commit": (1, 3),
    "compare": (1, None),
    "treesize": (1, None),
    "branch": (1, None),
    "tag": (1, None),
    "super-squash": (1, 3),
    "lfs-files": (0, None),
    "discussions": (0, None),
    "xet-read-token": (1, 3),
    "xet-write-token": (1, 3),
    "jwt": (0, 0),
}
_MINTING = frozenset({"xet-read-token", "xet-write-token", "jwt"})
# What is asked by POST and changes no repo: logging in, checking a card, looking into a bucket.
_QUESTION = re.compile(r"oauth/(device|token)|api/validate-yaml|api/buckets/[^/]+/[^/]+/paths-info")
_FILE_VERBS: dict[str, tuple[int, int | None]] = {"resolve": (2, None), "raw": (2, None)}
_PAGE_VERBS: dict[str, tuple[int, int | None]] = {
    **_FILE_VERBS,
    "blob": (2, None),
    "blame": (2, None),
    "tree": (1, None),
    "commits": (1, None),
    "commit": (1, None),
    "discussions": (0, None),
}
# git itself asks below "{id}" or "{id}.git".
_GIT_VERBS: dict[str, tuple[int, int | None]] = {
    "info": (1, None),
    "git-upload-pack": (0, 0),
    "git-receive-pack": (0, 0),
}


def parse(method: str, path: str, query: str = "") -> HubRequest:
    """Read one request.

    Args:
        method: as sent.
        path: the raw path after the distribution's base path, still percent-encoded; bytes outside
            ASCII are taken as the latin-1 characters in which HTTP servers hand them over.
        query: the raw query string, without "?".

    Raises:
        BadPath: the path cannot be decoded, is too long, or could climb.
    """
    method = method.upper()
    segments = read_path(path)
    query = read_query(query)
    if segments[:1] == ["api"]:
        return _parse_api(method, segments, query)
    return _parse_page(method, segments, query)


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit id, 40 lower-case hex digits."""
    return _COMMIT.fullmatch(revision) is not None


def resolve_path(repo: RepoRef, revision: str, file: str, *, verb: str = "resolve") -> str:
    """The path of a file's content; `verb` is "resolve" or "raw".

    Quoted as huggingface_hub does: the revision wholly, the file keeping its `/`.
    """
    prefix = "" if repo.type == "models" else f"/{repo.type}"
    return f"{prefix}/{repo.id}/{verb}/{quote(revision, safe='')}/{quote(file)}"


def api_path(repo: RepoRef, verb: str = "", revision: str | None = None, sub: str = "") -> str:
    """The path of an API call on one repo, e.g. `/api/models/o/n/tree/main/sub`."""
    path = f"/api/{repo.type}/{repo.id}"
    if verb:
        path += f"/{verb}"
    if revision is not None:
        path += f"/{quote(revision, safe='')}"
    if sub:
        path += f"/{quote(sub)}"
    return path


# --- below /api ---


def _parse_api(method: str, segments: list[str], query: str) -> HubRequest:
    if segments[1:2] == ["resolve-cache"]:
        return _forward(method, segments, query, repo=_resolve_cache_repo(segments[2:]))
    if len(segments) < 2 or segments[1] not in REPO_TYPES:
        return _forward(method, segments, query)
    type_, rest = segments[1], _without_trailing_slash(segments[2:])
    if not rest:
        if method not in _READS:
            return _forward(method, segments, query)
        return HubRequest(Kind.LIST, method, f"/api/{type_}", query)
    named = _find_repo(type_, rest, _API_VERBS) or _bare_repo(type_, rest)
    if named is None:
        return _forward(method, segments, query)
    return _read_api(method, named, query) or _forward(method, segments, query, repo=named.repo)


def _read_api(method: str, named: _Named, query: str) -> HubRequest | None:
    """The cacheable reads of one repo; None for everything else."""
    repo = named.repo
    if not named.rest:
        if method not in _READS:
            return None
        return HubRequest(Kind.INFO, method, api_path(repo), query, repo)
    verb, rest = named.rest[0], named.rest[1:]
    if not rest:
        if verb != "refs" or method not in _READS:
            return None
        return HubRequest(Kind.REFS, method, api_path(repo, "refs"), query, repo)
    revision, rest = _take_revision(rest)
    if verb == "tree" and method in _READS:
        sub = "/".join(rest)
        path = api_path(repo, "tree", revision, sub)
        return HubRequest(Kind.TREE, method, path, query, repo, revision, sub)
    kind = {
        ("revision", True): Kind.INFO,
        ("commits", True): Kind.COMMITS,
        ("paths-info", False): Kind.PATHS_INFO,
    }.get((verb, method in _READS))
    if kind is None or rest or (kind is Kind.PATHS_INFO and method != "POST"):
        return None
    return HubRequest(kind, method, api_path(repo, verb, revision), query, repo, revision)


def _resolve_cache_repo(segments: list[str]) -> RepoRef | None:
    """The repo in `{type}/{id}/{commit}/...`, found by the place of the commit."""
    for length in (2, 1):
        if len(segments) > length + 1 and is_commit(segments[length + 1]):
            return _repo_ref(segments[0], segments[1 : length + 1])
    return None


# --- outside /api ---


def _parse_page(method: str, segments: list[str], query: str) -> HubRequest:
    type_, rest = "models", segments
    if segments[0] in ("datasets", "spaces"):
        type_, rest = segments[0], segments[1:]
    git = _find_git(type_, rest)
    if git is not None:
        return _forward_git(method, segments, query, git)
    named = _find_repo(type_, rest, _PAGE_VERBS)
    if named is None:
        return _forward(method, segments, query)
    return _read_file(method, named, query) or _forward(method, segments, query, repo=named.repo)


def _read_file(method: str, named: _Named, query: str) -> HubRequest | None:
    verb = named.rest[0]
    if verb not in _FILE_VERBS or method not in _READS:
        return None
    revision, rest = _take_revision(named.rest[1:])
    file = "/".join(rest)
    if not file:
        return None
    if rest[-1] == "":
        raise BadPath(
            "The path ends with '/', so it does not name a file.",
            advice="Ask for a file, or list the folder with /api/.../tree/.",
        )
    path = resolve_path(named.repo, revision, file, verb=verb)
    return HubRequest(Kind(verb), method, path, query, named.repo, revision, file)


def _find_git(type_: str, segments: list[str]) -> _Named | None:
    """What git and git-lfs ask for: `{id}.git/...`, or `{id}/info/refs` and its like."""
    for length in (1, 2):
        name = segments[length - 1] if len(segments) >= length else ""
        if name.endswith(".git") and name != ".git":
            repo = _repo_ref(type_, [*segments[: length - 1], name.removesuffix(".git")])
            return None if repo is None else _Named(repo, segments[length:])
    named = _find_repo(type_, segments, _GIT_VERBS)
    if named is None or (named.rest[0] == "info" and named.rest[1] not in ("refs", "lfs")):
        return None
    return named


def _forward_git(method: str, segments: list[str], query: str, git: _Named) -> HubRequest:
    """git reads by POST (`git-upload-pack`) and announces a push by GET (`git-receive-pack`)."""
    writes = method not in _SAFE_METHODS
    if git.rest == ["git-upload-pack"]:
        writes = False
    elif git.rest == ["info", "refs"] and "git-receive-pack" in query:
        writes = True
    return HubRequest(
        Kind.FORWARD,
        method,
        write_path(segments),
        query,
        git.repo,
        mints=True,
        writes=writes,
        git=True,
    )


# --- shared steps ---


def _forward(
    method: str, segments: list[str], query: str, *, repo: RepoRef | None = None
) -> HubRequest:
    mints = not _MINTING.isdisjoint(segments)
    asks = method == "POST" and _QUESTION.fullmatch("/".join(segments)) is not None
    writes = not (method in _SAFE_METHODS or asks) or "xet-write-token" in segments
    return HubRequest(
        Kind.FORWARD, method, write_path(segments), query, repo, mints=mints, writes=writes
    )


def _find_repo(
    type_: str, segments: list[str], verbs: dict[str, tuple[int, int | None]]
) -> _Named | None:
    """The repo before a verb at the third place, else at the second; None where there is no verb.

    Raises:
        BadPath: there is a verb, and what stands before it cannot be an id.
    """
    for length in (2, 1):
        if len(segments) <= length:
            continue
        wanted = verbs.get(segments[length])
        if wanted is None or not _fits(wanted, segments[length + 1 :]):
            continue
        repo = _repo_ref(type_, segments[:length])
        if repo is None:
            raise BadPath(
                "The path does not name a repository.",
                advice="An id is NAME or OWNER/NAME, of letters, digits, '-', '_' and '.'.",
            )
        return _Named(repo, segments[length:])
    return None


def _fits(wanted: tuple[int, int | None], arguments: list[str]) -> bool:
    fewest, most = wanted
    count = len(_without_trailing_slash(arguments))
    return count >= fewest and (most is None or count <= most)


def _bare_repo(type_: str, segments: list[str]) -> _Named | None:
    """The repo of an info call, or of an API verb this module does not know."""
    repo = _repo_ref(type_, segments[:2])
    return None if repo is None else _Named(repo, segments[2:])


def _repo_ref(type_: str, parts: list[str]) -> RepoRef | None:
    if type_ not in REPO_TYPES or not parts:
        return None
    if not all(_ID_SEGMENT.fullmatch(part) for part in parts):
        return None
    return RepoRef(type_, "/".join(parts))


def _take_revision(segments: list[str]) -> tuple[str, list[str]]:
    """Split off the revision; HfFileSystem sends `refs/pr/1` and `refs/convert/x` unquoted."""
    if len(segments) >= 3 and segments[0] == "refs":
        pattern = _BARE_REF.get(segments[1])
        if pattern is not None and pattern.fullmatch(segments[2]):
            return "/".join(segments[:3]), segments[3:]
    return segments[0], segments[1:]


def _without_trailing_slash(segments: list[str]) -> list[str]:
    return segments[:-1] if segments and segments[-1] == "" else segments
