"""Changes: creating repos, committing, uploading.

Responsible for: enough of the write API that huggingface_hub can create a repo, commit small and
large files, move refs, and change settings.
Not responsible for: the upload of bytes (`cdn` takes the PUT).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from . import accounts, community, errors, git_server
from .addresses import Address, take_revision
from .catalogue import LFS_SUFFIXES, LFS_THRESHOLD, TYPES, Repo
from .content import Content, SmallFile

if TYPE_CHECKING:
    from .app import FakeHub
    from .routes import HubHandler


async def answer_repos(handler: HubHandler, action: str) -> None:
    """/api/repos/create, delete and move."""
    if handler.user is None:
        raise errors.anonymous_refusal()
    body = handler.json_body()
    method = handler.request.method
    if action == "create" and method == "POST":
        await _create(handler, body)
    elif action == "delete" and method == "DELETE":
        repo = _own_repo(
            handler, body, f"{body.get('organization') or handler.user.name}/{body['name']}"
        )
        handler.hub.catalogue.delete(repo.type, repo.id)
        await handler.answer(b"OK", "text/plain; charset=utf-8")
    elif action == "move" and method == "POST":
        repo = _own_repo(handler, body, body["fromRepo"])
        handler.hub.catalogue.rename(repo.type, repo.id, body["toRepo"])
        await handler.answer(b"OK", "text/plain; charset=utf-8")
    else:
        raise errors.page_not_found()


async def _create(handler: HubHandler, body: Mapping[str, Any]) -> None:
    user = handler.user
    assert user is not None
    type = f"{body.get('type') or 'model'}s"
    id = f"{body.get('organization') or user.name}/{body['name']}"
    if type not in TYPES:
        raise errors.bad_request(f"Invalid repo type: {body.get('type')}")
    if user.role != "write" or not user.owns(id):
        raise errors.forbidden(
            f"You don't have the rights to create a {type[:-1]} under this namespace"
        )
    hub = handler.hub
    existing = hub.catalogue.get(type, id)
    private = bool(body.get("private")) or body.get("visibility") == "private"
    if existing is None:
        repo = hub.catalogue.create(type, id, private=private)
        repo.commit({".gitattributes": _ATTRIBUTES}, "initial commit", author=user.name)
    else:
        repo = existing
    answer = {"url": f"{hub.public_url}/{repo.web_path}", "name": id, "id": repo.object_id}
    if existing is None:
        await handler.answer_json(answer)
    else:
        error = f"You already created this {type[:-1]} repo: {id}"
        await handler.answer_json(
            {**answer, "error": error}, status=409, headers={"X-Error-Message": error}
        )


_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)


def _own_repo(handler: HubHandler, body: Mapping[str, Any], id: str) -> Repo:
    type = f"{body.get('type') or 'model'}s"
    repo = accounts.check_visible(handler.hub.catalogue.get(type, id), handler.user)
    accounts.check_writable(repo, handler.user)
    return repo


async def answer_change(handler: HubHandler, repo: Repo, address: Address) -> None:
    """A change to one repo."""
    accounts.check_writable(repo, handler.user)
    change = _CHANGES.get((handler.request.method, address.verb))
    if change is None:
        raise errors.page_not_found()
    await change(handler, repo, address)


async def _preupload(handler: HubHandler, repo: Repo, address: Address) -> None:
    commit, _ = take_revision(repo, address.rest)
    rows = []
    for file in handler.json_body()["files"]:
        large = file["path"].endswith(LFS_SUFFIXES) or file["size"] > LFS_THRESHOLD
        row = {
            "path": file["path"],
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
        }
        known = commit.files.get(file["path"])
        rows.append({**row, "oid": known.oid} if known is not None else row)
    await handler.answer_json({"files": rows, "commitOid": commit.sha})


async def _commit(handler: HubHandler, repo: Repo, address: Address) -> None:
    assert handler.user is not None
    parent, _ = take_revision(repo, address.rest)
    lines = [json.loads(line) for line in handler.request.body.splitlines() if line.strip()]
    header: dict[str, Any] = {"summary": ""}
    files: dict[str, bytes | Content | None] = {}
    for line in lines:
        if line["key"] == "header":
            header = line["value"]
        else:
            _apply(handler, parent.files, line["key"], line["value"], files)
    if header.get("parentCommit") not in (None, parent.sha):
        raise errors.HubError(412, "A commit has happened since. Please refresh and try again.")
    branch = "/".join(address.rest)
    answer: dict[str, Any] = {"success": True, "hookOutput": ""}
    if handler.get_query_argument("create_pr", "") in ("1", "true"):
        number = 1 + max((*repo.discussions, *_proposals(repo)), default=0)
        branch = f"refs/pr/{number}"
        community.note_pull_request(repo, number, header["summary"], handler.user.name)
        answer["pullRequestUrl"] = f"{handler.hub.public_url}/{repo.web_path}/discussions/{number}"
    sha = repo.commit(
        files,
        "\n\n".join(filter(None, (header["summary"], header.get("description")))),
        branch=branch,
        author=handler.user.name,
    )
    url = f"{handler.hub.public_url}/{repo.web_path}/commit/{sha}"
    await handler.answer_json({**answer, "commitOid": sha, "commitUrl": url})


def _proposals(repo: Repo) -> list[int]:
    return [int(ref.rpartition("/")[2]) for ref in repo.refs if ref.startswith("refs/pr/")]


def _apply(
    handler: HubHandler,
    before: Mapping[str, object],
    key: str,
    value: Mapping[str, Any],
    files: dict[str, bytes | Content | None],
) -> None:
    """Add one line of a commit to the changes."""
    path = value["path"]
    if key == "file":
        files[path] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        content = handler.hub.catalogue.large.get(value["oid"])
        if content is None:
            raise errors.bad_request(f"LFS object {value['oid']} was not uploaded")
        files[path] = content
    elif key == "deletedFile":
        files[path] = None
    elif key == "deletedFolder":
        folder = path.rstrip("/") + "/"
        files.update(dict.fromkeys((p for p in before if p.startswith(folder)), None))
    else:
        raise errors.bad_request(f"Unknown commit operation: {key}")


async def _settings(handler: HubHandler, repo: Repo, address: Address) -> None:
    body = handler.json_body()
    if "private" in body or "visibility" in body:
        repo.private = bool(body.get("private")) or body.get("visibility") == "private"
    if "gated" in body:
        repo.gated = body["gated"]
    await handler.answer_json({"private": repo.private, "gated": repo.gated})


async def _make_tag(handler: HubHandler, repo: Repo, address: Address) -> None:
    take_revision(repo, address.rest)
    name = handler.json_body()["tag"]
    if f"refs/tags/{name}" in repo.refs:
        raise errors.HubError(409, "Tag already exists")
    repo.tag(name, "/".join(address.rest))
    await handler.answer(b"", "text/plain; charset=utf-8")


async def _drop_tag(handler: HubHandler, repo: Repo, address: Address) -> None:
    repo.drop_ref(f"refs/tags/{'/'.join(address.rest)}")
    await handler.answer(b"", "text/plain; charset=utf-8")


async def _make_branch(handler: HubHandler, repo: Repo, address: Address) -> None:
    name = "/".join(address.rest)
    if f"refs/heads/{name}" in repo.refs:
        raise errors.HubError(409, "Reference already exists")
    body = handler.json_body() if handler.request.body else {}
    start = body.get("startingPoint", "main")
    if repo.resolve(start) is None:
        raise errors.revision_not_found(start)
    repo.point(name, start)
    await handler.answer(b"", "text/plain; charset=utf-8")


async def _drop_branch(handler: HubHandler, repo: Repo, address: Address) -> None:
    repo.drop_ref("/".join(address.rest))
    await handler.answer(b"", "text/plain; charset=utf-8")


async def _squash(handler: HubHandler, repo: Repo, address: Address) -> None:
    """One commit in place of the history of a branch."""
    take_revision(repo, address.rest)
    repo.squash("/".join(address.rest), handler.json_body().get("message") or "Super-squash branch")
    await handler.answer(b"", "text/plain; charset=utf-8")


_CHANGES = {
    ("POST", "preupload"): _preupload,
    ("POST", "commit"): _commit,
    ("PUT", "settings"): _settings,
    ("POST", "tag"): _make_tag,
    ("DELETE", "tag"): _drop_tag,
    ("POST", "branch"): _make_branch,
    ("DELETE", "branch"): _drop_branch,
    ("POST", "super-squash"): _squash,
}


async def answer_git(handler: HubHandler, path: str) -> None:
    """`{id}.git/...`, or git's own routes below `{id}`: the LFS routes, and git itself."""
    before, after = _split_git(path)
    parts = [unquote(part) for part in before.strip("/").split("/")]
    type = parts.pop(0) if parts[0] in ("datasets", "spaces") else "models"
    found = handler.hub.catalogue.get(type, "/".join(parts))
    if not after.startswith("info/lfs/"):
        await git_server.answer_smart_http(handler, found, after)
        return
    repo = accounts.check_visible(found, handler.user)
    if handler.request.method != "POST":
        raise errors.page_not_found()
    if after == "info/lfs/objects/batch":
        await _lfs_batch(handler, repo)
    elif after == "info/lfs/verify":
        known = handler.json_body()["oid"] in handler.hub.catalogue.large
        await handler.answer(b"OK", "text/plain; charset=utf-8", status=200 if known else 404)
    else:
        raise errors.page_not_found()


