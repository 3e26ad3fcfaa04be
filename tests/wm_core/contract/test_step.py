import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import (
    MAX_MAGNITUDE,
    MAX_REWARD,
    NUMBERS,
    STAMP_LIMIT_NS,
    WHOLE_LIMIT,
    Step,
    check_step,
    is_finite,
    is_usable,
    usable,
)

OBS = {"image": np.zeros((4, 4, 3), np.uint8), "proprio": np.zeros(2, np.float32)}


def make_step(**changes):
    values = {"obs": OBS, "action": np.zeros(1, np.float32), "reward": 0.0}
    flags = {"is_first": False, "is_last": False, "is_terminal": False}
    return Step(**(values | flags | changes))


def finite(step):
    return is_finite(step.obs, step.action, step.reward)


def test_a_plain_step_is_finite():
    assert finite(make_step())


@pytest.mark.parametrize(
    "change",
    [
        {"reward": float("nan")},
        {"reward": float("-inf")},
        {"action": np.array([np.nan], np.float32)},
        {"obs": OBS | {"proprio": np.array([0, np.inf], np.float32)}},
    ],
)
def test_nan_or_infinity_anywhere_is_found(change):
    assert not finite(make_step(**change))


SPEC = Spec(
    images={"image": ImageSpec(height=4, width=4)},
    vectors={"proprio": VectorSpec(size=2)},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)


def with_proprio(value):
    return {"obs": OBS | {"proprio": np.array([0, value], np.float32)}}


def with_action(value):
    return {"action": np.array([value], np.float32)}


@pytest.mark.parametrize(
    "change",
    [
        {"reward": 1e30},
        {"reward": -1.01 * MAX_REWARD},
        {"reward": float("nan")},
        {"reward": float("inf")},
        {"period_s": -0.1},
        {"period_s": 1e30},
        {"period_s": float("nan")},
        with_action(1e30),
        with_action(1.1),
        with_action(-1.1),
        with_action(np.nan),
        with_proprio(1e30),
        with_proprio(-1.01 * MAX_MAGNITUDE),
        with_proprio(np.inf),
    ],
)
def test_a_step_that_would_ruin_weights_is_not_usable(change):
    assert is_usable(make_step(), SPEC)
    check_step(make_step(**change), SPEC)  # it is recorded all the same
    assert not is_usable(make_step(**change), SPEC)


@pytest.mark.parametrize(
    "change",
    [
        {"reward": MAX_REWARD},
        {"period_s": 3600.0},
        {"period_s": 0.0},
        with_action(np.float32(1.0) + np.finfo(np.float32).eps),
        with_proprio(101_325.0),  # pascals
        with_proprio(-MAX_MAGNITUDE),
    ],
)
def test_a_step_at_the_bounds_is_usable(change):
    assert is_usable(make_step(**change), SPEC)


@pytest.mark.parametrize(
    ("action", "good"),
    [((0, 1, 0), True), ((0, 0, 0), True), ((1, 1, 0), False), ((0, 0.5, 0), False),
     ((0, -1, 0), False), ((0, np.nan, 0), False), ((0, 1e30, 0), False)],
)  # fmt: skip
def test_a_choice_is_usable_where_it_is_one_or_none(action, good):
    given = np.array(action, np.float32)
    assert bool(usable(ActionSpec.choices(3), {}, given, reward=0.0)) is good


def test_many_steps_are_judged_at_once_as_each_alone():
    rng = np.random.default_rng(0)
    odd = np.array([0.0, 1.0, -1.0, 1.2, 1e7, 1e10, np.nan, np.inf])
    steps = [
        make_step(**with_proprio(a), reward=float(b), period_s=float(c)) for a, b, c in
        rng.choice(odd, (200, 3))
    ]  # fmt: skip
    together = usable(
        SPEC.action,
        {"proprio": np.stack([s.obs["proprio"] for s in steps])},
        np.stack([s.action for s in steps]),
        reward=np.array([s.reward for s in steps]),
        period_s=np.array([s.period_s for s in steps]),
    )
    assert together.tolist() == [is_usable(s, SPEC) for s in steps]
    assert 0 < together.sum() < len(steps)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stamp_ns": -1}, "stamp"),
        ({"stamp_ns": STAMP_LIMIT_NS}, "stamp"),
        ({"stamp_ns": 0.5}, "stamp"),
        ({"policy_version": WHOLE_LIMIT}, "policy_version"),
        ({"policy_version": 1.0}, "policy_version"),
        ({"is_last": 2}, "is_last"),
        ({"reward": None}, "reward"),
        ({"reward": 10**400}, "reward"),
        ({"action": np.zeros(2, np.float32)}, "action"),
        ({"action": np.array(["a"])}, "action"),
        ({"requested_action": np.zeros((1, 1), np.float32)}, "action"),
        ({"obs": {"image": OBS["image"]}}, "proprio"),
    ],
)
def test_what_a_recording_cannot_hold_is_found_before_it_costs_a_chunk(change, named):
    with pytest.raises(SpecMismatch, match=named):
        check_step(make_step(**change), SPEC)


def test_numbers_of_numpy_are_recorded_like_pythons():
    kinds = {"f": np.float32, "b": np.bool_, "i": np.int64}
    numbers = {name: kinds[dtype.kind](0) for name, dtype in NUMBERS.items()}
    check_step(make_step(**numbers, stamp_ns=np.int64(5)), SPEC)
