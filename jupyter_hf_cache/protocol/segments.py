"""Raw paths and queries, taken apart and put together again.

Responsible for: decoding a path into segments, refusing what could mean something else to the next
reader (`..`, control characters, backslashes, empty segments), and writing both so that nobody on
the way reads them otherwise.
Not responsible for: what the segments mean (`paths`).

Percent-escapes are decoded exactly once, per segment: `%2F` inside a revision is part of the
revision's name.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from jupyter_hf_cache.errors import BadPath

MAX_PATH_LENGTH = 8192
"""Longest raw path that is read, in characters; what is longer is refused."""

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_SEGMENT_SAFE = "!$&'()*+,;=:@"
_QUERY_SAFE = "!$%&'()*+,-./:;=?@[]_~|"


def read_path(path: str) -> list[str]:
    """The decoded segments of a raw path; a trailing slash leaves one empty segment at the end.

    Raises:
        BadPath: it cannot be decoded, is too long, or could climb.
    """
    if len(path) > MAX_PATH_LENGTH:
        raise BadPath(
            f"The path is longer than {MAX_PATH_LENGTH} characters.",
            advice="Use shorter file or revision names.",
        )
    raw = path.lstrip("/").split("/")
    segments = [_decode(segment) for segment in raw]
    for segment in segments[:-1]:
        _refuse_climbing(segment, may_be_empty=False)
    _refuse_climbing(segments[-1], may_be_empty=True)
    return segments


def _decode(segment: str) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise BadPath(
            "The path holds a '%' that does not start a two-digit escape.",
            advice="Write a literal percent sign as %25.",
        )
    try:
        decoded = unquote_to_bytes(segment.encode("latin-1")).decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        raise BadPath(
            "The path is not valid UTF-8.",
            advice="Percent-encode names as UTF-8.",
        ) from None
    if _CONTROL_CHARACTER.search(decoded):
        raise BadPath(
            "The path holds a control character.",
            advice="Rename the file or leave the character out.",
        )
    if "\\" in decoded:
        raise BadPath(
            "The path holds a backslash.",
            advice="Separate folders by '/'; names with a backslash are not served.",
        )
    return decoded


def _refuse_climbing(segment: str, *, may_be_empty: bool) -> None:
    """Refuse `.`, `..` and empty parts, also those that an encoded slash brings in."""
    if segment == "" and may_be_empty:
        return
    for part in segment.split("/"):
        if part in (".", ".."):
            raise BadPath(
                f"The path holds a '{part}' segment.",
                advice="Name the file by its full path in the repository.",
            )
        if part == "":
            raise BadPath(
                "The path holds an empty segment ('//').",
                advice="Use a single '/' between names.",
            )


def read_query(query: str) -> str:
    """The query as received; raw bytes that HTTP does not allow there are percent-encoded.

    Raises:
        BadPath: it holds a control character.
    """
    if _CONTROL.search(query):
        raise BadPath(
            "The query holds a control character.", advice="Percent-encode parameter values."
        )
    try:
        raw = query.encode("latin-1")
    except UnicodeEncodeError:
        raw = query.encode("utf-8", "surrogatepass")
    return quote(raw, safe=_QUERY_SAFE)


def write_path(segments: list[str]) -> str:
    """The one raw path of these segments."""
    return "/" + "/".join(quote(segment, safe=_SEGMENT_SAFE) for segment in segments)
