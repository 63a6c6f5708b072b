"""Digests, sizes and absence as listings tell them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jupyter_hf_cache.storage.records import Claim
from jupyter_hf_cache.upstream.commit_files import MOST_SIBLINGS, CommitFiles, next_page
from jupyter_hf_cache.upstream.listings import Listing

COMMIT, GIT, LFS = "c" * 40, "a" * 40, "b" * 64


def listing(body: Any, **headers: str) -> Listing:
    return Listing(text=json.dumps(body), headers=headers, fetched=0.0)


def row(path: str, **rest: Any) -> dict[str, Any]:
    return {"type": "file", "path": path, "oid": GIT, "size": 3, **rest}


def tree(*rows: dict[str, Any]) -> CommitFiles:
    files = CommitFiles()
    files.add_rows(listing(rows))
    return files


def test_a_small_file_is_named_by_git() -> None:
    assert tree(row("a/b.json")).claim(COMMIT, "a/b.json") == Claim(COMMIT, GIT, 3)


def test_a_large_file_is_named_by_its_own_digest() -> None:
    files = tree(row("m.bin", size=9, lfs={"oid": LFS, "size": 9, "pointerSize": 134}))
    assert files.claim(COMMIT, "m.bin") == Claim(COMMIT, LFS, 9)
    page = CommitFiles()
    sibling = {"rfilename": "m.bin", "blobId": GIT, "size": 9, "lfs": {"sha256": LFS, "size": 9}}
    page.add_page(listing({"siblings": [sibling]}))
    assert page.claim(COMMIT, "m.bin") == Claim(COMMIT, LFS, 9)


@pytest.mark.parametrize(
    "entry",
    [
        row("f", oid="***"),
        row("f", oid=LFS),
        row("f", oid=None),
        row("f", size=None),
        row("f", size="3"),
        row("f", size=True),
        row("f", size=-1),
        row("f", lfs={"oid": GIT, "size": 9}),
        row("f", lfs={"oid": "*" * 64, "size": 9}),
        row("f", lfs={"sha256": LFS, "size": 9}),
        row("f", lfs={}),
        row("f", lfs="yes"),
        row("f", size=10**11, lfs={"oid": LFS, "size": 10**11}),
        {"type": "directory", "path": "f", "oid": GIT, "size": 0},
        {"type": "file", "path": None, "oid": GIT, "size": 0},
    ],
)
def test_what_is_not_said_clearly_is_asked(entry: dict[str, Any]) -> None:
    assert tree(entry).claim(COMMIT, "f") is None


@pytest.mark.parametrize("body", [{}, [], "x", 3, None, [1, None, "x"], {"siblings": {}}])
def test_other_json_tells_nothing(body: Any) -> None:
    files = CommitFiles()
    files.add_rows(listing(body))
    files.add_page(listing(body))
    assert (files.entries, files.all_named) == ({}, False)


class TestAbsence:
    ALL = "recursive=true&expand=false"

    def test_a_page_names_all_files(self) -> None:
        files = CommitFiles()
        files.add_page(listing({"siblings": [{"rfilename": "a/b"}]}))
        assert files.claim(COMMIT, "c") == Claim(COMMIT, absent=True)
        assert files.claim(COMMIT, "a/b") is None, "it exists; what it is has to be asked"
        assert (files.has("a"), files.has("a/b"), files.has("b")) == (True, True, False)
        assert not files.all_listed

    def test_nobody_believes_the_page_of_a_huge_repo(self) -> None:
        files = CommitFiles()
        files.add_page(listing({"siblings": [{"rfilename": f"{n}"} for n in range(MOST_SIBLINGS)]}))
        assert files.claim(COMMIT, "x") is None

    def test_a_whole_tree_names_all_files(self) -> None:
        files = tree(row("a"))
        assert files.claim(COMMIT, "b") is None
        files.add_chain({self.ALL: None})
        assert files.claim(COMMIT, "b") == Claim(COMMIT, absent=True)
        assert files.all_listed

    def test_all_pages_are_needed(self) -> None:
        second = self.ALL + "&cursor=2"
        files = tree(row("a"))
        files.add_chain({self.ALL: second, self.ALL + "&cursor=3": None})
        assert (files.all_named, files.next_page) == (False, second)
        files.add_chain({self.ALL: second, second: None})
        assert files.all_named

    @pytest.mark.parametrize("query", ["", "recursive=false", "recursive=true&cursor=2"])
    def test_a_folder_or_a_later_page_is_not_all(self, query: str) -> None:
        files = tree(row("a"))
        files.add_chain({query: None})
        assert not files.all_named

    def test_pages_in_a_circle(self) -> None:
        files = tree(row("a"))
        files.add_chain({self.ALL: self.ALL})
        assert not files.all_named


def test_the_next_page_is_named_by_its_link() -> None:
    link = '<https://hub/api/models/m/tree/x?recursive=true&cursor=Z>; rel="next"'
    assert next_page(listing([], Link=link)) == "recursive=true&cursor=Z"
    assert next_page(listing([], link=link)) == "recursive=true&cursor=Z"
    assert next_page(listing([])) is None
    assert next_page(listing([], Link='<https://hub/x>; rel="prev"')) is None
