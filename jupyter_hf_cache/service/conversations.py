"""What a client was told about a file of a moving ref, so that it gets the rest from one commit.

Responsible for: remembering at which commit a client was told of a file or given its bytes, and
saying from which commit a request that goes on is answered.
Not responsible for: whether the client may read it (decided anew for each request, as for any
commit), or what a ref points at now (`service.revisions`).

A client that downloads `main` asks several times: for the head, for the body, and for the rest of a
body that was cut. If the branch moves in between, the answers must not be of two commits: clients
join them to one file and most do not look at the ETag again. Who the client is, is guessed from the
endpoint it uses, the identity it asks with and its `User-Agent`. Two clients may look the same; so
where it was given two versions of a file, the rest is not guessed at and it gets the whole file.

A request that begins (no Range, or one for the first byte) always goes to where the ref points now,
but for a GET that follows its own HEAD within seconds. Libraries of the Hub begin each download
with a HEAD and name the file by its ETag, whatever the GET brings, also when they repeat it from
the start after a cut; so their GET of a large file is of the commit of their last HEAD.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from jupyter_hf_cache.answers import Answer, BytesBody
from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.paths import HubRequest, Kind
from jupyter_hf_cache.protocol.ranges import is_beginning, is_open_ended
from jupyter_hf_cache.service.bodies import SMALL
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.storage.pruning import Pruning
from jupyter_hf_cache.storage.records import Claim, RepoRef
from jupyter_hf_cache.storage.state import StateTable

logger = logging.getLogger(__name__)

KEPT_SECONDS = 3600.0
"""After a client's last answer its commit is kept for so long."""

LONGEST_SECONDS = 24 * 3600.0
HEAD_SECONDS = 30.0
"""Within this time after a HEAD, the GET is of the same commit."""

# Part of the `User-Agent` of huggingface_hub and all that use it, and of the crate hf-hub.
_LIBRARIES = ("hf_hub/", "hf-hub/")

_MOST = 20_000
_IN_MEMORY = 5_000
_MOST_VERSIONS = 4
_REWRITE_SECONDS = 300.0
_NOTED_AGAIN_SECONDS = 1.0
_PREFIX = "talk"
_LONGEST_LIST = 64 * 1024


@dataclass(frozen=True, slots=True)
class Talk:
    """Who speaks about which file. It holds the address of a private entrance: never on disk.

    Args:
        file: "" for all files of the ref.
    """

    scope: str
    identity: str
    base: str = field(repr=False)
    agent: str
    repo: RepoRef
    revision: str
    file: str


@dataclass(frozen=True, slots=True)
class Told:
    """One version of a file that a client was told of. Times are Unix seconds, 0 for never.

    Args:
        etag: unquoted; "" where only the commit was named.
        headed: its head was asked for.
        given: its bytes were asked for from the beginning.
        used: something of it was given out.
        large: other processes and a later start know of it too.
    """

    commit: str
    etag: str
    headed: float = 0.0
    given: float = 0.0
    used: float = 0.0
    large: bool = False

    @property
    def since(self) -> float:
        """When the client last began with this version."""
        return max(self.headed, self.given)


@dataclass(frozen=True, slots=True)
class Turn:
    """How a request goes on.

    Args:
        commit: from which it must be answered; None: from where the ref points.
        whole: the client may hold the beginning of another version: it gets the whole file.
        unknown: it goes on with something that nothing is known of.
    """

    commit: str | None = None
    whole: bool = False
    unknown: bool = False


