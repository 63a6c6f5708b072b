"""Buckets: storage beside the repos, whose files come by Xet alone.

Responsible for: creating, describing and deleting buckets, and what is said of files in them.
Not responsible for: repos.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .catalogue import xet_hash

if TYPE_CHECKING:
    from .routes import HubHandler


async def answer_buckets(handler: HubHandler, path: str) -> None:
    """/api/buckets/{owner}/{name} and below."""
    if handler.user is None:
        raise errors.anonymous_refusal()
    owner, name, *rest = [*path.removeprefix("/api/buckets/").split("/"), "", ""][:3]
    id = f"{handler.user.name if owner == 'me' else owner}/{name}"
    kept, method = handler.hub.buckets, handler.request.method
    if method == "POST" and rest == [""]:
        if id in kept:
            raise errors.HubError(409, "You already created this bucket")
        kept[id] = {"notes.txt": 12}
        await handler.answer_json({"url": f"{handler.hub.public_url}/buckets/{id}", "name": name})
        return
    if id not in kept:
        raise errors.repo_not_found()
    if method == "DELETE":
        del kept[id]
        await handler.answer(b"", "text/plain; charset=utf-8")
    elif method == "GET" and rest == [""]:
        await handler.answer_json(
            {
                "id": id,
                "private": False,
                "createdAt": "2026-01-01T00:00:00.000Z",
                "size": sum(kept[id].values()),
                "totalFiles": len(kept[id]),
            }
        )
    elif rest == ["paths-info"] or rest == ["tree"]:
        await handler.answer_json([_row(file, size) for file, size in kept[id].items()])
    else:
        raise errors.page_not_found()


def _row(file: str, size: int) -> dict[str, Any]:
    return {"type": "file", "path": file, "size": size, "xetHash": xet_hash(file)}
