"""Adoption: a blob is taken from the user's own cache instead of being downloaded.

Responsible for: verifying a private copy of the user's file, and deciding with the fill whether
that came soon enough to spare the download.
Not responsible for: finding the file (`storage.own_cache`), or who may have its bytes
(`service.bodies`).

The user may change their file at any moment, so no byte of it is ever given out or kept: the bytes
are cloned or copied to a file that nobody else writes to, it is those that are hashed, and they
come into sight only when the whole digest matched. A copy that does not match is the user's own
affair: nothing is tainted, and the blob is downloaded.

Only where the operator asked for links is the user's file itself hashed, and given out for as long
as it is as it was then (`storage.linked`).

A reader waits `HOLD_SECONDS` for that, well below the ten seconds of silence after which clients
give up; then the download begins, and the copy, once it is verified, spares what is left of it. It
must agree with what has come until then, which may have been given out already.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from jupyter_hf_cache.protocol.digests import Hasher
from jupyter_hf_cache.storage.interface import BlobId, Partial
from jupyter_hf_cache.storage.linked import is_settled, state_of
from jupyter_hf_cache.storage.own_cache import OwnCopy
from jupyter_hf_cache.storage.staged import Staged

logger = logging.getLogger(__name__)

HOLD_SECONDS = 5.0
QUICK = 16 * 1024 * 1024
"""Up to here a file is copied by the thread that would download it."""
_STEP = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class VerifiedCopy:
    """A private copy that has the digest.

    Args:
        contents: a staged file, or all bytes of a blob that is received in memory.
        sha256: hex digest of the contents, whatever the blob's own digest is.
    """

    contents: Staged | bytes
    sha256: str

    def put_into(self, partial: Partial) -> bool:
        """Let the partial have all bytes at once; False if it has others already.

        Raises:
            OSError: the disk refuses.
        """
        if isinstance(self.contents, bytes):
            partial.write(0, self.contents)
            return True
        return partial.take(self.contents)

    def discard(self) -> None:
        """Delete it."""
        if isinstance(self.contents, Staged):
            self.contents.discard()


@dataclass(frozen=True, slots=True)
class VerifiedLink:
    """The user's own file, which has the digest.

    Args:
        info: its state when it was hashed.
    """

    copy: OwnCopy
    info: os.stat_result
    sha256: str


class Adoption:
    """One attempt to adopt a blob, for one fill that begins without bytes. Thread-safe.

    Downloads of the fill `wait` before they begin. Either the copy is verified meanwhile, and then
    they find nothing to do; or the wait ends, and the copy spares what is left when it comes.

        open --wait ends--> late
        open, late --claim--> claimed --finish--> adopted
        open, late, claimed --give_up--> failed

    Args:
        go_on: whether anybody still wants the blob.
        hold: seconds that downloads wait; None: `HOLD_SECONDS`.
    """

    def __init__(
        self,
        blob: BlobId,
        copy: OwnCopy,
        partial: Partial,
        *,
        go_on: Callable[[], bool],
        hold: float | None = None,
    ) -> None:
        self._blob = blob
        self._copy = copy
        self._partial = partial
        self._go_on = go_on
        self._hold = HOLD_SECONDS if hold is None else hold
        self._changed = threading.Condition()
        self._state = "open"
        self._begun = False

    @property
    def adopted(self) -> bool:
        """Whether the fill's bytes are those of the user."""
        return self._state in ("claimed", "adopted")

    def admit_others(self) -> bool:
        """Return whether others than the user may join the fill: not while its bytes are, or may
        become, those of the user. Once a download has begun it goes on alone for them."""
        self._move("late", "failed")
        return self._state == "failed"

    def begin(self) -> bool:
        """Return whether nobody has begun it yet; whoever begins calls `verify`."""
        with self._changed:
            begun, self._begun = self._begun, True
            return not begun

    def wait(self) -> bool:
        """Hold a download back, until it is needed or spared; return whether it is the first to
        be needed because the copy takes long."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != "open", self._hold)
            late = self._move("open", "late")
            self._changed.wait_for(lambda: self._state != "claimed")
        if late:
            logger.info("downloading %s: its own copy takes long to verify", self._blob)
        return late

    def wait_for_the_end(self) -> bool:
        """Wait for the copy where a download failed; return whether it took its place."""
        with self._changed:
            self._changed.wait_for(lambda: self._state in ("adopted", "failed"))
            return self._state == "adopted"

    def claim(self, found: VerifiedCopy | VerifiedLink) -> bool:
        """Return whether what was verified may become the fill's contents; downloads that have not
        begun wait on until `finish` or `give_up`."""
        beside = isinstance(found, VerifiedCopy) and isinstance(found.contents, Staged)
        return self._move("open", "claimed") or (beside and self._move("late", "claimed"))

    def finish(self) -> None:
        """Readers were told that the bytes are here."""
        self._move("claimed", "adopted")

    def give_up(self) -> None:
        """The blob has to be downloaded."""
        self._move("claimed", "failed")
        self.cancel()

    def cancel(self) -> None:
        """Let the download go on alone, unless the copy was claimed already."""
        self._move("open", "failed")
        self._move("late", "failed")

    def verify(self) -> VerifiedCopy | VerifiedLink | None:
        """Copy the user's file and hash the copy, or the file itself where links are wanted.

        Returns:
            None if it is not the blob, or cannot be read or copied: that is no error.
        """
        copy: VerifiedCopy | VerifiedLink | None
        try:
            if self._is_linkable():
                copy = verified_link(self._copy, self._blob, self._goes_on)
            else:
                copy = verified_copy(self._copy, self._blob, self._partial, self._goes_on)
        except OSError as error:
            logger.info("own copy %s cannot be copied: %s", self._copy.path, error)
            return None
        if copy is None and self._goes_on():
            logger.info("own copy %s is not what its name says", self._copy.path)
            self._copy.reject()
        return copy

    def _is_linkable(self) -> bool:
        wanted = self._copy.cache.by_link and self._partial.can_link(self._copy)
        return wanted and is_settled(self._copy.path.lstat())

    def _goes_on(self) -> bool:
        return self._state in ("open", "late") and self._go_on()

    def _move(self, before: str, after: str) -> bool:
        with self._changed:
            if self._state != before:
                return False
            self._state = after
            self._changed.notify_all()
            return True


def verified_copy(
    copy: OwnCopy, blob: BlobId, partial: Partial, go_on: Callable[[], bool]
) -> VerifiedCopy | None:
    """Return a private copy of the user's file beside `partial`, if it is the blob.

    It is cloned where the file system can do that, which takes neither time nor room.

    Args:
        go_on: asked after each piece; None is returned when it turns false.

    Raises:
        OSError: the file cannot be read any more, or the disk refuses.
    """
    digests = _Digests(blob, copy.size)
    with io.FileIO(copy.open(), "rb") as source:
        staged = partial.stage()
        if staged is None:
            data = source.read(copy.size + 1)
            digests.update(memoryview(data))
            return VerifiedCopy(data, digests.sha256) if digests.match else None
        try:
            if staged.clone(source.fileno()):
                with io.FileIO(staged.fileno(), "rb", closefd=False) as clone:
                    complete = _read_through(clone, [digests.update], go_on)
            else:
                complete = _read_through(source, [digests.update, staged.write], go_on)
        except BaseException:
            staged.discard()
            raise
    if complete and digests.match:
        return VerifiedCopy(staged, digests.sha256)
    staged.discard()
    return None


def verified_link(copy: OwnCopy, blob: BlobId, go_on: Callable[[], bool]) -> VerifiedLink | None:
    """Return the user's own file with its state, if it is the blob.

    Args:
        go_on: asked after each piece; None is returned when it turns false.

    Raises:
        OSError: the file cannot be read any more.
    """
    digests = _Digests(blob, copy.size)
    with io.FileIO(copy.open(), "rb") as source:
        info = os.fstat(source.fileno())
        if not is_settled(info):
            raise OSError("it was changed a moment ago")
        complete = _read_through(source, [digests.update], go_on)
        changed = state_of(os.fstat(source.fileno())) != state_of(info)
    if complete and digests.match and not changed:
        return VerifiedLink(copy, info, digests.sha256)
    return None


def _read_through(
    source: io.FileIO,
    sinks: list[Callable[[memoryview], None]],
    go_on: Callable[[], bool],
) -> bool:
    """Give each piece to every sink; return whether the end was reached."""
    buffer = memoryview(bytearray(_STEP))
    while go_on():
        count = source.readinto(buffer)
        if not count:
            return True
        for sink in sinks:
            sink(buffer[:count])
    return False


class _Digests:
    """The digest a blob is named by, its sha256, and its length; for one thread."""

    def __init__(self, blob: BlobId, size: int) -> None:
        self._wanted = blob.digest.hex
        self._left = size
        self._digest = Hasher(blob.digest.algorithm, size)
        other = blob.digest.algorithm != "sha256"
        self._sha256 = Hasher("sha256", size) if other else None

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        self._left -= len(data)
        self._digest.update(data)
        if self._sha256 is not None:
            self._sha256.update(data)

    @property
    def match(self) -> bool:
        return self._left == 0 and self._digest.hexdigest() == self._wanted

    @property
    def sha256(self) -> str:
        return (self._sha256 or self._digest).hexdigest()