class Conversations:
    """What clients were told, in memory and for large files in a state table. Thread-safe; `turn`
    and `write` block on disk, `note` does not.

    Args:
        name: makes a keyed hash of a text, the same in every process.

    Attributes:
        news: a number that is higher when a client was told of a commit that it had not been told
            of last.
    """

    def __init__(self, table: StateTable, name: Callable[[str], str]) -> None:
        self._table = table
        self._name = name
        self._pruning = Pruning(table, _PREFIX + "/", most=_MOST)
        self._lock = threading.Lock()
        self._talks: OrderedDict[Talk, list[Told]] = OrderedDict()
        self.news = 0
        self._written: OrderedDict[Talk, Told] = OrderedDict()
        self._unwritten: set[Talk] = set()

    def turn(
        self, request: HubRequest, caller: Caller, headers: Mapping[str, str], *, changed: float
    ) -> Turn:
        """Decide from which commit a request for a file of a moving ref is answered.

        Args:
            changed: Unix time of the last change of the repo that went through this cache.
        """
        talk, asked = talk_of(request, caller, headers), headers.get("Range")
        if is_beginning(asked):
            return Turn() if request.method == "HEAD" else self._body_of_head(talk, changed)
        versions = self._alive(talk)
        if condition := headers.get("If-Range", "").strip().strip('"'):
            same = [told for told in versions if told.etag == condition]
            return Turn(same[-1].commit) if same else Turn()
        if is_open_ended(asked or ""):
            return _rest_of(versions)
        # Of a tree, all files of the ref were told at once.
        versions += self._alive(replace(talk, file=""))
        return Turn(max(versions, key=lambda told: told.since).commit) if versions else Turn()

    def _body_of_head(self, talk: Talk, changed: float) -> Turn:
        versions = self._known(talk)
        if _names_by_head(talk):
            versions = [*versions, *self._alive(talk), *self._alive(replace(talk, file=""))]
        headed = _last_headed(talk, versions)
        return Turn() if headed is None or headed.headed <= changed else Turn(headed.commit)

    def headed(self, talk: Talk) -> Told | None:
        """Return what a client was told in answer to its HEAD, as far as this process knows, if
        its GET must be of the same commit. Does not block."""
        return _last_headed(talk, self._known(talk))

    def _known(self, talk: Talk) -> list[Told]:
        with self._lock:
            return list(self._talks.get(talk, ()))

    # -- remembering

    def say(
        self,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        claim: Claim,
        answer: Answer,
    ) -> None:
        """A client is being told of a file of a moving ref, or given its bytes."""
        talk, now = talk_of(request, caller, headers), time.time()
        begins, gives = is_beginning(headers.get("Range")), request.method == "GET"
        large = claim.size is not None and claim.size > SMALL
        told = Told(claim.commit, claim.etag, used=now, large=large)
        answer.spoken = _Spoken(self, talk, told, caller.distribution.base_path)
        if begins and gives and "Range" not in headers:
            told = replace(told, given=now)
        elif begins:
            told = replace(told, headed=now)
        if gives and not large and not told.headed:
            # It is sent at once. What was changed lately is not resumed without being known here.
            return
        if self.note(talk, told):
            self.write()
        if gives:
            answer.ended = partial(self._ended, talk, told)

    def say_list(
        self,
        request: HubRequest,
        caller: Caller,
        headers: Mapping[str, str],
        commit: str,
        answer: Answer,
    ) -> None:
        """A client is being told of files by name: a tree, or the paths it asked about. Readers of
        parts take the sizes from there and ask for nothing but parts."""
        now, talk = time.time(), talk_of(request, caller, headers)
        files = [("", "", True)] if request.kind is Kind.TREE else _listed(answer)
        due = False
        for path, etag, large in files:
            told = Told(commit, etag, headed=now, used=now, large=large)
            due |= self.note(replace(talk, file=path), told)
        if due:
            self.write()

    def _ended(self, talk: Talk, told: Told) -> None:
        """A body has ended, perhaps hours after it began, and perhaps before its own end."""
        if self.note(talk, replace(told, used=time.time())):
            self.write()

    def note(self, talk: Talk, told: Told) -> bool:
        """Remember what a client is told.

        Returns:
            Whether something is to be written (`write`).
        """
        with self._lock:
            versions = self._talks.get(talk, [])
            if any(known.commit != told.commit for known in versions) or not versions:
                self.news += 1
            self._talks[talk] = _merged([*versions, told])
            self._talks.move_to_end(talk)
            while len(self._talks) > _IN_MEMORY:
                self._talks.popitem(last=False)
            if not told.large or _says_nothing_new(told, self._written.get(talk)):
                return False
            self._unwritten.add(talk)
            return True

    def write(self) -> None:
        """Write what is to be remembered for long; where the disk refuses, it stays in memory."""
        with self._lock:
            unwritten, self._unwritten = self._unwritten, set()
        for talk in unwritten:
            large = [told for told in self._known(talk) if told.large]
            if not large:
                continue
            try:
                self._table.set(self._row_of(talk), _as_row(_merged([*self._read(talk), *large])))
                self._pruning.written()
            except StorageError as error:
                logger.warning("what a client was told is not written: %s", error.message)
            with self._lock:
                self._written[talk] = large[-1]
                self._written.move_to_end(talk)
                while len(self._written) > _IN_MEMORY:
                    self._written.popitem(last=False)

    def _alive(self, talk: Talk) -> list[Told]:
        """Return the versions that still count, from all processes."""
        rows = self._read(talk)
        now = time.time()
        with self._lock:
            versions = _merged([*rows, *self._talks.get(talk, ())])
        return [
            told
            for told in versions
            if now - told.used < KEPT_SECONDS and now - told.since < LONGEST_SECONDS
        ]

    def _read(self, talk: Talk) -> list[Told]:
        try:
            row = self._table.get(self._row_of(talk))
            return [Told(**told) for told in row or ()]
        except (StorageError, TypeError) as error:
            logger.warning("what a client was told is not read: %s", error)
            return []

    def _row_of(self, talk: Talk) -> str:
        parts = asdict(talk)
        repo = parts.pop("repo")
        return f"{_PREFIX}/{self._name(chr(0).join([*parts.values(), repo['type'], repo['id']]))}"


