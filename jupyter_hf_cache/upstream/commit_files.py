"""The files of one commit, as kept JSON answers tell: trees, paths-info and repo info.

Responsible for: reading digest and size of each file from such answers, and whether they name all
files, so that one that they do not name is known not to exist.
Not responsible for: whether anybody may know (`service.listed`), or asking.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.protocol.xet import is_too_large
from jupyter_hf_cache.storage.records import Claim
from jupyter_hf_cache.upstream.listings import Listing

MOST_SIBLINGS = 50_000
"""From here on huggingface_hub does not believe the siblings of a repo's page either."""

_NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')


@dataclass(slots=True)
class CommitFiles:
    """What is known of the files of one commit.

    Attributes:
        entries: path → (etag, size); None: it exists, its digest is not known.
        all_named: a path that is not in `entries` does not exist.
        all_listed: a whole tree was read: nothing is left to learn.
        named: how many files the repo's page names, None without one.
        next_page: the query of the page of the tree that comes next, where some were read.
    """

    entries: dict[str, tuple[str, int] | None] = field(default_factory=dict)
    all_named: bool = False
    all_listed: bool = False
    named: int | None = None
    next_page: str | None = None

    def claim(self, commit: str, file: str) -> Claim | None:
        """Return the origin's statement about a file, None where it made none."""
        entry = self.entries.get(file)
        if entry is not None:
            return Claim(commit=commit, etag=entry[0], size=entry[1])
        if file in self.entries or not self.all_named:
            return None
        return Claim(commit=commit, absent=True)

    def has(self, path: str) -> bool | None:
        """Return whether there is a file or a folder, None where that is not known."""
        if path in self.entries:
            return True
        if not self.all_named:
            return None
        folder = path.rstrip("/") + "/"
        return any(name.startswith(folder) for name in self.entries)

    def add_page(self, listing: Listing) -> None:
        """Read a repo's page at this commit."""
        siblings = _parsed(listing).get("siblings") if _is_dict(listing) else None
        if not isinstance(siblings, list):
            return
        for row in _dicts(siblings):
            self._add(row.get("rfilename"), _entry(row, "blobId", "sha256"))
        self.named = len(siblings)
        self.all_named = self.all_named or len(siblings) < MOST_SIBLINGS

    def add_rows(self, listing: Listing) -> None:
        """Read a page of a tree, or an answer to paths-info."""
        rows = _parsed(listing)
        for row in _dicts(rows if isinstance(rows, list) else []):
            if row.get("type") == "file":
                self._add(row.get("path"), _entry(row, "oid", "oid"))

    def add_chain(self, pages: Mapping[str, str | None]) -> None:
        """See how far the pages of the whole tree reach.

        Args:
            pages: of the root folder: the query that each was asked for with → that of the next.
        """
        for query in filter(_is_first_of_all, pages):
            end = _end_of_chain(query, pages)
            if end is None:
                self.all_named = self.all_listed = True
                return
            self.next_page = end

    def _add(self, path: Any, entry: tuple[str, int] | None) -> None:
        if isinstance(path, str) and (entry is not None or path not in self.entries):
            self.entries[path] = entry


def next_page(listing: Listing) -> str | None:
    """Return the query of the page that comes after this one, None if it is the last."""
    link = next((v for k, v in listing.headers.items() if k.lower() == "link"), "")
    match = _NEXT.search(link)
    return urlsplit(match[1]).query if match else None


def _end_of_chain(query: str, pages: Mapping[str, str | None]) -> str | None:
    """Return the query of the first page that is missing, None if none is."""
    after: str | None = query
    seen: set[str] = set()
    while after is not None and after in pages and after not in seen:
        seen.add(after)
        after = pages[after]
    return after


def _is_first_of_all(query: str) -> bool:
    fields = dict(parse_qsl(query))
    return fields.get("recursive", "").lower() in ("true", "1") and "cursor" not in fields


def _entry(row: Mapping[str, Any], oid: str, lfs_oid: str) -> tuple[str, int] | None:
    """Return (etag, size) of a row.

    A large file is kept in git as a pointer: the digest of its bytes stands under `lfs`, and under
    another name in the siblings of a page than in a tree. Of a file that plain HTTP cannot bring
    more has to be known than a listing tells.
    """
    lfs = row.get("lfs")
    etag, size = row.get(oid), row.get("size")
    if lfs is not None:
        etag, size = (lfs.get(lfs_oid), lfs.get("size")) if isinstance(lfs, dict) else (None, None)
    if not isinstance(etag, str) or not isinstance(size, int) or isinstance(size, bool):
        return None
    digest = Digest.from_etag(etag)
    whole = digest is not None and (digest.algorithm == "sha256") == (lfs is not None)
    return (etag, size) if whole and size >= 0 and not is_too_large(size) else None


def _is_dict(listing: Listing) -> bool:
    return listing.text.startswith("{")


def _parsed(listing: Listing) -> Any:
    return json.loads(listing.text)


def _dicts(rows: list[Any]) -> Iterable[dict[str, Any]]:
    return (row for row in rows if isinstance(row, dict))
