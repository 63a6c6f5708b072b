"""Verifying copies of the user's own files, and whether that comes in time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from own_files import cloning_disk, edit, git_sha1, place, sha256

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.interface import BlobId, Partial
from jupyter_hf_cache.storage.own_cache import OwnCache, OwnCopy
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.upstream.adopt import Adoption, VerifiedCopy, verified_copy

MIB = 1 << 20
DATA = os.urandom(9 * MIB + 17)
SMALL = DATA[:5000]
REPO = RepoRef("models", "org/m")
FOLDER = "models--org--m"


class Own:
    """A user's file and the partial of the blob that it should be."""

    def __init__(self, root: Path, data: bytes, algorithm: str) -> None:
        name = sha256(data) if algorithm == "sha256" else git_sha1(data)
        self.blob = BlobId.of(Digest(algorithm, name), "origin")
        self.data = data
        self.path = place(root / "hub", FOLDER, name, data)
        os.utime(self.path, (1, 1))
        self.cache = OwnCache([root / "hub"])
        self.store = LocalBlobStore(root / "cache")
        partial = self.store.partial(self.blob, len(data), "origin")
        assert partial is not None
        self.partial: Partial = partial

    @property
    def copy(self) -> OwnCopy:
        copy = self.find()
        assert copy is not None
        return copy

    def find(self) -> OwnCopy | None:
        return self.cache.find(self.blob.digest, len(self.data), REPO)

    def verified(self) -> VerifiedCopy | None:
        return verified_copy(self.copy, self.blob, self.partial, lambda: True)

    def adoption(self, hold: float = 30.0) -> Adoption:
        return Adoption(self.blob, self.copy, self.partial, go_on=lambda: True, hold=hold)

    def litter(self) -> list[Path]:
        return list(self.store.partial_dir.glob("*.own"))


