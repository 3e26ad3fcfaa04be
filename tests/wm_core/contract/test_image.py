from math import gcd

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import area_resize, to_network
from wm_core.contract.spec import ImageSpec


def exact_area(frame, height, width):
    """Area resize of an already cropped frame, one target pixel at a time, in fractions."""
    rows, cols, channels = frame.shape
    out = np.zeros((height, width, channels), np.uint8)
    for y in range(height):
        for x in range(width):
            top, bottom = y * rows, (y + 1) * rows
            left, right = x * cols, (x + 1) * cols
            for c in range(channels):
                total = 0
                for r in range(top // height, -(-bottom // height)):
                    tall = min(bottom, (r + 1) * height) - max(top, r * height)
                    for s in range(left // width, -(-right // width)):
                        wide = min(right, (s + 1) * width) - max(left, s * width)
                        total += tall * wide * int(frame[r, s, c])
                whole, rest = divmod(total, rows * cols)
                up = 2 * rest > rows * cols or (2 * rest == rows * cols and whole % 2)
                out[y, x, c] = whole + up
    return out


@pytest.mark.parametrize("size", [(14, 14), (12, 12), (16, 8), (9, 11), (13, 13)])
def test_every_pixel_is_the_exactly_rounded_mean_of_its_area(size):
    rng = np.random.default_rng(1)
    # few levels, so that exact ties occur
    frame = (rng.integers(0, 3, (*size, 3)) * 7).astype(np.uint8)
    spec = ImageSpec(height=4, width=4)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    crop = frame[top : top + side, left : left + side]
    np.testing.assert_array_equal(to_network(frame, spec), exact_area(crop, 4, 4))


def test_a_block_of_four_is_its_mean_rounded_half_to_even():
    frame = np.array([[0, 1], [1, 0]], np.uint8)[:, :, None]  # mean 0.5 -> 0
    assert to_network(frame, ImageSpec(height=1, width=1, channels=1)).item() == 0
    assert to_network(frame + 1, ImageSpec(height=1, width=1, channels=1)).item() == 2


def test_a_large_frame_stays_exact():
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 256, (1079, 1079, 1), dtype=np.uint8)  # 255 * 1079**2 > 2**24
    got = to_network(frame, ImageSpec(height=2, width=2, channels=1))
    np.testing.assert_array_equal(got, exact_area(frame, 2, 2))


def test_a_resized_white_frame_is_white_and_has_the_spec_s_shape():
    got = to_network(np.full((101, 173, 3), 255, np.uint8), ImageSpec(height=24, width=40))
    assert got.shape == (24, 40, 3)
    assert got.min() == 255
    assert got.flags.c_contiguous


def test_the_crop_is_centred():
    frame = np.zeros((4, 8, 3), np.uint8)
    frame[:, 2:6] = 200
    assert to_network(frame, ImageSpec(height=2, width=2)).min() == 200


def test_a_frame_of_the_right_size_is_copied_not_lent():
    frame = np.zeros((64, 64, 3), np.uint8)
    got = to_network(frame, ImageSpec())
    got[:] = 1
    assert frame.max() == 0


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (np.zeros((64, 64, 3), np.float32), "float32"),
        (np.zeros((64, 64), np.uint8), r"\(64, 64\)"),
        (np.zeros((64, 64, 1), np.uint8), r"\(64, 64, 1\)"),
        (np.zeros((48, 64, 3), np.uint8), "64x48"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_naming_what_came(frame, said):
    with pytest.raises(SpecMismatch, match=said):
        to_network(frame, ImageSpec())


# ------------------------------------------------------- the resize of the recordings made so far


def _shares(source, target):
    common = gcd(source, target)
    p, q = source // common, target // common
    start, pixel = np.arange(q)[:, None] * p, np.arange(p) * q
    overlap = np.minimum(start + p, pixel + q) - np.maximum(start, pixel)
    return np.clip(overlap, 0, None).astype(np.float32)


def resize_of_0_1(frame, height, width):
    """The resize of release 0.1, with which stored frames and goldens were made."""
    rows, cols, channels = frame.shape
    tall, wide = _shares(rows, height), _shares(cols, width)
    (_, down), (q, across) = tall.shape, wide.shape
    strips = frame.reshape(-1, down, cols * channels).astype(np.float32)
    summed = np.matmul(tall, strips).reshape(height, cols // across, across, channels)
    exact = np.float32 if 255 * down * across < 2**24 else np.float64
    total = np.zeros((height, cols // across, q, channels), exact)
    for i, j in zip(*np.nonzero(wide), strict=True):
        total[:, :, i] += summed[:, :, j] * exact(wide[i, j])
    mean = total.reshape(height, width, channels).astype(np.float64) / (down * across)
    return np.rint(mean).astype(np.uint8)


sides = st.integers(1, 90)


@settings(deadline=None, max_examples=200)
@given(sides, sides, sides, sides, st.sampled_from([1, 3, 4]), st.integers(0, 2**31))
def test_every_size_gives_the_bits_that_it_gave_before(rows, cols, height, width, channels, seed):
    """Enlarging too: games with narrow screens are recorded so."""
    rng = np.random.default_rng(seed)
    frame = (rng.integers(0, 4, (rows, cols, channels)) * 85).astype(np.uint8)  # ties occur
    np.testing.assert_array_equal(
        area_resize(frame, height, width), resize_of_0_1(frame, height, width)
    )


@pytest.mark.parametrize("size", [64, 96, 224])
@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (1080, 1920)])
def test_the_sizes_of_cameras_give_the_bits_that_they_gave_before(shape, size):
    frame = np.random.default_rng(size).integers(0, 256, (*shape, 3), dtype=np.uint8)
    left = (shape[1] - shape[0]) // 2
    want = resize_of_0_1(frame[:, left : left + shape[0]], size, size)
    np.testing.assert_array_equal(to_network(frame, ImageSpec(height=size, width=size)), want)


@pytest.mark.parametrize("size", [4, 9])
def test_colours_are_chosen_by_their_place_and_of_the_others_nothing_is_seen(size):
    frame = np.random.default_rng(3).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    spec = ImageSpec(height=size, width=size)
    got = to_network(frame, spec, slice(2, None, -1))
    np.testing.assert_array_equal(got, to_network(np.ascontiguousarray(frame[..., 2::-1]), spec))
    assert got.flags.c_contiguous
