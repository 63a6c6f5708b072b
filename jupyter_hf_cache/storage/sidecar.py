"""Sidecars: what is known about a kept blob, in a small file beside it.

Responsible for: the record and its form as JSON.
Not responsible for: where it lies (`blobs`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

_CLAIM_FIELDS = 6
_LINK_FIELDS = 4


@dataclass(slots=True)
class Sidecar:
    """What is known about a kept blob, beside its bytes, so that lost state tables can be rebuilt.

    Args:
        size: bytes.
        sha256: hex digest of the contents, also for git-sha1 blobs.
        origins: ids of the origins whose claim on it is proved.
        claims: [origin_id, type, repo, commit, path, etag] each.
        created: Unix time in seconds.
        own: it was taken from the user's own files, so they may have it without such a proof.
        linked: it still is the user's own file, which they may change: inode, size, mtime and
            ctime in ns as they were when it was verified. Empty for a file of ours.
    """

    size: int
    sha256: str
    origins: list[str] = field(default_factory=list)
    claims: list[list[str]] = field(default_factory=list)
    created: float = 0.0
    own: bool = False
    linked: list[int] = field(default_factory=list)

    @classmethod
    def parse(cls, data: bytes) -> Sidecar:
        """Read what `as_json` wrote.

        Raises:
            ValueError: something else wrote it.
        """
        known = json.loads(data)
        if not isinstance(known, dict) or not _is_sound({**_LATER, **known}):
            raise ValueError("no sidecar")
        return cls(**known)

    def as_json(self) -> bytes:
        """The sidecar as it lies on disk."""
        return json.dumps(asdict(self)).encode()


_NAMES = frozenset(one.name for one in fields(Sidecar))
# What sidecars of earlier releases do not say.
_LATER: dict[str, Any] = {"own": False, "linked": []}


def _is_sound(known: dict[str, Any]) -> bool:
    claims, linked = known.get("claims"), known.get("linked")
    return (
        known.keys() == _NAMES
        and type(known["size"]) is int
        and isinstance(known["sha256"], str)
        and isinstance(known["created"], float | int)
        and _all_text(known["origins"])
        and isinstance(claims, list)
        and all(_all_text(claim) and len(claim) == _CLAIM_FIELDS for claim in claims)
        and isinstance(known["own"], bool)
        and isinstance(linked, list)
        and len(linked) in (0, _LINK_FIELDS)
        and all(type(one) is int for one in linked)
    )


def _all_text(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
