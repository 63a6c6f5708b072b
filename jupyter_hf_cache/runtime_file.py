"""The file by which clients of any environment find this server.

Responsible for: writing it so that nobody else can read it, and removing it and those of servers
that were killed.
Not responsible for: reading it (`discovery`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from pathlib import Path

_NAME = re.compile(r"hf-cache-(\d+)\.json")


def write(directory: Path, url: str, token: str, version: str) -> Path:
    """Write `hf-cache-<pid>.json` (0600), replacing one of an earlier process with this pid.

    Args:
        directory: Jupyter's runtime directory; created (0700) when missing.
        url: the server's base URL, with a trailing slash.
        token: the cache-only token.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"hf-cache-{os.getpid()}.json"
    content = {"url": url, "token": token, "pid": os.getpid(), "version": version}
    private = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
        private.replace(path)
    finally:
        private.unlink(missing_ok=True)
    return path


def remove(path: Path) -> None:
    """Remove the file; a missing one is fine."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Remove the files of processes that no longer exist."""
    if os.name != "posix":
        # There is no way to ask for a process without the risk of ending it.
        return
    for path in directory.glob("hf-cache-*.json"):
        match = _NAME.fullmatch(path.name)
        if match and not _is_running(int(match[1])):
            remove(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
