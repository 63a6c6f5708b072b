"""What is not about a repo's content.

Responsible for: whoami, helpers clients call on the side, OAuth device login, and the few HTML
pages.
Not responsible for: repos (`api`, `listing`, `writes`).
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from . import buckets, community, errors, writes
from .accounts import User
from .catalogue import Repo

if TYPE_CHECKING:
    from .routes import HubHandler


async def answer_api(handler: HubHandler, path: str) -> None:
    """Routes under /api that belong to no repo."""
    if path == "/api/whoami-v2":
        await _whoami(handler)
    elif path == "/api/agent-harnesses":
        await handler.answer_json({"harnesses": []})
    elif path.startswith("/api/telemetry/"):
        await handler.answer(b"", "text/plain; charset=utf-8")
    elif path == "/api/complete_multipart":
        await writes.complete(handler)
    elif path.startswith("/api/collections"):
        await community.answer_collections(handler, path)
    elif path.startswith("/api/buckets/"):
        await buckets.answer_buckets(handler, path)
    elif path.startswith("/api/users/") and path.endswith("/likes"):
        await community.answer_liked(handler, path.split("/")[3])
    elif path == "/api/validate-yaml":
        await handler.answer_json({"errors": [], "warnings": []})
    else:
        raise errors.page_not_found()


async def _whoami(handler: HubHandler) -> None:
    user = handler.user
    if user is None:
        raise errors.anonymous_refusal()
    await handler.answer_json(
        {
            "type": "user",
            "id": f"{abs(hash(user.name)) % 16**24:024x}",
            "name": user.name,
            "fullname": user.name.title(),
            "email": f"{user.name}@example.test",
            "isPro": False,
            "orgs": [{"type": "org", "name": org, "roleInOrg": "write"} for org in user.orgs],
            "auth": {
                "type": "access_token",
                "accessToken": {
                    "displayName": "test",
                    "role": user.role,
                    "createdAt": "2026-01-01T00:00:00.000Z",
                },
            },
        }
    )


async def answer_page(handler: HubHandler, path: str) -> bool:
    """Answer a page that is no repo; False if there is none at this path."""
    if path == "/":
        await _html(handler, "Hugging Face")
    elif path == "/login":
        # A session cookie: nothing that passes requests on may keep or forward it.
        handler.set_header("Set-Cookie", "token=fake-session; Path=/; Secure; HttpOnly")
        await _html(handler, "Log in")
    elif path == "/oauth/device" and handler.request.method == "POST":
        await _oauth_device(handler)
    elif path == "/oauth/token" and handler.request.method == "POST":
        await _oauth_token(handler)
    else:
        return False
    return True


async def answer_repo_page(handler: HubHandler, repo: Repo) -> None:
    """The page of a repo in a browser."""
    await _html(handler, repo.id)


async def _html(handler: HubHandler, title: str) -> None:
    page = f"<!doctype html><html><head><title>{html.escape(title)}</title></head></html>"
    await handler.answer(page.encode(), "text/html; charset=utf-8")


async def _oauth_device(handler: HubHandler) -> None:
    await handler.answer_json(
        {
            "device_code": handler.hub.start_device_login(),
            "user_code": "ABCD-EFGH",
            "verification_uri": f"{handler.hub.url}/oauth/device/verify",
            "interval": 1,
            "expires_in": 900,
        }
    )


async def _oauth_token(handler: HubHandler) -> None:
    code = handler.get_body_argument("device_code", "")
    known, user = handler.hub.device_login(code)
    if not known:
        await handler.answer_json({"error": "invalid_grant"}, status=400)
    elif user is None:
        await handler.answer_json({"error": "authorization_pending"}, status=400)
    else:
        await handler.answer_json(_token_answer(handler, user))


def _token_answer(handler: HubHandler, user: User) -> dict[str, object]:
    token = f"hf_oauth_{user.name}"
    handler.hub.accounts.add(token, user)
    return {"access_token": token, "token_type": "bearer", "expires_in": 3600, "scope": "openid"}