def _split_git(path: str) -> tuple[str, str]:
    if ".git/" in path:
        before, _, after = path.partition(".git/")
        return before, after
    parts = path.split("/")
    width = 2 if path.endswith("/info/refs") else 1
    return "/".join(parts[:-width]), "/".join(parts[-width:])


async def _lfs_batch(handler: HubHandler, repo: Repo) -> None:
    body = handler.json_body()
    upload = body.get("operation") == "upload"
    if upload:
        accounts.check_writable(repo, handler.user)
    else:
        accounts.check_content(repo, handler.user, handler.hub.url)
    if upload and repo.xet and "xet" in body.get("transfers", ()):
        rows = [{"oid": item["oid"], "size": item["size"]} for item in body["objects"]]
        await handler.answer_json({"transfer": "xet", "objects": rows})
        return
    objects = [
        _upload_actions(handler, repo, item) if upload else _download_actions(handler, repo, item)
        for item in body["objects"]
    ]
    await handler.answer_json({"transfer": "basic", "objects": objects})


def _upload_actions(handler: HubHandler, repo: Repo, item: Mapping[str, Any]) -> dict[str, Any]:
    row = {"oid": item["oid"], "size": item["size"], "authenticated": True}
    if item["oid"] in handler.hub.catalogue.large:
        return row
    verify = f"{handler.hub.public_url}/{repo.web_path}.git/info/lfs/verify"
    return {
        **row,
        "actions": {"upload": _upload(handler.hub, item), "verify": {"href": verify}},
    }


