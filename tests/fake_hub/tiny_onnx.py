"""An ONNX model small enough for a test: it looks up a row for each token.

Responsible for: the bytes of a graph with one Gather, in the names that transformers.js expects of
a BERT, written without the onnx package: a message of protobuf is a run of numbered fields.
Not responsible for: config and tokenizer beside it (`tiny_model`).
"""

from __future__ import annotations

import struct

WIDTH = 4
_FLOAT, _INT64 = 1, 7
_IR_VERSION, _OPERATORS = 8, 13


def model(vocabulary: int) -> bytes:
    """A model for token numbers below `vocabulary`; row n holds 4n/8, (4n+1)/8 and so on."""
    numbers = [number / 8 for number in range(vocabulary * WIDTH)]
    table = b"".join(
        [
            _field(1, vocabulary),
            _field(1, WIDTH),
            _field(2, _FLOAT),
            _field(8, b"table"),
            _field(9, struct.pack(f"<{len(numbers)}f", *numbers)),
        ]
    )
    gather = b"".join(
        [
            _field(1, b"table"),
            _field(1, b"input_ids"),
            _field(2, b"last_hidden_state"),
            _field(4, b"Gather"),
        ]
    )
    graph = b"".join(
        [
            _field(1, gather),
            _field(2, b"tiny"),
            _field(5, table),
            _field(11, _tensor("input_ids", _INT64, ["batch", "length"])),
            _field(12, _tensor("last_hidden_state", _FLOAT, ["batch", "length", WIDTH])),
        ]
    )
    operators = _field(1, b"") + _field(2, _OPERATORS)
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, operators)


def _tensor(name: str, kind: int, dimensions: list[str | int]) -> bytes:
    """A ValueInfoProto."""
    sizes = [
        _field(1, _field(2, size.encode()) if isinstance(size, str) else _field(1, size))
        for size in dimensions
    ]
    shape = _field(2, b"".join(sizes))
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, kind) + shape))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    rows = bytearray()
    while number > 0x7F:
        rows.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*rows, number])
