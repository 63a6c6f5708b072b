"""`python -m tests.robustness`: the proofs in their long form.

Kills, full disks, lies, stress, lost power and fuzz take turns until the time is over; one round of
each is as long as in the tests, with other choices. The run ends at the first wrong byte, and says
how to have that round again. Clients of their own environments are used where
`HF_CACHE_TEST_CLIENTS` names them.

    python -m tests.robustness --minutes 30 --json figures.json
    python -m tests.robustness --seed 17 --only crash --round 4

Responsible for: options, turns, the summary, and an end that leaves nothing behind.
Not responsible for: what a round does (`crash`, `full_disk`, `lies`, `stress`, `power`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_TESTS = Path(__file__).parents[1]
# As pytest does for the tests; this must be before the imports below.
sys.path.insert(0, str(_TESTS))

from groups import can_mount  # noqa: E402
from robustness.agents import NAMES  # noqa: E402
from robustness.boots import another_boot  # noqa: E402
from robustness.crash import crash_round  # noqa: E402
from robustness.full_disk import full_disk_round  # noqa: E402
from robustness.lies import lies_round  # noqa: E402
from robustness.power import power_round  # noqa: E402
from robustness.report import Counts, as_json, table  # noqa: E402
from robustness.stress import stress_round  # noqa: E402
from robustness.wanted import MIB  # noqa: E402

Part = Callable[[Path, random.Random], Counts]


def crash(root: Path, rng: random.Random) -> Counts:
    """Ten kills, of one process or of several."""
    big = rng.choice([None, rng.randrange(20, 60) * MIB])
    return crash_round(root, rng, kills=10, workers=rng.choice([1, 1, 2, 3]), big=big)


def full_disk(root: Path, rng: random.Random) -> Counts:
    """A disk that fills up, with two kills."""
    return full_disk_round(root, rng, seconds=6.0, restarts=2)


def lies(root: Path, rng: random.Random) -> Counts:
    """All lies to all clients, for one, two or all answers."""
    return lies_round(
        root,
        rng,
        clients=NAMES,
        times=rng.choice([1, 2, None]),
        rate=rng.choice([8, 24, 100]) * MIB,
        workers=rng.choice([1, 2]),
        shared=rng.random() < 0.3,
    )


def stress(root: Path, rng: random.Random) -> Counts:
    """Two or three servers on one small cache, with workers or without."""
    return stress_round(
        root,
        rng,
        seconds=20.0,
        servers=rng.choice([2, 3]),
        workers=rng.choice([1, 2]),
        may_kill=rng.random() < 0.5,
    )


def power(root: Path, rng: random.Random) -> Counts:
    """Four copies that lost what was not synced."""
    return power_round(root, rng, another_boot=another_boot, copies=4)


def fuzz(root: Path, rng: random.Random) -> Counts:
    """The fuzz tests, with twice as many examples."""
    seed, place = rng.randrange(1 << 30), root / "pytest"
    options = ["-qx", "--show-capture=no", f"--hypothesis-seed={seed}", f"--basetemp={place}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *_fuzz_files()],
        cwd=_TESTS.parent,
        env={**os.environ, "HF_CACHE_FUZZ_SCALE": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    return Counts()


def _fuzz_files() -> list[str]:
    return [str(path) for path in sorted(Path(__file__).parent.glob("test_fuzz_*.py"))]


PARTS: dict[str, Part] = {
    "crash": crash, "full-disk": full_disk, "lies": lies, "stress": stress, "power": power,
    "fuzz": fuzz,
}  # fmt: skip


def main() -> int:
    """Run the parts in turn; 1 if anything was wrong."""
    options = _parse()
    signal.signal(signal.SIGTERM, _interrupt)
    chosen = {name: PARTS[name] for name in options.only or PARTS if _can_run(name)}
    found = {name: Counts() for name in chosen}
    deadline = time.monotonic() + options.minutes * 60
    number, problem = options.round or 1, None
    _say(f"seed {options.seed}: {', '.join(chosen)} for {options.minutes:g} minutes")
    try:
        while problem is None and time.monotonic() < deadline:
            for name, part in chosen.items():
                problem = problem or _turn(name, part, number, options.seed, found[name])
            if options.round is not None:
                break
            number += 1
    except KeyboardInterrupt:
        problem = "interrupted"
    print(f"\nseed {options.seed}\n\n{table(found)}\n\n{problem or 'Nothing was wrong.'}")
    if options.json is not None:
        summary = as_json(options.seed, found, problem)
        options.json.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return int(problem is not None)


def _turn(name: str, part: Part, number: int, seed: int, counts: Counts) -> str | None:
    """One round of one part; what was wrong, if anything was."""
    started = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix=f"hf-cache-{name}-"))
    try:
        counts.update(part(root, random.Random(f"{seed} {name} {number}")))
    except Exception as wrong:
        traceback.print_exc()
        _say(f"what it worked on is left in {root}")
        again = f"python -m tests.robustness --seed {seed} --only {name} --round {number}"
        return f"{type(wrong).__name__} in round {number} of {name}: {wrong}\nAgain: {again}"
    else:
        shutil.rmtree(root, ignore_errors=True)
    seconds = time.monotonic() - started
    counts.add(rounds=1, seconds=round(seconds))
    _say(f"round {number} of {name}: {seconds:.0f} s")
    return None


def _can_run(name: str) -> bool:
    lacks = {
        "full-disk": None if can_mount() else "mounting a small file system needs root on Linux",
        "lies": None if os.environ.get("HF_CACHE_TEST_CLIENTS") else "no client environments",
    }.get(name)
    if lacks is not None:
        _say(f"without {name}: {lacks}")
    return lacks is None


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.robustness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="a round that runs is ended")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts")
    parser.add_argument("--round", type=int, help="this round alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there too")
    return parser.parse_args()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
