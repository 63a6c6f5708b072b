"""Finding files in the user's own cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from own_files import XET, edit, git_sha1, place, place_shared, sha256

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.own_cache import OwnCache, OwnCopy, own_cache_directory
from jupyter_hf_cache.storage.records import RepoRef

DATA = b"weights" * 1000
LARGE = Digest("sha256", sha256(DATA))
SMALL = Digest("git-sha1", git_sha1(DATA))
ASKED = RepoRef("models", "org/m")
FOLDER = "models--org--m"


def wait_for(cache: OwnCache, digest: Digest = LARGE) -> OwnCopy:
    """The copy, once the index knows it."""
    deadline = time.monotonic() + 30
    while (copy := cache.find(digest, len(DATA), ASKED)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return copy


@pytest.fixture
def refreshed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_hf_cache.storage.own_cache._REFRESH_SECONDS", 0.0)


class TestFinding:
    @pytest.mark.parametrize("digest", [LARGE, SMALL])
    @pytest.mark.parametrize("repo", ["models/org/m", "datasets/org/d", "spaces/org/s", "models/m"])
    def test_in_the_repo_that_is_asked_for(self, tmp_path: Path, digest: Digest, repo: str) -> None:
        kind, _, name = repo.partition("/")
        path = place(tmp_path, repo.replace("/", "--"), digest.hex, DATA)
        copy = OwnCache([tmp_path]).find(digest, len(DATA), RepoRef(kind, name))
        assert copy is not None and copy.path == path and copy.size == len(DATA)

    @pytest.mark.parametrize("folder", ["models--other--m", "datasets--org--m", "spaces--x"])
    def test_a_large_file_in_any_other_repo(self, tmp_path: Path, folder: str) -> None:
        path = place(tmp_path, folder, LARGE.hex, DATA)
        assert wait_for(OwnCache([tmp_path])).path == path

    def test_a_git_file_of_another_repo_is_not_taken(self, tmp_path: Path) -> None:
        place(tmp_path, "models--other--m", SMALL.hex, DATA)
        place(tmp_path, "models--other--m", LARGE.hex, DATA)
        cache = OwnCache([tmp_path])
        wait_for(cache)
        assert cache.find(SMALL, len(DATA), ASKED) is None

    def test_in_the_second_directory(self, tmp_path: Path) -> None:
        path = place(tmp_path / "b", FOLDER, LARGE.hex, DATA)
        cache = OwnCache([tmp_path / "missing", tmp_path / "a", tmp_path / "b"])
        copy = cache.find(LARGE, len(DATA), ASKED)
        assert copy is not None and copy.path == path

    def test_what_comes_later_is_found_without_a_restart(
        self, tmp_path: Path, refreshed_at_once: None
    ) -> None:
        place(tmp_path, "models--other--m", "ab" * 32, b"x")
        cache = OwnCache([tmp_path])
        assert cache.find(LARGE, len(DATA), ASKED) is None
        place(tmp_path, "models--other--m", LARGE.hex, DATA)
        wait_for(cache)
        Path(tmp_path / "models--other--m" / "blobs" / LARGE.hex).unlink()
        place(tmp_path, "models--new--m", LARGE.hex, DATA)
        wait_for(cache)

    def test_a_folder_that_did_not_change_is_not_read_again(
        self, tmp_path: Path, refreshed_at_once: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = place(tmp_path, "models--other--m", LARGE.hex, DATA)
        os.utime(path.parent, (time.time() - 60, time.time() - 60))
        read: list[str] = []
        scandir = os.scandir

        def counted(folder: Path) -> object:
            read.append(str(folder))
            return scandir(folder)

        monkeypatch.setattr("jupyter_hf_cache.storage.own_cache.os.scandir", counted)
        cache = OwnCache([tmp_path])
        wait_for(cache)
        rounds = cache._refreshed
        while cache._refreshed == rounds:
            wait_for(cache)
        assert read.count(str(path.parent)) == 1

    def test_an_index_has_an_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("jupyter_hf_cache.storage.own_cache._MAX_NAMES", 3)
        for number in range(3):
            for name in ("ab" * 32, "cd" * 32):
                place(tmp_path, f"models--org--{number}", name, b"x")
        cache = OwnCache([tmp_path])
        cache.find(LARGE, len(DATA), ASKED)
        assert cache._indexed.wait(30)
        assert len(cache._folders) == 1

    def test_nothing_is_looked_for_without_directories(self) -> None:
        cache = OwnCache([])
        assert cache.find(LARGE, len(DATA), ASKED) is None
        assert not cache._refreshing and not cache._indexed.is_set()


class TestWhatIsNotTaken:
    def test_another_size(self, tmp_path: Path) -> None:
        place(tmp_path, FOLDER, LARGE.hex, DATA)
        assert OwnCache([tmp_path]).find(LARGE, len(DATA) + 1, ASKED) is None

    def test_an_unfinished_download(self, tmp_path: Path) -> None:
        place(tmp_path, FOLDER, LARGE.hex + ".incomplete", DATA)
        place(tmp_path, FOLDER, LARGE.hex + ".3f2a.incomplete", DATA)
        assert OwnCache([tmp_path]).find(LARGE, len(DATA), ASKED) is None

    def test_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / FOLDER / "blobs" / LARGE.hex).mkdir(parents=True)
        size = (tmp_path / FOLDER / "blobs" / LARGE.hex).stat().st_size
        assert OwnCache([tmp_path]).find(LARGE, size, ASKED) is None

    @pytest.mark.parametrize("target", ["../../outside", "../snapshots/file", "/etc/hostname"])
    def test_a_link_that_leads_elsewhere(self, tmp_path: Path, target: str) -> None:
        hub = tmp_path / "hub"
        place(hub, FOLDER, "ab" * 32, b"x")
        (hub / FOLDER / "snapshots").mkdir()
        (hub / FOLDER / "snapshots" / "file").write_bytes(DATA)
        (hub / "outside").write_bytes(DATA)
        (hub / FOLDER / "blobs" / LARGE.hex).symlink_to(target)
        assert OwnCache([hub]).find(LARGE, len(DATA), ASKED) is None

    def test_a_link_to_a_link_in_the_shared_folder(self, tmp_path: Path) -> None:
        shared = place_shared(tmp_path, FOLDER, LARGE.hex, DATA)
        shared.rename(tmp_path / "elsewhere")
        shared.symlink_to(tmp_path / "elsewhere")
        assert OwnCache([tmp_path]).find(LARGE, len(DATA), ASKED) is None

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner here")
    def test_a_file_of_another_user(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        place(tmp_path, FOLDER, LARGE.hex, DATA)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert OwnCache([tmp_path]).find(LARGE, len(DATA), ASKED) is None

    def test_what_turned_out_wrong_until_it_changes(self, tmp_path: Path) -> None:
        path = place(tmp_path, FOLDER, LARGE.hex, b"?" * len(DATA))
        cache = OwnCache([tmp_path])
        copy = cache.find(LARGE, len(DATA), ASKED)
        assert copy is not None
        cache.reject(copy)
        assert cache.find(LARGE, len(DATA), ASKED) is None
        edit(path, DATA)
        os.utime(path, (1, 1))
        assert cache.find(LARGE, len(DATA), ASKED) is not None


class TestSharedFiles:
    def test_a_link_into_the_shared_folder_is_followed(self, tmp_path: Path) -> None:
        shared = place_shared(tmp_path, FOLDER, LARGE.hex, DATA)
        copy = OwnCache([tmp_path]).find(LARGE, len(DATA), ASKED)
        assert copy is not None and copy.path == shared and shared.name == XET

    def test_also_from_another_repo(self, tmp_path: Path) -> None:
        shared = place_shared(tmp_path, "models--other--m", LARGE.hex, DATA)
        assert wait_for(OwnCache([tmp_path])).path == shared


class TestOpening:
    def test_it_is_the_file_that_was_found(self, tmp_path: Path) -> None:
        place(tmp_path, FOLDER, LARGE.hex, DATA)
        copy = OwnCache([tmp_path]).find(LARGE, len(DATA), ASKED)
        assert copy is not None
        fd = copy.open()
        try:
            assert os.read(fd, len(DATA) + 1) == DATA
        finally:
            os.close(fd)

    @pytest.mark.parametrize("change", ["gone", "replaced", "edited", "link"])
    def test_another_file_is_refused(self, tmp_path: Path, change: str) -> None:
        path = place(tmp_path, FOLDER, LARGE.hex, DATA)
        os.utime(path, (1, 1))
        copy = OwnCache([tmp_path]).find(LARGE, len(DATA), ASKED)
        assert copy is not None
        if change == "edited":
            edit(path, b"!")
        else:
            path.rename(tmp_path / "moved")
        if change == "replaced":
            path.write_bytes(DATA)
        if change == "link":
            path.symlink_to(tmp_path / "moved")
        with pytest.raises(OSError):
            copy.open()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "~/.cache/huggingface/hub"),
        ({"HF_HUB_CACHE": "", "HF_HOME": "~/hf"}, "~/hf/hub"),
        ({"HF_HOME": "here"}, str(Path.cwd() / "here" / "hub")),
    ],
)
def test_it_lies_where_the_client_libraries_say(environ: dict[str, str], expected: str) -> None:
    assert own_cache_directory(environ) == Path(expected).expanduser()