def _listed(answer: Answer) -> list[tuple[str, str, bool]]:
    """Return (path, ETag, whether it is large) of the files in a list, as far as it is short."""
    if not isinstance(answer.body, BytesBody) or len(answer.body.data) > _LONGEST_LIST:
        return []
    found = []
    for row in json.loads(answer.body.data):
        if not isinstance(row, dict) or row.get("type") != "file":
            continue
        path, size, lfs = row.get("path"), row.get("size"), row.get("lfs")
        etag = (lfs if isinstance(lfs, dict) else row).get("oid")
        if isinstance(path, str) and isinstance(size, int) and isinstance(etag, str):
            found.append((path, etag, size > SMALL))
    return found


class _Spoken:
    """See `answers.Spoken`. The event loop asks it with each request, mostly of the same client."""

    __slots__ = ("_agreed", "_base_path", "_conversations", "_headed", "_last", "_told")

    def __init__(
        self, conversations: Conversations, talk: Talk, told: Told, base_path: str
    ) -> None:
        self._conversations = conversations
        self._told = told
        self._base_path = base_path
        self._last = ("", "", talk)
        self._headed: tuple[Talk, float] = (talk, 0.0)
        self._agreed: tuple[Talk, int] = (talk, -1)

    def head(self, base: str, agent: str) -> None:
        now, talk = time.time(), self._with(base, agent)
        headed, when = self._headed
        if headed is talk and 0 <= now - when < _NOTED_AGAIN_SECONDS:
            return
        self._conversations.note(talk, replace(self._told, headed=now, used=now))
        self._headed = talk, now

    def contradicts(self, base: str, agent: str) -> bool:
        talk, news = self._with(base, agent), self._conversations.news
        agreed, when = self._agreed
        if agreed is talk and when == news:
            return False
        headed = self._conversations.headed(talk)
        if headed is not None and headed.commit != self._told.commit:
            return True
        self._agreed = talk, news
        return False

    def _with(self, base: str, agent: str) -> Talk:
        last_base, last_agent, talk = self._last
        if last_base != base or last_agent != agent:
            talk = replace(talk, base=f"{base.rstrip('/')}/{self._base_path}", agent=agent)
            self._last = base, agent, talk
        return talk


def talk_of(request: HubRequest, caller: Caller, headers: Mapping[str, str]) -> Talk:
    """Return who speaks about what."""
    return Talk(
        scope=caller.scope,
        identity=caller.identity,
        base=caller.base,
        agent=headers.get("User-Agent", ""),
        repo=request.repo or RepoRef("models", ""),
        revision=request.revision or "",
        file=request.file or "",
    )


def _names_by_head(talk: Talk) -> bool:
    return any(library in talk.agent for library in _LIBRARIES)


def _last_headed(talk: Talk, versions: Sequence[Told]) -> Told | None:
    """Return what a client was told in answer to its HEAD, if its GET must fit to that."""
    headed = max(versions, key=lambda told: told.headed, default=None)
    if headed is None or not headed.headed:
        return None
    now = time.time()
    if 0 <= now - headed.headed < HEAD_SECONDS:
        return headed
    # What only this process knows may not be the last that the client was told.
    named = headed.large and _names_by_head(talk)
    return headed if named and 0 <= now - headed.used < KEPT_SECONDS else None


def _rest_of(versions: Sequence[Told]) -> Turn:
    """Decide on the rest of a file, whose beginning the client has."""
    now = time.time()
    begun = [told for told in versions if told.given or now - told.headed < HEAD_SECONDS]
    if len({told.etag for told in begun}) > 1:
        return Turn(whole=True)
    return Turn(begun[-1].commit) if begun else Turn(unknown=True)


def _says_nothing_new(told: Told, written: Told | None) -> bool:
    if written is None or written.commit != told.commit or (told.given and not written.given):
        return False
    return 0 <= told.used - written.used < _REWRITE_SECONDS


def _merged(versions: Sequence[Told]) -> list[Told]:
    """One entry for each version, the last used at the end."""
    by_commit: dict[str, Told] = {}
    for told in versions:
        known = by_commit.get(told.commit)
        by_commit[told.commit] = told if known is None else _both(known, told)
    return sorted(by_commit.values(), key=lambda told: told.used)[-_MOST_VERSIONS:]


def _both(one: Told, other: Told) -> Told:
    return Told(
        commit=one.commit,
        etag=one.etag or other.etag,
        headed=max(one.headed, other.headed),
        given=max(one.given, other.given),
        used=max(one.used, other.used),
        large=one.large or other.large,
    )


def _as_row(versions: Sequence[Told]) -> list[dict[str, object]]:
    return [asdict(told) for told in versions]
