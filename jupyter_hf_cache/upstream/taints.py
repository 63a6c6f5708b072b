"""Taints: digests of which wrong bytes were given out.

Responsible for: remembering, for seven days, that a client may hold a bad beginning of a file, so
that no later answer completes it. Clients resume a broken download by its length alone and never
compare digests: a good tail behind a bad head would end up under the right name.
Not responsible for: detecting the damage (`upstream.fill`) or shaping the answer (`service.files`).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from jupyter_hf_cache.storage.interface import BlobId, BlobReader
from jupyter_hf_cache.storage.state import StateTable, key_of

TAINT_SECONDS = 7 * 24 * 3600.0
_STEP = 4 * 1024 * 1024


class Taints:
    """Tainted digests in a state table. Thread-safe; blocks on disk.

    Args:
        table: holds keys `taint/…`.
    """

    def __init__(self, table: StateTable) -> None:
        self._table = table
        self._mark = table.directory / "taints"
        self._seen = -1
        self._known: set[str] = set()
        self._look()

    def is_tainted(self, blob: BlobId) -> bool:
        """Return whether somebody may hold wrong bytes under this name.

        Reads no table for clean ones: one look at a file says whether another process noted
        anything since the last time.
        """
        self._look()
        key = key_of("taint", blob.name)
        if key not in self._known:
            return False
        record = self._table.get(key)
        if record is None or record["until"] < time.time():
            self._known.discard(key)
            self._table.delete(key)
            return False
        return True

    def taint(self, blob: BlobId, *, sent: int, quarantined: Path) -> None:
        """Remember that the first `sent` bytes of what lies in `quarantined` were given out."""
        key = key_of("taint", blob.name)
        record = {"until": time.time() + TAINT_SECONDS, "copies": []}

        def add(known: dict[str, object] | None) -> dict[str, object]:
            copies = list((known or record)["copies"])  # type: ignore[call-overload]
            return {**record, "copies": [*copies, {"sent": sent, "file": str(quarantined)}]}

        self._table.update(key, add)
        self._known.add(key)
        with contextlib.suppress(OSError), self._mark.open("ab") as mark:
            mark.write(b".")

    def clear_if_harmless(self, blob: BlobId, clean: BlobReader) -> bool:
        """Drop the taint when every byte that was given out equals the clean copy's.

        Returns:
            Whether the blob is free of taint now.
        """
        key = key_of("taint", blob.name)
        record = self._table.get(key) if key in self._known else None
        if record is None:
            return True
        if not all(
            _same_start(Path(copy["file"]), copy["sent"], clean) for copy in record["copies"]
        ):
            return False
        # Another process may have noted more while this one compared.
        left = self._table.update(key, lambda now: None if now == record else now)
        if left is None:
            self._known.discard(key)
        return left is None

    def _look(self) -> None:
        """Learn what other processes noted; the mark grows with every taint."""
        try:
            size = self._mark.stat().st_size
        except OSError:
            size = 0
        if size != self._seen:
            self._known = {key for key, _ in self._table.items("taint/")}
            self._seen = size


def _same_start(path: Path, length: int, clean: BlobReader) -> bool:
    if length == 0:
        return True
    try:
        with path.open("rb") as bad:
            offset = 0
            while offset < length:
                step = min(_STEP, length - offset)
                if bad.read(step) != clean.read(offset, step):
                    return False
                offset += step
    except OSError:
        return False
    return True
