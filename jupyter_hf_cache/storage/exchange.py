"""The owner's side of what passes between the processes that want a blob.

Responsible for: the marks that the process which fills a blob makes for those that follow it, and
reading theirs.
Not responsible for: acting on them (`upstream.attendance`), the followers' side (`following`), or
the layout of the file (`mapfile`).
"""

from __future__ import annotations

import threading
import time

from jupyter_hf_cache.storage.blockmap import BlockMap
from jupyter_hf_cache.storage.interface import Span, Stage
from jupyter_hf_cache.storage.mapfile import BLOCK_SIZE, Mark, runs, touched

WANTED, REFUSED = 1, 2


class LocalExchange:
    """Marks in the `.map` file of a partial whose lease this process holds. Thread-safe.

    Those that write raise OSError when the disk refuses.
    """

    def __init__(self, block_map: BlockMap) -> None:
        self._map = block_map
        self._lock = threading.Lock()
        self._given = block_map.file.number(Mark.OWNER_GIVEN)
        if not self.damaged:
            self.enter(Stage.RUNNING)
            # Whoever still wants something says so again and again.
            block_map.file.mark("wanted", 0, block_map.file.blocks, 0)
            self.answer_whole(refused=False)

    @property
    def incarnation(self) -> bytes:
        """What tells this partial from an earlier or later one of the same blob."""
        return self._map.file.incarnation

    @property
    def damaged(self) -> bool:
        """Whether the bytes were found not to have their digest, and that is not settled."""
        return self._map.file.stage() is Stage.DAMAGED

    def enter(self, stage: Stage) -> None:
        """Say how the fill stands."""
        self._map.file.set_byte(Mark.STAGE, stage)

    def leave(self) -> None:
        """Say that nobody works on it any more, unless it ended for good."""
        if self._map.file.stage() is Stage.RUNNING:
            self.enter(Stage.IDLE)

    def beat(self) -> None:
        """Say that the owner is alive."""
        self._map.file.set_number(Mark.OWNER_BEAT, time.monotonic_ns())

    @property
    def heard(self) -> int:
        """The followers' last sign of life: while there are any, it changes."""
        return self._map.file.number(Mark.FOLLOWER_BEAT)

    def give_out(self, end: int) -> None:
        """Remember, beyond this process's life, that bytes up to `end` go to a client."""
        with self._lock:
            if end > self._given:
                self._map.file.set_number(Mark.OWNER_GIVEN, end)
                self._given = end

    @property
    def given(self) -> int:
        """How far bytes were given out by any process, rounded up."""
        return self._map.file.given

    # -- wants

    @property
    def whole_wanted(self) -> bool:
        """Whether a follower wants the whole blob."""
        return self._map.file.byte(Mark.WHOLE_WANTED) == WANTED

    def answer_whole(self, *, refused: bool) -> None:
        """Say that the whole blob is being fetched, or will not be."""
        self._map.file.set_byte(Mark.WHOLE_WANTED, REFUSED if refused else 0)

    def wanted(self) -> list[Span]:
        """Return the parts [start, end) that followers want."""
        return [
            (first * BLOCK_SIZE, min(last * BLOCK_SIZE, self._map.size))
            for first, last in runs(self._map.file.plane("wanted"), WANTED)
        ]

    def answer(self, start: int, end: int, *, refused: bool) -> None:
        """Say that a wanted part is being fetched, or will not be."""
        self._map.file.mark("wanted", *touched(start, end), REFUSED if refused else 0)
