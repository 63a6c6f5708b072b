"""Block maps, against sets of whole numbers."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_hf_cache.storage import mapfile
from jupyter_hf_cache.storage.blockmap import (
    BLOCK_SIZE,
    BlockMap,
    Intervals,
    holds,
    stored_bytes,
)

SIZE = 5 * BLOCK_SIZE + 777
SPANS = st.tuples(st.integers(0, 60), st.integers(0, 60))
# Around the borders of blocks, where mistakes are.
EDGES = sorted(
    {
        min(max(0, block * BLOCK_SIZE + shift), SIZE)
        for block in range(7)
        for shift in (-1, 0, 1, BLOCK_SIZE // 2)
    }
)
BYTE_SPANS = st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)).map(sorted)


@given(st.lists(SPANS, max_size=30), SPANS)
def test_intervals_are_a_set_of_numbers(
    added: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    intervals, model = Intervals(), set()
    for start, end in added:
        intervals.add(start, end)
        model |= set(range(start, end))
    assert intervals.total() == len(model)
    for offset in range(61):
        end = offset
        while end in model:
            end += 1
        assert intervals.end_from(offset) == end
    gaps = intervals.missing(*asked)
    assert {n for gap in gaps for n in range(*gap)} == set(range(*asked)) - model
    assert all(start < end for start, end in gaps)
    assert all(before[1] < after[0] for before, after in pairwise(gaps))


class TestFile:
    @settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(BYTE_SPANS, max_size=8))
    def test_reopened_it_holds_the_whole_blocks(
        self, tmp_path: Path, added: list[list[int]]
    ) -> None:
        path = tmp_path / "blob.map"
        path.unlink(missing_ok=True)
        first, model = BlockMap(path, SIZE), Intervals()
        for start, end in added:
            first.add(start, end)
            model.add(start, end)
        assert first.present == model.total()
        first.close()
        again = BlockMap(path, SIZE)
        for block in range(0, SIZE, BLOCK_SIZE):
            end = min(block + BLOCK_SIZE, SIZE)
            whole = model.end_from(block) >= end
            assert again.missing(block, end) == ([] if whole else [(block, end)])
        assert again.continued and again.trusted
        assert again.complete == (model.end_from(0) >= SIZE)
        again.close()

    def test_a_map_of_another_boot_is_not_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "blob.map"
        first = BlockMap(path, SIZE)
        first.add(0, SIZE)
        first.close()
        monkeypatch.setattr(mapfile, "boot_id", lambda: b"another")
        again = BlockMap(path, SIZE)
        assert again.complete and not again.trusted
        again.close()

    def test_where_boots_have_no_name_no_map_is_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mapfile, "boot_id", lambda: b"")
        path = tmp_path / "blob.map"
        first = BlockMap(path, SIZE)
        assert first.trusted, "what this process writes itself it knows"
        first.close()
        again = BlockMap(path, SIZE)
        assert not again.trusted
        again.close()

    @pytest.mark.parametrize(
        "contents",
        [b"", b"HFCMAP2\n", b"x" * 128, b"x" * 10_000, bytes(128 + 3 * 6)],
        ids=["empty", "torn", "foreign", "long", "zeros"],
    )
    def test_a_file_that_is_no_map_starts_anew(self, tmp_path: Path, contents: bytes) -> None:
        path = tmp_path / "blob.map"
        path.write_bytes(contents)
        fresh = BlockMap(path, SIZE)
        assert (fresh.present, fresh.trusted, fresh.continued) == (0, True, False)
        fresh.add(0, BLOCK_SIZE)
        fresh.close()
        assert stored_bytes(path) == BLOCK_SIZE

    @pytest.mark.parametrize("left", range(0, 151, 10))
    def test_a_truncated_map_starts_anew(self, tmp_path: Path, left: int) -> None:
        path = tmp_path / "blob.map"
        first = BlockMap(path, SIZE)
        first.add(0, SIZE)
        first.close()
        os.truncate(path, left)
        again = BlockMap(path, SIZE)
        assert again.present == (SIZE if left >= mapfile.HEADER_SIZE + 3 * 6 else 0)
        again.close()

    def test_marks_that_nobody_wrote_do_not_count(self, tmp_path: Path) -> None:
        path = tmp_path / "blob.map"
        BlockMap(path, SIZE).close()
        with path.open("r+b") as file:
            file.seek(mapfile.HEADER_SIZE)
            file.write(b"\x01\xff\x02\x00\x01\x7f")
        again = BlockMap(path, SIZE)
        assert again.present == 2 * BLOCK_SIZE
        again.close()

    @pytest.mark.parametrize(
        ("size", "owner"), [(SIZE + 1, "me"), (SIZE - BLOCK_SIZE, "me"), (SIZE, "you")]
    )
    def test_another_size_or_owner_starts_anew(self, tmp_path: Path, size: int, owner: str) -> None:
        path = tmp_path / "blob.map"
        first = BlockMap(path, SIZE, "me")
        first.add(0, SIZE)
        first.close()
        again = BlockMap(path, size, owner)
        assert (again.present, again.continued) == (0, False)
        again.close()

    def test_an_empty_file_is_complete(self, tmp_path: Path) -> None:
        empty = BlockMap(tmp_path / "blob.map", 0)
        assert empty.complete
        empty.close()

    def test_marks_of_many_threads_are_all_kept(self, tmp_path: Path) -> None:
        path, blocks, step = tmp_path / "blob.map", 64, BLOCK_SIZE // 8
        size = blocks * BLOCK_SIZE
        whole = BlockMap(path, size)
        start = threading.Barrier(8)

        def add(number: int) -> None:
            start.wait()
            for offset in range(number * step, size, 8 * step):
                whole.add(offset, offset + step)

        threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        whole.close()
        again = BlockMap(path, size)
        assert again.complete
        again.close()

    def test_closed_it_still_answers(self, tmp_path: Path) -> None:
        closed = BlockMap(tmp_path / "blob.map", SIZE)
        closed.close()
        closed.add(0, 10)
        assert (closed.present, closed.available(0)) == (10, 10)

    def test_a_damaged_size_is_not_believed(self, tmp_path: Path) -> None:
        path = tmp_path / "blob.map"
        whole = BlockMap(path, SIZE)
        whole.add(0, SIZE)
        whole.close()
        data = bytearray(path.read_bytes())
        data[8:24] = b"\xff" * 16  # as large as it can be
        path.write_bytes(data)
        assert stored_bytes(path) == 0
        assert not holds(path, SIZE, "", 0, 10)

    def test_no_map_no_bytes(self, tmp_path: Path) -> None:
        assert stored_bytes(tmp_path / "none.map") == 0
        (tmp_path / "foreign.map").write_bytes(b"x" * 1000)
        assert stored_bytes(tmp_path / "foreign.map") == 0
