"""What a question for JSON is: its name, how long its answer holds, and the one for a repo's page.

Responsible for: naming an answer by everything it depends on, and telling what of it never changes.
Not responsible for: asking (`service.metadata`) or keeping (`upstream.listings`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import parse_qsl

from jupyter_hf_cache.errors import BadRequest
from jupyter_hf_cache.protocol.paths import HubRequest, Kind, api_path, is_commit
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.upstream.listings import listing_key

FOR_EVER = float("inf")
OPEN_PAGES = frozenset({Kind.INFO, Kind.REFS})
"""What a gated repo shows to everybody."""
WHOLE_TREE = "recursive=true&expand=false"
"""The query by which huggingface_hub asks for all files of a commit."""

# Questions of which there is no end: only the latest answers are kept.
_ENDLESS = frozenset({Kind.LIST, Kind.PATHS_INFO, Kind.COMMITS})
_USUAL_FIELDS = frozenset({"recursive", "expand", "limit", "cursor", "blobs", "securityStatus"})
# What asks for more than the files of a commit: scans go on, and people like and download.
_MOVING_FIELDS = frozenset({"expand", "expand[]", "securityStatus"})
_OF_THE_FILES = frozenset({Kind.TREE, Kind.PATHS_INFO, Kind.COMMITS, Kind.INFO})


def question_key(
    request: HubRequest, caller: Caller, headers: Mapping[str, str], body: bytes
) -> str:
    """Return the key under which the answer to a question is kept for its caller."""
    path = request.path
    if request.kind is Kind.INFO and request.revision in (None, "main"):
        # The Hub gives one page for both addresses.
        path = api_path(repo_of(request), "revision", "main")
    what = [request.kind.value, path, request.query]
    if body:
        kind = headers.get("Content-Type", "")
        what.append(hashlib.sha256(kind.encode() + b"\0" + body).hexdigest())
    repo = [request.repo.type, request.repo.id] if request.repo is not None else ["-", "-"]
    passing = request.kind in _ENDLESS or not _fields(request.query) <= _USUAL_FIELDS
    return listing_key(caller.scope, caller.identity, *repo, *what, passing=passing)


def lifetime(request: HubRequest, metadata_ttl: float) -> float:
    """Return the seconds for which an answer holds, `FOR_EVER` for what a commit fixes."""
    fixed = request.kind in _OF_THE_FILES and is_commit(request.revision or "")
    return FOR_EVER if fixed and not _asks_for_more(request) else metadata_ttl


def whole_tree(repo: RepoRef, commit: str, query: str = WHOLE_TREE) -> HubRequest:
    """Return the question for all files of a commit, or for a further page of them."""
    path = api_path(repo, "tree", commit)
    return HubRequest(Kind.TREE, "GET", path, query, repo, commit, "")


def page_of(repo: RepoRef, revision: str | None) -> HubRequest:
    """Return the question for a repo's page at a revision."""
    path = api_path(repo, "revision", revision)
    return HubRequest(Kind.INFO, "GET", path, "", repo, revision)


def without_conditions(headers: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would make the upstream answer with something else than the whole body."""
    dropped = ("if-none-match", "if-match", "if-modified-since", "if-range", "range", "accept")
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


def repo_of(request: HubRequest) -> RepoRef:
    """Return the repo that a question is about.

    Raises:
        BadRequest: it is about none.
    """
    if request.repo is None:
        raise BadRequest("This address names no repository.")
    return request.repo


def _asks_for_more(request: HubRequest) -> bool:
    if request.kind in (Kind.PATHS_INFO, Kind.COMMITS):
        return request.kind is Kind.PATHS_INFO and _says_yes(request.query, frozenset({"expand"}))
    return _says_yes(request.query, _MOVING_FIELDS)


def _says_yes(query: str, fields: frozenset[str]) -> bool:
    values = {value.lower() for name, value in parse_qsl(query) if name in fields}
    return bool(values - {"false", "0"})


def _fields(query: str) -> set[str]:
    return {name for name, _ in parse_qsl(query, keep_blank_values=True)}
