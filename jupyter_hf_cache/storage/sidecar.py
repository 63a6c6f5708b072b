"""Sidecars: what is known about a kept blob, in a small file beside it.

Responsible for: the record and its form as JSON.
Not responsible for: where it lies (`blobs`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

_CLAIM_FIELDS = 6


@dataclass(slots=True)
class Sidecar:
    """What is known about a kept blob, beside its bytes, so that lost state tables can be rebuilt.

    Args:
        size: bytes.
        sha256: hex digest of the contents, also for git-sha1 blobs.
        origins: ids of the origins whose claim on it is proved.
        claims: [origin_id, type, repo, commit, path, etag] each.
        created: Unix time in seconds.
    """

    size: int
    sha256: str
    origins: list[str] = field(default_factory=list)
    claims: list[list[str]] = field(default_factory=list)
    created: float = 0.0

    @classmethod
    def parse(cls, data: bytes) -> Sidecar:
        """Read what `as_json` wrote.

        Raises:
            ValueError: something else wrote it.
        """
        fields = json.loads(data)
        if not isinstance(fields, dict) or not _is_sound(fields):
            raise ValueError("no sidecar")
        return cls(**fields)

    def as_json(self) -> bytes:
        """The sidecar as it lies on disk."""
        return json.dumps(asdict(self)).encode()


def _is_sound(fields: dict[str, Any]) -> bool:
    claims = fields.get("claims")
    return (
        set(fields) == {"size", "sha256", "origins", "claims", "created"}
        and type(fields["size"]) is int
        and isinstance(fields["sha256"], str)
        and isinstance(fields["created"], float | int)
        and _all_text(fields["origins"])
        and isinstance(claims, list)
        and all(_all_text(claim) and len(claim) == _CLAIM_FIELDS for claim in claims)
    )


def _all_text(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
