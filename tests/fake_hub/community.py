"""What people do on the Hub beside files: discussions, likes, requests for access, collections.

Responsible for: these answers, in the shapes huggingface_hub reads.
Not responsible for: commits and refs (`writes`), except that merging a pull request moves main.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import accounts, errors, info
from .addresses import Address
from .catalogue import Repo

if TYPE_CHECKING:
    from .routes import HubHandler

_numbers = itertools.count(1)


@dataclass
class Discussion:
    """A discussion, or a pull request."""

    title: str
    author: str
    created: str
    is_pull_request: bool
    status: str = "open"
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Collection:
    """A list of repos somebody keeps."""

    slug: str
    title: str
    owner: str
    items: list[dict[str, Any]] = field(default_factory=list)


def note_pull_request(repo: Repo, number: int, title: str, author: str) -> None:
    """A commit proposed a change."""
    created = info.iso(repo.catalogue.next_date())
    repo.discussions[number] = Discussion(title, author, created, True)


async def answer_discussions(handler: HubHandler, repo: Repo, address: Address) -> None:
    """/discussions and everything below it."""
    method, rest = handler.request.method, address.rest
    if method == "GET" and not rest:
        rows = [_row(repo, number) for number in sorted(repo.discussions, reverse=True)]
        await handler.answer_json(
            {"discussions": rows, "count": len(rows), "start": 0, "numClosedDiscussions": 0}
        )
        return
    if method == "POST" and handler.user is None:
        raise errors.anonymous_refusal()
    if method == "POST" and not rest:
        await _open(handler, repo)
        return
    number = int(rest[0]) if rest and rest[0].isdigit() else 0
    if number not in repo.discussions:
        raise errors.HubError(404, "Discussion not found")
    if method == "GET":
        await handler.answer_json(_details(repo, number))
        return
    await _act(handler, repo, number, rest[1] if len(rest) > 1 else "")


async def _open(handler: HubHandler, repo: Repo) -> None:
    assert handler.user is not None
    body = handler.json_body()
    number = 1 + max(repo.discussions, default=0)
    proposal = bool(body.get("pullRequest"))
    created = info.iso(repo.catalogue.next_date())
    discussion = Discussion(body["title"], handler.user.name, created, proposal)
    if body.get("description"):
        discussion.events.append(_event(handler, repo, "comment", _said(body["description"])))
    repo.discussions[number] = discussion
    if proposal:
        repo.point(f"refs/pr/{number}")
    await handler.answer_json({"num": number, "pullRequest": proposal}, status=201)


async def _act(handler: HubHandler, repo: Repo, number: int, action: str) -> None:
    discussion = repo.discussions[number]
    body = handler.json_body() if handler.request.body else {}
    if action == "comment":
        event = _event(handler, repo, "comment", _said(body["comment"]))
        answer = {"newMessage": event}
    elif action == "status":
        discussion.status = body["status"]
        event = _event(handler, repo, "status-change", {"status": body["status"]})
        answer = {"newStatus": event}
    elif action == "title":
        change = {"from": discussion.title, "to": body["title"]}
        discussion.title = body["title"]
        event = _event(handler, repo, "title-change", change)
        answer = {"newTitle": event}
    elif action == "merge" and discussion.is_pull_request:
        accounts.check_writable(repo, handler.user)
        repo.point("main", f"refs/pr/{number}")
        discussion.status = "merged"
        event = _event(handler, repo, "status-change", {"status": "merged"})
        answer = {}
    else:
        raise errors.page_not_found()
    discussion.events.append(event)
    await handler.answer_json(answer)


def _said(text: str) -> dict[str, Any]:
    return {"edited": False, "hidden": False, "latest": {"raw": text}, "history": []}


def _event(handler: HubHandler, repo: Repo, type: str, data: dict[str, Any]) -> dict[str, Any]:
    assert handler.user is not None
    return {
        "id": f"{next(_numbers):024x}",
        "type": type,
        "author": {"name": handler.user.name},
        "createdAt": info.iso(repo.catalogue.next_date()),
        "data": data,
    }


def _row(repo: Repo, number: int) -> dict[str, Any]:
    discussion = repo.discussions[number]
    return {
        "num": number,
        "title": discussion.title,
        "status": discussion.status,
        "author": {"name": discussion.author},
        "createdAt": discussion.created,
        "isPullRequest": discussion.is_pull_request,
        "repo": {"name": repo.id, "type": repo.type[:-1]},
    }


def _details(repo: Repo, number: int) -> dict[str, Any]:
    row = {**_row(repo, number), "events": repo.discussions[number].events}
    if row["isPullRequest"]:
        row |= {"changes": {"base": "refs/heads/main"}, "filesWithConflicts": [], "diff": ""}
    return row


async def answer_like(handler: HubHandler, repo: Repo, address: Address) -> None:
    """Everybody likes, or no longer likes, what they may see."""
    if handler.user is None:
        raise errors.anonymous_refusal()
    if handler.request.method == "POST":
        repo.likers.add(handler.user.name)
    else:
        repo.likers.discard(handler.user.name)
    await handler.answer(b"", "text/plain; charset=utf-8")


async def answer_likers(handler: HubHandler, repo: Repo, address: Address) -> None:
    """Who likes a repo."""
    await handler.answer_json([{"user": name, "type": "user"} for name in sorted(repo.likers)])


async def answer_liked(handler: HubHandler, name: str) -> None:
    """What somebody likes: /api/users/{name}/likes."""
    rows = [
        {"createdAt": "2026-01-01T00:00:00.000Z", "repo": {"name": repo.id, "type": repo.type[:-1]}}
        for type in ("models", "datasets", "spaces")
        for repo in handler.hub.catalogue.all(type)
        if name in repo.likers and accounts.may_see(repo, handler.user)
    ]
    await handler.answer_json(rows)


async def answer_access_requests(handler: HubHandler, repo: Repo, address: Address) -> None:
    """/user-access-request/{status}, handle and grant."""
    accounts.check_writable(repo, handler.user)
    action = address.rest[0] if address.rest else ""
    if handler.request.method == "GET" and action in ("pending", "accepted", "rejected"):
        users = handler.hub.accounts.everybody()
        rows = [
            {
                "requestId": f"{index:024x}",
                "user": {"user": user.name, "fullname": user.name, "_id": f"{index:024x}"},
                "status": "accepted",
                "timestamp": "2026-01-01T00:00:00.000Z",
            }
            for index, user in enumerate(users)
            if action == "accepted" and repo.id in user.accepted
        ]
        await handler.answer_json(rows)
        return
    if handler.request.method != "POST" or action not in ("handle", "grant"):
        raise errors.page_not_found()
    body = handler.json_body()
    user = next((u for u in handler.hub.accounts.everybody() if u.name == body.get("user")), None)
    if user is None:
        raise errors.HubError(404, "User not found")
    if action == "grant" or body["status"] == "accepted":
        user.accepted.add(repo.id)
    else:
        user.accepted.discard(repo.id)
    await handler.answer_json({"success": True})


async def answer_collections(handler: HubHandler, path: str) -> None:
    """/api/collections and everything below it."""
    if handler.user is None and handler.request.method != "GET":
        raise errors.anonymous_refusal()
    kept = handler.hub.collections
    parts = path.removeprefix("/api/collections").strip("/").split("/")
    if parts == [""]:
        body = handler.json_body()
        assert handler.user is not None
        owner = body.get("namespace") or handler.user.name
        slug = f"{owner}/{body['title'].lower().replace(' ', '-')}-{next(_numbers):024x}"
        kept[slug] = Collection(slug, body["title"], owner)
        await handler.answer_json(_collection(kept[slug]))
        return
    slug = "/".join(parts[:2])
    if slug not in kept:
        raise errors.HubError(404, "Collection not found")
    if parts[2:3] == ["items"] and handler.request.method == "POST":
        item = handler.json_body()["item"]
        kept[slug].items.append(
            {"_id": f"{next(_numbers):024x}", "position": len(kept[slug].items), **item}
        )
    elif handler.request.method == "DELETE" and len(parts) == 2:
        del kept[slug]
        await handler.answer(b"", "text/plain; charset=utf-8")
        return
    await handler.answer_json(_collection(kept[slug]))


def _collection(collection: Collection) -> dict[str, Any]:
    return {
        "slug": collection.slug,
        "title": collection.title,
        "owner": {"name": collection.owner, "type": "user"},
        "items": collection.items,
        "lastUpdated": "2026-01-01T00:00:00.000Z",
        "position": 0,
        "private": False,
        "theme": "green",
        "upvotes": 0,
    }
