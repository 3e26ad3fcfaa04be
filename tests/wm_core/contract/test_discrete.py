"""Choices: one-hot to the network and in the record, an index to the robot."""

import hashlib
import io

import numpy as np
import pytest
from pydantic import ValidationError

from wm_core.contract.card import CarryPair
from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.image import to_network
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec

CHOICES = ActionSpec.choices(3, ("stop", "left", "right"), noop=1)
SPEC = Spec(images={"image": ImageSpec(height=4, width=4, channels=1)}, action=CHOICES)
EYE = np.eye(3, dtype=np.float32)

#: no carry, no value, no surprise: the choice whose noise and taste add up to most
GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
policy (uint8[1,4,4,1] image, float[1,3] prev_action, bool[1] is_first, float[1,3] noise_action)
    => (float[1,3] action, float[1,1] command)
<float[1,3] taste = {0.1, 0.0, 0.2}, int64 depth = {3}, float[2] values = {0.0, 1.0}>
{
    score = Add(noise_action, taste)
    best = ArgMax<axis = 1, keepdims = 0>(score)
    action = OneHot(best, depth, values)
    column = ArgMax<axis = 1, keepdims = 1>(score)
    command = Cast<to = 1>(column)
}
"""
TASTE = np.array([0.1, 0.0, 0.2], np.float32)

#: the same with a carry that counts
COUNTING = (
    GRAPH.replace("bool[1] is_first", "float[1,1] count, bool[1] is_first")
    .replace("command)\n", "command, float[1,1] next_count)\n")
    .replace("values = {0.0, 1.0}", "values = {0.0, 1.0}, float one = {1.0}")
    .replace("score =", "next_count = Add(count, one)\n    score =")
)


def golden_of(model, **changes):
    """A rollout of six steps; ``changes`` replace, change or (None) drop arrays."""
    runner, rng, steps = PolicyRunner.from_bytes(model), np.random.default_rng(0), 6
    frame = rng.integers(0, 256, (9, 9, 1), dtype=np.uint8)
    noise = rng.random((steps, 3), np.float32)
    arrays = {
        "frame/image": frame,
        "seen/image": to_network(frame, SPEC.images["image"]),
        "in/image": rng.integers(0, 256, (steps, 4, 4, 1), dtype=np.uint8),
        "in/prev_action": EYE[rng.integers(3, size=steps)],
        "in/is_first": np.arange(steps) == 0,
        "in/noise_action": noise,
    }
    carry, rows = runner.initial_carry(), []
    for t in range(steps):
        feed = {k[3:]: v[t : t + 1] for k, v in arrays.items() if k.startswith("in/")}
        rows.append(runner.call(feed | carry))
        carry = {pair.input: rows[-1][pair.output] for pair in runner.card.carry}
    arrays |= {f"out/{name}": np.concatenate([row[name] for row in rows]) for name in rows[0]}
    best = np.sort(noise + TASTE, axis=-1)
    arrays["gap/action"] = best[:, -1:] - best[:, -2:-1]
    for name, change in changes.items():
        arrays[name] = change(arrays[name].copy()) if callable(change) else change
    arrays = {name: value for name, value in arrays.items() if value is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def publish(tmp_path, model_of, write):
    """Writes a policy of a graph beside its rollout."""

    def make(graph=GRAPH, **changes):
        carry = (CarryPair(input="count", output="next_count"),) if graph == COUNTING else ()
        fields = {"graph": graph, "spec": SPEC, "carry": carry, "noise": ("noise_action",)}
        golden = golden_of(model_of(**fields), **changes)
        model = model_of(**fields, golden_sha256=hashlib.sha256(golden).hexdigest())
        return write(tmp_path / "policy", golden=golden, model=model)

    return make


# ------------------------------------------------------------------------------------ the spec


def test_the_command_is_the_index_of_the_choice_and_back():
    assert (CHOICES.size, CHOICES.command_size) == (3, 1)
    for index in range(3):
        command = CHOICES.to_physical(EYE[index])
        assert (command.tolist(), command.dtype) == ([index], np.float32)
        np.testing.assert_array_equal(CHOICES.from_physical(command), EYE[index])
    np.testing.assert_array_equal(CHOICES.from_physical(np.array([9.0])), EYE[2])
    np.testing.assert_array_equal(CHOICES.from_physical(np.array([-1.0])), EYE[0])


def test_what_is_sent_is_exactly_one_hot_whatever_was_asked_and_sent_before():
    rng = np.random.default_rng(0)
    for _ in range(50):
        wanted = rng.normal(size=3)
        sent = CHOICES.limit(wanted, rng.normal(size=3))
        np.testing.assert_array_equal(sent, EYE[wanted.argmax()])
        assert sent.dtype == np.float32
    assert CHOICES.limit(np.zeros(3), np.zeros(3)).tolist() == [1, 0, 0]  # a tie is decided


def test_zero_is_the_choice_that_stops_and_zeros_where_there_is_a_range():
    assert CHOICES.zero_command.tolist() == [1.0]
    assert ActionSpec(low=(-1.0, 0.0), high=(1.0, 2.0)).zero_command.tolist() == [0.0, 0.0]


def test_random_actions_are_uniform_over_choices_and_ranges():
    rng = np.random.default_rng(0)
    counts = sum(CHOICES.random(rng) for _ in range(600))
    assert counts.sum() == 600
    assert counts.min() > 150
    box = ActionSpec(low=(-1.0, 0.0), high=(1.0, 2.0))
    drawn = np.stack([box.random(np.random.default_rng(s)) for s in range(200)])
    assert drawn.dtype == np.float32
    assert drawn.min() < -0.9
    assert drawn.max() > 0.9


@pytest.mark.parametrize(
    "fields",
    [
        {"low": (0.0,), "high": (1.0,), "discrete": True},
        {"low": (0.0, 0.0), "high": (1.0, 2.0), "discrete": True},
        {"low": (0.0, 0.0), "high": (1.0, 1.0), "discrete": True, "noop": 2},
        {"low": (0.0, 0.0), "high": (1.0, 1.0), "discrete": True, "names": ("a",)},
        {"low": (0.0, 0.0), "high": (1.0, 1.0), "noop": 1},
    ],
)
def test_impossible_choices_are_refused(fields):
    with pytest.raises(ValidationError):
        ActionSpec(**fields)


def test_a_spec_of_choices_survives_json_and_older_specs_are_continuous():
    assert Spec.model_validate_json(SPEC.model_dump_json()) == SPEC
    old = Spec.model_validate_json('{"action": {"low": [-1.0], "high": [1.0]}}')
    assert not old.action.discrete


# ---------------------------------------------------------------------------------- the policy


def test_a_policy_without_carry_value_and_surprise_runs_and_conforms(publish):
    runner = check_policy(publish())
    out = PolicyEngine(runner, seed=0, mean=True).act(SPEC.zeros(), EYE[0], True)
    np.testing.assert_array_equal(out.action, EYE[2])
    assert (out.command.tolist(), out.carry) == ([2.0], {})
    assert (out.value, out.surprise) == (None, None)


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("{0.0, 1.0}", "{0.1, 1.0}", "not one-hot"),
        ("column = ArgMax", "column = ArgMin", "command .* is not the action"),
    ],
)
def test_a_policy_whose_answer_is_not_one_hot_or_differs_is_named(publish, right, wrong, said):
    folder = publish(GRAPH.replace(right, wrong), **{"gap/action": None})
    with pytest.raises((AssertionError, PolicyRefused), match=said):
        check_policy(folder)


def test_a_command_of_another_size_than_one_index_is_refused(publish):
    graph = GRAPH.replace("float[1,1] command", "float[1,3] command")
    with pytest.raises(PolicyRefused, match=r"output 'command': the spec wants .*\(1, 1\)"):
        publish(graph.replace("command = Cast<to = 1>(column)", "command = Identity(action)"))


def other_choice(action, step=4):
    action[step] = np.roll(action[step], 1)
    return action


def other_command(command, step=4):
    command[step] = (command[step] + 1) % 3
    return command


def at(step, value):
    def change(array):
        array[step] = value
        return array

    return change


FLIP = {"out/action": other_choice, "out/command": other_command}


def test_a_choice_and_its_command_may_differ_only_at_a_tie(publish):
    with pytest.raises(PolicyRefused, match="golden step 4: 'action' was drawn differently"):
        PolicyRunner.load(publish(**FLIP))
    PolicyRunner.load(publish(**FLIP, **{"gap/action": at(4, 1e-6)}))
    with pytest.raises(PolicyRefused, match="golden step 4: 'command' differs"):
        PolicyRunner.load(publish(**{"out/command": other_command}))


def test_the_carry_is_compared_even_where_the_choice_was_tied(publish):
    tie = FLIP | {"gap/action": at(4, 1e-6)}
    PolicyRunner.load(publish(COUNTING, **tie))
    with pytest.raises(PolicyRefused, match="golden step 4: 'next_count' differs"):
        PolicyRunner.load(publish(COUNTING, **tie, **{"out/next_count": at(4, 5.5)}))


@pytest.mark.parametrize(("gap", "refused"), [(1e-6, False), (0.5, True)])
def test_a_choice_that_was_drawn_from_a_tied_carry_is_not_compared(publish, gap, refused):
    gaps = np.full((6, 1), 9.0)
    gaps[4] = gap
    counts = at([4, 5], [[9.0], [10.0]])  # step 5 goes on from what step 4 answered there
    carry = {"out/next_count": counts, "gap/next_count": gaps}
    folder = publish(COUNTING, **FLIP, **carry)
    if refused:
        with pytest.raises(PolicyRefused, match="'next_count' was drawn differently"):
            PolicyRunner.load(folder)
    else:
        PolicyRunner.load(folder)
