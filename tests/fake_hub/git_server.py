"""Repos by git itself: clone, fetch and push over smart HTTP.

Responsible for: a bare repository that holds what a repo of the catalogue holds, the routes of
git's stateless protocol before it, and taking over what was pushed.
Not responsible for: large files, which git-lfs takes elsewhere (`writes.answer_git`).
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from . import accounts, errors
from .catalogue import Commit, Entry, Repo, folders_of
from .content import SmallFile, read_pointer

if TYPE_CHECKING:
    from .routes import HubHandler

_numbers = itertools.count(1)
SERVICES = ("git-upload-pack", "git-receive-pack")
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="Authentication required", charset="UTF-8"'}


async def answer_smart_http(handler: HubHandler, repo: Repo | None, rest: str) -> None:
    """`info/refs?service=`, `git-upload-pack` and `git-receive-pack` of one repo."""
    service = handler.get_query_argument("service", "") if rest == "info/refs" else rest
    if service not in SERVICES:
        raise errors.page_not_found()
    pushes = service == "git-receive-pack"
    if handler.user is None and (pushes or repo is None or repo.private or repo.gated):
        raise errors.HubError(401, "Invalid username or password.", headers=_CHALLENGE)
    repo = accounts.check_visible(repo, handler.user)
    if pushes:
        accounts.check_writable(repo, handler.user)
    accounts.check_content(repo, handler.user, handler.hub.url)
    folder = await asyncio.to_thread(_bare_repository, repo, handler.hub.folder)
    protocol = handler.request.headers.get("Git-Protocol", "")
    options = ["--stateless-rpc"]
    if rest == "info/refs":
        options.append("--http-backend-info-refs")
    body = handler.request.body
    if handler.request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    said = await asyncio.to_thread(
        _git, folder, service.removeprefix("git-"), *options, ".", stdin=body, protocol=protocol
    )
    kind = f"application/x-{service}-result"
    if rest == "info/refs":
        kind = f"application/x-{service}-advertisement"
        line = f"# service={service}\n".encode()
        said = b"%04x%s0000%s" % (len(line) + 4, line, said)
    elif pushes:
        await asyncio.to_thread(_take_over, repo, folder)
    await handler.answer(said, kind, headers={"Cache-Control": "no-cache"})


def _git(folder: Path, *words: str, stdin: bytes = b"", protocol: str = "") -> bytes:
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        input=stdin,
        capture_output=True,
        env={"PATH": os.environ["PATH"], "GIT_PROTOCOL": protocol, "HOME": str(folder)},
        check=True,
    )
    return done.stdout


def _bare_repository(repo: Repo, root: Path) -> Path:
    """The repo as git has it, below `root`; made anew when a ref is no longer where it was."""
    refs = {ref: commit.sha for ref, commit in repo.refs.items()}
    if repo.git_refs != refs or repo.git_folder is None:
        folder = repo.git_folder = root / f"{repo.number}-{next(_numbers)}"
        folder.mkdir(parents=True)
        _git(folder, "init", "--quiet", "--bare", "--initial-branch=main", ".")
        _git(folder, "config", "http.receivepack", "true")
        _git(folder, "fast-import", "--quiet", "--force", stdin=_export(repo))
        repo.git_refs = refs
    return repo.git_folder


def _export(repo: Repo) -> bytes:
    """All refs as a stream for `git fast-import`, which gives every object its known id."""
    marks: dict[str, int] = {}
    stream: list[bytes] = []
    for ref, tip in sorted(repo.refs.items()):
        for commit in reversed(list(tip.history())):
            if commit.sha not in marks:
                marks[commit.sha] = len(marks) + 1
                stream.append(_export_commit(commit, marks))
        stream.append(f"reset {ref}\nfrom :{marks[tip.sha]}\n\n".encode())
    return b"".join(stream)


def _export_commit(commit: Commit, marks: dict[str, int]) -> bytes:
    who = f"{commit.author} <{commit.author}@example.test> {int(commit.date.timestamp())} +0000"
    message = f"{commit.message}\n".encode()
    lines = [f"commit refs/keep/{commit.sha}\nmark :{marks[commit.sha]}\n".encode()]
    lines.append(f"author {who}\ncommitter {who}\ndata {len(message)}\n".encode() + message)
    if commit.parent is not None:
        lines.append(f"from :{marks[commit.parent.sha]}\n".encode())
    lines.append(b"deleteall\n")
    for path, entry in commit.files.items():
        content = entry.pointer if entry.lfs else entry.content.read(0, entry.size)
        quoted = path.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'M 100644 inline "{quoted}"\ndata {len(content)}\n'.encode() + content)
        lines.append(b"\n")
    return b"".join(lines)


def _take_over(repo: Repo, folder: Path) -> None:
    """Make what was pushed the repo's own."""
    rows = _git(
        folder, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"
    )
    refs = dict(reversed(line.split(" ", 1)) for line in rows.decode().splitlines())
    with repo.catalogue.lock:
        for ref, sha in refs.items():
            log = _git(folder, "rev-list", "--reverse", "--first-parent", sha).decode()
            for one in log.split():
                if one not in repo.commits:
                    repo.commits[one] = _read_commit(repo, folder, one)
            repo.refs[ref] = repo.commits[sha]
        for ref in [r for r in repo.refs if r.startswith(("refs/heads/", "refs/tags/"))]:
            if ref not in refs:
                del repo.refs[ref]
        repo.git_refs = {ref: commit.sha for ref, commit in repo.refs.items()}


def _read_commit(repo: Repo, folder: Path, sha: str) -> Commit:
    asked = _git(folder, "show", "--no-patch", "--format=%P%n%an%n%at%n%B", sha).decode()
    parents, author, seconds, message = asked.split("\n", 3)
    files = {}
    for row in _git(folder, "ls-tree", "-r", "-z", sha).split(b"\0"):
        if row:
            facts, _, path = row.partition(b"\t")
            oid = facts.split()[2].decode()
            files[path.decode()] = _entry(repo, oid, _git(folder, "cat-file", "blob", oid))
    parent = repo.commits.get(parents.split()[0]) if parents else None
    date = datetime.fromtimestamp(int(seconds), timezone.utc)
    return Commit(sha, parent, message.strip(), date, author, files, folders_of(files))


def _entry(repo: Repo, oid: str, blob: bytes) -> Entry:
    large = repo.catalogue.large.get(read_pointer(blob) or "")
    if large is not None:
        return Entry(large, True, oid, None)
    return Entry(SmallFile(blob), False, oid, None)
