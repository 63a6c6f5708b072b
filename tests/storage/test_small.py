"""Small blobs: in memory while they arrive, believed by who wrote them, hashed by all others."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_hf_cache.protocol.digests import Digest, Hasher
from jupyter_hf_cache.storage import blobs as module
from jupyter_hf_cache.storage.blobs import LocalBlobStore
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.partial import LocalPartial
from jupyter_hf_cache.storage.sidecar import Sidecar
from jupyter_hf_cache.storage.small import SMALL, SmallPartial

DATA = random.Random(7).randbytes(300_000)


def git_blob(data: bytes) -> BlobId:
    hasher = Hasher("git-sha1", len(data))
    hasher.update(data)
    return BlobId(Digest("git-sha1", hasher.hexdigest()), "origin-1")


BLOBS = [BlobId(Digest("sha256", hashlib.sha256(DATA).hexdigest())), git_blob(DATA)]
SIDECAR = Sidecar(len(DATA), hashlib.sha256(DATA).hexdigest(), ["origin-1"], [], 5.0)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "cache")


@pytest.fixture(params=BLOBS, ids=["sha256", "git-sha1"])
def blob(request: pytest.FixtureRequest) -> Iterator[BlobId]:
    yield request.param


def received(store: LocalBlobStore, blob: BlobId) -> SmallPartial:
    partial = store.partial(blob, len(DATA), "origin-1")
    assert isinstance(partial, SmallPartial)
    for offset in (200_000, 0, 100_000):
        partial.write(offset, DATA[offset : offset + 100_000])
    return partial


def keep(store: LocalBlobStore, blob: BlobId) -> Path:
    partial = received(store, blob)
    partial.commit(SIDECAR)
    partial.close()
    return store.blob_dir / blob.path


def damage(path: Path) -> None:
    path.chmod(0o600)
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 4096)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestReceiving:
    def test_nothing_is_on_disk_before_the_end(self, store: LocalBlobStore, blob: BlobId) -> None:
        partial = received(store, blob)
        assert partial.present == len(DATA) and partial.missing(0, len(DATA)) == []
        assert partial.read(99_000, 5000) == DATA[99_000:104_000]
        assert [one.suffix for one in store.partial_dir.iterdir()] == [".lock"]
        assert store.leftovers() == [] and store.room_of_partial(blob) == 0
        partial.close()

    def test_gaps_are_seen(self, store: LocalBlobStore, blob: BlobId) -> None:
        partial = store.partial(blob, len(DATA), "origin-1")
        assert partial is not None
        assert partial.read(0, 10) == b""
        partial.write(1000, DATA[1000:2000])
        assert partial.available(0) == 0 and partial.available(1500) == 2000
        assert partial.missing(0, 3000) == [(0, 1000), (2000, 3000)]
        partial.seal()
        partial.write(0, DATA)
        assert partial.present == 1000
        partial.close()

    def test_only_one_at_a_time(self, store: LocalBlobStore, blob: BlobId) -> None:
        first = received(store, blob)
        assert store.partial(blob, len(DATA), "origin-1") is None
        first.release()
        second = store.partial(blob, len(DATA), "origin-1")
        assert second is not None and second.present == 0
        assert first.read(0, 10) == DATA[:10]
        second.close()

    def test_the_bound(self, store: LocalBlobStore, blob: BlobId) -> None:
        small, large = store.partial(blob, SMALL), None
        assert isinstance(small, SmallPartial)
        small.close()
        large = store.partial(blob, SMALL + 1)
        assert isinstance(large, LocalPartial)
        large.close()

    def test_a_partial_of_another_claim_goes(self, store: LocalBlobStore, blob: BlobId) -> None:
        large = store.partial(blob, SMALL + 1)
        assert large is not None
        large.close()
        received(store, blob).close()
        assert store.leftovers() == []

    def test_quarantine_takes_the_bytes_and_notes_the_reason(
        self, store: LocalBlobStore, blob: BlobId
    ) -> None:
        partial = received(store, blob)
        path = partial.quarantine("it smelt")
        assert path.read_bytes() == DATA
        assert json.loads(path.with_name(path.name + ".json").read_text())["reason"] == "it smelt"
        partial.close()


class TestKeeping:
    def test_it_is_read_only_and_whole(self, store: LocalBlobStore, blob: BlobId) -> None:
        path = keep(store, blob)
        assert path.read_bytes() == DATA
        assert stat.S_IMODE(path.stat().st_mode) == 0o440
        assert store.sidecar(blob) == SIDECAR
        assert list(store.blobs()) == [(blob, len(DATA))]

    def test_it_costs_no_sync(
        self, store: LocalBlobStore, blob: BlobId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", synced.append)
        keep(store, blob)
        assert synced == []

    def test_who_wrote_it_does_not_hash_it_again(
        self, store: LocalBlobStore, blob: BlobId, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keep(store, blob)
        hashed: list[int] = []
        monkeypatch.setattr(module, "is_intact", lambda fd, *_: hashed.append(fd) or True)
        for _ in range(3):
            reader = store.open(blob)
            assert reader is not None
            reader.close()
        assert hashed == []
        for _ in range(3):
            reader = LocalBlobStore(store.root).open(blob)
            assert reader is not None
            reader.close()
        assert len(hashed) == 3, "each process once"

    @pytest.mark.parametrize("fails", ["sidecar", "blob"])
    def test_a_disk_that_refuses_leaves_no_blob(
        self, store: LocalBlobStore, blob: BlobId, monkeypatch: pytest.MonkeyPatch, fails: str
    ) -> None:
        real = Path.replace

        def refuse(source: Path, target: Path) -> Path:
            if (target.suffix == ".json") == (fails == "sidecar"):
                raise OSError("full")
            return real(source, target)

        partial = received(store, blob)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", refuse)
            with pytest.raises(OSError, match="full"):
                partial.commit(SIDECAR)
        assert store.open(blob) is None and list(store.blobs()) == []
        assert partial.read(0, len(DATA)) == DATA, "readers go on"
        partial.commit(SIDECAR)
        partial.close()
        assert store.size_of(blob) == len(DATA)


class TestAfterAPowerFailure:
    """What lies on disk need not be what was written: another process finds out."""

    def test_lost_contents_are_found_before_the_first_byte(
        self, store: LocalBlobStore, blob: BlobId
    ) -> None:
        path = keep(store, blob)
        damage(path)
        assert LocalBlobStore(store.root).open(blob) is None
        assert not path.exists(), "to be fetched again"

    def test_intact_ones_are_served(self, store: LocalBlobStore, blob: BlobId) -> None:
        keep(store, blob)
        reader = LocalBlobStore(store.root).open(blob)
        assert reader is not None and reader.read(0, len(DATA)) == DATA
        reader.close()

    @pytest.mark.parametrize("left", [0, 1000])
    def test_a_short_one_goes(self, store: LocalBlobStore, blob: BlobId, left: int) -> None:
        path = keep(store, blob)
        path.chmod(0o600)
        os.truncate(path, left)
        assert LocalBlobStore(store.root).open(blob) is None
        assert not path.exists()
