"""How far a policy may answer from its golden rollout: its card asks, the robot's owner bounds."""

import hashlib

import numpy as np
import pytest

from wm_core.contract.card import Tolerance
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.golden import MAX_QUANTIZED, PARITY, read_golden
from wm_core.contract.runner import PolicyRunner


@pytest.fixture
def in_8_bits(graph):
    """The graph, with a weight that goes through 8 bits and comes out as it was."""
    whole = "tenth_8 = QuantizeLinear(tenth, tenth)\n    exact = DequantizeLinear(tenth_8, tenth)"
    return graph.replace(
        "lean = Mul(next_count, tenth)", f"{whole}\n    lean = Mul(next_count, exact)"
    )


@pytest.fixture
def off_by(tmp_path, golden_of, model_of, write, in_8_bits):
    """A function that writes a policy whose golden ``value`` is off, and what its card says."""

    def make(off, **card):
        card = {"graph": in_8_bits, **card} if card.get("quantized") else card
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


def test_a_float_policy_that_calls_itself_quantised_is_refused(off_by, graph):
    """The tolerance of 8 bits is for those who compute in 8 bits."""
    with pytest.raises(PolicyRefused, match="says int8, and the graph computes in float32 alone"):
        PolicyRunner.load(off_by(0.0, **{"graph": graph, **EIGHT_BITS}))


# ------------------------------------------------------- what a rollout says of itself


def load_with(tmp_path, write, golden_of, model_of, **changes):
    golden = golden_of(**changes)
    told = hashlib.sha256(golden).hexdigest()
    folder = write(tmp_path / "policy", golden=golden, model=model_of(golden_sha256=told))
    return PolicyRunner.load(folder)


@pytest.mark.parametrize("name", ["action", "next_count", "surprise", "command", "value"])
def test_a_rollout_brings_no_scale_that_excuses_what_differs(
    tmp_path, write, golden_of, model_of, name
):
    """Once, a scale of 1e30 beside an output made any answer right."""
    arrays = read_golden(golden_of())
    wrong = arrays[f"out/{name}"] + np.float32(0.25)
    scale = np.full(wrong.shape, 1e30, np.float32)
    changes = {f"out/{name}": wrong, f"scale/{name}": scale}
    with pytest.raises(PolicyRefused, match=f"its scale of {name!r} may be at most"):
        load_with(tmp_path, write, golden_of, model_of, **changes)


def test_the_scale_of_a_command_is_no_wider_than_its_range(tmp_path, write, golden_of, model_of):
    span = np.full((12, 1), 4.0, np.float32)  # of 0 .. 4
    assert load_with(tmp_path, write, golden_of, model_of, **{"scale/command": span})
    with pytest.raises(PolicyRefused, match="its scale of 'command' may be at most"):
        load_with(tmp_path, write, golden_of, model_of, **{"scale/command": 1.1 * span})


@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf])
def test_a_scale_is_a_number(tmp_path, write, golden_of, model_of, value):
    scale = np.full((12, 1), value, np.float32)
    with pytest.raises(PolicyRefused, match="its scale of 'value' may be at most"):
        load_with(tmp_path, write, golden_of, model_of, **{"scale/value": scale})


def test_ties_are_rare(tmp_path, write, golden_of, model_of):
    """A rollout that calls every draw a tie would excuse whatever was drawn."""
    counts = read_golden(golden_of())["out/next_count"].copy()
    counts[[4, 9]] += 1.0  # the last of two episodes, so that nothing carries on from them
    wrong = {"out/next_count": counts, "gap/next_count": np.zeros((12, 1), np.float32)}
    with pytest.raises(PolicyRefused, match=r"2 of 12 draws of 'next_count' .* at most 1"):
        load_with(tmp_path, write, golden_of, model_of, **wrong)


def test_what_is_no_draw_is_excused_by_no_gap(tmp_path, write, golden_of, model_of):
    """Of a draw whole numbers are compared: a gap beside an action would round its difference."""
    changes = {"gap/surprise": np.zeros((12, 1), np.float32)}
    with pytest.raises(PolicyRefused, match="'surprise' is said to be drawn, expected whole num"):
        load_with(tmp_path, write, golden_of, model_of, **changes)
