from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath

import pytest

from jupyter_hf_cache.storage import filesystem
from jupyter_hf_cache.storage.filesystem import (
    Mount,
    local_state_dir,
    network_type,
    parse_mounts,
)

TABLE = r"""
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
host:/x /mnt/with\040space fuse.sshfs rw 0 0
overlay /var/lib/containers fuse.fuse-overlayfs rw 0 0
/dev/sdc1 /ntfs fuseblk rw 0 0
share /mnt/share 9p rw 0 0
lustre /scratch lustre rw 0 0
/dev/sdd1 /scratch ext4 rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("/", None),
        ("/var/cache", None),
        ("/home/alice/.cache", "nfs4"),
        ("/homework", None),
        ("/home/local/cache", None),
        ("/mnt/with space/x", "fuse.sshfs"),
        ("/var/lib/containers/x", None),
        ("/ntfs/x", None),
        ("/mnt/share/x", "9p"),
        ("/scratch/x", None),
    ],
)
def test_which_paths_are_on_a_network(path: str, type: str | None) -> None:
    assert network_type(PurePosixPath(path), parse_mounts(TABLE)) == type


@pytest.mark.parametrize(
    ("type", "network"),
    [
        ("nfs", True),
        ("cifs", True),
        ("smb3", True),
        ("beegfs", True),
        ("ceph", True),
        ("fuse.rclone", True),
        ("ext4", False),
        ("btrfs", False),
        ("zfs", False),
        ("tmpfs", False),
        ("overlay", False),
    ],
)
def test_file_systems(type: str, network: bool) -> None:
    found = network_type(PurePosixPath("/data/x"), [Mount("/", "ext4"), Mount("/data", type)])
    assert (found == type) is network


def test_the_root_of_a_virtual_machine_is_not_a_network() -> None:
    assert network_type(PurePosixPath("/x"), [Mount("/", "9p")]) is None


def test_state_has_the_same_private_place_at_each_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_ROOTS", (str(tmp_path / "missing"), str(tmp_path)))
    place = local_state_dir(Path("/home/alice/.cache"))
    assert place is not None
    assert place.is_relative_to(tmp_path)
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert local_state_dir(Path("/home/alice/.cache")) == place
    assert local_state_dir(Path("/home/bob/.cache")) != place


def test_a_place_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_ROOTS", (str(tmp_path),))
    place = local_state_dir(Path("/x"))
    assert place is not None
    place.parent.chmod(0o777)
    assert local_state_dir(Path("/x")) is None


def test_a_link_put_there_by_somebody_else_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir(mode=0o700)
    monkeypatch.setattr(filesystem, "_ROOTS", (str(root),))
    place = local_state_dir(Path("/x"))
    assert place is not None
    name = place.parent
    place.rmdir()
    name.rmdir()
    name.symlink_to(elsewhere)
    assert local_state_dir(Path("/x")) is None
    assert list(elsewhere.iterdir()) == []