@pytest.fixture(params=["sha256", "git-sha1"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Own]:
    own = Own(tmp_path, DATA, request.param)
    yield own
    own.partial.close()


@pytest.fixture(params=["large", "small", "large git", "small git"])
def any_size(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Own]:
    data = SMALL if "small" in request.param else DATA
    own = Own(tmp_path, data, "git-sha1" if "git" in request.param else "sha256")
    yield own
    own.partial.close()


class TestVerifying:
    def test_a_sound_copy_becomes_the_partial(self, any_size: Own) -> None:
        own = any_size
        verified = own.verified()
        assert verified is not None and verified.sha256 == sha256(own.data)
        assert own.partial.present == 0
        assert verified.put_into(own.partial)
        assert own.partial.present == len(own.data)
        assert own.partial.read(0, len(own.data)) == own.data
        assert own.litter() == []

    def test_an_edited_copy_is_refused_and_leaves_nothing(self, any_size: Own) -> None:
        own = any_size
        edit(own.path, b"!", at=len(own.data) - 1)
        assert own.verified() is None
        assert own.partial.present == 0 and own.litter() == []

    @pytest.mark.parametrize("change", [-1, 1])
    def test_a_copy_whose_length_changes_under_way_is_refused(self, own: Own, change: int) -> None:
        asked = 0

        def go_on() -> bool:
            nonlocal asked
            asked += 1
            if asked == 2:
                os.truncate(own.path, len(own.data) + change)
            return True

        assert verified_copy(own.copy, own.blob, own.partial, go_on) is None
        assert own.litter() == []

    def test_a_copy_that_is_edited_under_way_is_refused(self, own: Own) -> None:
        def go_on() -> bool:
            edit(own.path, b"edited", at=8 * MIB)
            return True

        assert verified_copy(own.copy, own.blob, own.partial, go_on) is None
        assert own.litter() == []

    def test_an_edit_afterwards_does_not_reach_the_copy(self, own: Own) -> None:
        verified = own.verified()
        assert verified is not None
        edit(own.path, b"edited")
        assert verified.put_into(own.partial)
        assert own.partial.read(0, len(own.data)) == own.data

    def test_it_ends_when_nobody_wants_it_any_more(self, own: Own) -> None:
        assert verified_copy(own.copy, own.blob, own.partial, lambda: False) is None
        assert own.litter() == []

    def test_a_full_disk_is_told_and_leaves_nothing(
        self, own: Own, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(fd: int, data: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            own.verified()
        assert own.litter() == []

    def test_a_clone_is_hashed_and_taken(self, tmp_path: Path) -> None:
        with cloning_disk(tmp_path) as disk:
            own = Own(disk, DATA, "sha256")
            free = os.statvfs(disk).f_bfree
            verified = own.verified()
            assert verified is not None
            taken = (free - os.statvfs(disk).f_bfree) * os.statvfs(disk).f_bsize
            assert taken < len(DATA) // 2, "the copy takes no room of its own"
            edit(own.path, b"edited")
            assert verified.put_into(own.partial)
            assert own.partial.read(0, len(DATA)) == DATA
            own.partial.close()

    def test_a_clone_of_an_edited_file_is_refused(self, tmp_path: Path) -> None:
        with cloning_disk(tmp_path) as disk:
            own = Own(disk, DATA, "sha256")
            edit(own.path, b"edited", at=MIB)
            assert own.verified() is None
            assert own.litter() == []
            own.partial.close()


class TestAdoption:
    def test_downloads_wait_and_are_spared(self, own: Own) -> None:
        adoption = own.adoption()
        assert adoption.begin() and not adoption.begin()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(adoption.wait)
            try:
                found = adoption.verify()
                assert isinstance(found, VerifiedCopy) and found.sha256 == sha256(own.data)
                assert adoption.claim(found) and found.put_into(own.partial)
                assert adoption.adopted and not waiting.done(), "readers are not told yet"
            finally:
                adoption.finish()
            assert not waiting.result(30)
        assert adoption.adopted and own.partial.missing(0, len(own.data)) == []

    def test_downloads_begin_when_the_copy_is_no_good(self, own: Own) -> None:
        adoption = own.adoption()
        edit(own.path, b"edited")
        os.utime(own.path, (1, 1))
        assert adoption.verify() is None
        adoption.give_up()
        assert not adoption.wait() and not adoption.adopted
        assert own.find() is None, "it is not tried again"

    @pytest.mark.parametrize("change", ["gone", "unreadable", "folder"])
    def test_a_copy_that_cannot_be_read_is_no_error(
        self, own: Own, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adoption = own.adoption()
        if change == "unreadable":

            def refused(*_: object) -> int:
                raise PermissionError(13, "Permission denied")

            monkeypatch.setattr(OwnCopy, "open", refused)
        else:
            own.path.unlink()
        if change == "folder":
            own.path.mkdir()
        assert adoption.verify() is None

    def test_it_goes_on_beside_a_download_when_it_takes_long(self, own: Own) -> None:
        adoption = own.adoption(hold=0.01)
        assert adoption.wait() and not adoption.wait(), "only the first is told"
        own.partial.write(0, own.data[:MIB])
        own.partial.write(3 * MIB, own.data[3 * MIB : 4 * MIB])
        found = adoption.verify()
        assert isinstance(found, VerifiedCopy)
        assert adoption.claim(found) and found.put_into(own.partial)
        adoption.finish()
        own.partial.write(0, b"?" * MIB)
        assert own.partial.read(0, len(own.data)) == own.data, "nothing is written any more"
        assert own.litter() == []

    def test_it_does_not_take_the_place_of_other_bytes(self, own: Own) -> None:
        adoption = own.adoption(hold=0.01)
        adoption.wait()
        own.partial.write(MIB, b"?" * MIB)
        found = adoption.verify()
        assert isinstance(found, VerifiedCopy) and adoption.claim(found)
        assert not found.put_into(own.partial)
        found.discard()
        adoption.give_up()
        assert own.partial.read(MIB, MIB) == b"?" * MIB and own.partial.present == MIB
        assert own.litter() == [] and own.find() is not None

    def test_a_download_that_fails_waits_for_it(self, own: Own) -> None:
        adoption = own.adoption(hold=0.01)
        adoption.wait()
        with ThreadPoolExecutor(1) as pool:
            failed = pool.submit(adoption.wait_for_the_end)
            found = adoption.verify()
            assert found is not None and adoption.claim(found)
            adoption.finish()
            assert failed.result(30)

    @pytest.mark.parametrize("late", [False, True])
    def test_others_are_admitted_only_to_a_download(self, own: Own, late: bool) -> None:
        adoption = own.adoption(hold=0.01)
        if late:
            adoption.wait()
        found = adoption.verify()
        assert found is not None
        assert adoption.admit_others() == late
        assert adoption.claim(found) != late, "and then it goes on alone"
        assert adoption.admit_others() == late

    def test_a_disk_that_refuses_at_the_end_lets_downloads_begin(self, own: Own) -> None:
        adoption = own.adoption()
        found = adoption.verify()
        assert isinstance(found, VerifiedCopy) and adoption.claim(found)
        own.litter()[0].unlink()
        with pytest.raises(OSError):
            found.put_into(own.partial)
        found.discard()
        adoption.give_up()
        assert not adoption.wait() and not adoption.adopted and own.partial.present == 0
