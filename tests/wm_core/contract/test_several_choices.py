"""Several choices at once: one-hots in a row to the network, an index for each to the robot."""

import hashlib
import io
import json

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pydantic import ValidationError

from wm_core.contract import conformance
from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused, SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.runner import PolicyEngine, PolicyRunner, check_sent
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import usable

ARM = ActionSpec.several_choices((3, 2), ("stop", "left", "right", "open", "close"), noop=(0, 1))
SPEC = Spec(images={"image": ImageSpec(height=4, width=4, channels=1)}, action=ARM)

#: two choices, each of which is drawn by the noise of its own part
GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
policy (uint8[1,4,4,1] image, float[1,5] prev_action, bool[1] is_first, float[1,5] noise_action)
    => (float[1,5] action, float[1,2] command)
<int64[2] parts = {3, 2}, int64 three = {3}, int64 two = {2}, float[2] values = {0.0, 1.0}>
{
    turn, grip = Split<axis = 1>(noise_action, parts)
    best_turn = ArgMax<axis = 1, keepdims = 0>(turn)
    best_grip = ArgMax<axis = 1, keepdims = 0>(grip)
    hot_turn = OneHot(best_turn, three, values)
    hot_grip = OneHot(best_grip, two, values)
    action = Concat<axis = 1>(hot_turn, hot_grip)
    column_turn = ArgMax<axis = 1, keepdims = 1>(turn)
    column_grip = ArgMax<axis = 1, keepdims = 1>(grip)
    columns = Concat<axis = 1>(column_turn, column_grip)
    command = Cast<to = 1>(columns)
}
"""


def chosen(*indices):
    return ARM.from_physical(np.array(indices))


def golden_of(model, **changes):
    """A rollout of six steps; ``changes`` change or (None) drop arrays."""
    runner, rng, steps = PolicyRunner.from_bytes(model), np.random.default_rng(0), 6
    shown = rng.integers(0, 256, (9, 9, 1), dtype=np.uint8)
    noise = rng.random((steps, 5), np.float32)
    arrays = {
        "frame/image": shown,
        "seen/image": to_network(shown, SPEC.images["image"]),
        "in/image": rng.integers(0, 256, (steps, 4, 4, 1), dtype=np.uint8),
        "in/prev_action": np.stack([ARM.random(rng) for _ in range(steps)]),
        "in/is_first": np.arange(steps) == 0,
        "in/noise_action": noise,
    }
    feeds = [{k[3:]: v[t : t + 1] for k, v in arrays.items() if k[:3] == "in/"} for t in range(6)]
    rows = [runner.call(feed) for feed in feeds]
    arrays |= {f"out/{name}": np.concatenate([row[name] for row in rows]) for name in rows[0]}
    best = [np.sort(part, axis=-1) for part in (noise[:, :3], noise[:, 3:])]
    arrays["gap/action"] = np.stack([part[:, -1] - part[:, -2] for part in best], axis=-1)
    for name, change in changes.items():
        arrays[name] = change(arrays[name].copy()) if change is not None else None
    buffer = io.BytesIO()
    np.savez(buffer, **{name: value for name, value in arrays.items() if value is not None})
    return buffer.getvalue()


@pytest.fixture
def publish(tmp_path, model_of, write):
    """Writes a policy of a graph beside its rollout."""

    def make(graph=GRAPH, **changes):
        fields = {"graph": graph, "spec": SPEC, "carry": (), "noise": ("noise_action",)}
        golden = golden_of(model_of(**fields), **changes)
        model = model_of(**fields, golden_sha256=hashlib.sha256(golden).hexdigest())
        return write(tmp_path / "policy", golden=golden, model=model)

    return make


# ------------------------------------------------------------------------------------ the spec


def test_the_command_is_an_index_for_each_choice_and_back():
    assert (ARM.size, ARM.command_size, ARM.sizes, ARM.begins) == (5, 2, (3, 2), (0, 3))
    for turn in range(3):
        for grip in range(2):
            action = chosen(turn, grip)
            assert action.nonzero()[0].tolist() == [turn, 3 + grip]
            command = ARM.to_physical(action)
            assert (command.tolist(), command.dtype) == ([turn, grip], np.float32)
    assert chosen(9, 9).tolist() == chosen(2, 1).tolist()
    assert chosen(-1, -1).tolist() == chosen(0, 0).tolist()


def test_every_choice_is_decided_by_its_own_part_of_what_was_asked():
    asked = np.array([0.1, 9.0, 0.2, -5.0, -4.0])
    assert ARM.limit(asked, np.zeros(5)).tolist() == [0, 1, 0, 0, 1]
    assert ARM.limit(np.zeros(5), np.zeros(5)).tolist() == [1, 0, 0, 1, 0]  # ties are decided


def test_zero_is_the_choice_of_each_that_stops_and_one_number_stands_for_all():
    assert ARM.zero_command.tolist() == [0.0, 1.0]
    same = ActionSpec.several_choices((3, 2), noop=1)
    assert (same.noop, same.zero_command.tolist()) == ((1, 1), [1.0, 1.0])
    assert ActionSpec.several_choices((3, 2)) == ActionSpec.several_choices((3, 2), noop=(0, 0))


def test_random_choices_are_uniform_and_independent():
    rng = np.random.default_rng(0)
    drawn = np.stack([ARM.random(rng) for _ in range(1200)])
    assert ARM.is_chosen(drawn).all()
    both = drawn[:, :3, None] * drawn[:, None, 3:]
    assert both.sum(0).min() > 150  # of 200 expected


def test_one_choice_draws_and_is_written_exactly_as_before():
    one = ActionSpec.choices(4, noop=2)
    a, b = np.random.default_rng(7), np.random.default_rng(7)
    drawn = [int(one.random(a).argmax()) for _ in range(20)]
    assert drawn == [int(b.integers(4)) for _ in range(20)]
    text = '{"low":[0.0,0.0],"high":[1.0,1.0],"names":[],"units":[],"max_change":2.0,'
    text += '"discrete":true,"noop":1}'
    assert ActionSpec.choices(2, noop=1).model_dump_json() == text
    assert ActionSpec.model_validate_json(text) == ActionSpec.choices(2, noop=1)
    assert json.loads(SPEC.model_dump_json())["action"]["groups"] == [3, 2]
    assert Spec.model_validate_json(SPEC.model_dump_json()) == SPEC


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": (3, 3)}, "groups: expected two or more"),
        ({"groups": (5,)}, "groups: expected two or more"),
        ({"groups": (4, 1)}, "each of at least 2 choices"),
        ({"groups": (3, 2), "discrete": False}, "groups are of choices"),
        ({"noop": (0, 2)}, "noop must be one of the choices"),
        ({"noop": 2}, "noop must be one of the choices"),
        ({"noop": (0, 0, 0)}, "noop must be one of the choices"),
        ({"noop": (0, 0), "groups": ()}, "noop must be one of the choices"),
        ({"noop": (0, -1)}, "greater than or equal to 0"),
        ({"names": ("a", "b")}, "expected 5 names"),
    ],
)
def test_impossible_groups_are_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        ActionSpec(**ARM.model_dump() | change)


# ------------------------------------------------------------------------------ steps, the runner


def test_a_step_may_be_learnt_from_where_every_choice_is_made_or_nothing_was_sent():
    good = [chosen(2, 0), np.zeros(5)]
    bad = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0.5, 0.5, 0, 1, 0], [np.nan] * 5]
    assert (
        usable(ARM, {}, np.array([*good, *bad], np.float32)).tolist() == [True] * 2 + [False] * 5
    )
    assert usable(ARM, {}, np.zeros((0, 5), np.float32)).shape == (0,)
    assert usable(ARM, {}, np.zeros((2, 3, 5), np.float32)).all()


def test_what_was_sent_has_to_be_one_of_each_choice():
    check_sent(ARM, chosen(1, 1))
    check_sent(ARM, np.zeros(5, np.float32))
    for wrong in ([0, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]):
        with pytest.raises(SpecMismatch, match="one of each of the choices of 3 and 2"):
            check_sent(ARM, np.array(wrong, np.float32))


def test_a_policy_of_several_choices_runs_and_conforms(publish):
    runner = check_policy(publish())
    out = PolicyEngine(runner, seed=0).act(SPEC.zeros(), chosen(0, 0), True)
    assert ARM.is_chosen(out.action)
    np.testing.assert_array_equal(out.command, ARM.to_physical(out.action))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("OneHot(best_grip, two, values)", "Identity(grip)", "one-hot over each of the choices"),
        ("(column_turn, column_grip)", "(column_grip, column_turn)", "command .* is not the act"),
    ],
)
def test_a_policy_that_makes_one_choice_badly_is_named(publish, right, wrong, said):
    folder = publish(GRAPH.replace(right, wrong), **{"gap/action": None})
    with pytest.raises((AssertionError, PolicyRefused), match=said):
        check_policy(folder)


def other_grip(action, step=4):
    action[step, 3:] = action[step, :2:-1]
    return action


def other_command(command, step=4):
    command[step, 1] = 1 - command[step, 1]
    return command


def tied(step, choice):
    def change(gaps):
        gaps[step, choice] = 1e-6
        return gaps

    return change


def test_only_the_choice_that_was_tied_may_fall_otherwise(publish):
    flip = {"out/action": other_grip, "out/command": other_command}
    for gap in ({}, {"gap/action": tied(4, 0)}):  # a tie of the other choice excuses nothing
        with pytest.raises(PolicyRefused, match="golden step 4: 'action' was drawn differently"):
            PolicyRunner.load(publish(**flip, **gap))
    PolicyRunner.load(publish(**flip, **{"gap/action": tied(4, 1)}))


def test_a_rollout_whose_ties_are_not_one_for_each_choice_is_refused(publish):
    with pytest.raises(PolicyRefused, match="golden rollout is not usable"):
        PolicyRunner.load(
            publish(**{"out/action": other_grip, "gap/action": lambda gaps: gaps[:, :1]})
        )


# ------------------------------------------------------------------------------------ one's tasks


class Levers(gymnasium.Env):
    """Shows the sum of the indices that were chosen; refuses what is not of its space."""

    observation_space = spaces.Dict({"sum": spaces.Box(-9.0, 99.0, (1,), np.float32)})
    metadata = {"render_fps": 10}  # noqa: RUF012

    def __init__(self, action_space):
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"sum": np.zeros(1, np.float32)}, {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return {"sum": np.array([np.sum(action)], np.float32)}, 0.0, False, False, {}


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([3, 2], start=[1, -1]),
        spaces.MultiDiscrete([[3, 2], [2, 2]]),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
        spaces.Discrete(3, start=2),
    ],
    ids=str,
)
def test_the_kit_tries_a_task_with_choices_of_its_space(space):
    conformance.check_env(Levers(space))
    rng = np.random.default_rng(0)
    drawn = [conformance._draw(space, rng) for _ in range(40)]
    assert len({np.asarray(one).tobytes() for one in drawn}) > 2


def test_a_choice_of_one_is_none():
    with pytest.raises(AssertionError, match="at least two choices"):
        conformance.check_env(Levers(spaces.MultiDiscrete([3, 1])))
