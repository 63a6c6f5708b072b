"""A Hub with repos of every kind, callers of every kind, and a cache before it.

Responsible for: making them, changing them, asking one question as one caller, and judging what
came of it: the answer, what it lets slip, and which credential went upstream.
Not responsible for: what the answer must be (`access_rules`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import requests
from access_rules import (
    CALLERS,
    FILE,
    KEEPER,
    KINDS,
    MARKER,
    NEVER_ASKED_FOR,
    WEIGHTS,
    Expected,
    Read,
    Server,
    Who,
)
from fake_hub import BigFile, FakeHub, Record, Repo
from serving import RunningCache

SIZE = 3000
MADE_UP = "made-up"
# The reads of a repo for which a remote's stored token may be used.
_LENT_FOR = re.compile(
    r"/(org/[a-z0-9-]+/(resolve|raw)/.+"
    r"|api/models/org/[a-z0-9-]+(/(revision|tree|paths-info|refs|commits)(/.+)?)?"
    # Where the Hub sends who asks for a small file.
    r"|api/resolve-cache/models/org/[a-z0-9-]+/.+)"
)


@dataclass(frozen=True)
class Named:
    """Content that is announced under a digest which its bytes do not have."""

    digest: str
    size: int = SIZE

    def read(self, offset: int, length: int) -> bytes:
        return bytes(min(length, self.size - offset))

    def sha256(self) -> str:
        return self.digest


@dataclass
class World:
    """Two Hubs and a cache with a distribution for each.

    Args:
        root: where the cache keeps its directories.
        options: of `RunningCache`.

    Attributes:
        hub: the one that has the bytes.
        other: one whose repos name digests of the first.
    """

    root: Path
    server: Server
    options: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> World:
        self._stack = ExitStack()
        self.hub = self._stack.enter_context(FakeHub())
        self.other = self._stack.enter_context(FakeHub())
        self.other.accounts = self.hub.accounts
        for hub in (self.hub, self.other):
            hub.gated_tree_open = self.server.open_tree
        for who in (KEEPER, *CALLERS.values()):
            if who.token is not None and who.then != "bad":
                self.hub.user(who.token.removeprefix("hf_"), who.token, role="read")
        self.cache = self._stack.enter_context(
            RunningCache(self.root, self.hub, single_user=self.server.single_user, **self.options)
        )
        self._configure()
        self._http = self._stack.enter_context(requests.Session())
        self._http.trust_env = False
        self._trusted = self.cache.trusted
        self._seeds = iter(range(1, 1_000_000))
        self._victim = self.make("private", "victim")
        self.load_victim()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _configure(self) -> None:
        config = self.cache.service.config
        config.update_remote(config.remotes()[0].id, {"hf_token": KEEPER.token})
        config.update_distribution(config.distributions()[0].id, {"access": self.server.mode})
        other = config.create_remote(
            {"name": MADE_UP, "url": self.other.url, "hf_token": KEEPER.token}
        )
        config.create_distribution(
            {
                "name": MADE_UP,
                "base_path": MADE_UP,
                "remote": other.id,
                "access": self.server.mode,
            }
        )

    # -- repos

    def make(self, kind: str, name: str) -> Repo:
        """Make a repo as its kind is at first; who has a right at first is given it."""
        before, _ = KINDS[kind]
        hub = self.other if kind == "claimed" else self.hub
        repo = hub.repo(
            "models",
            f"org/{name}",
            private="private" in before,
            gated="auto" if "gated" in before else False,
            disabled=before == "disabled",
        )
        weights = BigFile(SIZE, next(self._seeds))
        if kind == "claimed":
            weights = Named(self._victim_weights.sha256())  # type: ignore[assignment]
        elif name == "victim":
            self._victim_weights = weights
        words = json.dumps({"words": MARKER.decode(), "repo": name}).encode()
        repo.commit({FILE: words, WEIGHTS: weights, NEVER_ASKED_FOR: words + b"\n"})
        for who in (KEEPER, *CALLERS.values()):
            if who.then == "right":
                self._let_in(who, repo)
        return repo

    def load_victim(self) -> None:
        """Have the private file kept that others name."""
        friend = CALLERS["right"]
        url = f"/{self._victim.id}/resolve/main/{WEIGHTS}"
        answer = self.ask(friend, "private", self._victim, Read("GET", url, "files"))
        if self.server.mode != "public":
            assert answer.content == self._victim_weights.read(0, SIZE)
        self.cache.wait_idle()

    def change(self, kind: str, repo: Repo) -> None:
        """Make of a repo what its kind is afterwards."""
        before, after = KINDS[kind]
        if after == "gone":
            self.hub.catalogue.delete("models", repo.id)
        elif after != before:
            repo.private, repo.gated = after == "private", after == "gated"

    def take_back(self, repos: list[Repo]) -> None:
        """Take back rights and tokens as the callers say."""
        for who in CALLERS.values():
            if who.token is None or who.then != "right":
                continue
            if who.now == "none":
                user = self.hub.accounts.identify(f"Bearer {who.token}")
                assert user is not None
                for repo in repos:
                    user.reads.discard(repo.id)
                    user.accepted.discard(repo.id)
            elif who.now == "bad":
                self.hub.accounts.revoke(who.token)

    def _let_in(self, who: Who, repo: Repo) -> None:
        user = self.hub.accounts.identify(f"Bearer {who.token}")
        assert user is not None
        user.reads.add(repo.id)
        user.accepted.add(repo.id)

    def pause(self) -> None:
        """Let both Hubs be gone."""
        self.hub.pause()
        self.other.pause()

    # -- asking and judging

    def ask(self, who: Who, kind: str, repo: Repo, read: Read) -> requests.Response:
        """Ask one question as one caller."""
        base = self._trusted if who.trusted else self.cache.endpoint
        if kind == "claimed":
            base = base.removesuffix("/hf") + f"/{MADE_UP}"
        headers = dict(read.headers)
        if who.token is not None:
            headers["Authorization"] = f"Bearer {who.token}"
        data: dict[str, list[str]] | bytes | None = None
        if read.url.endswith("/batch"):
            data = self._lfs_question(repo)
            headers["Content-Type"] = "application/vnd.git-lfs+json"
        elif read.method == "POST":
            data = {"paths": [FILE, WEIGHTS]}
        return self._http.request(
            read.method,
            base + address(read, repo),
            headers=headers,
            data=data,
            timeout=60,
            allow_redirects=False,
        )

    def faults(
        self, who: Who, kind: str, repo: Repo, read: Read, wanted: list[Expected]
    ) -> Iterator[str]:
        """Ask, and yield what is wrong with what came of it.

        Args:
            wanted: how it may be answered.
        """
        before = {hub: len(hub.counters.requests) for hub in (self.hub, self.other)}
        answer = self.ask(who, kind, repo, read)
        wrong = [list(_wrong_answer(answer, one)) for one in wanted]
        yield from min(wrong, key=len)
        if answer.status_code >= 400 or not any(one.served for one in wanted):
            yield from self._slips(answer, repo, read)
        elif answer.status_code == read.status:
            yield from self._wrong_bytes(answer, repo, read)
        for hub, seen in before.items():
            for record in hub.counters.requests[seen:]:
                yield from self._wrong_credential(record, who, read)

    def _wrong_bytes(self, answer: requests.Response, repo: Repo, read: Read) -> Iterator[str]:
        """What is not the content of the file that was asked for."""
        if read.passed_on or not read.url.endswith((FILE, WEIGHTS)):
            return
        entry = next(iter(repo.commits.values())).files[read.url.rpartition("/")[2]]
        wanted = entry.content.read(0, entry.size)
        if "/raw/" in read.url and entry.lfs:
            wanted = entry.pointer
        elif read.status == 206:
            first, last = dict(read.headers)["Range"].removeprefix("bytes=").split("-")
            wanted = wanted[int(first) : int(last) + 1 if last else None]
        if read.method == "HEAD" or read.status == 304:
            wanted = b""
        if answer.content != wanted:
            yield "wrong bytes"

    def _slips(self, answer: requests.Response, repo: Repo, read: Read) -> Iterator[str]:
        """What a refusal must not tell: contents, names, digests, commits."""
        told = answer.content + str(dict(answer.headers)).encode()
        for name, secret in self._secrets(repo).items():
            if secret in told and secret not in address(read, repo).encode():
                yield f"a refusal that tells {name}"

    def _secrets(self, repo: Repo) -> dict[str, bytes]:
        commit = next(iter(repo.commits.values()))
        weights, words = commit.files[WEIGHTS], commit.files[FILE]
        return {
            "words": MARKER,
            "bytes": self._victim_weights.read(5, 36)
            if isinstance(weights.content, Named)
            else weights.content.read(5, 36),
            "a name": NEVER_ASKED_FOR.encode(),
            "a digest": weights.etag.encode(),
            "a git id": words.oid.encode(),
            "the commit": commit.sha.encode(),
        }

    def _wrong_credential(self, record: Record, who: Who, read: Read) -> Iterator[str]:
        sent = record.authorization
        if record.host == "cdn":
            if sent is not None or "hf_" in str(record.headers) or "hf_" in record.uri:
                yield "a credential for the storage"
            return
        own = f"Bearer {who.token}" if who.token is not None else None
        if sent in (None, own):
            return
        if sent != f"Bearer {KEEPER.token}":
            yield "somebody else's credential"
        elif who.token is not None:
            yield "the stored credential in place of their own"
        elif self.server.mode == "public":
            yield "the stored credential, where only public content is given out"
        elif self.server.mode == "caller" and not (who.trusted and self.server.single_user):
            yield "the stored credential for who has none"
        elif read.passed_on or _LENT_FOR.fullmatch(record.path) is None:
            yield f"the stored credential for {record.path}"

    def _lfs_question(self, repo: Repo) -> bytes:
        commit = next(iter(repo.commits.values()))
        weights = commit.files[WEIGHTS]
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": weights.etag, "size": weights.size}],
        }
        return json.dumps(question).encode()


def address(read: Read, repo: Repo) -> str:
    """Return the path and query of a read of a repo."""
    commit = next(iter(repo.commits.values()))
    return read.url.format(id=repo.id, sha=commit.sha)


def _wrong_answer(answer: requests.Response, wanted: Expected) -> Iterator[str]:
    status, code = answer.status_code, answer.headers.get("X-Error-Code")
    message = answer.headers.get("X-Error-Message")
    if status != wanted.status:
        yield f"{status} ({code}, {message}) in place of {wanted.status}"
    elif not wanted.served:
        if code != wanted.code:
            yield f"the code {code} in place of {wanted.code}"
        if wanted.message is not None and not (message or "").startswith(wanted.message):
            yield f"the message {message!r} in place of {wanted.message!r}"
