"""Versions of directories."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.storage import layout
from jupyter_hf_cache.storage.layout import check_layout


def test_a_new_directory_is_private_and_marked(tmp_path: Path) -> None:
    check_layout(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0
    assert (tmp_path / "a" / "b" / "VERSION").read_text() == "1.0\n"


@pytest.mark.parametrize("version", ["1.0\n", "1.9\n", "1", "0.9"])
def test_other_minor_versions_are_used(tmp_path: Path, version: str) -> None:
    (tmp_path / "VERSION").write_text(version)
    check_layout(tmp_path)
    assert (tmp_path / "VERSION").read_text() == version
    assert [path.name for path in tmp_path.iterdir()] == ["VERSION"]


@pytest.mark.parametrize("version", ["2.0\n", "10", "x", "\udcff", "-1.0"])
def test_newer_and_unknown_ones_are_not_touched(tmp_path: Path, version: str) -> None:
    (tmp_path / "VERSION").write_text(version, errors="surrogateescape")
    with pytest.raises(StorageError, match="newer release"):
        check_layout(tmp_path)


@pytest.mark.parametrize("contents", ["", "\n"])
def test_a_mark_that_a_full_disk_left_empty_is_written_again(tmp_path: Path, contents: str) -> None:
    (tmp_path / "VERSION").write_text(contents)
    check_layout(tmp_path)
    assert (tmp_path / "VERSION").read_text() == "1.0\n"


def test_many_may_start_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for turn in range(40):
            for future in [pool.submit(check_layout, tmp_path / f"{turn}") for _ in range(8)]:
                future.result()


def test_a_disk_that_refuses_is_named_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    check_layout(tmp_path)
    monkeypatch.setattr(layout.tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match="Read-only file system") as refused:
        check_layout(tmp_path)
    assert "cache_dir" in refused.value.advice


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(StorageError):
        check_layout(tmp_path / "cache")
