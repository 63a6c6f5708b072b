"""`python -m tests.benchmarks`: run, and print the table. See the package for how to read it.

Responsible for: options, order, and an end that leaves nothing behind, also on Ctrl-C or SIGTERM.
Not responsible for: the figures (`measures`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from . import __doc__ as guide
from .effort import FULL, QUICK, TINY, Effort
from .machine import BenchmarkError, describe
from .measures import GROUPS
from .rates import rate_client
from .report import Row, as_json, lacking, row, table
from .rounds import FAILURES
from .servers import Site

_MAY_BE_MISSING = ("nginx", "nginx proxy_cache", "olah", "client")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Returns:
        The exit code: 1 when something of the cache could not be measured. Goals do not count, they
        depend on the machine; neither do peers that are missing.
    """
    options = _parse(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    effort = TINY if options.tiny else QUICK if options.quick else FULL
    machine = describe() | {"rate_client": rate_client()}
    if float(machine["load"]) > 0.5:
        _say(f"the machine is busy (load {machine['load']}): do not trust single figures")
    started = time.monotonic()
    rows: list[Row] = []
    try:
        if shutil.which("curl") is None:
            raise BenchmarkError("curl is not installed (Debian: apt install curl)")
        with tempfile.TemporaryDirectory(prefix="hf-cache-bench-", dir=options.work) as work:
            _say(f"starting servers, files of {effort.mib} MiB, {effort.rounds} rounds")
            with Site(Path(work), effort, options.without) as site:
                rows += [row("peer", name, "", (), note=why) for name, why in site.missing.items()]
                for name in options.only or GROUPS:
                    _say(f"measuring {name} (after {time.monotonic() - started:.0f} s)")
                    rows += _measure(name, site, effort)
    except (BenchmarkError, AssertionError) as why:
        _say(str(why))
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    machine["load_after"] = describe()["load"]
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    print(f"{effort.mib} MiB, {effort.rounds} rounds; {about}\n\n{table(rows)}")
    _say(f"took {time.monotonic() - started:.0f} s")
    if options.json:
        found = {"machine": machine, "size_bytes": effort.size, "rows": as_json(rows)}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(bool(lacking(rows, _MAY_BE_MISSING)))


def _measure(name: str, site: Site, effort: Effort) -> Iterator[Row]:
    """The rows of a group; those it has until it fails, and one that says why."""
    try:
        yield from GROUPS[name](site, effort)
    except FAILURES as why:
        yield row(name, "all", "", (), note=f"the group {name} ended: {why}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=guide,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--quick", action="store_true", help="256 MiB and few short rounds")
    form.add_argument("--tiny", action="store_true", help="16 MiB once, to see that all rows work")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=("nginx", "olah"), help="leave these peers out"
    )
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), help="these groups of figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for temporary files (8 GiB)")
    return parser.parse_args(argv)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
