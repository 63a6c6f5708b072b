"""The suite's own Hugging Face Hub: two origins on loopback, with content, users, faults and
counters.

    with FakeHub.with_defaults() as hub:
        repo = hub.repo("models", "org/name")
        sha = repo.commit({"config.json": b"{}", "model.bin": BigFile(1 << 30, seed=1)})
        hub.fault("cut", "model.bin", host="cdn", at=1000)
        ...
        assert hub.counters.bytes("cdn") == ...

It follows what is known of the real Hub's answers (status, headers, redirects, error codes); it is
not a specification of it.
"""

from __future__ import annotations

from .accounts import User
from .app import FakeHub
from .catalogue import Commit, Entry, Repo
from .content import BigFile, HugeFile, SmallFile
from .counters import Record
from .faults import Fault

__all__ = [
    "BigFile",
    "Commit",
    "Entry",
    "FakeHub",
    "Fault",
    "HugeFile",
    "Record",
    "Repo",
    "SmallFile",
    "User",
]
