"""What kept listings tell about files, so that the upstream need not be asked file by file.

Responsible for: claims read from the trees and pages that the same identity was given, and asking
for the tree of a commit once where a client goes through its files one by one.
Not responsible for: the right to read, which is looked at before a claim is; keeping claims
(`service.claims`); JSON answers to clients (`service.metadata`).

Listings are read when a claim is wanted, from wherever any process on the directory kept them, and
the files of a few commits stay in memory. A listing says nothing of the right to content: the tree
of a gated repo may be open to people who may not read its files.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from urllib.parse import unquote

from jupyter_hf_cache.errors import HfCacheError
from jupyter_hf_cache.protocol.paths import Kind, api_path
from jupyter_hf_cache.service.breaker import Breaker
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.page_rights import PageRights
from jupyter_hf_cache.service.questions import WHOLE_TREE, question_key, whole_tree
from jupyter_hf_cache.storage.generations import Generations
from jupyter_hf_cache.storage.records import Claim, RepoRef
from jupyter_hf_cache.upstream.commit_files import CommitFiles, next_page
from jupyter_hf_cache.upstream.listings import Listings, fetch_listing, listing_key
from jupyter_hf_cache.upstream.lookup import METADATA_TIMEOUT

logger = logging.getLogger(__name__)

MOST_ENTRIES = 100_000
"""Files of all commits together that are held in memory."""

PATIENCE_SECONDS = 1.0
"""How long a file waits for the tree before it is asked for by itself."""

_MOST_COMMITS = 500
# A page of a tree holds this many files.
_PAGE = 1000
# Who wants so many files of a commit is not asked for its tree: a file's head names the place of
# its bytes too. Where the tree may be long it takes one more.
_FEW = 1
# Of a tree with more pages, one more is asked for after so many files that had to be asked for.
_FILES_PER_PAGE = 4
_AT_ONCE = 2
_AFTER_FAILURE_SECONDS = 600.0
_LOOK_AGAIN_SECONDS = 5.0

_Key = tuple[str, str, RepoRef, str]


@dataclass(frozen=True, slots=True)
class _Asking:
    """A question under way; `began` in monotonic seconds."""

    done: Future[None]
    began: float


@dataclass(slots=True)
class _Commit:
    """One commit as one identity knows it. Guarded by the lock of `Listed`.

    Attributes:
        written: the number of listings this process had kept when `files` was read.
        looked: monotonic seconds when it was read.
        misses: files that no listing told of.
        pages: of the tree that were asked for here.
        asking: the question for one that is under way.
        not_before: monotonic seconds before which no tree is asked for.
    """

    files: CommitFiles = field(default_factory=CommitFiles)
    written: int = -1
    looked: float = 0.0
    misses: int = 0
    pages: int = 0
    asking: _Asking | None = None
    not_before: float = 0.0


class Listed:
    """Claims from kept listings. Thread-safe; blocks on disk, `learn` also on upstream.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        listings: Listings,
        rights: PageRights,
        breaker: Breaker,
        generations: Generations,
        *,
        most_entries: int = MOST_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listings = listings
        self._rights = rights
        self._breaker = breaker
        self._most_entries = most_entries
        self._clock = clock
        self._lock = threading.Lock()
        self._commits: OrderedDict[_Key, _Commit] = OrderedDict()
        self._generations = generations
        self._generation = generations.value("content")
        self._workers = ThreadPoolExecutor(_AT_ONCE, "hf-cache-tree")

    def files(self, scope: str, identity: str, repo: RepoRef, commit: str) -> CommitFiles:
        """Return what the listings given to an identity say of a commit; not to be changed."""
        return self._files((scope, identity, repo, commit))

    def claim(self, caller: Caller, repo: RepoRef, commit: str, file: str) -> Claim | None:
        """Return what the listings given to this identity say of a file, None if nothing."""
        return self._files((caller.scope, caller.identity, repo, commit)).claim(commit, file)

    def has(self, caller: Caller, repo: RepoRef, commit: str, path: str) -> bool | None:
        """Return whether a commit has a file or folder, None where that is not known."""
        return self._files((caller.scope, caller.identity, repo, commit)).has(path)

    def learn(self, caller: Caller, repo: RepoRef, commit: str, file: str) -> Claim | None:
        """Have the tree of a commit asked for if that is cheaper than asking for its files one by
        one, and return what it says of `file`; None if the file has to be asked for by itself.

        A tree that takes longer than a moment is not waited for: it serves later files.
        """
        key = (caller.scope, caller.identity, repo, commit)
        asking = self._ask(key, caller)
        if asking is None:
            return None
        wait([asking.done], timeout=max(0.0, asking.began + PATIENCE_SECONDS - self._clock()))
        return self.claim(caller, repo, commit, file)

    def close(self) -> None:
        """Ask for nothing more."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    # -- asking

    def _ask(self, key: _Key, caller: Caller) -> _Asking | None:
        """Return the question for a page of the tree that is under way, or that is worth it."""
        files = self._files(key)
        with self._lock:
            known = self._commits.get(key)
            if known is None or files.all_listed:
                return None
            if known.asking is None and self._is_worth_it(known, files):
                with contextlib.suppress(RuntimeError):
                    done = self._workers.submit(self._ask_for_page, key, caller)
                    known.asking = _Asking(done, self._clock())
            return known.asking

    def _is_worth_it(self, known: _Commit, files: CommitFiles) -> bool:
        if self._clock() < known.not_before:
            return False
        known.misses += 1
        small = files.named is not None and files.named <= _PAGE
        few = known.misses <= (_FEW if small else _FEW + 1)
        return not few and known.pages < 1 + known.misses // _FILES_PER_PAGE

    def _ask_for_page(self, key: _Key, caller: Caller) -> None:
        """Ask for the next page of a commit's tree; a refusal is left to who asks for the file."""
        _, _, repo, commit = key
        pause = _AFTER_FAILURE_SECONDS
        try:
            request = whole_tree(repo, commit, self._files(key).next_page or WHOLE_TREE)
            # Nobody needs an answer to this: its failure says nothing of other questions.
            self._breaker.check(caller.remote.id)
            listing = fetch_listing(
                caller.client,
                caller.credential,
                "GET",
                request.path,
                request.query,
                headers={"Accept": "application/json"},
                read_timeout=METADATA_TIMEOUT,
                background=True,
                brief=True,
            )
            self._rights.note(request, caller, listing)
            self._listings.put(question_key(request, caller, {}, b""), listing)
            pause = 0.0
        except HfCacheError as error:
            logger.info("the tree of %s is not used: %s", repo, error.message)
        finally:
            self._update(key, pause=pause)

    def _update(self, key: _Key, *, pause: float = 0.0) -> None:
        with self._lock:
            known = self._commits.get(key)
            if known is not None:
                known.asking = None
                known.pages += 1
                known.not_before = self._clock() + pause

    # -- reading

    def _files(self, key: _Key) -> CommitFiles:
        now, written = self._clock(), self._listings.written
        generation = self._generations.value("content")
        with self._lock:
            if generation != self._generation:
                # A name may belong to another repo now, and the listings of the former one be gone.
                self._commits.clear()
                self._generation = generation
            known = self._commits.get(key)
            if known is not None and self._is_good(known, now, written):
                self._commits.move_to_end(key)
                return known.files
        files = self._read(key)
        with self._lock:
            if self._generations.value("content") != generation:
                # It may have been read from what was just forgotten.
                return files
            known = self._commits.setdefault(key, _Commit())
            known.files, known.written, known.looked = files, written, now
            self._commits.move_to_end(key)
            self._make_room()
        return files

    def _is_good(self, known: _Commit, now: float, written: int) -> bool:
        if known.files.all_listed:
            return True
        return known.written == written and now - known.looked < _LOOK_AGAIN_SECONDS

    def _make_room(self) -> None:
        entries = sum(len(known.files.entries) for known in self._commits.values())
        while len(self._commits) > 1 and (
            entries > self._most_entries or len(self._commits) > _MOST_COMMITS
        ):
            _, dropped = self._commits.popitem(last=False)
            entries -= len(dropped.files.entries)

    def _read(self, key: _Key) -> CommitFiles:
        """Read every kept answer to this identity that tells of the files of a commit."""
        scope, identity, repo, commit = key
        files = CommitFiles()

        def prefix(kind: Kind, *path: str, passing: bool = False) -> str:
            parts = (repo.type, repo.id, kind.value, *path)
            return listing_key(scope, identity, *parts, passing=passing)

        for _, page in self._listings.below(prefix(Kind.INFO) + "/"):
            if page.commit == commit:
                files.add_page(page)
        asked = prefix(Kind.PATHS_INFO, api_path(repo, "paths-info", commit), passing=True)
        for _, rows in self._listings.below(asked):
            files.add_rows(rows)
        tree = prefix(Kind.TREE, api_path(repo, "tree", commit))
        pages: dict[str, str | None] = {}
        for name, rows in self._listings.below(tree):
            files.add_rows(rows)
            if name.startswith(tree + "/"):
                pages[unquote(name[len(tree) + 1 :])] = next_page(rows)
            if len(files.entries) > self._most_entries:
                # Too much to hold: its files are asked for one by one.
                return CommitFiles(all_listed=True)
        files.add_chain(pages)
        return files
