"""Reads and writes the protobuf fields of an ONNX file, because a robot has no onnx package."""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]
Piece = bytes | memoryview

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def fields(message: int | memoryview) -> Iterator[Field]:
    """Yield (number, value) of each field of ``message``; a value is a number or bytes.

    Raises:
        IndexError: for a field that ends behind its message.
        TypeError: for what is no message of protobuf 3.
    """
    if isinstance(message, int):
        raise TypeError("expected a message, got a number")
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise TypeError(f"no wire type of protobuf 3: {kind}")
        if at + size > end:
            raise IndexError("a field ends behind its message")
        yield number, message[at : at + size]
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
            return value, at
        if shift > 63:
            raise IndexError("a number of more than 64 bits")


def number_field(number: int, value: int) -> bytes:
    """Encode the field ``number`` with a value that is not negative."""
    return _encoded(number << 3 | _VARINT) + _encoded(value)


def bytes_field(number: int, pieces: list[Piece]) -> list[Piece]:
    """Encode the field ``number`` whose content is ``pieces`` one after the other, not copied."""
    size = sum(len(piece) for piece in pieces)
    return [_encoded(number << 3 | _BYTES) + _encoded(size), *pieces]


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
