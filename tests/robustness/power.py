"""Loss of power, in a model: what was written but not made durable is lost, or half lost.

Responsible for: copies of a cache directory taken at random instants while it fills, damaged as a
file system may leave files whose contents were never synced, and a cache opened on each with the
machine seemingly started again.
Not responsible for: a process that is killed (`crash`): the machine keeps what that one wrote.

What a copy may lose: any page of a file below `partial/`, and any block map; sidecars, which are
rewritten lazily; small blobs, which are never synced; the newest part of the tables' logs. What a
larger kept blob holds was synced before it got its name, so those stay as they are.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from fake_hub import FakeHub
from robustness.directory import blob_files, check_at_rest, copy_crudely
from robustness.readers import Broken, Client, Readers, everything
from robustness.report import Counts
from robustness.wanted import MIB, Wanted, new_repo
from serving import RunningCache

from jupyter_hf_cache.storage.small import SMALL

_PAGE = 4096
_REFUSALS = frozenset({501, 503})


def power_round(
    root: Path,
    rng: random.Random,
    *,
    another_boot: Callable[[], AbstractContextManager[None]],
    copies: int = 3,
) -> Counts:
    """Fill, copy, damage the copies, and read everything from each.

    Args:
        root: an empty directory.
        another_boot: lets the machine seem to have been started again, while it is entered.
        copies: how many.

    Raises:
        Wrong: a byte was wrong.
    """
    counts = Counts(copies=copies)
    with FakeHub() as hub:
        wanted: list[Wanted] = []
        for number in range(3):
            sizes = [rng.randrange(MIB, 4 * MIB) for _ in range(2)]
            wanted += new_repo(hub, f"org/power-{number}", rng, big=sizes)
        hub.rate = 3.0 * MIB
        places = [root / f"copy-{number}" for number in range(copies)]
        with RunningCache(root / "live", hub) as live:
            readers = Readers(
                [live.endpoint], wanted, seed=rng.randrange(1 << 30), refusals=_REFUSALS
            )
            for place in places:
                threading.Event().wait(rng.uniform(0.1, 0.6))
                copy_crudely(live.root, place)
            hub.rate = None
            readers.end()
        counts.add_readers(readers)
        with another_boot():
            for place in places:
                counts.add(pages=damage(place / "cache", rng))
                _read_after(place, hub, wanted, rng)
                shutil.rmtree(place)
    return counts


def _read_after(place: Path, hub: FakeHub, wanted: list[Wanted], rng: random.Random) -> None:
    """Read parts first, which come from what was left, then everything."""
    with RunningCache(place, hub) as cache:
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda one: _parts(cache, *one), [(w, rng.random()) for w in wanted]):
                pass
        everything(cache.endpoint, wanted)
        cache.wait_idle()
    check_at_rest(place, hub.url, leftovers=True)


def _parts(cache: RunningCache, wanted: Wanted, seed: float) -> None:
    """Some ranges of one file; one that turns out damaged breaks off, and is right thereafter."""
    rng, client = random.Random(seed), Client(cache.endpoint, refusals=_REFUSALS)
    for _ in range(4 if wanted.size else 0):
        start = rng.randrange(wanted.size)
        end = min(wanted.size, start + rng.randrange(1, MIB))
        try:
            client.get(wanted, f"bytes={start}-{end - 1}", start, end)
        except Broken:
            continue
    client.close()


def damage(cache_dir: Path, rng: random.Random) -> int:
    """Lose what was not synced; how many pages that were."""
    lost = 0
    for path in sorted((cache_dir / "partial").iterdir()):
        if path.suffix == ".map":
            _damage_map(path, rng)
        elif path.suffix != ".lock" and path.stat().st_size:
            lost += _lose_pages(path, rng)
    for path in sorted((cache_dir / "blobs").rglob("*.json")):
        if rng.random() < 0.2:
            path.write_bytes(path.read_bytes()[: rng.choice([0, 20])])
    for path in blob_files(cache_dir):
        if path.stat().st_size <= SMALL and rng.random() < 0.5:
            path.chmod(0o640)
            lost += _lose_pages(path, rng)
    for path in sorted((cache_dir / "state").rglob("*-wal")):
        if rng.random() < 0.5:
            with path.open("r+b") as log:
                log.truncate(rng.randrange(path.stat().st_size + 1))
    return lost


def _damage_map(path: Path, rng: random.Random) -> None:
    chance = rng.random()
    if chance < 0.1:
        path.write_bytes(b"")
    elif chance < 0.2:
        path.write_bytes(path.read_bytes()[: rng.randrange(1, 80)])
    elif chance < 0.3:
        path.unlink()


def _lose_pages(path: Path, rng: random.Random) -> int:
    """Let pages hold zeros, as those do that were allotted and never written."""
    lost = 0
    share = rng.choice([0.0, 0.01, 0.3, 1.0])
    with path.open("r+b") as file:
        for offset in range(0, path.stat().st_size, _PAGE):
            if rng.random() < share:
                file.seek(offset)
                file.write(bytes(min(_PAGE, path.stat().st_size - offset)))
                lost += 1
    return lost
