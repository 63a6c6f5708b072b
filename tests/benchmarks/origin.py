"""The upstream of a benchmark: `python -m tests.benchmarks.origin --big MIB`.

Responsible for: the suite's own Hub with big files, in a process that ends with its standard input,
and the lines of JSON by which the benchmark asks it for counts and sets its speed.
Not responsible for: the Hub (`tests.fake_hub`).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any

from tests.fake_hub import BigFile, FakeHub

MIB = 1 << 20
BIG = "bench/big"
HALF = "bench/half"
EIGHTH = "bench/eighth"
FEW = "bench/few"
MANY = "org/many-files"
FILES = {FEW: 30, MANY: 300}
SMALL_TEXT = json.dumps({"model_type": "bert", "vocab": [f"word-{n}" for n in range(20)]})


def main() -> None:
    """Serve until the standard input ends; one answer per line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--big", type=int, default=1024, metavar="MIB", help="size of the big file")
    options = parser.parse_args()
    # The benchmark ends this process in its own order, also when Ctrl-C reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with FakeHub.with_defaults() as hub:
        _add_repos(hub, options.big * MIB)
        _say({"url": hub.url, "cdn_url": hub.cdn_url})
        for line in sys.stdin:
            _say(_obey(hub, json.loads(line)))


def _add_repos(hub: FakeHub, size: int) -> None:
    for seed, (repo, part) in enumerate(((BIG, 1), (HALF, 2), (EIGHTH, 8)), 1):
        content = BigFile(size // part, seed=seed)
        content.sha256()  # remembered, so that no first download waits for it
        hub.repo("models", repo).commit({"config.json": SMALL_TEXT, "model.bin": content})
    few = {f"file-{n:02d}.json": json.dumps({"number": n}) for n in range(FILES[FEW])}
    hub.repo("models", FEW).commit(few)


def _obey(hub: FakeHub, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command: `limit` sets the MiB/s of all downloads together and of each
    connection (null: no limit), `count` tells what was asked since the last count."""
    if "limit" in command:
        total, connection = (rate and rate * MIB for rate in command["limit"])
        hub.total_rate, hub.rate = total, connection
        return {}
    counters = hub.counters
    found = {
        "requests": counters.count(),
        "transfers": sum(r.bytes_sent > 0 for r in counters.select("GET", host="cdn")),
        "cdn_bytes": counters.bytes("cdn"),
    }
    counters.reset()
    return found


def _say(words: dict[str, Any]) -> None:
    print(json.dumps(words), flush=True)


if __name__ == "__main__":
    main()
