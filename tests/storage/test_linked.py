"""The user's own files by hard link: given out only as they were when they were verified."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from own_files import edit, place, sha256

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.linked import SETTLED_NS, LinkedBlobs, is_settled, state_of
from jupyter_hf_cache.storage.own_cache import OwnCache, OwnCopy
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.storage.sidecar import Sidecar

DATA = b"weights" * 1000
BLOB = BlobId(Digest("sha256", sha256(DATA)))


@pytest.fixture
def copy(tmp_path: Path) -> OwnCopy:
    path = place(tmp_path / "hub", "models--org--m", BLOB.digest.hex, DATA)
    os.utime(path, (1, 1))
    found = OwnCache([tmp_path / "hub"]).find(BLOB.digest, len(DATA), RepoRef("models", "org/m"))
    assert found is not None
    return found


@pytest.fixture
def linked(tmp_path: Path) -> LinkedBlobs:
    (tmp_path / "cache").mkdir()
    return LinkedBlobs(tmp_path / "cache" / "linked")


def add(linked: LinkedBlobs, copy: OwnCopy) -> None:
    sidecar = Sidecar(len(DATA), BLOB.digest.hex, own=True)
    linked.add(BLOB, copy, copy.path.lstat(), sidecar)


def test_a_linked_file_is_read(linked: LinkedBlobs, copy: OwnCopy) -> None:
    assert linked.open(BLOB) is None and linked.size_of(BLOB) is None
    assert linked.can_hold(copy)
    add(linked, copy)
    assert linked.size_of(BLOB) == len(DATA)
    reader = linked.open(BLOB)
    assert reader is not None and reader.size == len(DATA) and reader.fileno() is None
    assert reader.read(0, len(DATA)) == DATA and reader.read(7, 3) == DATA[7:10]
    reader.close()
    reader.close()
    sidecar = linked.sidecar(BLOB)
    assert sidecar is not None and sidecar.linked == state_of(copy.path.lstat())


@pytest.mark.parametrize("change", ["edit", "append", "touch", "mode", "replace", "time"])
def test_one_that_changed_is_let_go_of(linked: LinkedBlobs, copy: OwnCopy, change: str) -> None:
    add(linked, copy)
    path = copy.path
    if change == "edit":
        edit(path, b"!")
    elif change == "append":
        with path.open("ab") as file:
            file.write(b"!")
    elif change == "touch":
        path.touch()
    elif change == "mode":
        path.chmod(0o600 if path.stat().st_mode & 0o077 else 0o640)
    elif change == "replace":
        path.unlink()
        path.write_bytes(DATA)
    else:
        edit(path, b"!")
        os.utime(path, (1, 1))
    assert linked.size_of(BLOB) is None
    assert linked.open(BLOB) is None
    assert linked.sidecar(BLOB) is None, "the next one begins anew"
    assert path.exists()


def test_a_file_that_changes_while_it_is_read_gives_out_nothing_more(
    linked: LinkedBlobs, copy: OwnCopy
) -> None:
    add(linked, copy)
    reader = linked.open(BLOB)
    assert reader is not None and reader.read(0, 7) == DATA[:7]
    edit(copy.path, b"edited", at=5000)
    with pytest.raises(StorageError):
        reader.read(0, 7)
    reader.close()


def test_a_file_that_changed_since_it_was_verified_is_not_linked(
    linked: LinkedBlobs, copy: OwnCopy
) -> None:
    verified = copy.path.lstat()
    edit(copy.path, b"!")
    with pytest.raises(OSError, match="changed"):
        linked.add(BLOB, copy, verified, Sidecar(len(DATA), BLOB.digest.hex))
    assert copy.path.stat().st_nlink == 1 and linked.open(BLOB) is None


def test_another_device_is_no_place_for_links(linked: LinkedBlobs, copy: OwnCopy) -> None:
    elsewhere = OwnCopy(
        copy.path, copy.size, copy.device + 1, copy.inode, copy.mtime_ns, copy.cache
    )
    assert not linked.can_hold(elsewhere)


def test_a_full_disk_leaves_no_link(
    linked: LinkedBlobs, copy: OwnCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jupyter_hf_cache.storage.linked.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        add(linked, copy)
    assert copy.path.stat().st_nlink == 1


def test_tidying_lets_go_of_what_changed_alone(linked: LinkedBlobs, copy: OwnCopy) -> None:
    linked.tidy()
    add(linked, copy)
    linked.tidy()
    assert linked.size_of(BLOB) == len(DATA)
    copy.path.unlink()
    linked.tidy()
    assert linked.size_of(BLOB) is None and linked.sidecar(BLOB) is None


def test_deleting_it_leaves_the_users_file(linked: LinkedBlobs, copy: OwnCopy) -> None:
    add(linked, copy)
    assert linked.delete(BLOB) and not linked.delete(BLOB)
    assert copy.path.read_bytes() == DATA


def test_a_change_a_moment_ago_is_not_settled(copy: OwnCopy) -> None:
    copy.path.touch()
    info = copy.path.lstat()
    # An hour ahead: a clock that was set back.
    os.utime(copy.path, (time.time() + 3600, time.time() + 3600))
    assert not is_settled(copy.path.lstat())
    deadline = time.monotonic() + 30
    while not is_settled(info):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert time.time_ns() - info.st_ctime_ns > SETTLED_NS
