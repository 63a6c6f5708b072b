"""What the cache API answers, as records.

Responsible for: reading the API's JSON into frozen data classes. A key that is missing gets its
empty value and one that is unknown is ignored, so that a client and a server of neighbouring
versions work together.
Not responsible for: fetching it (`client`) or showing it (`summary`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _number(data: dict[str, Any], key: str) -> int:
    value = data.get(key)
    return int(value) if isinstance(value, (int, float)) else 0


def _text(data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""


def _maybe(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) and value else None


def _flag(data: dict[str, Any], key: str) -> bool | None:
    value = data.get(key)
    return value if isinstance(value, bool) else None


def _mapping(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _mappings(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = data.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """Whether one remote can be asked. `state` is reachable, unreachable, offline (set so) or
    unknown."""

    remote: str
    url: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole cache in numbers. Bytes, counts, bytes per second.

    `kernel_endpoint` holds a capability, so it is kept out of the repr.
    """

    version: str
    endpoint: str
    kernel_endpoint: str | None = field(repr=False)
    inject_on: bool
    inject_reason: str | None
    cache_dir: str
    used_bytes: int
    limit_bytes: int | None
    free_bytes: int
    repos: int
    files: int
    running: int
    running_done_bytes: int
    running_total_bytes: int
    running_speed: float
    upstreams: tuple[UpstreamState, ...]
    hits: int
    misses: int
    bytes_from_cache: int
    bytes_from_upstream: int
    calls_saved: int
    problems: tuple[str, ...]

    @classmethod
    def read(cls, data: dict[str, Any]) -> Status:
        """From the JSON of `GET hf-cache/v1/status`."""
        usage, fills = _mapping(data, "usage"), _mapping(data, "fills")
        today, inject = _mapping(data, "today"), _mapping(data, "inject")
        problems = data.get("problems")
        return cls(
            version=_text(data, "version"),
            endpoint=_text(data, "endpoint"),
            kernel_endpoint=_maybe(data, "kernel_endpoint"),
            inject_on=bool(inject.get("on")),
            inject_reason=_maybe(inject, "reason"),
            cache_dir=_text(data, "cache_dir"),
            used_bytes=_number(usage, "bytes"),
            limit_bytes=_number(usage, "limit_bytes") or None,
            free_bytes=_number(usage, "free_bytes"),
            repos=_number(usage, "repos"),
            files=_number(usage, "files"),
            running=_number(fills, "running"),
            running_done_bytes=_number(fills, "bytes_done"),
            running_total_bytes=_number(fills, "bytes_total"),
            running_speed=float(_number(fills, "speed_bytes_per_second")),
            upstreams=tuple(
                UpstreamState(
                    _text(item, "remote"),
                    _text(item, "url"),
                    _text(item, "state") or "unknown",
                    _maybe(item, "reason"),
                )
                for item in _mappings(data, "upstreams")
            ),
            hits=_number(today, "hits"),
            misses=_number(today, "misses"),
            bytes_from_cache=_number(today, "bytes_from_cache"),
            bytes_from_upstream=_number(today, "bytes_from_upstream"),
            calls_saved=_number(today, "calls_saved"),
            problems=tuple(str(p) for p in problems) if isinstance(problems, list) else (),
        )


@dataclass(frozen=True, slots=True)
class Revision:
    """One commit of a cached repo and the name it was asked for by, if any.

    `complete` says whether all its files are kept, None if that is not known. It and what is
    missing are filled only by a look at one repo.
    """

    revision: str | None
    commit: str
    files: int
    size_bytes: int
    complete: bool | None = None
    missing_files: int = 0
    missing_bytes: int = 0

    @classmethod
    def read(cls, data: dict[str, Any]) -> Revision:
        return cls(
            _maybe(data, "revision"),
            _text(data, "commit"),
            _number(data, "files"),
            _number(data, "size_bytes"),
            _flag(data, "complete"),
            _number(data, "missing_files"),
            _number(data, "missing_bytes"),
        )


@dataclass(frozen=True, slots=True)
class FileSize:
    """A file of a repo. `size_bytes` is None where nobody said."""

    path: str
    size_bytes: int | None

    @classmethod
    def read(cls, data: dict[str, Any]) -> FileSize:
        size = data.get("size_bytes")
        return cls(_text(data, "path"), size if isinstance(size, int) else None)


@dataclass(frozen=True, slots=True)
class Completeness:
    """Whether a snapshot loads without the Hub.

    `complete` is None where no list of the commit's files is kept. `missing` names up to 1000 of
    the files that are not kept, `missing_files` counts them all; `passed_through` are those that
    never are, because they are too large for plain HTTP.
    """

    type: str
    id: str
    remote: str
    revision: str
    commit: str | None
    complete: bool | None
    files: int
    size_bytes: int
    missing_files: int
    missing_bytes: int
    missing: tuple[FileSize, ...] = ()
    passed_through: tuple[FileSize, ...] = ()

    @classmethod
    def read(cls, data: dict[str, Any]) -> Completeness:
        """From the JSON of `GET hf-cache/v1/repos/{type}/{id}/completeness`."""
        return cls(
            type=_text(data, "type"),
            id=_text(data, "id"),
            remote=_text(data, "remote"),
            revision=_text(data, "revision"),
            commit=_maybe(data, "commit"),
            complete=_flag(data, "complete"),
            files=_number(data, "files"),
            size_bytes=_number(data, "size_bytes"),
            missing_files=_number(data, "missing_files"),
            missing_bytes=_number(data, "missing_bytes"),
            missing=tuple(FileSize.read(item) for item in _mappings(data, "missing")),
            passed_through=tuple(FileSize.read(i) for i in _mappings(data, "passed_through")),
        )


