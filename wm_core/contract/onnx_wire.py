"""Reads and writes the protobuf fields of an ONNX file, because a robot has no onnx package."""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]
Piece = bytes | memoryview

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  #: how a field is written
_MOST_BITS = 64


class Budget:
    """Bounds how many fields are read of one file, and so the time that it takes.

    Args:
        fields: that may be read.
    """

    def __init__(self, fields: int) -> None:
        self.left = fields

    def spend(self) -> None:
        """Count one field; raises ``IndexError`` for one too many."""
        self.left -= 1
        if self.left < 0:
            raise IndexError("it has more fields than any policy")


def fields(message: int | memoryview) -> Iterator[Field]:
    """Yield (number, value) of each field of ``message``; a value is a number or bytes.

    Raises:
        IndexError: for a field that ends behind its message.
        TypeError: for what is no message of protobuf 3.
    """
    for number, value, _ in wire_fields(message):
        yield number, value


def wire_fields(
    message: int | memoryview, budget: Budget | None = None
) -> Iterator[tuple[int, int | memoryview, int]]:
    """Yield (number, value, wire type) of each field of ``message``.

    Raises:
        IndexError: for a field that ends behind its message, or more fields than ``budget``.
        TypeError: for what no writer of protobuf 3 writes: groups, numbers longer than need be.
    """
    if isinstance(message, int):
        raise TypeError("expected a message, got a number")
    at, end = 0, len(message)
    while at < end:
        if budget is not None:
            budget.spend()
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise TypeError(f"no number of a field: {number}")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value, kind
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise TypeError(f"no wire type of protobuf 3: {kind}")
        if at + size > end:
            raise IndexError("a field ends behind its message")
        yield number, message[at : at + size], kind
        at += size


def varints(message: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed field, one behind the other in ``message``."""
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            if value >> _MOST_BITS or (not byte and shift > 7):
                raise TypeError("a number is longer than it need be, or has more than 64 bits")
            return value, at
        if shift >= _MOST_BITS + 6:
            raise IndexError("a number of more than 64 bits")


def number_field(number: int, value: int) -> bytes:
    """Encode the field ``number`` with a value that is not negative."""
    return _encoded(number << 3 | VARINT) + _encoded(value)


def bytes_field(number: int, pieces: list[Piece]) -> list[Piece]:
    """Encode the field ``number`` whose content is ``pieces`` one after the other, not copied."""
    size = sum(len(piece) for piece in pieces)
    return [_encoded(number << 3 | BYTES) + _encoded(size), *pieces]


def text_field(number: int, text: str) -> bytes:
    """Encode the field ``number`` with a string or another message's bytes."""
    return b"".join(bytes_field(number, [text.encode()]))


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
