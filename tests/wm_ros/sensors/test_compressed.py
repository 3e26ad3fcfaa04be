"""JPEG and PNG are read, and broken or enormous ones refused before they do harm."""

from __future__ import annotations

import io
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import RGB, Depth, Mono
from wm_core.robot.parts import ImagePart
from wm_ros.sensors.compressed import MOST_PIXELS, CompressedCamera, CompressedDepthCamera

Pillow = pytest.importorskip("PIL.Image")

SMALL = RGB(height=8, width=8)
FORMATS = {
    "JPEG": ["jpeg", "jpg", "rgb8; jpeg compressed bgr8", ""],
    "PNG": ["png", "rgb8; png compressed bgr8"],
}


def packed(pixels: np.ndarray, kind: str, named: str = "jpeg", **options):
    file = io.BytesIO()
    picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.save(file, kind, **options)
    return SimpleNamespace(format=named, data=file.getvalue())


def ramp(height: int, width: int) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    return np.dstack([rows * 255 // height, cols * 255 // width, np.full_like(rows, 60)]).astype(
        np.uint8
    )


@pytest.mark.parametrize("named", FORMATS["PNG"])
def test_a_png_is_bit_equal_to_the_raw_frame(named):
    rgb = ramp(48, 64)
    got = CompressedCamera("eye").decode(packed(rgb, "PNG", named), SMALL)
    np.testing.assert_array_equal(got, to_network(rgb, SMALL))


@pytest.mark.parametrize("named", FORMATS["JPEG"])
@pytest.mark.parametrize("size", [(48, 64), (480, 640)])  # the larger is unpacked at a part
def test_a_jpeg_shows_the_scene_in_its_colours(named, size):
    rgb = ramp(*size)
    got = CompressedCamera("eye").decode(packed(rgb, "JPEG", named, quality=95), SMALL)
    assert np.abs(got.astype(int) - to_network(rgb, SMALL)).max() <= 6


def test_grey_is_read_for_a_grey_policy_and_stands_in_for_colours_where_that_is_said():
    msg, grey = packed(np.full((48, 64, 1), 90, np.uint8), "PNG", "png"), Mono(height=8, width=8)
    assert (CompressedCamera("eye").decode(msg, grey) == 90).all()
    with pytest.raises(SpecMismatch, match="expected colours, got a grey PNG"):
        CompressedCamera("eye").decode(msg, SMALL)
    part = ImagePart(type="sensor_msgs/CompressedImage", topic="eye", accept_mono=True)
    assert CompressedCamera("eye", "eye", part).decode(msg, SMALL).shape == (8, 8, 3)
    with pytest.raises(SpecMismatch, match="expected a grey image, got RGB"):
        CompressedCamera("eye").decode(packed(ramp(48, 64), "PNG", "png"), grey)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that states an enormous size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


WHOLE = packed(ramp(48, 64), "JPEG").data
PNG = packed(ramp(48, 64), "PNG").data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected a JPEG or PNG, got 0 bytes"),
        (b"not an image", "expected a JPEG or PNG"),
        (b"GIF89a" + bytes(50), "expected a JPEG or PNG"),
        (WHOLE[:4], "expected a JPEG or PNG"),
        (WHOLE[: len(WHOLE) // 2], "expected a"),
        (PNG[: len(PNG) // 2], "expected a whole image"),
        (PNG[:60] + bytes(40) + PNG[100:], "expected a whole image"),
        (bomb(5000, 5000), f"at most {MOST_PIXELS} pixels, got 5000x5000"),
        (bomb(60000, 60000), "expected"),
        (bomb(4, 4), "enlarging is not supported"),
    ],
)
def test_broken_and_enormous_images_are_refused(data, said):
    with pytest.raises(SpecMismatch, match=said):
        CompressedCamera("eye").decode(SimpleNamespace(format="jpeg", data=data), SMALL)


@pytest.mark.parametrize("mode", ["P", "CMYK", "1", "I;16"])
def test_pixels_of_another_kind_are_refused(mode):
    if mode == "I;16":
        picture = Pillow.fromarray(np.zeros((32, 32), np.uint16))
    else:
        picture = Pillow.new(mode, (32, 32))
    file = io.BytesIO()
    picture.save(file, "JPEG" if mode == "CMYK" else "PNG")
    with pytest.raises(SpecMismatch, match="expected"):
        CompressedCamera("eye").decode(SimpleNamespace(format="x", data=file.getvalue()), SMALL)


# ------------------------------------------------------------------------------------------ depth


def depth_png(millimetres: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(millimetres.astype(np.uint16)).save(file, "PNG")
    return file.getvalue()


FAR = Depth(height=2, width=2)
MM = np.array([[0, 1, 258, 9], [5000, 65535, 7, 3], [1, 2, 3, 4], [5, 6, 7, 8]])


@pytest.mark.parametrize("header", [b"", struct.pack("<iff", 0, 0.0, 0.0)])
def test_depth_as_png_keeps_every_millimetre(header):
    msg = SimpleNamespace(format="16UC1; compressedDepth png", data=header + depth_png(MM))
    got = CompressedDepthCamera("far").decode(msg, Depth(height=4, width=4))
    assert got.dtype == np.uint16
    assert got[..., 0].tolist() == MM.tolist()


def test_depth_of_metres_comes_as_the_inverse_of_the_distance():
    factor, shift, metres = 1000.0, -10.0, np.array([[0.5, 2.0], [4.0, 8.0]])
    inverse = np.rint(factor / metres + shift)
    header = struct.pack("<iff", 0, factor, shift)
    msg = SimpleNamespace(format="32FC1; compressedDepth", data=header + depth_png(inverse))
    got = CompressedDepthCamera("far").decode(msg, FAR)[..., 0]
    assert np.abs(got - metres * 1000).max() <= 40
    zeros = SimpleNamespace(format=msg.format, data=header + depth_png(np.zeros((2, 2))))
    assert CompressedDepthCamera("far").decode(zeros, FAR).max() == 0


@pytest.mark.parametrize("data", [b"", b"\x00" * 50, WHOLE, PNG, depth_png(MM)[:40]])
def test_what_is_no_depth_is_refused(data):
    with pytest.raises(SpecMismatch, match="expected"):
        CompressedDepthCamera("far").decode(SimpleNamespace(format="png", data=data), FAR)