@dataclass(frozen=True, slots=True)
class CachedFile:
    """One file of a cached repo. `shared_with` counts the other repos that use the same bytes."""

    path: str
    commit: str
    size_bytes: int
    digest: str
    shared_with: int

    @classmethod
    def read(cls, data: dict[str, Any]) -> CachedFile:
        return cls(
            _text(data, "path"),
            _text(data, "commit"),
            _number(data, "size_bytes"),
            _text(data, "digest"),
            _number(data, "shared_with"),
        )


@dataclass(frozen=True, slots=True)
class Repo:
    """One cached repo; `type` is models, datasets or spaces, `last_used` ISO 8601 or None.

    `files` is a number; `file_list` is filled only by a look at one repo.
    """

    type: str
    id: str
    size_bytes: int
    files: int
    last_used: str | None
    revisions: tuple[Revision, ...]
    private: bool | None
    gated: bool | None
    remote: str
    file_list: tuple[CachedFile, ...] = ()

    @classmethod
    def read(cls, data: dict[str, Any]) -> Repo:
        """From an entry of `GET hf-cache/v1/repos` or from `GET hf-cache/v1/repos/{type}/{id}`."""
        listed = tuple(CachedFile.read(item) for item in _mappings(data, "files"))
        return cls(
            type=_text(data, "type"),
            id=_text(data, "id"),
            size_bytes=_number(data, "size_bytes"),
            files=len(listed) if listed else _number(data, "files"),
            last_used=_maybe(data, "last_used"),
            revisions=tuple(Revision.read(item) for item in _mappings(data, "revisions")),
            private=_flag(data, "private"),
            gated=_flag(data, "gated"),
            remote=_text(data, "remote"),
            file_list=listed,
        )


@dataclass(frozen=True, slots=True)
class RepoPage:
    """Some of the cached repos; `count` is how many match in all."""

    count: int
    repos: tuple[Repo, ...]

    @classmethod
    def read(cls, data: dict[str, Any]) -> RepoPage:
        repos = tuple(Repo.read(item) for item in _mappings(data, "results"))
        return cls(max(_number(data, "count"), len(repos)), repos)


@dataclass(frozen=True, slots=True)
class Freed:
    """What a deletion frees, or would free, what stays because others use it, and what is freed as
    soon as nobody reads it any more."""

    freed_bytes: int
    kept_shared_bytes: int
    files: int
    in_use_bytes: int = 0

    @classmethod
    def read(cls, data: dict[str, Any]) -> Freed:
        return cls(
            _number(data, "freed_bytes"),
            _number(data, "kept_shared_bytes"),
            _number(data, "files"),
            _number(data, "in_use_bytes"),
        )


@dataclass(frozen=True, slots=True)
class Fill:
    """One download. `state` is running, verifying, failed or done."""

    digest: str
    repo: str
    type: str
    file: str
    revision: str | None
    size_bytes: int
    done_bytes: int
    speed: float
    eta_seconds: float | None
    readers: int
    started: str | None
    state: str
    error: str | None

    @classmethod
    def read(cls, data: dict[str, Any]) -> Fill:
        eta = data.get("eta_seconds")
        return cls(
            digest=_text(data, "digest"),
            repo=_text(data, "repo"),
            type=_text(data, "type"),
            file=_text(data, "file"),
            revision=_maybe(data, "revision"),
            size_bytes=_number(data, "size_bytes"),
            done_bytes=_number(data, "done_bytes"),
            speed=float(_number(data, "speed_bytes_per_second")),
            eta_seconds=float(eta) if isinstance(eta, (int, float)) else None,
            readers=_number(data, "readers"),
            started=_maybe(data, "started"),
            state=_text(data, "state"),
            error=_maybe(data, "error"),
        )


@dataclass(frozen=True, slots=True)
class TokenState:
    """Whether a remote has a stored token. Never the token."""

    remote: str
    set: bool

    @classmethod
    def read(cls, data: dict[str, Any]) -> TokenState:
        return cls(_text(data, "remote"), bool(data.get("set")))


@dataclass(frozen=True, slots=True)
class TokenTest:
    """What the upstream says about a stored token."""

    ok: bool
    name: str | None
    role: str | None
    error: str | None

    @classmethod
    def read(cls, data: dict[str, Any]) -> TokenTest:
        return cls(
            bool(data.get("ok")), _maybe(data, "name"), _maybe(data, "role"), _maybe(data, "error")
        )
