"""Network file systems: blobs may lie there, tables may not.

SQLite's locks and shared memory do not hold between the clients of a network file system.

Responsible for: telling whether a path is on one, and finding a directory of this machine instead.
Not responsible for: what is done about it (`config`, the service's opening).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NETWORK_TYPES = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "cvmfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "juicefs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "smb3",
        "smbfs",
        "wekafs",
    }
)
# How a virtual machine or sandbox sees its host's disk: harmless as its root, a share elsewhere.
_HOST_SHARES = frozenset({"9p", "virtiofs"})
# FUSE shows the program after a dot; these two keep their files on this machine.
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuseblk"})
# Whoever may write there is checked before use.
_ROOTS = ("/var/tmp", tempfile.gettempdir())  # noqa: S108
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system.

    Args:
        point: absolute path.
        type: as the kernel names it ("ext4", "nfs4", "fuse.sshfs").
    """

    point: str
    type: str


def parse_mounts(table: str) -> list[Mount]:
    """Read `/proc/mounts`; malformed lines are left out."""
    mounts = []
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) >= 3:
            point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])
            mounts.append(Mount(point, fields[2]))
    return mounts


def network_type(path: PurePosixPath, mounts: Iterable[Mount]) -> str | None:
    """The type of the network file system that `path` lies on, or None if it lies on none.

    Args:
        path: absolute, links resolved.
        mounts: in the order they were mounted: of several on one point the last one counts.
    """
    best: Mount | None = None
    for mount in mounts:
        covers = path.is_relative_to(mount.point)
        if covers and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best.type if best is not None and _is_network(best) else None


def _is_network(mount: Mount) -> bool:
    if mount.type in _LOCAL_FUSE:
        return False
    if mount.type in _HOST_SHARES:
        return mount.point != "/"
    return mount.type in _NETWORK_TYPES or mount.type.partition(".")[0] == "fuse"


def network_type_of(path: Path) -> str | None:
    """`network_type` for this machine. None where the mount table cannot be read: only Linux shows
    it as a file."""
    try:
        # The kernel writes paths as bytes.
        table = Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape")
        resolved = path.resolve()
    except OSError:
        return None
    return network_type(PurePosixPath(resolved), parse_mounts(table))


def local_state_dir(cache_dir: Path) -> Path | None:
    """A directory of this machine for the tables about `cache_dir`, the same at each start; it is
    created.

    Returns:
        None if there is no temporary directory on a local disk, or if another user holds the name.
    """
    name = hashlib.sha256(str(cache_dir).encode(errors="surrogateescape")).hexdigest()[:16]
    for root in map(Path, _ROOTS):
        if not root.is_dir() or network_type_of(root) is not None:
            continue
        own = root / f"jupyter-hf-cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
        try:
            own.mkdir(mode=0o700, exist_ok=True)
            if not _is_private(own):
                continue
            (own / name).mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        return own / name
    return None


def _is_private(path: Path) -> bool:
    """Whether it is a real directory of this user alone: anybody may create names in a temporary
    directory.
    """
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        return False
    return not hasattr(os, "getuid") or (
        info.st_uid == os.getuid() and not info.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )
