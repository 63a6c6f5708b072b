"""The bytes that one answer has, and how its body is made of them.

Responsible for: the parts of an answer, their order and what stands between them.
Not responsible for: where the bytes come from (`service.bodies`), or sending them (`web.content`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jupyter_hf_cache.answers import BlobBody, BytesBody, Closable, FillBody, PartsBody
from jupyter_hf_cache.errors import StorageError
from jupyter_hf_cache.protocol.multipart import Multipart
from jupyter_hf_cache.protocol.ranges import ByteRange

# Up to here bytes are read where the answer is made: most requests are for small files, and a
# second thread would cost more than the reading.
IN_MEMORY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """The bytes of one answer.

    Args:
        framing: what stands between the parts, if there are several.
        completing: the answer reaches the end of the file in a way that may complete it.
    """

    parts: list[ByteRange]
    framing: Multipart | None
    completing: bool

    @property
    def size(self) -> int:
        """How many bytes of the file."""
        return sum(map(len, self.parts))

    def arrange(
        self, bodies: Sequence[BlobBody | FillBody], held: Sequence[Closable]
    ) -> BytesBody | BlobBody | FillBody | PartsBody:
        """Return the body of an answer whose parts are `bodies`; a short kept one is read now.

        Args:
            held: what `bodies` are read from.

        Raises:
            StorageError: a kept file is shorter than it was.
        """
        if self.framing is None:
            (body,) = bodies
            if isinstance(body, BlobBody) and len(self.parts[0]) <= IN_MEMORY:
                return _taken_into_memory(body)
            return body
        pieces: list[BytesBody | BlobBody | FillBody] = []
        for number, body in enumerate(bodies):
            pieces += [BytesBody(self.framing.before(number)), body]
        return PartsBody([*pieces, BytesBody(self.framing.end)], list(held))


def _taken_into_memory(body: BlobBody) -> BytesBody:
    try:
        data = body.reader.read(body.start, body.end - body.start)
    finally:
        body.close()
    if len(data) != body.end - body.start:
        raise StorageError("A kept file became shorter while it was read.")
    return BytesBody(data)
