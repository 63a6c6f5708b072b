"""A fake Hub per test, and a session that talks to it without redirects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from fake_hub import FakeHub


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one Hub; redirects are shown, not followed; nothing is taken from the environment."""

    hub: FakeHub
    session: requests.Session

    def __call__(
        self, method: str, path: str, *, token: str | None = None, **rest: Any
    ) -> requests.Response:
        headers = {"Accept-Encoding": "identity", **rest.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = path if path.startswith("http") else self.hub.url + path
        rest.setdefault("allow_redirects", False)
        return self.session.request(method, url, headers=headers, timeout=10, **rest)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub.with_defaults() as hub:
        yield hub


@pytest.fixture
def ask(hub: FakeHub) -> Iterator[Asker]:
    with requests.Session() as session:
        session.trust_env = False
        yield Asker(hub, session)
