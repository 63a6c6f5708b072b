"""A disk that refuses: the n-th call by which anything below a directory is written fails.

Responsible for: system calls of Python code, and writes of SQLite, which fails by itself.
Not responsible for: what must follow (`tests/service/test_failing_disk.py`).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diskcache
import pytest

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.ledger import Ledger

_BY_DESCRIPTOR = ("pwrite", "write", "ftruncate", "fsync")
_BY_PATH = ("replace", "rename", "mkdir", "chmod")
_CREATES = os.O_CREAT | os.O_TRUNC


class FailingDisk:
    """Lets calls fail once it is armed.

    Attributes:
        failed: what failed since then.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.failed: list[str] = []
        self._root = str(root)
        self._left = -1
        self._lasting = False
        self._errno = errno.ENOSPC
        self._lock = threading.Lock()
        for name in _BY_DESCRIPTOR:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name), _path_of))
        for name in _BY_PATH:
            patch.setattr(os, name, self._wrapped(name, getattr(os, name), str))
        patch.setattr(os, "open", self._opening(os.open))
        for owner, names in ((diskcache.Cache, ("set", "delete")), (Ledger, ("put", "remove"))):
            for name in names:
                patch.setattr(owner, name, self._recording(name, getattr(owner, name)))

    def arm(self, number: int, code: int, *, lasting: bool) -> None:
        """Fail the call after the next `number` ones; `lasting`: and all that follow it."""
        with self._lock:
            self.failed = []
            self._left, self._errno, self._lasting = number, code, lasting

    def disarm(self) -> None:
        """Fail no more."""
        with self._lock:
            self._left = -1

    def _is_due(self, name: str) -> bool:
        with self._lock:
            if self._left < 0:
                return False
            if self._left > 0:
                self._left -= 1
                return False
            if not self._lasting:
                self._left = -1
            self.failed.append(name)
            return True

    def _wrapped(
        self, name: str, real: Callable[..., Any], path_of: Callable[[Any], str]
    ) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            if path_of(first).startswith(self._root) and self._is_due(name):
                raise OSError(self._errno, os.strerror(self._errno))
            return real(first, *args, **kwargs)

        return call

    def _opening(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            writes = bool(flags & _CREATES) and str(path).startswith(self._root)
            if writes and self._is_due("open " + Path(path).suffix):
                raise OSError(self._errno, os.strerror(self._errno))
            return real(path, flags, *args, **kwargs)

        return call

    def _recording(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(table: Any, *args: Any, **kwargs: Any) -> Any:
            if self._is_due("record"):
                full = sqlite3.OperationalError("database or disk is full")
                if isinstance(table, Ledger):
                    raise StorageError(str(full)) from full
                raise full
            return real(table, *args, **kwargs)

        return call


def _path_of(fd: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return ""
