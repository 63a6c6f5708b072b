"""`python -m tests.fake_hub`: the fake Hub as a process, for demos and benchmarks.

Responsible for: options, printing the URLs, running until interrupted.
Not responsible for: anything of the Hub itself.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from types import FrameType

from . import BigFile, FakeHub


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the Hub; 0 takes a free one")
    parser.add_argument("--cdn-port", type=int, default=0, help="of the CDN; 0 takes a free one")
    parser.add_argument(
        "--big", type=int, action="append", default=[], metavar="MIB",
        help="add models/bench/big-MIB with a file model.bin of this size; repeatable",
    )  # fmt: skip
    parser.add_argument("--rate", type=float, help="MiB/s of one CDN connection")
    parser.add_argument("--total-rate", type=float, help="MiB/s of all CDN connections together")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    options = parser.parse_args()
    hub = FakeHub.with_defaults(options.port, options.cdn_port)
    for size in options.big:
        repo = hub.repo("models", f"bench/big-{size}")
        repo.commit({"config.json": "{}", "model.bin": BigFile(size << 20, seed=size)})
    hub.rate = options.rate and options.rate * (1 << 20)
    hub.total_rate = options.total_rate and options.total_rate * (1 << 20)
    hub.latency = options.latency
    ended = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    with hub:
        print(json.dumps({"url": hub.url, "cdn_url": hub.cdn_url}), flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
