"""One transfer of a byte range from the upstream into a fill.

Responsible for: a single GET of a range, by way of the Hub or by a signed URL that the Hub gave
lately; checking that what comes is the range that was asked for, and handing the bytes on as they
arrive.
Not responsible for: repeating it (`upstream.fetching`), verifying the digest, or writing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from jupyter_hf_cache.errors import (
    FillInterrupted,
    HfCacheError,
    NotAHub,
    UpstreamAnswer,
    UpstreamError,
    UpstreamFailing,
    UpstreamUnreachable,
)
from jupyter_hf_cache.protocol.headers import error_headers
from jupyter_hf_cache.protocol.ranges import parse_content_range
from jupyter_hf_cache.protocol.xet import is_too_large
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.storage.records import Credential, Remote, RepoRef
from jupyter_hf_cache.upstream.client import UpstreamClient, UpstreamResponse
from jupyter_hf_cache.upstream.links import LinkKey
from jupyter_hf_cache.upstream.lookup import wants_another_login
from jupyter_hf_cache.upstream.patience import asked_wait

CHUNK_SIZE = 1024 * 1024
# Below the ten seconds of silence after which huggingface_hub gives up on a body, so that a stalled
# upstream is asked again before the client notices.
STALL_SECONDS = 8.0
_BODY_OF_ERROR = 8 * 1024
# Of a file too large for plain HTTP: the Hub's storage sends no more than 50 GB at once.
LARGEST_ANSWER = 16 * 1024**3
# What a storage answers to a signed URL that it does not, or no longer, honour.
_URL_IS_OVER = frozenset({400, 401, 403, 404, 410})
_BUSY = frozenset({429, 503})

Ranges = Literal["preferred", "required", "unavailable"]
"""What a transfer does about an origin that sends the whole file when asked for a range: read over
what comes before it, raise `RangesIgnored`, or not even ask for a range."""


@dataclass(frozen=True, slots=True)
class Source:
    """A way to a blob's bytes, with the right of the caller it belongs to.

    Args:
        path: the resolve path at a full commit, below the remote's URL.
        claim: [origin_id, type, repo, commit, path, etag], kept in the blob's sidecar.
        html: the file is HTML by its own name, so an HTML answer is no sign of a login page.
        owner: the caller is the one user of this server.
        own: their own file that should have the bytes; None unless the caller is they.
        elsewhere: another upstream may have the same bytes, so this one is given up sooner.
        background: nobody waits for it.
    """

    client: UpstreamClient
    credential: Credential
    identity: str
    path: str
    origin_id: str
    claim: list[str]
    html: bool = False
    owner: bool = False
    own: OwnCopy | None = None
    elsewhere: bool = False
    background: bool = False

    @property
    def repo(self) -> RepoRef:
        """The repo that the blob is read from."""
        return RepoRef(self.claim[1], self.claim[2])

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """What makes two sources the same."""
        return (self.origin_id, self.identity, self.path, self.background)

    @property
    def link(self) -> LinkKey:
        """By what the client knows where the Hub sent this source for the bytes."""
        return (self.identity, self.path)

    def forget_link(self) -> None:
        """Ask the Hub again before the next byte: what came by its last word was no good."""
        self.client.links.forget(self.link)

    def given_up(self, error: UpstreamError) -> UpstreamError:
        """Return what readers are told of a failure for which this way is given up.

        Where there is another, the upstream rests for a moment, so that whoever asks again comes by
        that one.
        """
        if not self.elsewhere:
            return error
        self.client.watch.unreachable(UpstreamUnreachable(error.message), 0.0)
        return FillInterrupted(error.message, advice=error.advice)


Pieces = Generator[tuple[int, bytes], None, None]


class SourceLost(Exception):
    """The upstream refuses this source for good (401, 403, 404, ...).

    Args:
        error: the refusal, as it is passed on when no other source is left.
    """

    def __init__(self, error: HfCacheError) -> None:
        super().__init__(error.message)
        self.error = error


class RangesIgnored(Exception):
    """The origin sends the whole file when it is asked for a range."""


def transfer(
    source: Source,
    start: int,
    end: int,
    size: int,
    *,
    sink: Callable[[int, bytes], None],
    go_on: Callable[[], bool],
    ranges: Ranges = "preferred",
    spare: bool = False,
    background: Callable[[], bool] | None = None,
) -> None:
    """Fetch [start, end) of a file of `size` bytes and give each piece to `sink(offset, data)`.

    Returns early when `go_on()` turns false.

    Args:
        spare: give way to downloads that somebody waits for.
        background: says, as often as it is asked, whether nobody waits for these bytes; None: what
            `source` says.

    Raises:
        SourceLost: this caller's right or the file is gone.
        RangesIgnored: see `Ranges`.
        Crowded: `spare`, and the remote has all the downloads that it may have.
        UpstreamError: anything that may pass by asking again.
    """
    slots = source.client.downloads
    arriving = _arriving(source, start, end, size, ranges, spare=spare, background=background)
    with contextlib.closing(arriving):
        for offset, data in arriving:
            if data:
                sink(offset, data)
            if not go_on() or (spare and slots.crowded):
                return


def pieces(source: Source, start: int, end: int, size: int) -> Pieces:
    """Yield (offset, data) of [start, end) as one answer of the upstream brings it.

    Raises:
        SourceLost: this caller's right or the file is gone.
        UpstreamError: anything that may pass by asking again.
    """
    arriving = _arriving(source, start, end, size, "preferred", spare=False)
    with contextlib.closing(arriving):
        for offset, data in arriving:
            if data:
                yield offset, data


def _arriving(
    source: Source,
    start: int,
    end: int,
    size: int,
    ranges: Ranges,
    *,
    spare: bool,
    background: Callable[[], bool] | None = None,
) -> Pieces:
    """Yield as `pieces`, and without data where something is read over."""
    slots = source.client.downloads
    with slots.spare() if spare else slots:
        try:
            for first, last in _answers(start, end, size, ranges):
                with _ask(source, first, last, size, ranges, background) as response:
                    yield from _body(response, source, first, last, size, ranges)
        except UpstreamError:
            source.forget_link()
            raise


def _answers(start: int, end: int, size: int, ranges: Ranges) -> Iterator[tuple[int, int]]:
    """Yield [start, end) in as many parts as it takes answers to bring it: mostly one."""
    if not is_too_large(size) or ranges == "unavailable":
        yield start, end
        return
    for first in range(start, end, LARGEST_ANSWER):
        yield first, min(first + LARGEST_ANSWER, end)


def _body(
    response: UpstreamResponse, source: Source, start: int, end: int, size: int, ranges: Ranges
) -> Pieces:
    offset = _first_offset(response, start, end, size, source)
    if offset < start and ranges == "required":
        raise RangesIgnored
    for data in response.iter_gathered(CHUNK_SIZE):
        source.client.watch.check()
        yield max(offset, start), data[max(start - offset, 0) : max(end - offset, 0)]
        offset += len(data)
        if offset >= end:
            return
    raise UpstreamError(f"The upstream ended its answer {end - offset:,} bytes early.")


def _ask(
    source: Source,
    start: int,
    end: int,
    size: int,
    ranges: Ranges,
    background: Callable[[], bool] | None,
) -> UpstreamResponse:
    """Ask for the bytes where the Hub sent this caller lately, else by way of the Hub.

    The client sends a credential to the Hub's own origin only, whatever URL it is given.
    """
    whole = (start == 0 and end == size) or ranges == "unavailable"
    headers = {} if whole else {"Range": f"bytes={start}-{end - 1}"}
    links = source.client.links
    url = links.get(source.link) or links.small_file(source.link, source.claim[5])
    if url is not None:
        response = _get(source, url, headers, background)
        if response.status not in _URL_IS_OVER:
            return response
        # It ended before its time. That is no failure: the Hub gives another, or says why not.
        response.discard()
        links.forget(source.link, url)
    response = _get(source, source.path, headers, background)
    if response.status in (200, 206) and not _on_the_hub(response, source):
        links.put(source.link, response.url)
    elif response.status in (200, 206):
        links.note_place(source.link, response.url)
    return response


def _get(
    source: Source,
    path_or_url: str,
    headers: dict[str, str],
    background: Callable[[], bool] | None,
) -> UpstreamResponse:
    return source.client.request(
        "GET",
        path_or_url,
        credential=source.credential,
        headers=headers,
        stream=True,
        follow="all",
        read_timeout=STALL_SECONDS,
        background=background or source.background,
    )


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
    raise _refusal(response, source)


def _check_whole_body(response: UpstreamResponse, size: int, source: Source) -> None:
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if kind == "text/html" and not source.html:
        error = NotAHub(
            "The upstream answered with a web page instead of the file; a login page or a proxy "
            "may stand between."
        )
        if _on_the_hub(response, source) and "X-Repo-Commit" not in response.headers:
            source.client.watch.unreachable(error, 0.0)
        raise error
    length = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    if length.isdigit() and not encoded and int(length) != size:
        raise UpstreamError(
            f"The upstream announced {int(length):,} bytes where it had promised {size:,}."
        )


def _refusal(response: UpstreamResponse, source: Source) -> Exception:
    """Turn an error status into what the fill acts on."""
    status = response.status
    on_the_hub = _on_the_hub(response, source)
    if wants_another_login(status, response.headers):
        return UpstreamError("The upstream, or a proxy before it, wants another login (401).")
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
    where = "The upstream" if on_the_hub else "The upstream's storage"
    if status not in _BUSY:
        return UpstreamError(f"{where} answered {status}.")
    wait = asked_wait(response.headers)
    headers = {} if wait is None else {"Retry-After": f"{math.ceil(wait)}"}
    return UpstreamFailing(f"{where} answered {status}.", status=status, headers=headers)


def _on_the_hub(response: UpstreamResponse, source: Source) -> bool:
    parts = urlsplit(response.url)
    origin = Remote(id="", name="", url=f"{parts.scheme}://{parts.netloc}").origin
    return origin == source.client.remote.origin
