"""The frame around several ranges, as other programs read it."""

from __future__ import annotations

import email
import email.policy

from hypothesis import given
from hypothesis import strategies as st

from jupyter_hf_cache.protocol.multipart import Multipart
from jupyter_hf_cache.protocol.ranges import ByteRange, parse_content_range

FILE = bytes(range(256)) * 4


def body_of(framing: Multipart) -> bytes:
    parts = [
        framing.before(number) + FILE[part.start : part.end]
        for number, part in enumerate(framing.parts)
    ]
    return b"".join(parts) + framing.end


ranges = st.tuples(st.integers(0, len(FILE) - 1), st.integers(1, 300)).map(
    lambda pair: ByteRange(pair[0], min(sum(pair), len(FILE)))
)


@given(st.lists(ranges, min_size=2, max_size=8))
def test_its_length_is_known_before(parts: list[ByteRange]) -> None:
    framing = Multipart(parts, len(FILE), "text/plain")
    assert len(framing) == len(body_of(framing))


@given(st.lists(ranges, min_size=2, max_size=8))
def test_the_standard_library_finds_every_part(parts: list[ByteRange]) -> None:
    framing = Multipart(parts, len(FILE), "application/octet-stream")
    head = f"Content-Type: {framing.media_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body_of(framing), policy=email.policy.HTTP)
    found = list(message.iter_parts())
    assert not message.defects
    assert [parse_content_range(str(part["Content-Range"])) for part in found] == [
        (part, len(FILE)) for part in parts
    ]
    assert {part.get_content_type() for part in found} == {"application/octet-stream"}


def test_no_two_answers_have_the_same_boundary() -> None:
    parts = [ByteRange(0, 1), ByteRange(2, 3)]
    assert len({Multipart(parts, 9, "text/plain").boundary for _ in range(50)}) == 50
