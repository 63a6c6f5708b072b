"""The right to read: verdicts of the upstream, kept for a short time for each identity.

Responsible for: storing, finding and forgetting verdicts per (remote, identity, repo), and
`decide_read`.
Not responsible for: who may talk to this server at all (`web.entrance`).

Verdicts are learnt on content: the page of a gated repo is public, its files are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict

from jupyter_hf_cache.storage.records import RepoRef, Verdict
from jupyter_hf_cache.storage.state import StateTable, key_of
from jupyter_hf_cache.upstream.policy import Lifetimes, may_read


class Rights:
    """Verdicts in the table `access`, mirrored in memory. Thread-safe.

    A lost table means that nothing is known, and so that the upstream is asked.
    """

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._memory: dict[str, Verdict | None] = {}

    def verdict(self, remote_id: str, identity: str, repo: RepoRef) -> Verdict | None:
        """Return the last verdict, however old."""
        key = _key(remote_id, identity, repo)
        with self._lock:
            if key in self._memory:
                return self._memory[key]
        row = self._table.get(key)
        verdict = Verdict(**row) if row is not None else None
        with self._lock:
            self._memory[key] = verdict
        return verdict

    def grant(self, remote_id: str, identity: str, repo: RepoRef, verdict: Verdict) -> None:
        """Keep a verdict that the upstream just gave."""
        key = _key(remote_id, identity, repo)
        self._table.set(key, asdict(verdict))
        with self._lock:
            self._memory[key] = verdict

    def revoke(self, remote_id: str, identity: str, repo: RepoRef) -> None:
        """Forget a verdict: the upstream refused."""
        key = _key(remote_id, identity, repo)
        self._table.delete(key)
        with self._lock:
            self._memory[key] = None

    def forget_remote(self, remote_id: str) -> None:
        """Forget every verdict learnt through a remote whose URL or credentials changed."""
        self._table.delete_prefix(key_of("verdict", remote_id) + "/")
        with self._lock:
            self._memory.clear()

    def public_somewhere(self, remote_id: str, repo: RepoRef) -> bool:
        """Return whether the last anonymous verdict was "public"."""
        verdict = self.verdict(remote_id, "anonymous", repo)
        return verdict is not None and verdict.public


def decide_read(
    verdict: Verdict | None,
    lifetimes: Lifetimes,
    now: float,
    *,
    ask: Callable[[], Verdict],
) -> Verdict:
    """Decide whether files of a repo may be read, before any metadata or byte is given out.

    Args:
        verdict: what is known for (remote, identity, repo).
        ask: asks the upstream on content with the caller's own credential; raises its refusal.

    Raises:
        HfCacheError: the upstream's refusal, or that it cannot be asked.
    """
    if verdict is not None and may_read(verdict, lifetimes.access, now):
        return verdict
    return ask()


def _key(remote_id: str, identity: str, repo: RepoRef) -> str:
    return key_of("verdict", remote_id, identity, repo.type, repo.id)
