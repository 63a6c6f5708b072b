"""What counts against the budget, and how much.

Responsible for: the names under which files and reservations are in the ledger, and the bytes that
a blob of some size takes on disk.
Not responsible for: adding them up (`ledger`), or comparing with limits (`budget`).
"""

from __future__ import annotations

from jupyter_hf_cache.protocol.digests import Digest
from jupyter_hf_cache.storage.blockmap import BLOCK_SIZE
from jupyter_hf_cache.storage.interface import BlobId
from jupyter_hf_cache.storage.state import key_of

_DISK_BLOCK = 4096
# Of a block map: its header, and what processes tell each other through it.
_MAP_HEAD = 4096
_MAP_BYTES_PER_BLOCK = 3


def blob_key(blob: BlobId) -> str:
    """Return the key of a kept blob's record."""
    return key_of("blob", blob.digest.algorithm, blob.origin_id or "-", blob.digest.hex)


def partial_key(blob: BlobId) -> str:
    """Return the key of the record of a blob's partial."""
    return key_of("partial", blob.digest.algorithm, blob.origin_id or "-", blob.digest.hex)


def blob_of(key: str) -> BlobId:
    """Return the blob that the key of a record names."""
    _, algorithm, origin_id, hexdigest = key.split("/")
    return BlobId(Digest(algorithm, hexdigest), "" if origin_id == "-" else origin_id)


def room_of_blob(size: int) -> int:
    """Return the bytes that a kept blob of `size` bytes takes on disk, with its sidecar."""
    return _blocks(size) + _DISK_BLOCK


def room_of_partial(size: int, whole: int) -> int:
    """Return the bytes that a partial takes while it holds `size` of `whole` bytes: with its block
    map, the sidecar it is given at its end, and one block in which the disk notes where it lies."""
    block_map = _MAP_HEAD + _MAP_BYTES_PER_BLOCK * (whole // BLOCK_SIZE + 1)
    return _blocks(size) + _blocks(block_map) + 2 * _DISK_BLOCK


def _blocks(size: int) -> int:
    return size + -size % _DISK_BLOCK
