"""Decoders of JPEG pictures: alone, and in a chunk whose checksums are right."""

from __future__ import annotations

import io
import random

from PIL import Image

from tests.wm_core.noisy import SPEC, noisy_chunk, noisy_frame
from wm_core.format.chunk import check_chunk
from wm_core.format.pictures import decode_picture, encode_picture
from wm_core.store.index import make_index

_CAMERA = SPEC.images["image"]
_MARKERS = bytes(
    (0x00, 0x01, 0xC0, 0xC1, 0xC2, 0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xFF)
)


def decode_one(data: bytes) -> None:
    """Decode a picture; one that is taken has the camera's size for another reader too."""
    assert decode_picture(data, _CAMERA).shape == _CAMERA.shape
    assert Image.open(io.BytesIO(data)).size == (_CAMERA.width, _CAMERA.height)


def pictures() -> list[bytes]:
    """One of ours, and one of another quality with marks to begin anew from."""
    out = io.BytesIO()
    Image.fromarray(noisy_frame(1, _CAMERA)).save(out, "JPEG", quality=60, restart_marker_rows=1)
    return [encode_picture(noisy_frame(0, _CAMERA), _CAMERA), out.getvalue()]


def edit(data: bytes, rng: random.Random) -> bytes:
    """Change a marker, a length or a size, or copy a segment to another place."""
    places = [i for i in range(len(data) - 4) if data[i] == 0xFF and data[i + 1] not in (0, 0xFF)]
    at, edited = rng.choice(places), bytearray(data)
    match rng.randrange(4):
        case 0:
            edited[at + 1] = rng.choice(_MARKERS)
        case 1:
            edited[at + 2 : at + 4] = rng.randrange(1 << 16).to_bytes(2, "big")
        case 2:
            edited[at + 4 + rng.randrange(8)] = rng.randrange(256)
        case _:
            size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            edited[(to := rng.choice(places)) : to] = data[at : at + size]
    return bytes(edited)


def decode_chunk(data: bytes) -> None:
    """Do with a chunk of pictures what the store does before it acknowledges one."""
    columns = check_chunk(data, None, max_bytes=16 << 20)
    columns.check_pictures()
    make_index(columns)


def chunks() -> list[bytes]:
    """A chunk of three steps with two cameras of pictures."""
    return [noisy_chunk(3)[1]]
