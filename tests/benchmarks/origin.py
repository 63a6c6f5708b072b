"""The upstream of a benchmark: `python -m tests.benchmarks.origin --big MIB`.

Responsible for: the suite's own Hub with one big file, in a process that ends with its standard
input, and the lines of JSON by which the benchmark asks it for counts and sets its speed.
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
SMALL_TEXT = json.dumps({"model_type": "bert", "vocab": [f"word-{n}" for n in range(20)]})


def main() -> None:
    """Serve until the standard input ends; one answer per line of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--big", type=int, default=1024, metavar="MIB", help="size of the big file")
    options = parser.parse_args()
    # The benchmark ends this process in its own order, also when Ctrl-C reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with FakeHub.with_defaults() as hub:
        content = BigFile(options.big * MIB, seed=1)
        sha256 = content.sha256()
        hub.repo("models", BIG).commit({"config.json": SMALL_TEXT, "model.bin": content})
        _say({"url": hub.url, "cdn_url": hub.cdn_url, "sha256": sha256})
        for line in sys.stdin:
            _say(_obey(hub, json.loads(line)))


def _obey(hub: FakeHub, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command: `rate` sets MiB/s of all downloads together (null: no limit), `count`
    tells what was asked since the last count."""
    if "rate" in command:
        hub.total_rate = command["rate"] and command["rate"] * MIB
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
