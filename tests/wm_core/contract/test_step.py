import numpy as np
import pytest

from wm_core.contract.step import Step, is_finite

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
