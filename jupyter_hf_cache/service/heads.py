"""The head of a file's answer.

Responsible for: the headers that clients build their own cache on, how ranges are announced, and
the answer for a file that a commit does not have.
Not responsible for: headers that every answer carries (`protocol.headers.sandbox_headers`).
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from pathlib import PurePosixPath

from jupyter_hf_cache.errors import UpstreamAnswer
from jupyter_hf_cache.protocol.multipart import Multipart
from jupyter_hf_cache.protocol.ranges import ByteRange, content_range
from jupyter_hf_cache.storage.records import Claim

_TEXT = frozenset(
    {
        ".txt",
        ".md",
        ".py",
        ".csv",
        ".tsv",
        ".yaml",
        ".yml",
        ".toml",
        ".cfg",
        ".ini",
        ".jinja",
        ".jsonl",
    }
)


def file_headers(claim: Claim, file: str, stale: str = "") -> dict[str, str]:
    """Return the headers of an answer about a file, without lengths.

    `X-Repo-Commit` decides in which snapshot folder huggingface_hub files the download, the ETag
    becomes the name of the blob there: both must be the Hub's own, the same for every route and
    method.
    """
    headers = {
        "X-Repo-Commit": claim.commit,
        "ETag": f'"{claim.etag}"',
        "Accept-Ranges": "bytes",
        "Content-Type": content_type(claim, file),
        "Cache-Control": "private, no-cache",
    }
    if claim.size is not None and len(claim.etag) == 64:
        headers["X-Linked-Size"] = str(claim.size)
        headers["X-Linked-ETag"] = f'"{claim.etag}"'
    if stale:
        headers["X-HF-Warning"] = warning(stale)
    return headers


def warning(reason: str) -> str:
    """Return the value of `X-HF-Warning`, which huggingface_hub shows to its user."""
    plain = reason.encode("ascii", "replace").decode()
    return f"Stale; The Hub could not be asked ({plain}) so the cache answered with what it has."


def content_type(claim: Claim, file: str) -> str:
    """Return a content type that a browser will not run: JSON, plain text, or bytes."""
    suffix = PurePosixPath(file).suffix.lower()
    if suffix == ".json":
        return "application/json"
    if suffix in _TEXT:
        return "text/plain; charset=utf-8"
    guessed = mimetypes.guess_type(file)[0] or ""
    if guessed.startswith(
        ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/")
    ):
        return guessed
    return "application/octet-stream"


def say_which_bytes(
    headers: dict[str, str], size: int, wanted: list[ByteRange] | None
) -> tuple[int, Multipart | None]:
    """Complete the headers of an answer that holds some ranges, or (None) the whole file.

    Returns:
        The status, and what frames the parts if there are several.
    """
    if wanted is None:
        headers["Content-Length"] = str(size)
        return 200, None
    if len(wanted) == 1:
        headers["Content-Range"] = content_range(wanted[0], size)
        headers["Content-Length"] = str(len(wanted[0]))
        return 206, None
    framing = Multipart(wanted, size, headers["Content-Type"])
    headers["Content-Type"] = framing.media_type
    headers["Content-Length"] = str(len(framing))
    return 206, framing


def missing_file(commit: str) -> UpstreamAnswer:
    """Return the Hub's own answer for a file that a commit does not have."""
    return UpstreamAnswer(
        404,
        "Entry not found",
        code="EntryNotFound",
        headers={"X-Repo-Commit": commit, "Content-Type": "text/plain; charset=utf-8"},
        body=b"Entry not found",
    )


def missing_folder(commit: str, folder: str) -> UpstreamAnswer:
    """Return the Hub's own answer to a list of a folder that a commit does not have."""
    message = f"{folder} does not exist on {commit[:7]}"
    return UpstreamAnswer(
        404,
        message,
        code="EntryNotFound",
        headers={"X-Repo-Commit": commit, "Content-Type": "application/json; charset=utf-8"},
        body=json.dumps({"error": message}).encode(),
    )


def wants_fresh(headers: Mapping[str, str]) -> bool:
    """Return whether the client asks for a fresh look (`Cache-Control: no-cache`)."""
    return "no-cache" in headers.get("Cache-Control", "").lower()


def not_modified(headers: Mapping[str, str], etag: str) -> bool:
    """Return whether `If-None-Match` names what the client would get (`etag`, unquoted)."""
    value = headers.get("If-None-Match", "")
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in value.split(",")}
    return bool(value) and (etag in tags or "*" in tags)


def range_applies(headers: Mapping[str, str], claim: Claim) -> bool:
    """Return whether a `Range` may be honoured: no `If-Range`, or one that names these bytes."""
    condition = headers.get("If-Range", "").strip()
    return not condition or condition == f'"{claim.etag}"'
