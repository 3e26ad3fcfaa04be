"""Every difference between two specs is named, and nothing that fits is one."""

import pytest

from wm_core.contract.compare import differences
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec

ACTION = ActionSpec(low=(-1.0, 0.0), high=(1.0, 4.0), names=("turn", "go"), units=("rad", "m"))
SPEC = Spec(
    images={"image": ImageSpec(height=64, width=64)},
    vectors={"joints": VectorSpec(size=2, names=("hip", "knee"))},
    action=ACTION,
    period_s=0.05,
)


def changed(**action):
    return SPEC.model_copy(update={"action": ACTION.model_copy(update=action)})


def test_a_spec_fits_itself_and_one_with_more_inputs():
    more = SPEC.model_copy(update={"vectors": {**SPEC.vectors, "extra": VectorSpec(size=1)}})
    assert differences(SPEC, SPEC) == differences(SPEC, more) == []
    assert differences(more, SPEC)[0].startswith("input 'extra': expected vector(1), got only")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (changed(low=(-2.0, 0.0)), "bounds of action 0: expected -1 .. 1, got -2 .. 1"),
        (changed(high=(2.0, 5.0)), "expected -1 .. 1, got -1 .. 2 (and 1 more)"),
        (
            changed(names=("go", "turn")),
            "names of the actions, place 0: expected 'turn', got 'go'",
        ),
        (changed(units=("deg", "m")), "units of the actions, place 0: expected 'rad', got 'deg'"),
        (
            SPEC.model_copy(update={"action": ActionSpec.choices(2)}),
            "actions: expected 2 actions, got 2 choices",
        ),
        (
            SPEC.model_copy(update={"action": ActionSpec(low=(0.0,) * 3, high=(1.0,) * 3)}),
            "actions: expected 2 actions, got 3 actions",
        ),
        (SPEC.model_copy(update={"period_s": 0.04}), "period: expected 0.05 s, got 0.04 s"),
        (
            SPEC.model_copy(update={"images": {"image": ImageSpec(channels=1)}}),
            "input 'image': expected RGB 64x64x3, got mono 64x64x1",
        ),
        (
            SPEC.model_copy(update={"vectors": {"joints": VectorSpec(size=3)}}),
            "size of input 'joints': expected 2, got 3",
        ),
    ],
)
def test_a_difference_is_said_in_words(given, said):
    assert said in "; ".join(differences(SPEC, given))


def test_choices_differ_in_number_names_and_the_one_that_does_nothing():
    two = SPEC.model_copy(update={"action": ActionSpec.choices(2, ("left", "right"))})
    other = SPEC.model_copy(update={"action": ActionSpec.choices(2, ("right", "left"), noop=1)})
    assert len(differences(two, other)) == 2
    three = SPEC.model_copy(update={"action": ActionSpec.choices(3)})
    assert differences(two, three) == ["actions: expected 2 choices, got 3 choices"]


def test_names_that_one_side_does_not_state_are_no_difference():
    bare = changed(names=(), units=())
    assert differences(SPEC, bare) == differences(bare, SPEC) == []


def test_rounding_to_float32_is_no_difference():
    assert differences(SPEC, changed(high=(1.0 + 3e-8, 4.0 - 1e-7))) == []


def test_images_may_have_other_sizes_where_they_are_resized():
    large = SPEC.model_copy(update={"images": {"image": ImageSpec(height=96, width=80)}})
    assert differences(SPEC, large, resized=True) == []
    assert len(differences(SPEC, large)) == 2


def test_several_choices_are_told_from_as_many_numbers_and_from_other_groups():
    two = SPEC.model_copy(update={"action": ActionSpec.several_choices((3, 2))})
    for action in (ActionSpec.several_choices((2, 3)), ActionSpec.choices(5)):
        (said,) = differences(two, SPEC.model_copy(update={"action": action}))
        assert said.startswith("actions: expected choices of 3 and 2, got")
    assert differences(two, two) == []
