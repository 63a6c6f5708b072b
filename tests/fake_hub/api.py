"""Reads of one repo under /api/{type}/{id}.

Responsible for: info, tree, paths-info, refs, commits, auth-check and Xet tokens.
Not responsible for: lists of repos (`listing`), changes (`writes`).
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from . import accounts, errors, info
from .addresses import Address, take_revision
from .catalogue import Commit, Entry, Repo

if TYPE_CHECKING:
    from .routes import HubHandler

_OPEN_TO_ALL = ("", "revision", "refs", "discussions")  # verbs a gated repo answers to everyone


async def answer_repo(handler: HubHandler, repo: Repo, address: Address) -> None:
    """Answer a read, after the gate."""
    answer = _ANSWERS.get(address.verb)
    if answer is None:
        raise errors.page_not_found()
    open_tree = handler.hub.gated_tree_open and address.verb in ("tree", "paths-info")
    if address.verb not in _OPEN_TO_ALL and not (open_tree and not repo.disabled):
        accounts.check_content(repo, handler.user, handler.hub.url)
    await answer(handler, repo, address)


async def _info(handler: HubHandler, repo: Repo, address: Address) -> None:
    commit = repo.head
    if address.verb == "revision":
        commit, _ = take_revision(repo, address.rest)
    await handler.answer_json(
        info.repo_info(
            repo,
            commit,
            expand=asked_fields(handler),
            blobs=flag(handler, "blobs"),
            security=flag(handler, "securityStatus"),
        )
    )


async def _tree(handler: HubHandler, repo: Repo, address: Address) -> None:
    commit, folder = take_revision(repo, address.rest)
    folder = folder.strip("/")
    if folder and folder not in commit.folders:
        raise errors.entry_not_found(commit.sha, f"{folder} does not exist on {commit.sha[:7]}")
    expand = flag(handler, "expand")
    paths = _listed(commit, folder, recursive=flag(handler, "recursive"))
    size = handler.hub.expand_page_size if expand else handler.hub.page_size
    page, link = paginate(handler, paths, size)
    rows = [_row(commit, path, expand) for path in page]
    _mask(handler, repo, rows)
    await handler.answer_json(rows, headers={"X-Repo-Commit": commit.sha, **link})


def _listed(commit: Commit, folder: str, *, recursive: bool) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    below = [p for p in (*commit.files, *commit.folders) if p.startswith(prefix)]
    return sorted(p for p in below if recursive or "/" not in p[len(prefix) :])


def _row(commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    entry = commit.files.get(path)
    if entry is None:
        row: dict[str, Any] = {
            "type": "directory", "oid": commit.folders[path], "size": 0, "path": path
        }  # fmt: skip
    else:
        row = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
        if entry.lfs:
            row["lfs"] = {
                "oid": entry.content.sha256(),
                "size": entry.size,
                "pointerSize": len(entry.pointer),
            }
        if entry.xet_hash is not None:
            row["xetHash"] = entry.xet_hash
    if expand:
        row["lastCommit"] = _last_change(commit, path, entry)
        if entry is not None:
            row["securityFileStatus"] = {
                "status": "safe",
                "avScan": {"status": "safe", "virusFound": False},
                "pickleImportScan": None,
            }
    return row


def _mask(handler: HubHandler, repo: Repo, rows: list[dict[str, Any]]) -> None:
    """Who may not read the files of a gated repo sees that they are in Xet, not where."""
    if accounts.is_granted(repo, handler.user):
        return
    for row in rows:
        if "xetHash" in row:
            row["xetHash"] = "*" * len(row["xetHash"])


def _last_change(commit: Commit, path: str, entry: Entry | None) -> dict[str, str]:
    last = commit
    for older in commit.history():
        same = older.files.get(path) == entry if entry else older.folders.get(path)
        if not same:
            break
        last = older
    return {"id": last.sha, "title": last.title, "date": info.iso(last.date)}


async def _paths_info(handler: HubHandler, repo: Repo, address: Address) -> None:
    commit, _ = take_revision(repo, address.rest)
    if handler.request.headers.get("Content-Type", "").startswith("application/json"):
        body = handler.json_body()
        paths, expand = body.get("paths", []), bool(body.get("expand"))
        paths = [paths] if isinstance(paths, str) else paths
    else:
        paths = handler.get_body_arguments("paths", strip=False)
        expand = handler.get_body_argument("expand", "").lower() in ("true", "1")
    known = [p for p in paths if p in commit.files or p in commit.folders]
    rows = [_row(commit, path, expand) for path in known]
    _mask(handler, repo, rows)
    await handler.answer_json(rows, headers={"X-Repo-Commit": commit.sha})


async def _refs(handler: HubHandler, repo: Repo, address: Address) -> None:
    groups: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    places = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/convert/": "converts"}
    if flag(handler, "include_prs"):
        groups["pullRequests"] = []
        places["refs/pr/"] = "pullRequests"
    for ref, commit in sorted(dict(repo.refs).items()):
        for prefix, group in places.items():
            if ref.startswith(prefix):
                name = ref if prefix == "refs/pr/" else ref.removeprefix(prefix)
                groups[group].append({"name": name, "ref": ref, "targetCommit": commit.sha})
    await handler.answer_json(groups)


async def _commits(handler: HubHandler, repo: Repo, address: Address) -> None:
    commit, _ = take_revision(repo, address.rest)
    history = list(commit.history())
    page = _number(handler, "p", 0)
    limit = max(1, _number(handler, "limit", handler.hub.commits_page_size))
    shown = history[page * limit : (page + 1) * limit]
    headers = {"X-Total-Count": str(len(history)), "X-Repo-Commit": commit.sha}
    if (page + 1) * limit < len(history):
        headers["Link"] = next_link(handler, {"p": str(page + 1)})
    formatted = "formatted" in asked_fields(handler)
    await handler.answer_json([info.commit_row(c, formatted) for c in shown], headers=headers)


async def _auth_check(handler: HubHandler, repo: Repo, address: Address) -> None:
    await handler.answer(b"", "text/plain; charset=utf-8")


async def _xet_token(handler: HubHandler, repo: Repo, address: Address) -> None:
    await _give_xet_token(handler, repo, address, "xet_fake_token")


async def _xet_write_token(handler: HubHandler, repo: Repo, address: Address) -> None:
    accounts.check_writable(repo, handler.user)
    await _give_xet_token(handler, repo, address, "xet_fake_write_token")


async def _give_xet_token(handler: HubHandler, repo: Repo, address: Address, token: str) -> None:
    take_revision(repo, address.rest)
    hub = handler.hub
    expires = int(time.time()) + 900
    headers = {
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
        "X-Xet-Cas-Url": hub.cas_url,
    }
    body = {"accessToken": token, "exp": expires, "casUrl": hub.cas_url}
    await handler.answer_json(body, headers=headers)


_ANSWERS = {
    "": _info,
    "revision": _info,
    "tree": _tree,
    "paths-info": _paths_info,
    "refs": _refs,
    "commits": _commits,
    "auth-check": _auth_check,
    "xet-read-token": _xet_token,
    "xet-write-token": _xet_write_token,
}


def flag(handler: HubHandler, name: str) -> bool:
    """A boolean of the query, in any of the spellings clients use."""
    return handler.get_query_argument(name, "").lower() in ("true", "1")


def _number(handler: HubHandler, name: str, default: int) -> int:
    value = handler.get_query_argument(name, str(default))
    if not value.isdigit():
        raise errors.bad_request(f"{name} must be a number")
    return int(value)


def asked_fields(handler: HubHandler) -> list[str]:
    """The values of `expand`, in both spellings."""
    return handler.get_query_arguments("expand") + handler.get_query_arguments("expand[]")


def paginate(handler: HubHandler, names: list[str], size: int) -> tuple[list[str], dict[str, str]]:
    """One page of sorted names, and the Link header to the next.

    The cursor names the last entry shown, not the commit: pages of a branch may straddle a push.
    """
    asked = handler.get_query_argument("limit", "")
    size = max(1, min(size, int(asked))) if asked.isdigit() else size
    cursor = handler.get_query_argument("cursor", None)
    if cursor is not None:
        try:
            after = base64.urlsafe_b64decode(cursor).decode()
        except ValueError as error:
            raise errors.bad_request("Invalid cursor") from error
        names = [name for name in names if name > after]
    page = names[:size]
    if len(names) <= size:
        return page, {}
    following = base64.urlsafe_b64encode(page[-1].encode()).decode()
    return page, {"Link": next_link(handler, {"cursor": following})}


def next_link(handler: HubHandler, changes: dict[str, str]) -> str:
    """An absolute next link to the Hub itself: this request with some query fields replaced."""
    fields = [
        (name, value.decode())
        for name, values in handler.request.query_arguments.items()
        if name not in changes
        for value in values
    ]
    query = urlencode([*fields, *changes.items()])
    return f'<{handler.hub.url}{handler.request.path}?{query}>; rel="next"'
