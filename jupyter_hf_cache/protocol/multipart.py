"""Several ranges in one answer: `multipart/byteranges` as RFC 9110 section 14.6 defines it.

Responsible for: the text around the parts, and how long the whole is.
Not responsible for: which ranges they are (`ranges`), or their bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from jupyter_hf_cache.protocol.ranges import ByteRange, content_range


def new_boundary() -> str:
    """A boundary that no file holds: nobody can know it before the answer is made."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Multipart:
    """The framing of one answer.

    Args:
        parts: two or more, in the order in which they are sent.
        size: bytes of the whole file.
        content_type: of the file.
        boundary: of letters and digits.
    """

    parts: Sequence[ByteRange]
    size: int
    content_type: str
    boundary: str = field(default_factory=new_boundary)

    @property
    def media_type(self) -> str:
        """The answer's `Content-Type`."""
        return f"multipart/byteranges; boundary={self.boundary}"

    def before(self, number: int) -> bytes:
        """What stands before the bytes of a part, counted from 0."""
        lines = [
            "" if number == 0 else "\r\n",
            f"--{self.boundary}\r\n",
            f"Content-Type: {self.content_type}\r\n",
            f"Content-Range: {content_range(self.parts[number], self.size)}\r\n\r\n",
        ]
        return "".join(lines).encode("latin-1")

    @property
    def end(self) -> bytes:
        """What stands behind the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")

    def __len__(self) -> int:
        """Bytes of the whole body, parts included."""
        framing = sum(len(self.before(number)) for number in range(len(self.parts)))
        return framing + sum(map(len, self.parts)) + len(self.end)
