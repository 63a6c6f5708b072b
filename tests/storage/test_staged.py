"""Copies that wait to be verified, and file systems that clone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_files import cloning_disk, edit, sha256

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blobs import LocalBlobStore, LocalPartial
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.sidecar import Sidecar

DATA = os.urandom(1_500_000)
BLOB = BlobId(Digest("sha256", sha256(DATA)))


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "cache")


@pytest.fixture
def partial(store: LocalBlobStore) -> Iterator[LocalPartial]:
    partial = store.partial(BLOB, len(DATA), "origin")
    assert partial is not None
    yield partial
    partial.close()


def test_what_is_taken_is_there_all_at_once(store: LocalBlobStore, partial: LocalPartial) -> None:
    number = partial.fileno()
    staged = partial.stage()
    staged.write(memoryview(DATA[:1000]))
    assert partial.present == 0 and partial.read(0, 10) == bytes(10)
    staged.write(memoryview(DATA[1000:]))
    partial.take(staged)
    assert partial.present == len(DATA) and not partial.missing(0, len(DATA))
    assert partial.fileno() == number and partial.read(0, len(DATA)) == DATA
    assert not staged.path.exists()
    partial.commit(Sidecar(len(DATA), BLOB.digest.hex, own=True))
    reader = store.open(BLOB)
    assert reader is not None and reader.read(0, len(DATA)) == DATA
    reader.close()
    sidecar = store.sidecar(BLOB)
    assert sidecar is not None and sidecar.own and sidecar.origins == []


def test_another_process_sees_nothing_of_it_before_it_is_kept(
    store: LocalBlobStore, partial: LocalPartial
) -> None:
    staged = partial.stage()
    staged.write(memoryview(DATA))
    assert not store.holds(BLOB, len(DATA), "origin", 0, 1)
    partial.take(staged)
    assert not store.holds(BLOB, len(DATA), "origin", 0, 1)


def test_what_is_discarded_leaves_nothing(store: LocalBlobStore, partial: LocalPartial) -> None:
    staged = partial.stage()
    staged.write(memoryview(DATA))
    staged.discard()
    staged.discard()
    assert not staged.path.exists() and partial.present == 0


def test_what_a_killed_process_left_is_tidied_away(store: LocalBlobStore) -> None:
    partial = store.partial(BLOB, len(DATA), "origin")
    assert partial is not None
    partial.write(0, DATA[:100])
    staged = partial.stage()
    store.tidy()
    assert staged.path.exists(), "its owner lives"
    staged.close()
    partial.close()
    store.tidy()
    assert not staged.path.exists()
    assert (store.partial_dir / BLOB.name).exists()


def test_a_second_copy_begins_anew(partial: LocalPartial) -> None:
    first = partial.stage()
    first.write(memoryview(b"old"))
    first.close()
    second = partial.stage()
    second.write(memoryview(b"new!"))
    assert second.path.read_bytes() == b"new!"
    second.discard()


def test_a_clone_has_the_bytes_of_before_an_edit(tmp_path: Path) -> None:
    with cloning_disk(tmp_path) as disk:
        own = disk / "own"
        own.write_bytes(DATA)
        store = LocalBlobStore(disk / "cache")
        partial = store.partial(BLOB, len(DATA), "origin")
        assert partial is not None
        staged = partial.stage()
        with own.open("rb") as source:
            assert staged.clone(source.fileno())
        edit(own, b"edited")
        partial.take(staged)
        assert partial.read(0, len(DATA)) == DATA
        partial.close()


def test_between_two_file_systems_nothing_is_cloned(tmp_path: Path, partial: LocalPartial) -> None:
    with cloning_disk(tmp_path) as disk:
        (disk / "own").write_bytes(DATA)
        staged = partial.stage()
        with (disk / "own").open("rb") as source:
            assert not staged.clone(source.fileno())
        staged.write(memoryview(DATA))
        assert staged.path.read_bytes() == DATA
        staged.discard()
