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
from pathlib import Path
from types import FrameType

from . import __doc__ as guide
from .load import rate_client
from .machine import BenchmarkError, describe
from .measures import GROUPS, Effort
from .nginx import find
from .origin import MIB
from .report import Row, as_json, table
from .servers import Site


def main() -> int:
    """Run the benchmark; the exit code is not about goals, which depend on the machine."""
    options = _parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    size = (256 if options.quick else 1024) * MIB
    effort = Effort(2, 1.0) if options.quick else Effort(5, 4.0)
    machine = describe() | {"rate_client": rate_client()}
    if float(machine["load"]) > 0.5:
        _say(f"the machine is busy (load {machine['load']}): do not trust single figures")
    started = time.monotonic()
    rows: list[Row] = []
    try:
        _check_programs()
        with tempfile.TemporaryDirectory(prefix="hf-cache-bench-", dir=options.work) as work:
            _say(f"starting servers, files of {size // MIB} MiB, {effort.rounds} rounds")
            with Site(Path(work), size) as site:
                for name in options.only or GROUPS:
                    _say(f"measuring {name} (after {time.monotonic() - started:.0f} s)")
                    rows += GROUPS[name](site, effort)
    except (BenchmarkError, AssertionError) as why:
        _say(str(why))
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    print(f"\n{size // MIB} MiB, {effort.rounds} rounds; {about}\n\n{table(rows)}")
    _say(f"took {time.monotonic() - started:.0f} s")
    if options.json:
        found = {"machine": machine, "size_bytes": size, "rows": as_json(rows)}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=guide,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="256 MiB and two short rounds")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), help="these groups of figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="for temporary files (5 GiB)")
    return parser.parse_args()


def _check_programs() -> None:
    find()
    if shutil.which("curl") is None:
        raise BenchmarkError("curl is not installed (Debian: apt install curl)")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
