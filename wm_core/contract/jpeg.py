"""Reads the size of a JPEG picture from its header, so that nothing has to decode it to know."""

from __future__ import annotations

_START = b"\xff\xd8"
_END = 0xD9
_SCAN = 0xDA  # behind it lie the pixels
#: frame headers: baseline, extended and progressive, whose pixels are coded by Huffman's codes
_FRAMES = (0xC0, 0xC1, 0xC2)
_BARE = (0x01, *range(0xD0, 0xD8))  # markers without a length


def jpeg_size(data: bytes) -> tuple[int, int, int]:
    """Give height, width (pixels) and channels that the header of a JPEG picture states.

    Raises:
        ValueError: for bytes that are no JPEG picture of eight bits, or whose header is cut.
    """
    if data[:2] != _START:
        raise ValueError("expected a JPEG picture, which begins with ff d8")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
            continue
        if marker in _BARE:
            at += 2
            continue
        if marker in (_END, _SCAN):
            break
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            return _frame(data[at + 4 : at + 2 + length])
        if length < 2:
            break
        at += 2 + length
    raise ValueError("expected a JPEG picture, found no size in its header")


def _frame(head: bytes) -> tuple[int, int, int]:
    if len(head) < 6 or head[0] != 8:
        raise ValueError("expected a JPEG picture of eight bits, whose header is whole")
    height, width = int.from_bytes(head[1:3], "big"), int.from_bytes(head[3:5], "big")
    channels = head[5]
    if not height or not width or channels not in (1, 3) or len(head) != 6 + 3 * channels:
        raise ValueError(f"expected a JPEG picture, got {width} x {height}, {channels} channels")
    return height, width, channels
