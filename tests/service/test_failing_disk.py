"""A disk that refuses at any of the calls of a download."""

from __future__ import annotations

import errno
import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from failing_disk import FailingDisk
from fake_hub import BigFile, FakeHub
from serving import RunningCache

MIB = 1 << 20
MOST = 70
CODES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
REPO = "org/files"
KINDS = ("large", "small", "part", "wrong")


def contents(kind: str, number: int) -> bytes:
    if kind == "small":
        return hashlib.shake_128(f"small {number}".encode()).digest(20_000)
    seed = number + 1000 * KINDS.index(kind)
    return BigFile(MIB + MIB // 2, seed=seed).read(0, 2 * MIB)


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        hub.repo("models", REPO).commit(
            {
                f"{kind}-{mode}-{n}": contents(kind, n + 100 * lasting)
                for kind in KINDS
                for lasting, mode in enumerate(("once", "lasting"))
                for n in range(MOST)
            }
        )
        yield hub


def fetch(cache: RunningCache, name: str, right: bytes, part: slice) -> bool:
    """GET; whether it came whole. What comes must be right, or a clear refusal."""
    headers = {}
    if part.start is not None:
        headers["Range"] = f"bytes={part.start}-{part.stop - 1}"
    try:
        answer = cache.get(f"/{REPO}/resolve/main/{name}", headers=headers)
    except requests.RequestException:
        return False
    if answer.status_code in (502, 507):
        assert answer.headers["X-Error-Message"], "in words"
        return False
    assert answer.status_code in (200, 206), answer.text
    expected = right[part] if answer.status_code == 206 else right
    assert answer.content == expected
    return True


def descriptors(root: Path) -> dict[str, int]:
    """What this process holds open below a cache, but for tables, which stay open."""
    gc.collect()
    held: dict[str, int] = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        inside = target.startswith(f"{root}/")
        if inside and ("/partial/" in target or "/blobs/" in target or "/quarantine/" in target):
            held[target] = held.get(target, 0) + 1
    return held


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("large", "once"),
        ("large", "lasting"),
        ("small", "once"),
        ("small", "lasting"),
        ("part", "once"),
        ("wrong", "lasting"),
    ],
)
def test_each_call_of_a_download(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str
) -> None:
    lasting = mode == "lasting"
    part = slice(700_000, 900_000) if kind == "part" else slice(None)
    whole = 0
    with RunningCache(tmp_path, hub, linger=0.0) as cache:
        cache.get(f"/{REPO}/resolve/main/{kind}-{mode}-{MOST - 1}")
        cache.wait_idle()
        disk = FailingDisk(tmp_path / "cache", monkeypatch)
        for number in range(MOST - 1):
            name, right = f"{kind}-{mode}-{number}", contents(kind, number + 100 * lasting)
            if kind == "wrong":
                hub.fault("corrupt", host="cdn", at=1000)
            disk.arm(number, CODES[number % len(CODES)], lasting=lasting)
            whole += fetch(cache, name, right, part)
            cache.wait_idle()
            disk.disarm()
            hub.faults.clear()
            failed = disk.failed
            # Wrong bytes that came before the disk refused are found out at the next attempt only.
            attempts = 2 if kind == "wrong" else 1
            again = any(fetch(cache, name, right, slice(None)) for _ in range(attempts))
            assert again, f"right afterwards, after {failed}"
            cache.wait_idle()
            service = cache.service
            cache.wait_until(lambda: not descriptors(tmp_path))
            assert service.budget._reserved == {}, failed
            if not failed:
                break
        else:
            pytest.fail("there are more calls than files")
        assert number > 5, "there are that many calls"
        if kind != "wrong":
            assert whole > number // 3, "most failures are no reason to refuse"
        with service.fills._lock:
            assert not service.fills._fills
        used = service.budget._ledger.totals()
        service.budget.reconcile()
        assert service.budget._ledger.owned() == []
        assert service.budget._ledger.totals()[1] <= used[1] + MIB