def _upload(hub: FakeHub, item: Mapping[str, Any]) -> dict[str, Any]:
    """Where the bytes go: in one piece, or in parts that are reported to the Hub afterwards."""
    if hub.part_size is None:
        return {"href": hub.urls.upload(item["oid"])}
    count = -(-item["size"] // hub.part_size)
    parts = {f"{n:05}": hub.urls.part(item["oid"], n) for n in range(1, count + 1)}
    return {
        "href": f"{hub.public_url}/api/complete_multipart?uploadId={item['oid']}&signature=s",
        "header": {"chunk_size": str(hub.part_size), **parts},
    }


async def complete(handler: HubHandler) -> None:
    """The end of an upload in parts. The URL is signed: clients send no token."""
    body, kept = handler.json_body(), handler.hub.parts.get(handler.get_query_argument("uploadId"))
    if kept is None or handler.get_query_argument("signature", "") != "s":
        raise errors.forbidden()
    if [part["etag"].strip('"') for part in body["parts"]] != [kept[n][0] for n in sorted(kept)]:
        raise errors.bad_request("Some parts are missing")
    content = SmallFile(b"".join(kept[n][1] for n in sorted(kept)))
    if content.sha256() != body["oid"]:
        raise errors.bad_request("The parts are not the file")
    handler.hub.catalogue.large[body["oid"]] = content
    await handler.answer_json({"success": True})


def _download_actions(handler: HubHandler, repo: Repo, item: Mapping[str, Any]) -> dict[str, Any]:
    row = {"oid": item["oid"], "size": item["size"], "authenticated": True}
    for commit in list(repo.commits.values()):
        for path, entry in commit.files.items():
            if entry.lfs and entry.etag == item["oid"]:
                href = handler.hub.urls.download(repo, entry, path.rpartition("/")[2])
                return {**row, "actions": {"download": {"href": href, "expires_in": 3600}}}
    return {**row, "error": {"code": 404, "message": "Object does not exist"}}
