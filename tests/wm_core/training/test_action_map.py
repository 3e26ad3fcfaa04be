"""Spaces of actions: what a policy chooses, and the element that the environment gets."""

import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import SettingsError
from wm_core.training.spaces import ActionMap

ARM = spaces.Dict(
    {
        "arm": spaces.Box(-2.0, 2.0, (2,), np.float32),
        "hand": spaces.Tuple([spaces.Box(0.0, 1.0, (), np.float64)]),
    }
)
KEYS = spaces.Tuple([spaces.Discrete(3, start=5), spaces.MultiBinary(2)])

EVERY = [
    spaces.Box(-1.0, 3.0, (2,), np.float32),
    spaces.Box(-1.0, 3.0, (2, 3), np.float64),
    spaces.Box(-1.0, 3.0, (), np.float16),
    spaces.Box(-3, 4, (2,), np.int64),
    spaces.Box(0, 255, (3,), np.uint8),
    spaces.Box(0, 1, (2,), np.bool_),
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([3, 2, 5]),
    spaces.MultiDiscrete([[2, 3], [4, 1]]),
    spaces.MultiDiscrete([3, 2], start=[1, 7]),
    spaces.MultiDiscrete([4]),
    spaces.MultiBinary(3),
    spaces.MultiBinary(1),
    spaces.MultiBinary((2, 2)),
    ARM,
    KEYS,
]


@pytest.mark.parametrize("space", EVERY, ids=str)
def test_every_action_is_an_element_of_the_space_and_leads_back(space):
    actions, rng = ActionMap(space, {}), np.random.default_rng(0)
    for _ in range(30):
        action = actions.spec.random(rng)
        element = actions.to_env(action)
        assert space.contains(element), element
        again = actions.to_env(actions.from_env(element))
        assert str(again) == str(element)
    ends = np.ones(actions.spec.size, np.float32)
    for action in (ends, -ends):
        assert space.contains(actions.to_env(action))


@pytest.mark.parametrize("space", EVERY, ids=str)
def test_every_element_can_be_reached(space):
    actions = ActionMap(space, {})
    space.seed(0)
    for _ in range(20):
        element = space.sample()
        back = actions.to_env(actions.from_env(element))
        for a, b in zip(_flat(space, back), _flat(space, element), strict=True):
            np.testing.assert_allclose(a, b, atol=4e-3)


def _flat(space, element):
    return [np.asarray(x, float) for x in np.atleast_1d(spaces.flatten(space, element))]


def test_whole_numbers_have_equal_shares():
    actions = ActionMap(spaces.Box(-1, 2, (1,), np.int32), {})
    got = [int(actions.to_env(np.float32([x]))[0]) for x in np.linspace(-1, 1, 401)]
    counts = np.bincount(np.array(got) + 1)
    assert len(counts) == 4
    assert counts.min() >= 99
    assert (got[0], got[-1]) == (-1, 2)


def test_a_number_that_is_none_does_not_become_a_wild_whole_number():
    space = spaces.Box(-5, 5, (2,), np.int64)
    assert space.contains(ActionMap(space, {}).to_env(np.float32([np.nan, np.inf])))


def test_several_choices_are_groups_and_one_option_is_no_choice():
    actions = ActionMap(spaces.MultiDiscrete([3, 1, 2]), {"action_noop": [1, 0, 1]})
    assert (actions.spec.groups, actions.spec.noop) == ((3, 2), (1, 1))
    assert actions.to_env(np.float32([0, 0, 1, 1, 0])).tolist() == [2, 0, 0]
    assert ActionMap(spaces.MultiDiscrete([4, 1]), {}).spec.size == 4
    assert ActionMap(spaces.MultiBinary(3), {}).spec.groups == (2, 2, 2)


def test_what_is_nested_is_named_by_its_keys():
    actions = ActionMap(ARM, {})
    assert actions.spec.names == ("arm.0", "arm.1", "hand.0")
    element = actions.to_env(np.float32([1, -1, 0]))
    assert element["arm"].tolist() == [2, -2]
    assert element["hand"] == (0.5,)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "finite bounds.*got -inf .. inf for number 0"),
        (
            spaces.Box(np.float32([-1, -3e38]), np.float32([1, 3e38])),
            "got -3e.38 .. 3e.38 for.* 1",
        ),
        (spaces.Box(1, 1, (2,)), "each low below its high, got 1 .. 1"),
        (spaces.Box(1e9, 1e9 + 1, (1,), np.float64), "each low below its high"),
        (spaces.Box(0, 2**62, (1,), np.int64), r"within 1e\+12"),
        (spaces.Box(-1, 1, (0,)), "1 to 65536 numbers"),
        (spaces.Discrete(1), "at least 2 choices of action, got Discrete.1.* nothing to choose"),
        (spaces.MultiDiscrete([1, 1]), "at least 2 choices"),
        (spaces.Discrete(70_000), "at most 65536 choices"),
        (spaces.Text(3), "expected a Box with bounds, Discrete.* got Text"),
        (spaces.Sequence(spaces.Discrete(2)), "got Sequence"),
        (spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Box(-1, 1, (1,))}), "of choices alone"),
        (spaces.Dict({}), "of choices alone"),
        (spaces.Dict({"a": spaces.Box(-np.inf, 1, (1,))}), "action 'a': expected finite bounds"),
    ],
    ids=str,
)
def test_a_space_that_no_policy_can_act_in_is_refused_in_one_line(space, said):
    with pytest.raises(SettingsError, match=said) as caught:
        ActionMap(space, {})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "about",
    [
        {"action_names": ["one"]},
        {"action_names": 3},
        {"action_noop": 9},
        {"action_noop": "stop"},
        {"action_noop": [0, 0]},
    ],
)
def test_metadata_that_does_not_fit_is_named(about):
    with pytest.raises(SettingsError, match="action") as caught:
        ActionMap(spaces.Discrete(3), about)
    assert "\n" not in str(caught.value)
