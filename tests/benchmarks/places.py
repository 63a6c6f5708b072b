"""Places from which a client can download: the cache in its forms, and others like it.

Responsible for: what all have in common, and the cache itself.
Not responsible for: the others (`nginx`, `olah`), and starting anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from tests.clients.server import JupyterServer, ServerProcess, StandAloneServer, wait_for

from .load import download
from .machine import BenchmarkError

CONFIG = "config.json"
MODEL = "model.bin"


def url_of(endpoint: str, repo: str, file: str = MODEL, revision: str = "main") -> str:
    """Where a file is at a Hub, or at what looks like one."""
    return f"{endpoint}/{repo}/resolve/{revision}/{file}"


class Place(ABC):
    """A running server that looks like a Hub.

    Args:
        name: what the table calls it.
        endpoint: what a client takes as HF_ENDPOINT.
    """

    def __init__(self, name: str, endpoint: str) -> None:
        self.name = name
        self.endpoint = endpoint
        self._kept: set[str] = set()

    @property
    @abstractmethod
    def pid(self) -> int:
        """Of its first process."""

    def url(self, repo: str, file: str = MODEL) -> str:
        """Where it has a file."""
        return url_of(self.endpoint, repo, file)

    def keep(self, repo: str, size: int) -> None:
        """See to it that the repo's big file is kept here."""
        if repo not in self._kept:
            download(self.url(repo), size)
            self.settle()
            self._kept.add(repo)

    def forget(self, repo: str) -> None:
        """Make the next download of the repo a cold one."""
        self._kept.discard(repo)
        self._forget(repo)

    @abstractmethod
    def _forget(self, repo: str) -> None: ...

    def settle(self) -> None:
        """Wait until what was downloaded is kept: only then is it there to be forgotten."""
        return


class Cache(Place):
    """The cache in one of its forms.

    Args:
        server: the running process.
    """

    def __init__(self, name: str, server: JupyterServer | StandAloneServer) -> None:
        # By number: curl would try ::1 first.
        super().__init__(name, server.endpoint.replace("//localhost:", "//127.0.0.1:"))
        self.server: ServerProcess = server

    @property
    def pid(self) -> int:
        return self.server.pid

    def _forget(self, repo: str) -> None:
        answer = self.server.api("DELETE", f"hf-cache/v1/repos/models/{repo}")
        if answer.status_code not in (200, 404):
            raise BenchmarkError(f"the cache did not forget {repo}: {answer.text}")

    def fill_states(self) -> set[str]:
        """The states of all fills that the cache knows of.

        Raises:
            BenchmarkError: one failed.
        """
        fills = self.server.api("GET", "hf-cache/v1/fills").json()["results"]
        states = {fill["state"] for fill in fills}
        if "failed" in states:
            raise BenchmarkError(f"a fill failed: {fills}")
        return states

    def settle(self) -> None:
        wait_for(lambda: self.fill_states() <= {"done"} or None, "end of the fills")
