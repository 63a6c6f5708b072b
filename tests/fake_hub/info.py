"""The JSON forms of a repo and a commit.

Responsible for: field names and shapes as the Hub's API gives them.
Not responsible for: routes and access.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from . import errors
from .catalogue import Commit, Entry, Repo

_ALWAYS = ("_id", "id")
# May be asked for about every repo; those that have none answer without.
_OF_SOME_REPOS = frozenset({"config", "library_name", "pipeline_tag", "sdk"})


def iso(date: datetime) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def repo_info(
    repo: Repo,
    commit: Commit | None,
    *,
    expand: list[str] | None = None,
    blobs: bool = False,
    security: bool = False,
    full: bool = True,
) -> dict[str, Any]:
    """A repo at a commit; with `expand` only the fields asked for.

    Raises:
        HubError: `expand` names an unknown field.
    """
    fields = _fields(repo, commit, blobs=blobs, full=full or bool(expand))
    if expand:
        known = {**fields, **_only_expanded(repo, commit)}
        for name in expand:
            if name not in known and name not in _OF_SOME_REPOS:
                raise errors.bad_request(f'Invalid expand field: "{name}"')
        return {name: known[name] for name in (*_ALWAYS, *expand) if name in known}
    if security:
        fields["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
    return fields


def _fields(repo: Repo, commit: Commit | None, *, blobs: bool, full: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "_id": repo.object_id,
        "id": repo.id,
        "private": repo.private,
        "tags": list(repo.tags),
        "downloads": repo.downloads,
        "likes": repo.likes,
        "createdAt": iso(repo.catalogue.first_date(repo)),
    }
    if repo.type == "models":
        fields |= {"modelId": repo.id, **_model_fields(repo, commit)}
    if repo.type == "spaces":
        fields |= {"sdk": "static", "host": f"https://{repo.id.replace('/', '-')}.hf.space"}
    if full:
        fields |= {
            "author": repo.id.partition("/")[0] if "/" in repo.id else None,
            "sha": commit.sha if commit else None,
            "lastModified": iso(commit.date) if commit else None,
            "gated": repo.gated,
            "disabled": repo.disabled,
            "cardData": {},
            "siblings": _siblings(commit, blobs=blobs),
            "spaces": [],
            "usedStorage": sum(e.size for e in commit.files.values()) if commit else 0,
        }
    return fields


def _only_expanded(repo: Repo, commit: Commit | None) -> dict[str, Any]:
    return {
        "xetEnabled": repo.xet,
        "trendingScore": 0,
        "downloadsAllTime": repo.downloads,
        "resourceGroup": None,
        "safetensors": None,
    }


def _model_fields(repo: Repo, commit: Commit | None) -> dict[str, Any]:
    config = _config(commit)
    if config is None:
        return {}
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation" if config.get("model_type") == "gpt2" else "fill-mask",
        "config": {
            "architectures": config.get("architectures"),
            "model_type": config.get("model_type"),
        },
    }


def _config(commit: Commit | None) -> dict[str, Any] | None:
    entry = commit.files.get("config.json") if commit else None
    if entry is None:
        return None
    try:
        config = json.loads(entry.content.read(0, entry.size))
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def _siblings(commit: Commit | None, *, blobs: bool) -> list[dict[str, Any]]:
    return [_sibling(p, e, blobs) for p, e in commit.files.items()] if commit else []


def _sibling(path: str, entry: Entry, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    row: dict[str, Any] = {"rfilename": path, "size": entry.size, "blobId": entry.oid}
    if entry.lfs:
        # The digest is called `sha256` here, and `oid` in tree: a trap the Hub really sets.
        row["lfs"] = {
            "sha256": entry.content.sha256(),
            "size": entry.size,
            "pointerSize": len(entry.pointer),
        }
    return row


def commit_row(commit: Commit, formatted: bool) -> dict[str, Any]:
    """A commit in a list of commits."""
    title, _, message = commit.message.partition("\n")
    row: dict[str, Any] = {
        "id": commit.sha,
        "title": title,
        "message": message.strip(),
        "authors": [{"user": commit.author, "avatar": f"/avatars/{commit.author}.svg"}],
        "date": iso(commit.date),
    }
    if formatted:
        row["formatted"] = {"title": f"<p>{title}</p>", "message": f"<p>{message.strip()}</p>"}
    return row
