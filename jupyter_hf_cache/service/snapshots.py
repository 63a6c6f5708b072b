"""Fetching all files of a repo at a commit, in the background.

Responsible for: doing that once, whoever asks and in whatever process; a few files at a time and
behind everything that somebody waits for; stopping when it is not wanted any more, and going on at
the next touch.
Not responsible for: single files (`upstream.fills`), the right to them (`service.files`), or what
there is to tell afterwards (`service.snapshot_rows`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from jupyter_hf_cache.answers import FillBody
from jupyter_hf_cache.errors import HfCacheError, StorageError, UpstreamUnreachable
from jupyter_hf_cache.service.bodies import Bodies
from jupyter_hf_cache.service.caller import Caller
from jupyter_hf_cache.service.files import Files
from jupyter_hf_cache.service.metadata import Metadata
from jupyter_hf_cache.service.mirrors import mirrors_of, remote_id_of
from jupyter_hf_cache.service.snapshot_files import SnapshotFile, list_files, request_for
from jupyter_hf_cache.service.snapshot_rows import SnapshotReport, SnapshotRows
from jupyter_hf_cache.storage.budget import Budget
from jupyter_hf_cache.storage.config_store import ConfigStore
from jupyter_hf_cache.storage.interface import BlobId, BlobStore
from jupyter_hf_cache.storage.records import RepoRef
from jupyter_hf_cache.upstream.following import Following
from jupyter_hf_cache.upstream.growing import Growing

logger = logging.getLogger(__name__)

_AT_ONCE = 2
_FILES_AT_ONCE = 2
_LOOK_SECONDS = 1.0
# From the verified last byte to the file in its place: a slow disk has to sync it.
_KEEPING_SECONDS = 120.0
# A touch within so many seconds after the end looks at nothing.
_REST_SECONDS = {"done": 600.0, "refused": 600.0, "canceled": 600.0}
_REST_AFTER_FAILURE = 60.0
_IN_MEMORY = 10_000


@dataclass(slots=True)
class _Job:
    """One snapshot on its way here."""

    caller: Caller
    report: SnapshotReport
    running: dict[SnapshotFile, FillBody] = field(default_factory=dict)
    unwatch: dict[SnapshotFile, Callable[[], None]] = field(default_factory=dict)
    changed: threading.Event = field(default_factory=threading.Event)
    verified: dict[SnapshotFile, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    written: float = 0.0

    @property
    def repo(self) -> RepoRef:
        return RepoRef(self.report.type, self.report.repo)

    def follow(self, file: SnapshotFile, body: FillBody) -> None:
        """Keep a fill going, as a reader that reads nothing."""
        self.running[file] = body
        self.unwatch[file] = body.fill.watch(self.changed.set)

    def leave(self, file: SnapshotFile) -> None:
        """Keep it going no more."""
        self.unwatch.pop(file)()
        self.running.pop(file).close()


class _Ended(Exception):
    """It ends before its end.

    Args:
        state: see `SnapshotReport`.
        reason: in words.
    """

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class Snapshots:
    """Thread-safe. `touch` and `fetch` return at once; the rest blocks on disk."""

    def __init__(
        self,
        *,
        rows: SnapshotRows,
        config: ConfigStore,
        files: Files,
        metadata: Metadata,
        bodies: Bodies,
        store: BlobStore,
        budget: Budget,
    ) -> None:
        self._rows = rows
        self._config = config
        self._files = files
        self._metadata = metadata
        self._bodies = bodies
        self._store = store
        self._budget = budget
        self._lock = threading.Lock()
        self._resting: OrderedDict[str, float] = OrderedDict()
        self._stopping = False
        self._workers = ThreadPoolExecutor(_AT_ONCE, "hf-cache-snapshot")

    def touch(self, caller: Caller, repo: RepoRef, commit: str) -> None:
        """Somebody was given a file of this commit: have all of it fetched if the remote wants that
        (policy `immediate`)."""
        if caller.remote.policy == "immediate":
            self.fetch(caller, repo, commit)

    def fetch(
        self,
        caller: Caller,
        repo: RepoRef,
        commit: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> str:
        """Have the files of a commit fetched with this caller's right; return the snapshot's id.

        One that is being fetched, or was fetched a moment ago, is left alone.

        Args:
            include, exclude: shell patterns of paths, as huggingface_hub takes them.
        """
        report = _report(caller, repo, commit, tuple(include), tuple(exclude))
        with self._lock:
            if self._stopping or time.monotonic() < self._resting.get(report.id, 0.0):
                return report.id
            # Until it has ended; whoever touches it meanwhile changes nothing.
            self._rest(report.id, float("inf"))
        job = _Job(replace(caller, background=True), report)
        with contextlib.suppress(RuntimeError):
            self._workers.submit(self._run, job)
        return report.id

    def cancel(self, snapshot_id: str) -> bool:
        """End a snapshot that is being fetched, by whatever process; what is there stays.

        Returns:
            False if it is not being fetched.
        """
        return self._rows.cancel(snapshot_id)

    def reports(self) -> list[SnapshotReport]:
        """Return running and ended ones of all processes, the latest first."""
        return self._rows.all()

    def stop(self) -> None:
        """End all; for shutting down. They go on at the next touch."""
        with self._lock:
            self._stopping = True
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _rest(self, snapshot_id: str, seconds: float) -> None:
        """Let touches pass for a while. The lock is held."""
        self._resting[snapshot_id] = time.monotonic() + seconds
        self._resting.move_to_end(snapshot_id)
        while len(self._resting) > _IN_MEMORY:
            self._resting.popitem(last=False)

    # -- one snapshot

    def _run(self, job: _Job) -> None:
        state, reason = "failed", "It failed inside the cache."
        taken = False
        try:
            taken = self._rows.take(replace(job.report, state="running", started=time.time()))
            if taken:
                job.report = replace(job.report, state="running", started=time.time())
                self._fetch_all(job)
                state, reason = ("failed", job.errors[0]) if job.errors else ("done", "")
            else:
                state, reason = "failed", "Another process is at it."
        except _Ended as ended:
            state, reason = ended.state, ended.reason
        except HfCacheError as error:
            reason = error.message
        except Exception:
            logger.exception("snapshot of %s broke", job.report.repo)
        finally:
            for file in list(job.running):
                job.leave(file)
            if taken:
                self._end(job, state, reason)
            with self._lock:
                self._rest(job.report.id, _REST_SECONDS.get(state, _REST_AFTER_FAILURE))

    def _end(self, job: _Job, state: str, reason: str) -> None:
        where = f"{job.report.repo}@{job.report.commit[:7]}"
        logger.info("snapshot %s: %s %s", where, state, reason)
        job.report = replace(job.report, state=state, error=reason, ended=time.time())
        try:
            self._rows.write(job.report)
        except StorageError as error:
            logger.info("the end of the snapshot %s is not noted: %s", where, error.message)

    def _fetch_all(self, job: _Job) -> None:
        listed = list_files(self._metadata, job.caller, job.repo, job.report.commit)
        files = [file for file in listed if file.is_wanted(job.report.include, job.report.exclude)]
        sizes = {file.blob: file.size for file in files}
        self._check_room(sum(sizes.values()))
        job.report = replace(job.report, files_total=len(files), bytes_total=sum(sizes.values()))
        missing = [file for file in files if not self._count_if_kept(job, file, sizes)]
        while missing or job.running:
            job.changed.clear()
            while missing and len(job.running) < _FILES_AT_ONCE:
                self._begin(job, missing.pop(0), sizes)
            self._look(job, sizes)
            self._check_wanted(job)
            if job.running:
                job.changed.wait(_LOOK_SECONDS)

    def _check_room(self, total: int) -> None:
        limit = self._budget.limit
        room = min(limit, self._budget.used() + max(0, self._budget.free_on_disk()))
        if total > room:
            what = "the cache may hold" if limit <= room else "there is room for on the disk"
            raise _Ended(
                "refused", f"The snapshot has {total:,} bytes, more than {what} ({room:,})."
            )

    def _count_if_kept(self, job: _Job, file: SnapshotFile, sizes: dict[BlobId, int]) -> bool:
        if file.size and self._store.size_of(file.blob) != file.size:
            return False
        self._count(job, file, sizes)
        return True

    def _count(self, job: _Job, file: SnapshotFile, sizes: dict[BlobId, int]) -> None:
        """Count a file as there; of equal ones the bytes once."""
        job.report = replace(
            job.report,
            files_done=job.report.files_done + 1,
            bytes_done=job.report.bytes_done + sizes.pop(file.blob, 0),
        )

    def _begin(self, job: _Job, file: SnapshotFile, sizes: dict[BlobId, int]) -> None:
        if self._count_if_kept(job, file, sizes):
            return
        request = request_for(job.repo, job.report.commit, file.path)
        try:
            claim = self._files.find(request, job.caller, {}).claim
            body = self._bodies.begin(request, job.caller, claim)
        except UpstreamUnreachable as error:
            raise _Ended("failed", error.message) from error
        except StorageError as error:
            raise _Ended("refused", error.message) from error
        except HfCacheError as error:
            job.errors.append(f"{file.path}: {error.message}")
            return
        if body is None:
            if not self._count_if_kept(job, file, sizes):
                raise _Ended("refused", f"There is no room for {file.path} now.")
            return
        job.follow(file, body)

    def _look(self, job: _Job, sizes: dict[BlobId, int]) -> None:
        """See which files have come, and tell how far it is."""
        for file, body in list(job.running.items()):
            try:
                if not self._is_kept(job, file, body.fill):
                    continue
            except HfCacheError as error:
                job.errors.append(f"{file.path}: {error.message}")
            else:
                self._count(job, file, sizes)
            job.leave(file)
            job.changed.set()

    def _is_kept(self, job: _Job, file: SnapshotFile, fill: Growing) -> bool:
        """Return whether a file was kept, as far as that is settled.

        Raises:
            HfCacheError: it failed, or cannot be kept.
        """
        if not fill.verified:
            fill.available(0, completing=True)
            return False
        if fill.state == "kept":
            return True
        # Of another process's fill nobody hears how it ends.
        if isinstance(fill, Following) and self._store.size_of(file.blob) == file.size:
            return True
        since = job.verified.setdefault(file, time.monotonic())
        if fill.state == "unkept" or time.monotonic() - since > _KEEPING_SECONDS:
            raise StorageError("It cannot be kept.")
        return False

    def _check_wanted(self, job: _Job) -> None:
        if self._stopping:
            raise _Ended("paused", "The cache was shut down.")
        remote = self._config.remote(remote_id_of(job.caller.remote.id))
        if remote is None or job.caller.remote not in (remote, *mirrors_of(remote)):
            raise _Ended("paused", "The remote was changed.")
        now = time.monotonic()
        if now - job.written < _LOOK_SECONDS:
            return
        job.written = now
        arrived = sum(body.fill.done for body in job.running.values())
        shown = replace(job.report, bytes_done=job.report.bytes_done + arrived)
        if not self._rows.write(shown):
            raise _Ended("canceled", "It was canceled.")


def _report(
    caller: Caller, repo: RepoRef, commit: str, include: tuple[str, ...], exclude: tuple[str, ...]
) -> SnapshotReport:
    what = [caller.remote.scope, repo.type, repo.id, commit, *include, "", *exclude]
    return SnapshotReport(
        id=hashlib.sha256("\0".join(what).encode()).hexdigest()[:16],
        remote=caller.remote.id,
        type=repo.type,
        repo=repo.id,
        commit=commit,
        include=include,
        exclude=exclude,
    )
