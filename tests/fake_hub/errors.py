"""The Hub's refusals.

Responsible for: one exception type and a constructor per case a Hub client can meet, each with the
status, code and words the real Hub uses.
Not responsible for: deciding when to refuse (`accounts`, `catalogue`, the route modules).
"""

from __future__ import annotations

from collections.abc import Mapping


class HubError(Exception):
    """An answer that is not a success.

    Args:
        status: HTTP status.
        message: value of X-Error-Message and of the body.
        code: value of X-Error-Code; None where the Hub sends no such header.
        headers: further response headers.
        text: the body outside /api, where it differs from the message.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.text = message if text is None else text


def anonymous_refusal() -> HubError:
    """A missing or private repo, to someone not signed in: the Hub sends no code here."""
    return HubError(
        401,
        "Invalid username or password.",
        headers={"WWW-Authenticate": 'Bearer realm="Authentication required", charset="UTF-8"'},
    )


def bad_token() -> HubError:
    """A token that is unknown or revoked. huggingface_hub compares this very sentence."""
    return HubError(401, "Invalid credentials in Authorization header")


def rate_limited() -> HubError:
    return HubError(429, "Too many requests: you have reached your rate limit.")


def repo_not_found() -> HubError:
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(commit: str, message: str = "Entry not found") -> HubError:
    """A missing file or folder; the commit is known, and clients store the absence under it."""
    return HubError(404, message, "EntryNotFound", headers={"X-Repo-Commit": commit})


def gated(repo_id: str, url: str, *, signed_in: bool) -> HubError:
    if signed_in:
        message = (
            f"Access to {repo_id} is restricted and you are not in the authorized list. "
            f"Visit {url} to ask for access."
        )
        return HubError(403, message, "GatedRepo")
    message = (
        f"Access to {repo_id} is restricted. You must have access to it and be authenticated "
        "to access it. Please log in."
    )
    return HubError(401, message, "GatedRepo")


def disabled() -> HubError:
    """huggingface_hub knows a disabled repo by this sentence alone."""
    return HubError(403, "Access to this resource is disabled.")


def forbidden(message: str = "You don't have the rights required for this action.") -> HubError:
    return HubError(403, message)


def bad_request(message: str) -> HubError:
    return HubError(400, message)


def page_not_found() -> HubError:
    """A path that is no route at all: no code, as for any web page."""
    return HubError(404, "Sorry, we can't find the page you are looking for.")
