"""Encodes and decodes the ROS messages of a chunk in CDR: Image, CompressedImage and JointState.

CDR aligns every number to its own size, counted from behind the four encapsulation bytes.  Only
little endian is written or read, which is what ROS 2 writes on every machine that it supports.
Lengths are validated against what is left of the message before they are used.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import ImageSpec

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
JOINT_STATE = "sensor_msgs/msg/JointState"
JPEG = "jpeg"  #: format of the compressed images

_LITTLE_ENDIAN = b"\x00\x01\x00\x00"
_SEPARATOR = "\n" + "=" * 80 + "\nMSG: "
_HEADER = (
    f"{_SEPARATOR}std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    f"{_SEPARATOR}builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
)
#: type -> its definition with all it refers to, as MCAP's ``ros2msg`` wants it
DEFINITIONS = {
    IMAGE: "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n"
    "uint8 is_bigendian\nuint32 step\nuint8[] data\n" + _HEADER,
    COMPRESSED_IMAGE: "std_msgs/Header header\nstring format\nuint8[] data\n" + _HEADER,
    JOINT_STATE: "std_msgs/Header header\nstring[] name\nfloat64[] position\n"
    "float64[] velocity\nfloat64[] effort\n" + _HEADER,
}
#: Fast CDR leaves up to 8 bytes of whatever was in memory behind a message with empty arrays.
_SLACK_BYTES = 24
_STAMP_LIMIT_NS = 2**31 * 1_000_000_000  #: the seconds of a ROS stamp are int32


def _stamp(stamp_ns: int) -> bytes:
    if not 0 <= stamp_ns < _STAMP_LIMIT_NS:
        raise ChunkRefused(f"stamp {stamp_ns} ns does not fit a ROS stamp (0 to 2**31 s)")
    return struct.pack("<iI", *divmod(stamp_ns, 1_000_000_000))


def _string(text: str) -> bytes:
    data = text.encode() + b"\x00"
    return struct.pack("<I", len(data)) + data


def _align(size: int, to: int) -> bytes:
    """Pad behind ``size`` bytes (encapsulation included) up to a multiple of ``to``."""
    return b"\x00" * (-(size - len(_LITTLE_ENDIAN)) % to)


@lru_cache(maxsize=64)
def _image_front(image: ImageSpec, frame_id: str) -> bytes:
    """Encode everything between the stamp and the pixels."""
    out = bytearray(_LITTLE_ENDIAN + bytes(8) + _string(frame_id))
    out += _align(len(out), 4) + struct.pack("<II", image.height, image.width)
    out += _string(image.encoding) + b"\x00"  # is_bigendian
    size = image.recorded_bytes
    out += _align(len(out), 4) + struct.pack("<II", size // image.height, size)
    return bytes(out[12:])


def encode_image(pixels: np.ndarray, image: ImageSpec, stamp_ns: int, frame_id: str) -> bytes:
    """Encode a ``sensor_msgs/msg/Image`` of ``pixels`` (H, W, C), which fit ``image``."""
    data = pixels.astype(image.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join((_LITTLE_ENDIAN, _stamp(stamp_ns), _image_front(image, frame_id), data))


@lru_cache(maxsize=64)
def _jpeg_front(frame_id: str) -> bytes:
    """Encode everything between the stamp and the length of the picture."""
    out = bytearray(_LITTLE_ENDIAN + bytes(8) + _string(frame_id))
    out += _align(len(out), 4) + _string(JPEG)
    out += _align(len(out), 4)
    return bytes(out[12:])


def encode_jpeg(picture: bytes, stamp_ns: int, frame_id: str) -> bytes:
    """Encode a ``sensor_msgs/msg/CompressedImage`` of the JPEG ``picture``."""
    size = struct.pack("<I", len(picture))
    return b"".join((_LITTLE_ENDIAN, _stamp(stamp_ns), _jpeg_front(frame_id), size, picture))


@lru_cache(maxsize=64)
def _joint_front(names: tuple[str, ...]) -> bytes:
    """Encode everything between the stamp and the number of positions."""
    out = bytearray(_LITTLE_ENDIAN + bytes(8) + _string(""))
    out += _align(len(out), 4) + struct.pack("<I", len(names))
    for name in names:
        out += _align(len(out), 4) + _string(name)
    out += _align(len(out), 4)
    return bytes(out[12:])


def encode_joint_state(
    names: Sequence[str],
    position: np.ndarray,
    stamp_ns: int,
    effort: np.ndarray | None = None,
) -> bytes:
    """Encode a ``sensor_msgs/msg/JointState``; ``position`` and ``effort`` are (n,) float."""
    out = bytearray(_LITTLE_ENDIAN + _stamp(stamp_ns) + _joint_front(tuple(names)))
    for values in (position, (), () if effort is None else effort):
        out += _align(len(out), 4) + struct.pack("<I", len(values))
        if len(values):
            out += _align(len(out), 8) + np.asarray(values, "<f8").tobytes()
    return bytes(out)


class _Cursor:
    """Reads one CDR message from front to back; raises ``ChunkRefused`` instead of overrunning."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes | memoryview) -> None:
        if bytes(data[:2]) != _LITTLE_ENDIAN[:2]:
            raise ChunkRefused(f"expected little-endian CDR, got encapsulation {data[:4]!r}")
        self.data, self.at = data, len(_LITTLE_ENDIAN)

    def take(self, count: int, align: int = 1) -> int:
        """Return where the next ``count`` bytes begin, and move behind them."""
        start = self.at + (-(self.at - len(_LITTLE_ENDIAN)) % align)
        if count > len(self.data) - start:
            raise ChunkRefused(f"CDR message of {len(self.data)} bytes ends too early")
        self.at = start + count
        return start

    def u32(self) -> int:
        return int.from_bytes(self.data[self.take(4, 4) : self.at], "little")

    def stamp_ns(self) -> int:
        seconds, nanos = struct.unpack_from("<iI", self.data, self.take(8, 4))
        if nanos >= 1_000_000_000 or seconds < 0:
            raise ChunkRefused(f"impossible stamp of {seconds} s and {nanos} ns")
        return seconds * 1_000_000_000 + nanos

    def string(self) -> str:
        size = self.u32()
        text = bytes(self.data[self.take(size) : self.at])
        if not text.endswith(b"\x00"):
            raise ChunkRefused("CDR string has no end")
        try:
            return text[:-1].decode()
        except UnicodeDecodeError as error:
            raise ChunkRefused(f"CDR string is not UTF-8: {error}") from error

    def doubles(self) -> np.ndarray:
        count = self.u32()
        start = self.take(8 * count, 8) if count else 0
        return np.frombuffer(self.data, "<f8", count, start)

    def end(self) -> None:
        """Raise where more bytes are left than a serialiser would leave that guessed its size."""
        left = len(self.data) - self.at
        if left > _SLACK_BYTES:
            raise ChunkRefused(f"{left} bytes too many in a CDR message")


