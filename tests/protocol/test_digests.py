"""Digests: the two names of a blob, checked against git and sha256sum."""

from __future__ import annotations

import hashlib

import pytest

from jupyter_hf_cache.protocol.digests import Digest, Hasher, lfs_pointer, unquote_etag

GIT = "95d09f2b10159347eece71399a7e2e907ea3df4f"  # git hash-object of b"hello world"
SHA = hashlib.sha256(b"hello world").hexdigest()


@pytest.mark.parametrize(
    ("etag", "expected"),
    [
        (GIT, f"git-sha1:{GIT}"),
        (f'"{GIT}"', f"git-sha1:{GIT}"),
        (f'W/"{GIT}"', f"git-sha1:{GIT}"),
        (f' "{SHA}" ', f"sha256:{SHA}"),
        (f'"{SHA.upper()}"', f"sha256:{SHA}"),
    ],
)
def test_an_etag_is_a_digest(etag: str, expected: str) -> None:
    assert str(Digest.from_etag(etag)) == expected


@pytest.mark.parametrize(
    "etag",
    [None, "", '""', '"', "W/", '"d41d8cd98f00b204e9800998ecf8427e"', f'"{GIT}-gzip"', "g" * 40],
)
def test_other_etags_are_none(etag: str | None) -> None:
    assert Digest.from_etag(etag) is None


@pytest.mark.parametrize(("algorithm", "expected"), [("git-sha1", GIT), ("sha256", SHA)])
def test_bytes_are_hashed_as_they_arrive(algorithm: str, expected: str) -> None:
    hasher = Hasher(algorithm, 11)
    hasher.update(b"hello ")
    hasher.update(memoryview(b"world"))

    assert hasher.hexdigest() == expected


def test_the_empty_file_has_gits_digest() -> None:
    assert Hasher("git-sha1", 0).hexdigest() == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="md5"):
        Hasher("md5", 1)


def test_a_pointer_is_what_git_lfs_writes() -> None:
    assert lfs_pointer(SHA, 11) == (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA}\nsize 11\n".encode()
    )


@pytest.mark.parametrize(
    ("etag", "expected"),
    [('"a"', "a"), ('W/"a"', "a"), ('w/ "a"', "a"), ("a", "a"), ('"', '"'), ("", "")],
)
def test_quotes_and_weakness_are_taken_off(etag: str, expected: str) -> None:
    assert unquote_etag(etag) == expected
