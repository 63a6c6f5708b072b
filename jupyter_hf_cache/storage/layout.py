"""The version of what lies in a directory.

Responsible for: marking a directory with the layout it has, and refusing one written by a newer
release.
Not responsible for: the contents.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage.files import write_atomically

LAYOUT_MAJOR = 1
LAYOUT_MINOR = 0


def check_layout(directory: Path) -> None:
    """Create the directory (0700) and its VERSION file, or check it.

    Minor versions coexist; a newer major one is not touched.

    Raises:
        StorageError: written by a newer release, or not writable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        version = directory / "VERSION"
        text = version.read_text(errors="replace").strip() if version.exists() else ""
        if not text:
            # Also for an empty one, which a full disk leaves behind. In one step: another process
            # that starts now must not find half of it.
            write_atomically(version, f"{LAYOUT_MAJOR}.{LAYOUT_MINOR}\n".encode())
            return
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise StorageError(
            f"{directory} cannot be used: {error.strerror or error}.",
            advice="Set HfCache.cache_dir (or JUPYTER_HF_CACHE_DIR) to a writable local directory.",
        ) from error
    major = text.split(".")[0]
    if not major.isdigit() or int(major) > LAYOUT_MAJOR:
        raise StorageError(
            f"{directory} was written by a newer release (layout {text[:20]!r}).",
            advice="Upgrade jupyter-hf-cache, or set HfCache.cache_dir to another directory.",
        )