STAMP = slice(4, 12)  #: the bytes of the stamp that every message of a chunk begins with


def decode_stamp(data: bytes | memoryview) -> int:
    """Read the nanoseconds in the header that every message of a chunk begins with."""
    return _Cursor(data).stamp_ns()


def raw_stamps(rows: np.ndarray) -> np.ndarray:
    """Read the stamps (k,) of messages (k, bytes) as they stand, equal where the stamps are."""
    return np.ascontiguousarray(rows[:, STAMP]).view("<u8").ravel()


def stamps_of(rows: np.ndarray) -> np.ndarray | None:
    """Read the stamps (k,) int64 ns of messages (k, bytes); None where one is impossible."""
    parts = np.ascontiguousarray(rows[:, STAMP]).view("<i4").astype(np.int64)
    seconds, nanos = parts[:, 0], parts[:, 1]
    if (parts < 0).any() or (nanos >= 1_000_000_000).any():
        return None
    return np.asarray(seconds * 1_000_000_000 + nanos)


class ImageMessage(NamedTuple):
    """Says where the pixels or the picture of a message lie, and when it was taken."""

    stamp_ns: int
    offset: int  #: of the first pixel, or byte of the picture, within the message


def decode_image(data: bytes | memoryview, image: ImageSpec) -> ImageMessage:
    """Read stamp and place of the pixels of an Image that fits ``image``, without row padding.

    Raises:
        ChunkRefused: for anything else.
    """
    cursor = _Cursor(data)
    stamp_ns = cursor.stamp_ns()
    cursor.string()
    height, width, encoding = cursor.u32(), cursor.u32(), cursor.string()
    if data[cursor.take(1)] and image.dtype.itemsize > 1:
        raise ChunkRefused(f"expected little-endian pixels of {image.encoding}, got big-endian")
    step, size = cursor.u32(), cursor.u32()
    row = image.recorded_bytes // image.height
    expected = (image.height, image.width, image.encoding, row, image.recorded_bytes)
    if (height, width, encoding, step, size) != expected:
        raise ChunkRefused(
            f"expected an image of (height, width, encoding, bytes of a row, bytes) {expected}, "
            f"got {(height, width, encoding, step, size)}"
        )
    offset = cursor.take(size)
    cursor.end()
    return ImageMessage(stamp_ns, offset)


