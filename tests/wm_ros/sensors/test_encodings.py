"""Every encoding of a camera gives the colours that the scene has."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import RGB, Depth, Mono
from wm_ros.sensors.camera import Camera
from wm_ros.sensors.depth import DepthCamera, to_millimetres
from wm_ros.sensors.encodings import COLOURS, MONO, to_input

SMALL = RGB(height=8, width=8)
GREY = Mono(height=8, width=8)


def image(rows: np.ndarray, encoding: str, *, width: int, pad: int = 0, big: int = 0):
    """An image message, by its fields; ``rows`` (H, bytes) uint8."""
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=77)
    return SimpleNamespace(
        height=rows.shape[0],
        width=width,
        step=padded.shape[1],
        encoding=encoding,
        is_bigendian=big,
        data=padded.tobytes(),
    )


def scene(height: int = 32, width: int = 48) -> np.ndarray:
    """Four coloured quarters, (H, W, 3), so that a swap of any kind is seen."""
    colours = np.array([[[200, 40, 60], [30, 180, 90]], [[70, 50, 210], [220, 220, 30]]], np.uint8)
    return colours.repeat(height // 2, axis=0).repeat(width // 2, axis=1)


def to_yuv(rgb: np.ndarray) -> np.ndarray:
    """Studio-swing BT.601 in floats, (H, W, 3)."""
    r, g, b = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    y = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    u = 128 - 37.797 * r - 74.203 * g + 112.0 * b
    v = 128 + 112.0 * r - 93.786 * g - 18.214 * b
    return np.rint(np.stack([y, u, v], axis=-1)).astype(np.uint8)


def packed_422(rgb: np.ndarray, order: str) -> np.ndarray:
    yuv = to_yuv(rgb)
    cells = {
        "y": yuv[:, 0::2, 0],
        "u": yuv[:, 0::2, 1],
        "Y": yuv[:, 1::2, 0],
        "v": yuv[:, 0::2, 2],
    }
    return np.stack([cells[letter] for letter in order], axis=-1).reshape(rgb.shape[0], -1)


@pytest.mark.parametrize("pad", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvY"), ("uyvy", "uyvY"), ("yuv422_yuy2", "yuYv"), ("yuyv", "yuYv")],
)
def test_yuv_422_gives_the_scene_s_colours(encoding, order, pad):
    rgb = scene()
    msg = image(packed_422(rgb, order), encoding, width=48, pad=pad)
    got, want = to_input(msg, SMALL).astype(int), to_network(rgb, SMALL).astype(int)
    assert np.abs(got - want).max() <= 3  # eight bits of YUV hold no more


@pytest.mark.parametrize(("encoding", "first"), [("nv12", "u"), ("nv21", "v")])
@pytest.mark.parametrize("pad", [0, 16])
def test_two_planes_give_the_scene_s_colours(encoding, first, pad):
    rgb = scene()
    yuv = to_yuv(rgb)
    pair = (1, 2) if first == "u" else (2, 1)
    tones = yuv[::2, ::2][..., list(pair)].reshape(16, 48)
    msg = image(np.vstack([yuv[..., 0], tones]), encoding, width=48, pad=pad)
    msg.height = 32
    got, want = to_input(msg, SMALL).astype(int), to_network(rgb, SMALL).astype(int)
    assert np.abs(got - want).max() <= 3
    msg.data = msg.data[: 32 * msg.step]
    with pytest.raises(SpecMismatch, match=f"expected {32 * msg.step * 3 // 2} bytes"):
        to_input(msg, SMALL)


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize("cell", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_mosaic_gives_the_scene_s_colours(cell, pad):
    rgb = scene()
    mosaic = np.zeros(rgb.shape[:2], np.uint8)
    for i, colour in enumerate(cell):
        row, col = divmod(i, 2)
        mosaic[row::2, col::2] = rgb[row::2, col::2, "rgb".index(colour)]
    msg = image(mosaic, f"bayer_{cell}8", width=48, pad=pad)
    np.testing.assert_array_equal(to_input(msg, SMALL), to_network(rgb, SMALL))


@pytest.mark.parametrize(
    ("encoding", "bytes_of"),
    [
        ("rgb8", lambda rgb: rgb),
        ("bgr8", lambda rgb: rgb[..., ::-1]),
        ("8UC3", lambda rgb: rgb[..., ::-1]),
        ("rgba8", lambda rgb: np.dstack([rgb, rgb[..., 0]])),
        ("bgra8", lambda rgb: np.dstack([rgb[..., ::-1], rgb[..., 0]])),
    ],
)
@pytest.mark.parametrize("size", [8, 32])
def test_packed_colours_are_bit_equal(encoding, bytes_of, size):
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    spec = RGB(height=size, width=size)
    msg = image(bytes_of(rgb).reshape(32, -1), encoding, width=32, pad=3)
    np.testing.assert_array_equal(to_input(msg, spec), to_network(rgb, spec))


@pytest.mark.parametrize("big", [0, 1])
def test_of_16_bits_of_grey_the_upper_ones_are_seen(big):
    grey = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64
    rows = grey.astype(">u2" if big else "<u2").view(np.uint8)
    got = to_input(image(rows, "mono16", width=32, big=big), Mono(height=32, width=32))
    np.testing.assert_array_equal(got[..., 0], grey >> 8)


@pytest.mark.parametrize("encoding", MONO)
def test_a_grey_camera_stands_in_for_colours_only_where_that_is_said(encoding):
    rows = np.full((32, 64 if encoding == "mono16" else 32), 90, np.uint8)
    msg = image(rows, encoding, width=32)
    assert (to_input(msg, GREY) == 90).all()
    with pytest.raises(SpecMismatch, match=f"got '{encoding}'; accept_mono in the robot file"):
        to_input(msg, SMALL)
    got = to_input(msg, SMALL, accept_mono=True)
    assert got.shape == (8, 8, 3)
    assert (got == 90).all()


@pytest.mark.parametrize("encoding", COLOURS)
def test_a_grey_policy_takes_no_colours(encoding):
    with pytest.raises(SpecMismatch, match=r"expected encoding mono8 or 8UC1 or mono16, got"):
        to_input(image(np.zeros((32, 96), np.uint8), encoding, width=32), GREY)


@pytest.mark.parametrize(
    "encoding", ["RGB8", "rgb16", "", "16UC1", "32FC1", "nv24", "bayer_rggb16"]
)
def test_what_is_not_known_is_refused_with_what_is(encoding):
    with pytest.raises(SpecMismatch, match=f"expected encoding rgb8 or bgr8 .*, got '{encoding}'"):
        to_input(image(np.zeros((32, 96), np.uint8), encoding, width=32), SMALL)


@pytest.mark.parametrize("encoding", [*COLOURS, *MONO])
@pytest.mark.parametrize("fault", ["step", "data", "width", "height"])
def test_bytes_that_do_not_fit_are_refused_in_every_encoding(encoding, fault):
    msg = image(np.zeros((48, 256), np.uint8), encoding, width=64)
    msg.height = 32
    setattr(msg, fault, b"" if fault == "data" else 0)
    with pytest.raises(SpecMismatch, match=r"expected (at least|a frame of at least)"):
        to_input(msg, SMALL if encoding in COLOURS else GREY)


@pytest.mark.parametrize("encoding", ["yuyv", "nv12", "bayer_rggb8"])
def test_cells_of_two_pixels_need_an_even_size(encoding):
    with pytest.raises(SpecMismatch, match=f"expected an even size for {encoding}, got 33x48"):
        to_input(image(np.zeros((48, 66), np.uint8), encoding, width=33), SMALL)


@pytest.mark.parametrize("encoding", ["yuyv", "nv12", "bayer_rggb8"])
def test_a_network_as_large_as_the_frame_gets_every_pixel(encoding):
    msg = image(np.full((48, 64), 128, np.uint8), encoding, width=32)
    msg.height = 32
    assert to_input(msg, RGB(height=32, width=32)).shape == (32, 32, 3)


def test_a_frame_smaller_than_the_network_s_is_refused_in_every_encoding():
    for encoding in COLOURS:
        msg = image(np.zeros((24, 64), np.uint8), encoding, width=16)
        with pytest.raises(SpecMismatch, match="enlarging is not supported"):
            to_input(msg, RGB(height=32, width=32))


def test_depth_is_that_of_the_pixels_picked_and_no_other_is_computed():
    kind = Depth(height=4, width=4)
    metres = np.random.default_rng(0).uniform(0, 9, (30, 40)).astype(np.float32)
    metres[3, 5:9] = [np.nan, np.inf, -np.inf, -1]
    msg = image(metres.view(np.uint8), "32FC1", width=40)
    want = to_network(to_millimetres(msg), kind)
    got = DepthCamera("far").decode(msg, kind)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, want)


def test_the_camera_s_part_says_whether_grey_will_do():
    from wm_core.robot.parts import ImagePart

    part = ImagePart(type="sensor_msgs/Image", topic="eye", accept_mono=True)
    msg = image(np.full((32, 32), 90, np.uint8), "mono8", width=32)
    assert Camera("eye", "eye", part).decode(msg, SMALL).shape == (8, 8, 3)
    with pytest.raises(SpecMismatch, match="accept_mono"):
        Camera("eye", "eye").decode(msg, SMALL)


@pytest.mark.parametrize("fit", ["pad", "squeeze"])
@pytest.mark.parametrize("size", [(32, 48), (48, 32), (4, 8)])
def test_every_encoding_is_padded_or_squeezed_as_the_policy_s_image_says(fit, size):
    rgb, spec = scene(*size), RGB(height=8, width=8, fit=fit)
    want = to_network(rgb, spec).astype(int)
    plain = to_input(image(rgb.reshape(size[0], -1), "rgb8", width=size[1]), spec)
    np.testing.assert_array_equal(plain, want)
    yuv = to_input(image(packed_422(rgb, "uyvY"), "uyvy", width=size[1]), spec).astype(int)
    assert np.abs(yuv - want).max() <= 4
    assert (yuv[want.sum(-1) == 0] == 0).all()  # the frame around it is black, not dark green
    mono = image(rgb[:, :, 0], "mono8", width=size[1])
    got = to_input(mono, spec, accept_mono=True)
    grey = to_network(rgb[:, :, :1], Mono(height=8, width=8, fit=fit))
    np.testing.assert_array_equal(got, grey.repeat(3, axis=2))
    far = rgb[:, :, 0].astype("<u2")
    kind = Depth(height=8, width=8, fit=fit)
    msg = image(far.view(np.uint8), "16UC1", width=size[1])
    np.testing.assert_array_equal(
        DepthCamera("depth").decode(msg, kind), to_network(far[:, :, None], kind)
    )
