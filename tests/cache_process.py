"""`python cache_process.py ROOT HUB_URL OPTIONS`: a running cache as a process of its own.

Responsible for: serving on given directories with the options of `RunningCache` given as a JSON
object, saying where, and ending when standard input does.
Not responsible for: anything of the cache itself (`serving`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from fake_hub import FakeHub
from serving import RunningCache


def main() -> None:
    """Serve until standard input ends."""
    hub = cast(FakeHub, SimpleNamespace(url=sys.argv[2]))
    with RunningCache(Path(sys.argv[1]), hub, **json.loads(sys.argv[3])) as cache:
        print(cache.endpoint, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
