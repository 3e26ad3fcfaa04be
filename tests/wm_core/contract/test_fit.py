"""A frame of another shape is cropped, padded or squeezed, as its image says, on both sides."""

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import area_resize, placement, to_network
from wm_core.contract.inputs import Depth, ImageSpec
from wm_core.contract.spec import ActionSpec, Spec

PAD, SQUEEZE = (ImageSpec(height=8, width=8, fit=fit) for fit in ("pad", "squeeze"))


def grey(rows: int, cols: int) -> np.ndarray:
    """A frame (rows, cols, 3) without a black pixel."""
    return np.random.default_rng(0).integers(1, 256, (rows, cols, 3), dtype=np.uint8)


def test_a_small_frame_is_enlarged_by_a_whole_factor_and_its_pixels_stay_as_they_are():
    frame = grey(3, 2)
    got = to_network(frame, PAD)
    want = np.zeros((8, 8, 3), np.uint8)
    want[1:7, 2:6] = frame.repeat(2, axis=0).repeat(2, axis=1)  # 8 // 3 = 2
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("rows", "cols", "size"), [(16, 32, (4, 8)), (32, 8, (8, 2)), (3, 99, (1, 8))]
)
def test_a_padded_frame_is_seen_whole(rows, cols, size):
    frame = grey(rows, cols)
    got = to_network(frame, PAD)
    seen = np.argwhere(got.any(-1))
    (top, left), (bottom, right) = seen.min(0), seen.max(0) + 1
    assert (bottom - top, right - left) == size
    np.testing.assert_array_equal(got[top:bottom, left:right], area_resize(frame, *size))
    assert abs((8 - bottom) - top) <= 1
    assert abs((8 - right) - left) <= 1


@pytest.mark.parametrize("shape", [(16, 32), (4, 100), (3, 3), (8, 8)])
def test_a_squeezed_frame_fills_the_image(shape):
    frame = grey(*shape)
    np.testing.assert_array_equal(to_network(frame, SQUEEZE), area_resize(frame, 8, 8))


def test_distances_are_never_averaged_and_the_frame_around_them_is_unknown():
    frame = np.array([[[10], [3000]]], np.uint16)
    got = to_network(frame, Depth(height=4, width=4, fit="pad"))
    assert got[..., 0].tolist() == [[0] * 4, [10, 10, 3000, 3000], [10, 10, 3000, 3000], [0] * 4]


def test_a_cropped_frame_that_is_too_small_is_still_refused():
    with pytest.raises(SpecMismatch, match="at least 8x8, got 7x8; enlarging"):
        to_network(grey(8, 7), ImageSpec(height=8, width=8))


@pytest.mark.parametrize("fit", ["crop", "pad", "squeeze"])
def test_every_frame_lies_within_its_image(fit):
    spec = ImageSpec(height=12, width=8, fit=fit)
    for rows in range(12, 60, 7):
        for cols in range(8, 60, 5):
            place = placement(rows, cols, spec)
            assert 0 <= place.top <= place.top + place.height <= 12
            assert 0 <= place.left <= place.left + place.width <= 8
            assert (place.rows.stop, place.cols.stop) <= (rows, cols)


def test_an_empty_frame_is_refused():
    with pytest.raises(SpecMismatch, match=r"got \(0, 9, 3\)"):
        to_network(np.zeros((0, 9, 3), np.uint8), PAD)


def test_the_rule_stands_in_the_spec_unless_it_is_the_one_that_all_images_had():
    spec = Spec(images={"a": PAD, "b": ImageSpec()}, action=ActionSpec(low=(0.0,), high=(1.0,)))
    text = spec.model_dump_json()
    assert text.count('"fit"') == 1
    assert Spec.model_validate_json(text) == spec
    assert '"fit"' not in Depth().model_dump_json()
