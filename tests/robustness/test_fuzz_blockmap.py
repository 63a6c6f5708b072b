"""Block maps through whatever may happen to them, against a plain set of pieces."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from robustness.boots import another_boot

from jupyter_hf_cache.storage.blockmap import BLOCK_SIZE, BlockMap

SCALE = int(os.environ.get("HF_CACHE_FUZZ_SCALE", "1"))
SIZE = 4 * BLOCK_SIZE + 777
# The file is cut into pieces at these places: around borders of blocks, where mistakes are.
CUTS = sorted(
    {
        min(max(0, block * BLOCK_SIZE + shift), SIZE)
        for block in range(6)
        for shift in (-1, 0, 1, BLOCK_SIZE // 3)
    }
)
PIECES = list(pairwise(CUTS))
SPANS = st.tuples(st.integers(0, len(PIECES)), st.integers(0, len(PIECES))).map(sorted)


class Machine(RuleBasedStateMachine):
    """One partial file's map, and the pieces that must be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "blob.map"
        self.left: list[BlockMap] = []
        self.written: set[int] = set()
        self.trusted = True
        self.owner = "me"

    @initialize()
    def make(self) -> None:
        self.map = BlockMap(self.path, SIZE, self.owner)
        assert not self.map.continued and self.map.trusted

    def teardown(self) -> None:
        for one in [*self.left, self.map]:
            one.close()
        shutil.rmtree(self.folder)

    @rule(span=SPANS)
    def add(self, span: list[int]) -> None:
        first, last = span
        self.map.add(CUTS[first], CUTS[last])
        self.written |= set(range(first, last))

    @rule()
    def stop_and_start(self) -> None:
        self.map.close()
        self._open()

    @rule()
    def kill_and_start(self) -> None:
        # What a killed process had open is never closed by it.
        self.left.append(self.map)
        self._open()

    @rule()
    def start_after_a_loss_of_power(self) -> None:
        self.map.close()
        with another_boot():
            self.map = BlockMap(self.path, SIZE, self.owner)
        assert self.map.continued
        # Opened again in this boot it may be trusted or not; what it holds stays the same.
        self._keep_whole_blocks()
        self.trusted = False

    @rule(left=st.integers(0, 200))
    def cut_off_the_file(self, left: int) -> None:
        self.map.close()
        before = self.path.stat().st_size
        with self.path.open("r+b") as file:
            file.truncate(min(left, before))
        if left < before:
            self._start_anew()
        else:
            self._open()

    @rule(seed=st.integers(0, 999))
    def overwrite_the_file(self, seed: int) -> None:
        self.map.close()
        rng = random.Random(seed)
        self.path.write_bytes(rng.randbytes(rng.randrange(300)))
        self._start_anew()

    @rule()
    def remove_the_file(self) -> None:
        self.map.close()
        self.path.unlink()
        self._start_anew()

    @rule()
    def fill_for_another_origin(self) -> None:
        self.map.close()
        self.owner = "you" if self.owner == "me" else "me"
        self._start_anew()

    @precondition(lambda self: self.trusted)
    @rule()
    def change_marks_to_what_nobody_writes(self) -> None:
        self.map.close()
        data = bytearray(self.path.read_bytes())
        data[-1] = 0x5A
        self.path.write_bytes(data)
        again = BlockMap(self.path, SIZE, self.owner)
        held = [not again.missing(*piece) for piece in PIECES]
        assert all(number in self.written for number, is_held in enumerate(held) if is_held)
        again.close()
        self.path.unlink()
        self._start_anew()

    def _open(self) -> None:
        self.map = BlockMap(self.path, SIZE, self.owner)
        assert self.map.continued
        assert self.map.trusted or not self.trusted
        self._keep_whole_blocks()

    def _keep_whole_blocks(self) -> None:
        """Only blocks that were there as a whole outlive the process."""
        for start in range(0, SIZE, BLOCK_SIZE):
            end = min(start + BLOCK_SIZE, SIZE)
            inside = {n for n, piece in enumerate(PIECES) if start <= piece[0] and piece[1] <= end}
            if not inside <= self.written:
                self.written -= inside

    def _start_anew(self) -> None:
        self.map = BlockMap(self.path, SIZE, self.owner)
        assert not self.map.continued and self.map.trusted
        self.written.clear()
        self.trusted = True

    @invariant()
    def it_says_what_is_there(self) -> None:
        if not hasattr(self, "map"):
            return
        assert self.map.present == sum(PIECES[n][1] - PIECES[n][0] for n in self.written)
        assert self.map.complete == (len(self.written) == len(PIECES))
        for number, (start, end) in enumerate(PIECES):
            gaps = self.map.missing(start, end)
            assert gaps == ([] if number in self.written else [(start, end)])
        position = 0
        while position in self.written:
            position += 1
        assert self.map.available(0) == CUTS[position]


Machine.TestCase.settings = settings(max_examples=60 * SCALE, stateful_step_count=20, deadline=None)
test_a_block_map_says_what_is_there = Machine.TestCase
