"""Kept, partial and quarantined files, with other processes about."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage import blobs, files
from jupyter_hf_cache.storage.blobs import Deleted, LocalBlobStore
from jupyter_hf_cache.storage.files import write_atomically
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.partial import LocalPartial
from jupyter_hf_cache.storage.sidecar import Sidecar

DATA = random.Random(5).randbytes(1_700_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
BLOB = BlobId(Digest("sha256", SHA256))
GIT_BLOB = BlobId(Digest("git-sha1", "ab" * 20), "origin-1")
CLAIM = ["origin-1", "models", "org/m", "c" * 40, "model.bin", SHA256]
SIDECAR = Sidecar(len(DATA), SHA256, ["origin-1"], [CLAIM], 5.0)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "cache")


def received(store: LocalBlobStore, blob: BlobId = BLOB, owner: str = "origin-1") -> LocalPartial:
    partial = store.partial(blob, len(DATA), owner)
    assert isinstance(partial, LocalPartial)
    partial.write(0, DATA)
    return partial


def keep(store: LocalBlobStore, blob: BlobId = BLOB) -> Path:
    partial = received(store, blob)
    partial.commit(SIDECAR)
    partial.close()
    return store.blob_dir / blob.path


@contextmanager
def another_process(store: LocalBlobStore, code: str) -> Iterator[subprocess.Popen[str]]:
    """Run `code` with `store` and `BLOB`; it has printed a line when this returns."""
    head = f"""
        import sys
        from pathlib import Path
        from jupyter_hf_cache.protocol.digests import Digest
        from jupyter_hf_cache.storage.blobs import LocalBlobStore
        from jupyter_hf_cache.storage.interface import BlobId
        store = LocalBlobStore(Path(sys.argv[1]))
        BLOB = BlobId(Digest("sha256", {SHA256!r}))
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code), str(store.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


class TestCommit:
    def test_a_kept_blob_is_read_only_and_whole(self, store: LocalBlobStore) -> None:
        path = keep(store)
        assert path.stat().st_mode & 0o777 == 0o440
        assert path.read_bytes() == DATA
        assert store.size_of(BLOB) == len(DATA)
        assert store.sidecar(BLOB) == SIDECAR
        assert list(store.blobs()) == [(BLOB, len(DATA))]
        assert not list(store.partial_dir.glob("*.map"))

    def test_contents_then_sidecar_then_name_then_directory(
        self, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []
        real_fsync, real_replace = os.fsync, Path.replace

        def fsync(fd: int) -> None:
            steps.append("fsync " + Path(f"/proc/self/fd/{fd}").resolve().name.split(".")[-1][:8])
            real_fsync(fd)

        def replace(path: Path, target: Path) -> Path:
            steps.append("name " + ("sidecar" if target.suffix == ".json" else "blob"))
            return real_replace(path, target)

        partial = received(store)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        partial.commit(SIDECAR)
        partial.close()
        assert steps[0] == f"fsync {BLOB.name[:8]}"
        assert [step for step in steps if step.startswith("name")] == ["name sidecar", "name blob"]
        assert steps[-1] == f"fsync {BLOB.digest.hex[:2]}", "the directory, last"

    @pytest.mark.parametrize("dies_at", ["sidecar", "name"])
    def test_a_crash_on_the_way_leaves_a_partial_that_is_whole(
        self, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, dies_at: str
    ) -> None:
        partial = received(store)

        def die(*_: object, **__: object) -> None:
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(
                *((store, "write_sidecar") if dies_at == "sidecar" else (Path, "replace")), die
            )
            with pytest.raises(OSError, match="killed"):
                partial.commit(SIDECAR)
        partial.close()
        assert store.open(BLOB) is None
        assert list(store.blobs()) == []
        again = store.partial(BLOB, len(DATA), "origin-1")
        assert again is not None and again.missing(0, len(DATA)) == []
        again.commit(SIDECAR)
        again.close()
        assert store.size_of(BLOB) == len(DATA)

    def test_its_readers_stay_after_the_commit(self, store: LocalBlobStore) -> None:
        partial = received(store)
        partial.commit(SIDECAR)
        assert partial.read(5, 10) == DATA[5:15]
        partial.close()
        partial.close()


class TestReading:
    @pytest.mark.parametrize(
        "sidecar",
        [
            None,
            b"",
            b"{",
            b"[]",
            b"7",
            b"{}",
            b'{"size": 1}',
            json.dumps({"size": len(DATA), "sha256": "", "origins": [], "claims": [["a"]],
                        "created": 0}).encode(),
            json.dumps({"size": len(DATA), "sha256": "", "origins": 5, "claims": [],
                        "created": 0}).encode(),
            json.dumps({"size": len(DATA) + 1, "sha256": "", "origins": [], "claims": [],
                        "created": 0}).encode(),
        ],
    )  # fmt: skip
    def test_a_blob_without_a_sound_sidecar_is_removed(
        self, store: LocalBlobStore, sidecar: bytes | None
    ) -> None:
        path = keep(store)
        beside = path.with_name(path.name + ".json")
        beside.unlink()
        if sidecar is not None:
            beside.write_bytes(sidecar)
        assert store.open(BLOB) is None
        assert not path.exists() and not beside.exists()

    def test_a_blob_of_another_length_is_removed(self, store: LocalBlobStore) -> None:
        path = keep(store)
        path.chmod(0o600)
        os.truncate(path, 10)
        assert store.open(BLOB) is None
        assert not path.exists()

    @pytest.mark.parametrize(
        "name", ["README", ".tmp", "x.part", SHA256[:20], SHA256.upper(), "zz" * 32, SHA256 + "0"]
    )
    def test_a_foreign_file_is_ignored_and_left(self, store: LocalBlobStore, name: str) -> None:
        path = keep(store)
        foreign = path.with_name(name)
        foreign.write_text("mine")
        (store.blob_dir / "sha256" / "note.txt").write_text("mine")
        assert list(store.blobs()) == [(BLOB, len(DATA))]
        assert foreign.read_text() == "mine"

    def test_git_blobs_of_two_origins_are_two(self, store: LocalBlobStore) -> None:
        keep(store, GIT_BLOB)
        other = BlobId(GIT_BLOB.digest, "origin-2")
        assert store.size_of(other) is None
        assert list(store.blobs()) == [(GIT_BLOB, len(DATA))]


class TestDeletion:
    def test_it_happens_also_while_somebody_reads(self, store: LocalBlobStore) -> None:
        path = keep(store)
        reader = store.open(BLOB)
        assert reader is not None
        assert store.delete(BLOB) == Deleted(0, in_use=len(DATA)), "freed with the last reader"
        assert not path.exists() and store.sidecar(BLOB) is None
        assert store.open(BLOB) is None
        assert reader.read(0, len(DATA)) == DATA
        reader.close()
        assert store.delete(BLOB) == Deleted(0)

    def test_at_once_when_nobody_does(self, store: LocalBlobStore) -> None:
        path = keep(store)
        assert store.delete(BLOB) == Deleted(len(DATA))
        assert not path.exists() and store.sidecar(BLOB) is None

    def test_eviction_waits_for_readers(self, store: LocalBlobStore) -> None:
        path = keep(store)
        first, second = store.open(BLOB), store.open(BLOB)
        assert first is not None and second is not None
        assert not store.evict(BLOB)
        first.close()
        first.close()
        assert not store.evict(BLOB)
        assert path.exists() and store.sidecar(BLOB) == SIDECAR
        second.close()
        assert store.evict(BLOB)
        assert not path.exists() and store.sidecar(BLOB) is None
        assert store.evict(BLOB), "it is gone"

    def test_also_for_those_of_another_process(self, store: LocalBlobStore) -> None:
        keep(store)
        code = """
            reader = store.open(BLOB)
            print("ready", flush=True)
            sys.stdin.readline()
            """
        with another_process(store, code) as reading:
            assert not store.evict(BLOB)
            assert store.size_of(BLOB) == len(DATA)
            reading.kill()
            reading.wait()
            assert store.evict(BLOB)

    def test_what_is_evicted_between_opening_and_locking_is_not_opened(
        self, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, real = keep(store), blobs._lock

        def late(fd: int, *, shared: bool) -> bool:
            path.unlink(missing_ok=True)
            return real(fd, shared=shared)

        monkeypatch.setattr(blobs, "_lock", late)
        assert store.open(BLOB) is None

    def test_who_opened_before_reads_on(self, store: LocalBlobStore) -> None:
        path = keep(store)
        reader = store.open(BLOB)
        assert reader is not None
        path.unlink()
        assert reader.read(0, len(DATA)) == DATA
        reader.close()


class TestLease:
    def test_one_fill_at_a_time(self, store: LocalBlobStore) -> None:
        first = store.partial(BLOB, len(DATA))
        assert first is not None
        assert store.partial(BLOB, len(DATA)) is None
        assert store.partial(GIT_BLOB, len(DATA)) is not None
        first.close()
        assert store.partial(BLOB, len(DATA)) is not None

    def test_also_across_processes_and_freed_when_the_owner_is_killed(
        self, store: LocalBlobStore
    ) -> None:
        code = f"""
            partial = store.partial(BLOB, {len(DATA)}, "origin-1")
            partial.write(0, b"x" * 300_000)
            print("ready", flush=True)
            sys.stdin.readline()
            """
        with another_process(store, code) as owner:
            assert store.partial(BLOB, len(DATA), "origin-1") is None
            owner.kill()
            owner.wait()
        mine = store.partial(BLOB, len(DATA), "origin-1")
        assert mine is not None
        assert mine.available(0) == 256 * 1024, "whole blocks survive a kill"
        mine.close()

    def test_what_was_kept_meanwhile_is_not_filled_again(self, store: LocalBlobStore) -> None:
        keep(store)
        assert store.partial(BLOB, len(DATA)) is None
        assert not (store.partial_dir / BLOB.name).exists()
        assert store.evict(BLOB)
        assert store.partial(BLOB, len(DATA)) is not None, "the lease was given back"

    def test_its_file_stays(self, store: LocalBlobStore) -> None:
        keep(store)
        assert (store.partial_dir / f"{BLOB.name}.lock").exists()

    def test_released_the_bytes_stay_readable(self, store: LocalBlobStore) -> None:
        first = received(store)
        first.release()
        second = store.partial(BLOB, len(DATA), "origin-1")
        assert second is not None
        assert first.read(0, 10) == DATA[:10]
        second.close()
        first.close()


class TestPartial:
    def test_another_origin_gets_none_of_the_bytes(self, store: LocalBlobStore) -> None:
        received(store, owner="origin-1").close()
        other = store.partial(BLOB, len(DATA), "origin-2")
        assert other is not None
        assert other.present == 0
        assert other.read(0, 100) == bytes(100)
        other.close()

    def test_another_size_starts_anew(self, store: LocalBlobStore) -> None:
        received(store).close()
        other = store.partial(BLOB, len(DATA) + 1, "origin-1")
        assert other is not None and other.present == 0
        other.close()

    def test_a_lost_file_is_not_believed_by_its_map(self, store: LocalBlobStore) -> None:
        received(store).close()
        (store.partial_dir / BLOB.name).unlink()
        assert store.present_of(BLOB) == 0
        again = store.partial(BLOB, len(DATA), "origin-1")
        assert again is not None and again.present == 0
        again.close()

    def test_once_sealed_it_takes_no_more(self, store: LocalBlobStore) -> None:
        partial = store.partial(BLOB, len(DATA), "origin-1")
        assert partial is not None
        partial.write(0, DATA[:300_000])
        partial.seal()
        partial.write(300_000, DATA[300_000:])
        assert partial.available(0) == 300_000
        assert partial.missing(0, len(DATA)) == [(300_000, len(DATA))]
        partial.close()

    def test_what_cannot_be_quarantined_is_gone(
        self, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        partial = received(store)

        def refuse(*_: object) -> None:
            raise OSError("full")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            with pytest.raises(OSError, match="full"):
                partial.quarantine("wrong")
        partial.close()
        fresh = store.partial(BLOB, len(DATA), "origin-1")
        assert fresh is not None and fresh.present == 0, "nobody goes on from wrong bytes"
        fresh.close()

    def test_quarantine_takes_the_bytes_and_notes_the_reason(self, store: LocalBlobStore) -> None:
        partial = received(store)
        path = partial.quarantine("it smelt")
        assert path.read_bytes() == DATA
        note = json.loads(path.with_name(path.name + ".json").read_text())
        assert (note["blob"], note["reason"]) == (BLOB.name, "it smelt")
        assert partial.read(0, 10) == DATA[:10], "whoever follows it may finish reading"
        partial.close()
        fresh = store.partial(BLOB, len(DATA), "origin-1")
        assert fresh is not None and fresh.present == 0
        fresh.close()


class TestLeftovers:
    def test_idle_ones_are_dropped_and_busy_ones_stay(self, store: LocalBlobStore) -> None:
        received(store).close()
        busy = received(store, GIT_BLOB)
        found = {one.path.name: one for one in store.leftovers()}
        assert set(found) == {BLOB.name, GIT_BLOB.name}
        assert found[BLOB.name].size >= len(DATA)
        assert {one.blob for one in found.values()} == {BLOB, GIT_BLOB}
        assert not store.drop(found[GIT_BLOB.name].path)
        assert store.drop(found[BLOB.name].path)
        assert [one.path.name for one in store.leftovers()] == [GIT_BLOB.name]
        assert not (store.partial_dir / f"{BLOB.name}.map").exists()
        assert busy.read(0, 5) == DATA[:5]
        busy.close()

    def test_a_partial_of_another_process_stays(self, store: LocalBlobStore) -> None:
        code = f"""
            partial = store.partial(BLOB, {len(DATA)})
            partial.write(0, b"x" * 1000)
            print("ready", flush=True)
            sys.stdin.readline()
            """
        with another_process(store, code):
            (found,) = store.leftovers()
            assert not store.drop(found.path)
            assert found.path.exists()

    def test_quarantined_ones_go_with_their_notes(self, store: LocalBlobStore) -> None:
        partial = received(store)
        partial.quarantine("no")
        partial.close()
        (found,) = store.leftovers()
        assert found.blob is None and found.size >= len(DATA)
        assert store.drop(found.path)
        assert list(store.quarantine_dir.iterdir()) == []

    def test_a_sparse_file_counts_what_it_takes(self, store: LocalBlobStore) -> None:
        partial = store.partial(BLOB, 10**9)
        assert partial is not None
        partial.write(5 * 10**8, DATA)
        (found,) = store.leftovers()
        assert found.size < 10 * len(DATA)
        partial.close()


class TestTidying:
    def test_what_killed_processes_leave_goes(self, store: LocalBlobStore) -> None:
        path = keep(store)
        lonely = store.partial_dir / f"{BLOB.name}.map"
        lonely.write_text("map of a file that is kept by now")
        old, young = path.with_name(".x.json.old"), path.with_name(".x.json.young")
        for one in (old, young):
            one.write_text("half")
        os.utime(old, (0, 0))
        received(store, GIT_BLOB).close()
        store.tidy()
        assert not lonely.exists() and not old.exists()
        assert young.exists(), "somebody may be writing it"
        assert path.exists() and store.sidecar(BLOB) == SIDECAR
        assert store.present_of(GIT_BLOB) == len(DATA)

    def test_the_map_of_a_fill_that_begins_stays(self, store: LocalBlobStore) -> None:
        busy = received(store)
        (store.partial_dir / BLOB.name).unlink()
        store.tidy()
        assert (store.partial_dir / f"{BLOB.name}.map").exists()
        busy.close()


class TestWriteAtomically:
    def test_it_replaces_with_the_mode_asked_for(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        write_atomically(path, b"new", 0o640)
        assert path.read_bytes() == b"new"
        assert path.stat().st_mode & 0o777 == 0o640
        assert [one.name for one in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("fails", ["fsync", "replace"])
    def test_a_refusal_leaves_the_old_contents(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
    ) -> None:
        path = tmp_path / "file"
        path.write_text("old")

        def refuse(*_: object) -> None:
            raise OSError("no")

        monkeypatch.setattr(
            *((files.os, "fsync") if fails == "fsync" else (Path, "replace")), refuse
        )
        with pytest.raises(OSError, match="no"):
            write_atomically(path, b"new")
        assert path.read_text() == "old"
        assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("needed", ["blobs", "partial", "quarantine"])
def test_directories_are_private(store: LocalBlobStore, needed: str) -> None:
    assert (store.root / needed).stat().st_mode & 0o077 == 0


def test_where_the_system_has_no_such_locks_blobs_open_all_the_same(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    reader = blobs.LocalBlobStore(store.root).open(BLOB)
    assert reader is not None and reader.read(0, 3) == DATA[:3]
    reader.close()
