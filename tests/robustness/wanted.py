"""What a round downloads, and what is right.

Responsible for: repos of random files on the suite's Hub, with the bytes that every answer is
compared with; and the one exception that says that an answer was wrong.
Not responsible for: downloading (`readers`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from fake_hub import BigFile, FakeHub, SmallFile

KIB = 1 << 10
MIB = 1 << 20


class Wrong(AssertionError):
    """The cache did what it must never do: a wrong byte, a wrong file, or room it may not take."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file.

    Args:
        repo: id of the model repo.
        name: path in it.
        etag: what the Hub names its content by.
    """

    repo: str
    name: str
    content: BigFile | SmallFile
    etag: str

    def __repr__(self) -> str:
        return f"<{self.path}, {self.size} bytes>"

    @property
    def path(self) -> str:
        """Where it is below an endpoint."""
        return f"/{self.repo}/resolve/main/{self.name}"

    @property
    def size(self) -> int:
        return self.content.size

    def check(self, offset: int, data: bytes, where: object) -> None:
        """Compare bytes that came from `offset` on.

        Raises:
            Wrong: they are others.
        """
        right = self.content.read(offset, len(data))
        if data == right:
            return
        at = next((i for i, pair in enumerate(zip(data, right)) if pair[0] != pair[1]), len(right))  # noqa: B905 - one may be longer
        raise Wrong(
            f"{self.path}: byte {offset + at} of {self.size} is wrong, in {len(data)} bytes from "
            f"{offset} on ({where}); from there {data[at : at + 16].hex()} instead of "
            f"{right[at : at + 16].hex()}"
        )


def new_repo(hub: FakeHub, id: str, rng: random.Random, *, big: Sequence[int] = ()) -> list[Wanted]:
    """Make a repo with small files of every kind and large ones of the sizes `big`, and of random
    ones if none are given."""
    sizes = list(big) or [rng.randrange(MIB, 5 * MIB) for _ in range(rng.randrange(1, 4))]
    seed = rng.randrange(1 << 30)
    files: dict[str, BigFile | SmallFile] = {
        f"weights-{n}.bin": BigFile(size, seed + n) for n, size in enumerate(sizes)
    }
    files["config.json"] = SmallFile(b'{"seed": %d}' % seed)
    files["tokenizer.json"] = SmallFile(rng.randbytes(rng.randrange(100 * KIB, 400 * KIB)))
    files["tiny.bin"] = SmallFile(rng.randbytes(rng.randrange(1, 3000)))
    if rng.random() < 0.3:
        files["empty.txt"] = SmallFile(b"")
    return add_repo(hub, id, files)


def add_repo(hub: FakeHub, id: str, files: dict[str, BigFile | SmallFile]) -> list[Wanted]:
    """Make a repo with these files."""
    repo = hub.repo("models", id)
    repo.commit(files)
    return [
        Wanted(id, name, content, repo.head.files[name].etag) for name, content in files.items()
    ]
