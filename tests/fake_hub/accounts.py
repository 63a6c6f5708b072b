"""Who is asking, and what they may read.

Responsible for: tokens, the users behind them, revocation while running, and the decision whether a
user may see a repo or its content.
Not responsible for: what a repo holds (`catalogue`).
"""

from __future__ import annotations

import base64
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import errors

if TYPE_CHECKING:
    from .catalogue import Repo


@dataclass(slots=True, eq=False)
class User:
    """An account. The sets hold repo ids; a user reads and writes what is in their own namespaces.

    Attributes:
        name: also the user's own namespace.
        orgs: further namespaces the user may read and write.
        reads: private repos of others that this user may read.
        accepted: gated repos this user was granted.
        role: "read" or "write", the role of the token.
    """

    name: str
    orgs: set[str] = field(default_factory=set)
    reads: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    role: str = "write"

    def owns(self, repo_id: str) -> bool:
        owner = repo_id.partition("/")[0]
        return "/" in repo_id and (owner == self.name or owner in self.orgs)


class Accounts:
    """Tokens and users. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_token: dict[str, User] = {}

    def add(self, token: str, user: User) -> User:
        """Let `token` sign in as `user`; several tokens may name one user."""
        with self._lock:
            self._by_token[token] = user
        return user

    def revoke(self, token: str) -> None:
        """From now on the token is refused like one that never was."""
        with self._lock:
            self._by_token.pop(token, None)

    def everybody(self) -> list[User]:
        """All users, by name."""
        with self._lock:
            return sorted(set(self._by_token.values()), key=lambda user: user.name)

    def identify(self, authorization: str | None) -> User | None:
        """The user of an Authorization header, or None when there is none.

        Raises:
            HubError: the header names no known token; the Hub never falls back to anonymous.
        """
        if authorization is None:
            return None
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "basic":
            token = _password_of(token)
        with self._lock:
            user = self._by_token.get(token.strip())
        if scheme.lower() not in ("bearer", "basic") or user is None:
            raise errors.bad_token()
        return user


def _password_of(basic: str) -> str:
    """git sends a token as a password."""
    try:
        return base64.b64decode(basic).decode().partition(":")[2]
    except ValueError:
        return ""


def may_see(repo: Repo, user: User | None) -> bool:
    """Whether the repo exists at all for this user."""
    if not repo.private:
        return True
    return user is not None and (user.owns(repo.id) or repo.id in user.reads)


def check_visible(repo: Repo | None, user: User | None) -> Repo:
    """The repo, or the Hub's refusal for one that is missing or private."""
    if repo is not None and may_see(repo, user):
        return repo
    raise errors.anonymous_refusal() if user is None else errors.repo_not_found()


def is_granted(repo: Repo, user: User | None) -> bool:
    """Whether the gate of the repo, if it has one, is open to this user."""
    if not repo.gated:
        return True
    return user is not None and (user.owns(repo.id) or repo.id in user.accepted)


def check_content(repo: Repo, user: User | None, hub_url: str) -> None:
    """Refuse the files of a disabled repo, and of a gated one without a grant."""
    if repo.disabled:
        raise errors.disabled()
    if is_granted(repo, user):
        return
    raise errors.gated(
        f"{repo.type[:-1]} {repo.id}", f"{hub_url}/{repo.web_path}", signed_in=user is not None
    )


def check_writable(repo: Repo, user: User | None) -> None:
    """Refuse changes by anyone but the owner with a writing token."""
    if user is None:
        raise errors.anonymous_refusal()
    if user.role != "write" or not user.owns(repo.id):
        raise errors.forbidden()
