"""How far a policy may answer from its golden rollout: its card asks, the robot's owner bounds."""

import hashlib

import numpy as np
import pytest

from wm_core.contract.card import Tolerance
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.golden import MAX_QUANTIZED, PARITY, read_golden
from wm_core.contract.runner import PolicyRunner


@pytest.fixture
def off_by(tmp_path, golden_of, model_of, write):
    """A function that writes a policy whose golden ``value`` is off, and what its card says."""

    def make(off, **card):
        value = read_golden(golden_of())["out/value"]
        golden = golden_of(**{"out/value": value + np.asarray(off, np.float32) * value})
        told = hashlib.sha256(golden).hexdigest()
        return write(
            tmp_path / "policy", golden=golden, model=model_of(golden_sha256=told, **card)
        )

    return make


EIGHT_BITS = {"quantized": "int8", "tolerance": Tolerance(largest=0.1, mean=0.05)}


def test_a_quantised_policy_may_be_off_by_what_its_card_states(off_by):
    assert PolicyRunner.load(off_by(0.02, **EIGHT_BITS)).card.quantized == "int8"


def test_more_than_the_card_states_is_refused_with_the_way_out(off_by):
    with pytest.raises(PolicyRefused, match=r"differs by 1.*at most 1e-01.*raise max_tolerance"):
        PolicyRunner.load(off_by(0.14, **EIGHT_BITS))


def test_the_mean_is_judged_beside_the_largest(off_by):
    assert PolicyRunner.load(off_by(np.eye(12)[3] * 0.09, **EIGHT_BITS))
    with pytest.raises(PolicyRefused, match=r"'value' differs by .* on average"):
        PolicyRunner.load(off_by(0.09, **EIGHT_BITS))


@pytest.mark.parametrize("bound", [0.01, PARITY])
def test_the_owner_s_bound_holds_whatever_the_card_asks_for(off_by, bound):
    with pytest.raises(PolicyRefused, match=f"at most {bound:.0e}"):
        PolicyRunner.load(off_by(0.02, **EIGHT_BITS), max_tolerance=bound)


def test_a_card_cannot_ask_for_more_than_the_default_bound(off_by):
    greedy = {"quantized": "int8", "tolerance": Tolerance(largest=1e9, mean=1e9)}
    with pytest.raises(PolicyRefused, match=f"at most {MAX_QUANTIZED:.0e}"):
        PolicyRunner.load(off_by(0.5, **greedy))


def test_a_float_policy_cannot_ask_for_any_tolerance(off_by):
    with pytest.raises(PolicyRefused, match="at most 1e-05"):
        PolicyRunner.load(off_by(0.001, tolerance=Tolerance(largest=0.1, mean=0.1)))


def test_the_owner_may_accept_a_float_policy_that_states_a_tolerance(off_by):
    folder = off_by(0.001, tolerance=Tolerance(largest=0.1, mean=0.1))
    assert PolicyRunner.load(folder, max_tolerance=0.01)


def test_a_bound_widens_nothing_that_the_card_does_not_ask_for(off_by):
    with pytest.raises(PolicyRefused, match="at most 1e-05"):
        PolicyRunner.load(off_by(0.001), max_tolerance=0.1)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_bounds_nothing_is_refused(off_by, bound):
    with pytest.raises(SettingsError, match="max_tolerance: expected a number above 0"):
        PolicyRunner.load(off_by(0.0), max_tolerance=bound)
