"""Who may read what, as the rules say: the expected half of the table of access.

Responsible for: the callers, the kinds of repos and the kinds of reads of the table, and the one
function that says how each read must be answered. It is written from the Hub's rules and from what
the documentation promises, and knows nothing of how the cache decides.
Not responsible for: asking (`access_world`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Phase = Literal["cold", "warm", "stale", "offline", "late"]
"""When a read comes: nobody asked yet; within the lifetime of what was learnt; after it; with the
upstream gone; with the upstream gone for longer than the grace time."""

FILE = "config.json"
WEIGHTS = "model.bin"
NEVER_ASKED_FOR = "hidden-name.txt"
MARKER = b"the-words-of-the-file"


@dataclass(frozen=True)
class Who:
    """A caller.

    Args:
        token: their own, sent as a bearer.
        trusted: they come in by a capability.
        then, now: what the Hub knows of the token: a right to everything ("right"), none, or that
            there is no such token ("bad"); before and after something changed.
    """

    token: str | None = None
    trusted: bool = False
    then: Literal["right", "none", "bad"] = "none"
    now: Literal["right", "none", "bad"] = "none"


ANONYMOUS = Who()
KEEPER = Who("hf_keeper", then="right", now="right")
"""Whose token the remote holds."""
CALLERS = {
    "anonymous": ANONYMOUS,
    "no right": Who("hf_stranger"),
    "right": Who("hf_friend", then="right", now="right"),
    "right taken back": Who("hf_former", then="right"),
    "token taken back": Who("hf_expired", then="right", now="bad"),
    "bad token": Who("hf_never", then="bad", now="bad"),
    "trusted": Who(trusted=True),
    "trusted, no right": Who("hf_stranger2", trusted=True),
    "trusted, right": Who("hf_friend2", trusted=True, then="right", now="right"),
    "trusted, bad token": Who("hf_never2", trusted=True, then="bad", now="bad"),
}

KINDS = {
    "public": ("public", "public"),
    "private": ("private", "private"),
    "gated": ("gated", "gated"),
    "private-gated": ("private-gated", "private-gated"),
    "disabled": ("disabled", "disabled"),
    "deleted": ("public", "gone"),
    "private-deleted": ("private", "gone"),
    "made-private": ("public", "private"),
    "made-gated": ("public", "gated"),
    "claimed": ("public", "public"),
}
"""Kind → what it is before and after something changed. "claimed" is a public repo of another
origin that names the digest of a private file, and does not have its bytes."""


@dataclass(frozen=True)
class Read:
    """A kind of question.

    Args:
        needs: the right to files, to what a gated repo may hide ("list"), or to the repo's page.
        passed_on: it is never answered from what is kept.
        bytes: the answer holds bytes of the weights.
        by_anybody: it is passed on for who did not sign in, too.
    """

    method: str
    url: str
    needs: Literal["files", "list", "page"]
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    passed_on: bool = False
    bytes: bool = False
    by_anybody: bool = False


READS = {
    "HEAD": Read("HEAD", "/{id}/resolve/main/" + FILE, "files"),
    "HEAD weights": Read("HEAD", "/{id}/resolve/main/" + WEIGHTS, "files"),
    "GET": Read("GET", "/{id}/resolve/main/" + FILE, "files"),
    "GET weights": Read("GET", "/{id}/resolve/{sha}/" + WEIGHTS, "files", bytes=True),
    "Range": Read(
        "GET",
        "/{id}/resolve/main/" + WEIGHTS,
        "files",
        status=206,
        headers=(("Range", "bytes=5-40"),),
        bytes=True,
    ),
    "resume": Read(
        "GET",
        "/{id}/resolve/{sha}/" + WEIGHTS,
        "files",
        status=206,
        headers=(("Range", "bytes=2000-"),),
        bytes=True,
    ),
    "condition": Read(
        "GET", "/{id}/resolve/main/" + FILE, "files", status=304, headers=(("If-None-Match", "*"),)
    ),
    "raw": Read("GET", "/{id}/raw/main/" + WEIGHTS, "files"),
    "raw text": Read("GET", "/{id}/raw/{sha}/" + FILE, "files"),
    "tree": Read("GET", "/api/models/{id}/tree/main", "list"),
    "tree at commit": Read("GET", "/api/models/{id}/tree/{sha}?recursive=true", "list"),
    "paths-info": Read("POST", "/api/models/{id}/paths-info/{sha}", "list"),
    "commits": Read("GET", "/api/models/{id}/commits/{sha}", "files"),
    "auth-check": Read(
        "GET", "/api/models/{id}/auth-check", "files", passed_on=True, by_anybody=True
    ),
    "xet token": Read(
        "GET",
        "/api/models/{id}/xet-read-token/{sha}",
        "files",
        passed_on=True,
        by_anybody=True,
        bytes=True,
    ),
    "LFS batch": Read(
        "POST", "/{id}.git/info/lfs/objects/batch", "files", passed_on=True, bytes=True
    ),
    "resolve-cache": Read(
        "GET", "/api/resolve-cache/models/{id}/{sha}/" + FILE, "files", passed_on=True
    ),
    "discussions": Read("GET", "/api/models/{id}/discussions", "page", passed_on=True),
    "refs": Read("GET", "/api/models/{id}/refs", "page"),
    "info at commit": Read("GET", "/api/models/{id}/revision/{sha}", "page"),
    # The page last: what it says of the repo is the last word of its phase.
    "info": Read("GET", "/api/models/{id}", "page"),
}

SOME_READS = ("HEAD", "GET", "Range", "raw", "tree at commit", "auth-check", "LFS batch", "info")
SOME_KINDS = ("public", "private", "gated", "disabled", "made-private", "claimed")
SOME_CALLERS = ("anonymous", "no right", "right", "right taken back", "bad token", "trusted")


@dataclass(frozen=True)
class Server:
    """How a cache is set up.

    Args:
        mode: `access` of the distribution.
        open_tree: the Hub shows the tree of a gated repo to everybody.
    """

    mode: Literal["caller", "shared", "public"] = "caller"
    single_user: bool = True
    open_tree: bool = False


@dataclass(frozen=True)
class Expected:
    """An answer; `message` is the beginning of X-Error-Message, None where it is not told."""

    status: int
    code: str | None = None
    message: str | None = None

    @property
    def served(self) -> bool:
        return self.status < 400


UNREACHABLE = Expected(521)
NO_ENTRANCE = Expected(401, None, "Without signing in, this cache gives out files")
BAD_TOKEN = Expected(401, None, "Invalid credentials in Authorization header")
BROKEN_CLAIM = [Expected(502), Expected(503)]


def expected(
    server: Server, who: Who, kind: str, read: Read, phase: Phase, *, asked_since: bool = False
) -> list[Expected]:
    """Return how a read may be answered.

    There are two ways only where something was taken back a moment ago: what was learnt before
    holds for a while, and ends as soon as anybody notices.

    Args:
        asked_since: the same question was asked after the change, before the upstream was gone.
    """
    if read.passed_on and not read.by_anybody and who == ANONYMOUS:
        return [NO_ENTRANCE]
    reader = _reads_as(server, who, read)
    answers = _answers(server, who, reader, kind, read, phase, asked_since)
    if server.mode == "public" and reader.token is not None:
        # Their own token opens nothing, but a bad one is refused.
        others = _answers(server, who, ANONYMOUS, kind, read, phase, asked_since)
        refusals = [answer for answer in answers if not answer.served]
        answers = refusals + (others if len(refusals) < len(answers) else [])
    if kind == "claimed" and not read.passed_on and read.url.endswith(WEIGHTS):
        return [one for answer in answers for one in _of_a_claim(answer, read, phase)]
    return answers


def _of_a_claim(answer: Expected, read: Read, phase: Phase) -> list[Expected]:
    """What becomes of an answer about bytes that their origin does not have."""
    if answer.served and phase in ("offline", "late"):
        return [UNREACHABLE]
    return BROKEN_CLAIM if answer.served and read.bytes else [answer]


def _reads_as(server: Server, who: Who, read: Read) -> Who:
    """With whose right a caller reads."""
    if who.token is not None:
        return who
    if read.passed_on or server.mode == "public":
        return ANONYMOUS
    if server.mode == "shared" or (server.single_user and who.trusted):
        return KEEPER
    return ANONYMOUS


def _answers(
    server: Server,
    who: Who,
    reader: Who,
    kind: str,
    read: Read,
    phase: Phase,
    asked_since: bool,
) -> list[Expected]:
    before, after = KINDS[kind]
    then = _hub_says(server, reader, reader.then, before, read)
    now = _hub_says(server, reader, reader.now, after, read)
    if read.passed_on:
        if phase in ("offline", "late"):
            return [UNREACHABLE]
        # Where only public content is given out, their own right is looked at, and may be known.
        known = server.mode == "public" and phase == "warm" and then.served
        return [then, now] if known and not now.served else [now]
    if phase in ("cold", "stale"):
        return [now]
    if phase == "warm":
        return [then, now] if then.served and not now.served else [now]
    last, right, state = (now, reader.now, after) if asked_since else (then, reader.then, before)
    if not last.served or _was_refused_besides(right, state, read):
        return [UNREACHABLE]
    owner = server.single_user and who.trusted
    if phase == "late" and not owner and not _is_public(state, read):
        return [UNREACHABLE]
    return [last]


def _hub_says(server: Server, reader: Who, right: str, state: str, read: Read) -> Expected:
    """What the Hub answers to this reader."""
    if right == "bad":
        return BAD_TOKEN
    served = Expected(read.status)
    hidden = "private" in state or state == "gone"
    if hidden and (right != "right" or state == "gone"):
        if reader.token is None:
            # The Hub sends no code with this one; the cache adds it, for clients on plain http.
            return Expected(401, "RepoNotFound", "Invalid username or password.")
        return Expected(404, "RepoNotFound", "Repository not found")
    if read.needs == "page" or (read.needs == "list" and server.open_tree and state != "disabled"):
        return served
    if state == "disabled":
        return Expected(403, None, "Access to this resource is disabled.")
    if "gated" in state and right != "right":
        return Expected(401 if reader.token is None else 403, "GatedRepo", "Access to model ")
    return served


def _was_refused_besides(right: str, state: str, read: Read) -> bool:
    """Whether the files were refused to who was shown the tree of a gated repo. Who can ask nobody
    does not know then what the refusal speaks of, and shows nothing."""
    return read.needs == "list" and "gated" in state and right != "right"


def _is_public(state: str, read: Read) -> bool:
    """Whether the Hub's last word was that everybody may read this."""
    return "private" not in state and (read.needs == "page" or state == "public")
