"""Finding this user's cache server, and making sure that it is the one.

Responsible for: the runtime files that servers leave (`hf-cache-<pid>.json`), which of them are
believed, and the proof a server gives before it is sent anything secret.
Not responsible for: using the API (`client`).

Only the standard library is imported here: `%load_ext jupyter_hf_cache` runs this code in a fresh
kernel, where importing requests alone would cost more than everything else together.

A runtime file outlives a server that was killed, and any process may listen on its port afterwards.
So the server has to show first that it knows the file's token: it answers a nonce with
HMAC-SHA256(token, nonce).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .environment import RUNTIME_FILE

API_PREFIX = "hf-cache/v1/"

_HELLO_TIMEOUT = 3.0
_ANSWER_LIMIT = 1 << 20
_FILE_LIMIT = 1 << 16


class CacheClientError(Exception):
    """Base of what can go wrong between a client and its cache server.

    Args:
        message: one sentence; never holds a token.
        advice: the next step, or "".
    """

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    @property
    def text(self) -> str:
        """Message and next step in one line."""
        return f"{self.message} {self.advice}".strip()


class ServerNotFound(CacheClientError):
    """No cache server of this user is in reach.

    Args:
        reasons: why each runtime file that was found was not used.
    """

    def __init__(self, message: str = "", advice: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(
            message or "No Hugging Face cache server of yours is in reach.",
            advice
            or "Start JupyterLab with jupyter-hf-cache installed, or run `jupyter hf-cache serve`.",
        )
        self.reasons = reasons


class Disbelieved(Exception):
    """A runtime file that is not used; the text says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running cache server as its runtime file describes it.

    Args:
        url: the server's base URL, with a trailing slash.
        token: the cache-only token of that server.
        pid: the server's process.
        version: of jupyter_hf_cache in that server.
        path: the runtime file.
    """

    url: str
    token: str = field(repr=False)
    pid: int
    version: str
    path: Path


def find_server(environ: Mapping[str, str] | None = None) -> Server:
    """The server this process should talk to; it has proved that it is the one.

    The file named by JUPYTER_HF_CACHE_FILE comes first, then the server that started this kernel,
    then the newest. May take a few seconds when a dead server's port neither answers nor refuses.

    Raises:
        ServerNotFound: with the reason for each file that was passed over.
    """
    environ = os.environ if environ is None else environ
    reasons: list[str] = []
    for path, named in _candidates(environ):
        try:
            server = read_runtime_file(path)
            if not named and not _alive(server.pid):
                raise Disbelieved(f"process {server.pid} has ended")
            prove(server)
        except Disbelieved as why:
            reasons.append(f"{path}: {why}")
            continue
        return server
    raise ServerNotFound(reasons=tuple(reasons))


def runtime_dirs(environ: Mapping[str, str]) -> list[Path]:
    """Where servers may have left their files.

    jupyter_core's answer and our own reading of its rules: the server's environment may hold
    another jupyter_core than this one, or this one none.
    """
    found: list[Path] = []
    if environ is os.environ:
        with contextlib.suppress(ImportError, OSError):
            from jupyter_core.paths import jupyter_runtime_dir

            found.append(Path(jupyter_runtime_dir()))
    if environ.get("JUPYTER_RUNTIME_DIR"):
        found.append(Path(environ["JUPYTER_RUNTIME_DIR"]))
    else:
        found.append(_data_dir(environ) / "runtime")
    return list(dict.fromkeys(found))


def _data_dir(environ: Mapping[str, str]) -> Path:
    if environ.get("JUPYTER_DATA_DIR"):
        return Path(environ["JUPYTER_DATA_DIR"])
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Jupyter"
    if sys.platform == "win32":
        appdata = environ.get("APPDATA")
        return Path(appdata) / "jupyter" if appdata else home / ".jupyter" / "data"
    share = environ.get("XDG_DATA_HOME")
    return (Path(share) if share else home / ".local" / "share") / "jupyter"


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Runtime files in the order of trial; True for the one that the environment names."""
    named = environ.get(RUNTIME_FILE)
    if named:
        yield Path(named), True
    parent = f"hf-cache-{environ.get('JPY_PARENT_PID', '')}.json"
    seen = {Path(named)} if named else set()
    for folder in runtime_dirs(environ):
        files = [p for p in folder.glob("hf-cache-*.json") if p not in seen]
        for path in sorted(files, key=lambda p: (p.name != parent, -_changed(p))):
            yield path, False


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def read_runtime_file(path: Path) -> Server:
    """The content of a runtime file that only this user can have written and read.

    Raises:
        Disbelieved: it is missing, somebody else's, readable by others, a link, or not what it
        should be.
    """
    try:
        # Ownership is asked of the open file: between a stat of the name and an open, it could be
        # replaced.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError as error:
        raise Disbelieved(f"cannot be read ({error.strerror})") from None
    with os.fdopen(handle, "rb") as file:
        _check_owner(os.fstat(file.fileno()))
        content = file.read(_FILE_LIMIT)
    try:
        data = json.loads(content)
        server = Server(
            url=str(data["url"]).rstrip("/") + "/",
            token=str(data["token"]),
            pid=int(data["pid"]),
            version=str(data.get("version", "")),
            path=path,
        )
        parts = urlsplit(server.url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
        sound = sound and (parts.port is None or parts.port > 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Disbelieved("is not a runtime file of this version") from None
    if not sound or not server.token or not server.token.isascii():
        raise Disbelieved("names no usable URL and token")
    return server


def _check_owner(info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise Disbelieved("is not a regular file")
    # Windows has neither owners nor modes in this form; there the user's profile protects the file.
    if hasattr(os, "getuid"):
        if info.st_uid != os.getuid():
            raise Disbelieved("belongs to another user")
        if info.st_mode & 0o077:
            raise Disbelieved(f"is open to others (mode {stat.S_IMODE(info.st_mode):04o})")


def _alive(pid: int) -> bool:
    """Whether the process exists, as far as this system can be asked without touching it."""
    if os.name != "posix":
        return True
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def prove(server: Server) -> None:
    """Make the server show that it knows the token, without sending it.

    Raises:
        Disbelieved: nothing answers, or what answers is something else.
    """
    nonce = secrets.token_hex(32)
    try:
        answer = ask(server.url, f"{API_PREFIX}hello?nonce={nonce}")
    except (OSError, ValueError) as error:
        raise Disbelieved(f"{server.url} does not answer ({error})") from None
    proof = answer.get("proof")
    expected = hmac.new(server.token.encode(), nonce.encode(), hashlib.sha256).hexdigest()
    if not isinstance(proof, str) or not hmac.compare_digest(
        proof.encode("utf-8", "replace"), expected.encode()
    ):
        raise Disbelieved(f"what answers at {server.url} is not this cache server")


def ask(
    url: str, path: str, *, token: str | None = None, timeout: float = _HELLO_TIMEOUT
) -> dict[str, Any]:
    """One GET below the base URL, without proxy, redirects or cookies.

    Args:
        token: sent as `Authorization: token ...`; only for a server that has proved itself.

    Raises:
        OSError: nothing answers in time.
        ValueError: the answer is not a JSON object with status 200.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        headers = {"Accept": "application/json"}
        if token is not None:
            headers["Authorization"] = f"token {token}"
        connection.request("GET", parts.path + path, headers=headers)
        answer = connection.getresponse()
        body = answer.read(_ANSWER_LIMIT)
    except HTTPException as error:
        raise ValueError(f"not HTTP: {type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return data
