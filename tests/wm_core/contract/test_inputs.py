"""Each kind of sensor knows its shape, dtype, scaling and pictures; specs name kinds."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import ValidationError

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import INPUTS, RGB, ImageSpec, Mono, Vector, input_of, register_input
from wm_core.contract.spec import ActionSpec, Spec

OLD = (
    '{"images":{"image":{"height":48,"width":64,"channels":3},'
    '"rear":{"height":32,"width":32,"channels":1}},'
    '"vectors":{"proprio":{"size":2,"names":["hip","knee"]}},'
    '"action":{"low":[-1.0],"high":[1.0],"names":[],"units":[],"max_change":2.0,'
    '"discrete":false,"noop":0},"period_s":0.05}'
)


def test_the_json_of_a_spec_written_before_there_were_kinds_stays_as_it_is():
    spec = Spec.model_validate_json(OLD)
    assert [type(sensor) for sensor in spec.inputs.values()] == [RGB, Mono, Vector]
    assert spec.model_dump_json() == OLD


def test_an_unknown_kind_is_refused_naming_the_nearest():
    odd = OLD.replace('"height":48', '"kind":"RBG","height":48')
    with pytest.raises(ValidationError, match="unknown kind of input 'RBG'; did you mean 'RGB'"):
        Spec.model_validate_json(odd)


@pytest.mark.parametrize("images", ["3", "[]", '{"image":4}', '{"image":{"cls":1}}'])
def test_malformed_inputs_are_refused(images):
    start, end = OLD.index('{"height":48'), OLD.index(',"vectors"')
    with pytest.raises(ValidationError):
        Spec.model_validate_json(OLD[: start - len('{"image":')] + images + OLD[end:])


def test_a_vector_among_the_images_is_refused():
    odd = OLD.replace('{"height":48,"width":64,"channels":3}', '{"kind":"vector","size":3}')
    with pytest.raises(ValidationError, match="expected a kind of ImageSpec, got 'vector'"):
        Spec.model_validate_json(odd)


@pytest.mark.parametrize(
    "sensor",
    [ImageSpec(height=6, width=4), ImageSpec(height=6, width=4, channels=1), Vector(size=5)],
)
def test_what_the_network_sees_comes_back_as_it_was(sensor):
    raw = torch.from_numpy(sensor.random(np.random.default_rng(0)))
    back = sensor.unscaled(sensor.scaled(raw))
    assert back.dtype == raw.dtype
    torch.testing.assert_close(back, raw)


def test_pixels_that_are_already_scaled_are_refused():
    with pytest.raises(SpecMismatch, match="as uint8, got"):
        ImageSpec().scaled(torch.rand(64, 64, 3))


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        (spaces.Box(0, 255, (8, 9, 3), np.uint8), RGB),
        (spaces.Box(0, 255, (8, 9, 1), np.uint8), Mono),
        (spaces.Box(-1, 1, (4,), np.float32), Vector),
        (spaces.Box(-1, 1, (8, 9, 3), np.float32), type(None)),
        (spaces.Discrete(3), type(None)),
    ],
)
def test_a_box_is_the_kind_that_its_shape_and_dtype_tell(box, kind):
    given = input_of(box)
    assert type(given) is kind
    assert given is None or given.shape == box.shape


def test_a_kind_of_ones_own_is_named_in_the_spec_and_read_back():
    class Touch(Vector):
        """Contacts of a gripper."""

        kind: ClassVar[str] = "touch"
        implied: ClassVar[bool] = False

    register_input(Touch)
    try:
        spec = Spec(
            images={}, vectors={"skin": Touch(size=4)}, action=ActionSpec(low=(0.0,), high=(1.0,))
        )
        text = spec.model_dump_json()
        assert '"skin":{"kind":"touch","size":4' in text
        assert Spec.model_validate_json(text) == spec
    finally:
        del INPUTS["touch"]


def test_an_image_spec_read_from_settings_is_of_the_kind_that_its_channels_tell():
    assert type(ImageSpec.model_validate({"channels": 1})) is Mono
    assert type(ImageSpec.model_validate_json('{"height": 32}')) is RGB


def test_an_error_in_a_spec_names_the_input():
    odd = OLD.replace('"channels":3', '"channels":2')
    with pytest.raises(ValidationError, match="'image': channels: expected 1 or 3, got 2"):
        Spec.model_validate_json(odd)


def test_a_constant_depth_array_has_a_range_and_a_float_one_is_refused():
    flat = np.zeros((4, 4, 1), np.uint16)
    box = spaces.Box(0, 0, flat.shape, np.uint16)
    depth = input_of(box)
    assert depth.near_mm < depth.far_mm
    with pytest.raises(SpecMismatch, match="millimetres as uint16"):
        depth.scaled(torch.zeros(1, 4, 4, 1))
