import numpy as np
import pytest
from pydantic import ValidationError

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec

ACTION = ActionSpec(low=(-0.5, 0.0), high=(1.5, 4.0), max_change=0.25)


def make_spec(**changes):
    return Spec(
        **{
            "images": {"image": ImageSpec(height=8, width=6, channels=1)},
            "vectors": {"proprio": VectorSpec(size=3)},
            "action": ACTION,
            **changes,
        }
    )


def test_the_ends_of_an_action_are_the_ends_of_the_command():
    np.testing.assert_allclose(ACTION.to_physical(np.array([-1.0, 1.0])), [-0.5, 4.0])
    np.testing.assert_allclose(ACTION.to_physical(np.array([0.0, 0.0])), [0.5, 2.0])
    np.testing.assert_allclose(ACTION.to_physical(np.array([-9.0, 9.0])), [-0.5, 4.0])


def test_physical_and_back_is_the_same_action():
    action = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2)
    for a in action:
        np.testing.assert_allclose(ACTION.from_physical(ACTION.to_physical(a)), a, atol=1e-6)


def test_an_action_moves_by_at_most_max_change():
    got = ACTION.limit(np.array([1.0, -1.0]), np.array([0.0, 0.1], np.float32))
    np.testing.assert_allclose(got, [0.25, -0.15])
    assert got.dtype == np.float32


def test_an_action_stays_in_range_even_where_the_last_one_did_not():
    np.testing.assert_allclose(ACTION.limit(np.zeros(2), np.array([3.0, -3.0])), [1.0, -1.0])


@pytest.mark.parametrize(
    "bounds",
    [
        {"low": (), "high": ()},
        {"low": (0.0,), "high": (1.0, 2.0)},
        {"low": (1.0,), "high": (1.0,)},
        {"low": (0.0,), "high": (float("inf"),)},
        {"low": (0.0,), "high": (1.0,), "max_change": 0.0},
    ],
)
def test_impossible_bounds_of_an_action_are_refused(bounds):
    with pytest.raises(ValidationError):
        ActionSpec(**bounds)


def test_a_fitting_observation_passes_and_zeros_fit():
    spec = make_spec()
    spec.check_obs(spec.zeros())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": np.zeros((8, 6, 3), np.uint8)}, r"'image': expected \(8, 6, 1\) uint8"),
        ({"image": np.zeros((8, 6, 1), np.float32)}, "float32"),
        ({"proprio": np.zeros(3)}, r"\(3,\) float32, got \(3,\) float64"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused_saying_expected_and_got(change, said):
    spec = make_spec()
    with pytest.raises(SpecMismatch, match=said):
        spec.check_obs(spec.zeros() | change)


def test_a_missing_input_is_named():
    with pytest.raises(SpecMismatch, match="lacks 'proprio'"):
        make_spec().check_obs({"image": np.zeros((8, 6, 1), np.uint8)})


def test_a_spec_survives_json():
    spec = make_spec()
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"images": {}, "vectors": {}},
        {"vectors": {"image": VectorSpec(size=3)}},
        {"period_s": 0.0},
        {"hz": 20},
    ],
)
def test_an_impossible_spec_is_refused(changes):
    with pytest.raises(ValidationError):
        make_spec(**changes)
