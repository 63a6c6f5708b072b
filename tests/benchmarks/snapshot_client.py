"""Runs in a client's own environment: time one snapshot_download.

`python snapshot_client.py REPO FOLDER` prints the seconds and the number of files.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from huggingface_hub import snapshot_download  # type: ignore[import-not-found]


def main(repo: str, folder: str) -> None:
    """Download, and say how long it took without the imports."""
    started = time.perf_counter()
    found = Path(snapshot_download(repo, cache_dir=folder))
    seconds = time.perf_counter() - started
    print(seconds, sum(path.is_file() for path in found.rglob("*")))


if __name__ == "__main__":
    main(*sys.argv[1:])
