"""The kits pass what is right and name what is wrong."""

import hashlib

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.conformance import check_env, check_policy


def test_a_good_policy_passes(folder):
    assert check_policy(folder).card.version == 3


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("near = Min(above, up)", "near = Identity(above)", "action moved by"),
        (
            "action = Clip(near, low_end, one)",
            "action = Mul(near, two)",
            r"leaves \[-1, 1\]|moved",
        ),
        ("command = Mul(raised, two)", "command = Mul(raised, one)", "command .* is not the act"),
        ("keep = Sub(one, first)", "keep = Add(one, none)", "nothing before is_first"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_named(
    tmp_path, model_of, golden_for, write, graph, right, wrong, said
):
    graph = graph.replace(right, wrong)
    golden = golden_for(model_of(graph=graph))
    model = model_of(graph=graph, golden_sha256=hashlib.sha256(golden).hexdigest())
    folder = write(tmp_path / "policy", golden=golden, model=model)
    with pytest.raises(Exception, match=said) as caught:
        check_policy(folder)
    assert caught.type.__name__ in ("AssertionError", "PolicyRefused")


class Spot(gymnasium.Env):
    """A bright spot that the action moves."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
            "place": spaces.Box(-1.0, 1.0, (1,), np.float32),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1), 0
        return self.seen(), {}

    def step(self, action):
        self.x = float(np.clip(self.x + action[0], -1, 1))
        self.t += 1
        return self.seen(), self.x, False, self.t >= 7, {}

    def seen(self):
        image = np.zeros((8, 8, 3), np.uint8)
        image[:, int((self.x + 1) * 3.5)] = 255
        return {"image": image, "place": np.array([self.x], np.float32)}


class Unseeded(Spot):
    def reset(self, *, seed=None, options=None):
        return super().reset()


class Lending(Spot):
    def __init__(self):
        self.image = np.zeros((8, 8, 3), np.uint8)

    def seen(self):
        self.image[:] = super().seen()["image"]
        return super().seen() | {"image": self.image}


class Blind(Spot):
    def seen(self):
        return super().seen() | {"image": np.zeros((8, 8, 3), np.uint8)}


class Frozen(Spot):
    def seen(self):
        image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        return super().seen() | {"image": image}


class Priceless(Spot):
    def step(self, action):
        obs, _, *rest = super().step(action)
        return (obs, float("nan"), *rest)


class Undecided(Spot):
    def step(self, action):
        obs, reward, _, truncated, info = super().step(action)
        return obs, reward, None, truncated, info


class Boundless(Spot):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Choosing(Spot):
    action_space = spaces.Discrete(3, start=5)

    def step(self, action):
        assert action in (5, 6, 7)
        return super().step([0.5 * (action - 6)])


class Certain(Spot):
    action_space = spaces.Discrete(1)


class Several(Spot):
    action_space = spaces.Box(-1.0, 1.0, (3, 2))


class Rateless(Spot):
    metadata = {"render_fps": None}  # noqa: RUF012


class Bare(Spot):
    observation_space = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Doubles(Spot):
    observation_space = spaces.Dict({"place": spaces.Box(-1.0, 1.0, (1,), np.float64)})


def test_a_good_environment_passes():
    check_env(Spot())
    check_env(Choosing())


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (Unseeded, "equal seeds"),
        (Lending, "handed out before"),
        (Blind, "one colour"),
        (Frozen, "never changes"),
        (Priceless, "reward nan is not finite"),
        (Undecided, "must be bools"),
        (Boundless, "finite bounds"),
        (Certain, "at least two choices"),
        (Several, "1-D Box"),
        (Rateless, "render_fps"),
        (Bare, "Dict observation space"),
        (Doubles, "float64"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Box (low|high)'s precision lowered")
def test_an_environment_that_breaks_a_rule_is_named(env, said):
    with pytest.raises(AssertionError, match=said):
        check_env(env())