def decode_jpeg(data: bytes | memoryview) -> ImageMessage:
    """Read stamp and place of the picture of a CompressedImage; raises ``ChunkRefused``."""
    cursor = _Cursor(data)
    stamp_ns = cursor.stamp_ns()
    cursor.string()
    if (found := cursor.string()) != JPEG:
        raise ChunkRefused(f"expected a compressed image of format {JPEG!r}, got {found!r:.40}")
    offset = cursor.take(cursor.u32())
    cursor.end()
    return ImageMessage(stamp_ns, offset)


def jpeg_at(data: bytes | memoryview, offset: int) -> memoryview:
    """View the picture that begins at ``offset``, behind its length, in checked messages."""
    size = int.from_bytes(data[offset - 4 : offset], "little")
    return memoryview(data)[offset : offset + size]


class Layout(NamedTuple):
    """Describes messages that differ in their stamps and values alone, byte by byte."""

    bytes: np.ndarray  #: (size,) uint8 of one such message, as far as it is the same in all
    values: tuple[slice, ...]  #: where values stand: of positions, then of efforts

    def fits(self, rows: np.ndarray) -> bool:
        """Tell whether all messages ``rows`` (k, size) are so; what they hold is then valid."""
        at = STAMP.stop
        if (rows[:, : STAMP.start] != self.bytes[: STAMP.start]).any():
            return False
        for value in (*self.values, slice(len(self.bytes), len(self.bytes))):
            if (rows[:, at : value.start] != self.bytes[at : value.start]).any():
                return False
            at = value.stop
        return True


@lru_cache(maxsize=256)
def joint_layout(names: tuple[str, ...], size: int, efforts: bool) -> Layout:
    """Describe the JointStates that ``encode_joint_state`` makes of ``size`` positions."""
    zeros = np.zeros(size)
    data = encode_joint_state(names, zeros, 0, zeros if efforts else None)
    joint = decode_joint_state(data)
    position = slice(joint.position_at, joint.position_at + joint.position.nbytes)
    effort = slice(joint.effort_at, joint.effort_at + joint.effort.nbytes)
    return Layout(np.frombuffer(data, np.uint8), (position, effort))


@lru_cache(maxsize=256)
def image_layout(image: ImageSpec, frame_id: str) -> Layout:
    """Describe everything before the pixels in what ``encode_image`` makes."""
    front = _LITTLE_ENDIAN + bytes(8) + _image_front(image, frame_id)
    return Layout(np.frombuffer(front, np.uint8), ())


class JointStateMessage(NamedTuple):
    """Holds what a chunk uses of a JointState; the arrays are read-only views."""

    stamp_ns: int
    names: tuple[str, ...]
    position: np.ndarray  #: (n,) float64
    effort: np.ndarray  #: (m,) float64
    position_at: int  #: where the positions begin within the message
    effort_at: int  #: where the efforts do


def decode_joint_state(data: bytes | memoryview) -> JointStateMessage:
    """Decode the fields of a JointState that a chunk uses; raises ``ChunkRefused``."""
    cursor = _Cursor(data)
    stamp_ns = cursor.stamp_ns()
    cursor.string()
    count = cursor.u32()
    if count > len(data) // 4:
        raise ChunkRefused(f"{count} names cannot fit a CDR message of {len(data)} bytes")
    names = tuple(cursor.string() for _ in range(count))
    position = cursor.doubles()
    position_at = cursor.at - position.nbytes
    cursor.doubles()
    effort = cursor.doubles()
    effort_at = cursor.at - effort.nbytes
    cursor.end()
    return JointStateMessage(stamp_ns, names, position, effort, position_at, effort_at)
