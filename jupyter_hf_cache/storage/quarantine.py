"""Quarantine: what failed verification, kept for a look at it.

Responsible for: the names of its files, and the note beside each that says why it is there.
Not responsible for: moving bytes there (`partial`, `small`), or letting them go (`budget`).
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from jupyter_hf_cache.storage.interface import BlobId


def quarantine_path(directory: Path, blob: BlobId) -> Path:
    """Return a new name for what claimed to be `blob`."""
    return directory / f"{blob.name}-{time.time_ns()}"


def note_reason(path: Path, blob: BlobId, reason: str) -> None:
    """Write why the file is there, beside it, if the disk takes it."""
    note = {"blob": blob.name, "reason": reason, "time": time.time()}
    with contextlib.suppress(OSError):
        path.with_name(path.name + ".json").write_text(json.dumps(note))
