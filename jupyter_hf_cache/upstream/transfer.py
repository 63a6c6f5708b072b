"""One transfer of a byte range from the upstream into a fill.

Responsible for: a single GET that follows the Hub's redirect to its storage, checking that what
comes is the range that was asked for, and handing the bytes on as they arrive.
Not responsible for: repeating it (`upstream.fill`), verifying the digest, or writing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from urllib.parse import urlsplit

from jupyter_hf_cache.errors import HfCacheError, UpstreamAnswer, UpstreamError
from jupyter_hf_cache.protocol.headers import error_headers
from jupyter_hf_cache.protocol.ranges import parse_content_range
from jupyter_hf_cache.storage.records import Credential, Remote
from jupyter_hf_cache.upstream.client import UpstreamClient, UpstreamResponse

CHUNK_SIZE = 1024 * 1024
# Below the ten seconds of silence after which huggingface_hub gives up on a body, so that a stalled
# upstream is asked again before the client notices.
STALL_SECONDS = 8.0
_BODY_OF_ERROR = 8 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A way to a blob's bytes, with the right of the caller it belongs to.

    Args:
        path: the resolve path at a full commit, below the remote's URL.
        claim: [origin_id, type, repo, commit, path, etag], kept in the blob's sidecar.
        html: the file is HTML by its own name, so an HTML answer is no sign of a login page.
    """

    client: UpstreamClient
    credential: Credential
    identity: str
    path: str
    origin_id: str
    claim: list[str]
    html: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two sources the same."""
        return (self.origin_id, self.identity, self.path)


Pieces = Generator[tuple[int, bytes], None, None]


class SourceLost(Exception):
    """The upstream refuses this source for good (401, 403, 404, ...).

    Args:
        error: the refusal, as it is passed on when no other source is left.
    """

    def __init__(self, error: HfCacheError) -> None:
        super().__init__(error.message)
        self.error = error


def transfer(
    source: Source,
    start: int,
    end: int,
    size: int,
    *,
    sink: Callable[[int, bytes], None],
    go_on: Callable[[], bool],
) -> None:
    """Fetch [start, end) of a file of `size` bytes and give each piece to `sink(offset, data)`.

    Returns early when `go_on()` turns false.

    Raises:
        SourceLost: this caller's right or the file is gone.
        UpstreamError: anything that may pass by asking again.
    """
    with contextlib.closing(pieces(source, start, end, size)) as arriving:
        for offset, data in arriving:
            sink(offset, data)
            if not go_on():
                return


def pieces(source: Source, start: int, end: int, size: int) -> Pieces:
    """Yield (offset, data) of [start, end) as one answer of the upstream brings it.

    Raises:
        SourceLost: this caller's right or the file is gone.
        UpstreamError: anything that may pass by asking again.
    """
    whole = start == 0 and end == size
    headers = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
    with (
        source.client.downloads,
        source.client.request(
            "GET",
            source.path,
            credential=source.credential,
            headers=headers,
            stream=True,
            follow="all",
            read_timeout=STALL_SECONDS,
        ) as response,
    ):
        offset = _first_offset(response, start, end, size, source)
        for data in response.iter_bytes(CHUNK_SIZE):
            piece = data[max(start - offset, 0) : max(end - offset, 0)]
            if piece:
                yield max(offset, start), piece
            offset += len(data)
            if offset >= end:
                break
    if offset < end:
        raise UpstreamError(f"The upstream ended its answer {end - offset:,} bytes early.")


def _first_offset(
    response: UpstreamResponse, start: int, end: int, size: int, source: Source
) -> int:
    """Check the head of the answer; return the file position of its first byte."""
    if response.status == 206:
        parsed = parse_content_range(response.headers.get("Content-Range"))
        if parsed is None or parsed[0].start != start or parsed[1] not in (None, size):
            raise UpstreamError("The upstream answered with another range than was asked for.")
        return start
    if response.status == 200:
        _check_whole_body(response, size, source)
        return 0
    raise _refusal(response, source.client.remote)


def _check_whole_body(response: UpstreamResponse, size: int, source: Source) -> None:
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind == "text/html" and not source.html:
        raise UpstreamError(
            "The upstream answered with a web page instead of the file; a login page or a proxy "
            "may stand between."
        )
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    if length.isdigit() and not encoded and int(length) != size:
        raise UpstreamError(
            f"The upstream announced {int(length):,} bytes where it had promised {size:,}."
        )


def _refusal(response: UpstreamResponse, remote: Remote) -> Exception:
    """Turn an error status into what the fill acts on."""
    status = response.status
    on_the_hub = _origin_of(response.url) == remote.origin
    if on_the_hub and status in (401, 403, 404, 410, 451):
        body = response.read_some(_BODY_OF_ERROR)
        message = response.headers.get("X-Error-Message") or f"The upstream answered {status}."
        return SourceLost(
            UpstreamAnswer(
                status,
                message,
                code=response.headers.get("X-Error-Code"),
                headers=error_headers(status, response.headers, anonymous=False),
                body=body,
            )
        )
    headers = {}
    if retry_after := response.headers.get("Retry-After"):
        headers["Retry-After"] = retry_after
    where = "The upstream" if on_the_hub else "The upstream's storage"
    return UpstreamError(f"{where} answered {status}.", headers=headers)


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return Remote(id="", name="", url=f"{parts.scheme}://{parts.netloc}").origin
