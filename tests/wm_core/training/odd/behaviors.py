"""Environments that behave oddly: each does one thing that a user's environment may do.

Every one is a small change of ``Plain``; those in ``GOOD`` can be trained on, those in ``BAD`` end
a run with one line.
"""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
from gymnasium import spaces

GOOD: dict[str, type[gymnasium.Env]] = {}
BAD: dict[str, tuple[type[gymnasium.Env], str]] = {}  #: class, and a part of the line


class Plain(gymnasium.Env):
    """A place that the action moves, in episodes of ten steps."""

    metadata = {"render_fps": 10, "render_modes": []}  # noqa: RUF012
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    length = 10

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.x = 0, float(self.np_random.uniform(-1, 1))
        return self.obs(), {}

    def step(self, action):
        self.t += 1
        self.x = float(np.clip(self.x + 0.1 * action[0], -1, 1))
        return self.obs(), self.reward(), self.ends(), self.is_cut(), self.info()

    def obs(self):
        return np.array([self.x, self.t / 10], np.float32)

    def reward(self):
        return 1.0 - abs(self.x)

    def ends(self):
        return False

    def is_cut(self):
        return self.t >= self.length

    def info(self):
        return {}


def good(kind):
    GOOD[kind.__name__] = kind
    return kind


def bad(said):
    def keep(kind):
        BAD[kind.__name__] = (kind, said)
        return kind

    return keep


def good_with(name, **methods):
    """A ``Plain`` with other ``methods``, which can be trained on."""
    GOOD[name] = type(name, (Plain,), methods)


def bad_with(name, said, **methods):
    """A ``Plain`` with other ``methods``, which ends with a line that has ``said`` in it."""
    BAD[name] = (type(name, (Plain,), methods), said)


# ------------------------------------------------------------------------- lengths of episodes
good_with("OneStep", length=1)
good_with("CutAtTheFirstStep", is_cut=lambda self: True)
good_with("TwoSteps", length=2)
good_with("TerminatesAndIsCutAtOnce", ends=lambda self: self.t >= 10)
good_with("NoLimit", is_cut=lambda self: False)
good_with("EndsAreNumpyBools", is_cut=lambda self: np.bool_(self.t >= 10))
good_with("EndsAreWholeNumbers", is_cut=lambda self: int(self.t >= 10))
good_with("EndsInAnArray", is_cut=lambda self: np.array([self.t >= 10]))
bad_with("EndIsNone", "step() returned terminated 'None'", ends=lambda self: None)
bad_with("EndIsText", "step() returned truncated 'no'", is_cut=lambda self: "no")
bad_with("EndIsAnotherNumber", "step() returned terminated '7'", ends=lambda self: 7)

# ------------------------------------------------------------------------------------- rewards
good_with("RewardIsWhole", reward=lambda self: 3)
good_with("RewardIsABool", reward=lambda self: True)
good_with("RewardIsNumpy", reward=lambda self: np.float64(0.5))
good_with("RewardInAnArrayOfOne", reward=lambda self: np.array([0.5], np.float32))
good_with("RewardInAnArrayOfNone", reward=lambda self: np.array(0.5))
good_with("RewardIsConstantZero", reward=lambda self: 0.0)
good_with("RewardIsLarge", reward=lambda self: 1e6)
good_with("RewardIsSometimesNan", reward=lambda self: np.nan if self.t == 5 else 0.5)
good_with("RewardIsSometimesInfinite", reward=lambda self: -np.inf if self.t == 5 else 0.5)
bad_with("RewardIsNone", "step() returned the reward 'None'", reward=lambda self: None)
bad_with("RewardIsText", "step() returned the reward '1.0' (str)", reward=lambda self: "1.0")
bad_with("RewardIsAnArray", "expected one number", reward=lambda self: np.zeros(2))
bad_with("RewardIsComplex", "expected one number", reward=lambda self: 1 + 2j)
bad_with("RewardIsBeyondFloats", "expected one number", reward=lambda self: 10**400)


# -------------------------------------------------------------------------------- observations
good_with("ObservationIsConstant", obs=lambda self: np.zeros(2, np.float32))
good_with("ObservationIsLarge", obs=lambda self: np.full(2, 1e6, np.float32))
good_with(
    "ObservationIsSometimesNan",
    obs=lambda self: np.array([np.nan if self.t == 5 else self.x, 0.0], np.float32),
)
good_with("ObservationIsAList", obs=lambda self: [self.x, 0.0])
bad_with(
    "ObservationOfAnotherShape", "expected (2,) float32, got (3,)", obs=lambda self: np.zeros(3)
)
bad_with("ObservationIsNone", "expected (2,) float32, got None", obs=lambda self: None)
bad_with("ObservationIsText", "expected (2,) float32, got str", obs=lambda self: "left")


@good
class ReusedBuffer(Plain):
    """The same array every time, overwritten."""

    def reset(self, **kwargs):
        self.buffer = np.zeros(2, np.float32)
        return super().reset(**kwargs)

    def obs(self):
        self.buffer[:] = self.x, self.t
        return self.buffer


@bad("expected the key 'place'")
class MissingKey(Plain):
    observation_space = spaces.Dict({"place": spaces.Box(-1, 1, (1,), np.float32)})

    def obs(self):
        return {"plaice": np.zeros(1, np.float32)}


@good
class MoreKeysThanStated(Plain):
    observation_space = spaces.Dict({"place": spaces.Box(-1, 1, (1,), np.float32)})

    def obs(self):
        return {"place": np.zeros(1, np.float32), "secret": object()}


@good
class ChangesItsSpace(Plain):
    """The space that is stated at first counts."""

    def step(self, action):
        self.observation_space = spaces.Box(-1, 1, (7,), np.float32)
        return super().step(action)


# ------------------------------------------------------------------------- Gymnasium's interface
@bad("reset() returned one ndarray, expected (obs, info)")
class OldReset(Plain):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


@bad("step() returned 4 values (ndarray, float, bool, dict), expected (obs, reward, terminated")
class OldStep(Plain):
    def step(self, action):
        obs, reward, _, cut, info = super().step(action)
        return obs, reward, cut, info


@bad("reset() takes no seed and no options")
class ResetWithoutSeed(Plain):
    def reset(self):
        return super().reset()


@bad("reset() takes no options")
class ResetWithoutOptions(Plain):
    def reset(self, seed=None):
        return super().reset(seed=seed)


@good
class IgnoresItsSeed(Plain):
    def reset(self, *, seed=None, options=None):
        return super().reset()


bad_with("InfoIsNone", "step() returned info 'None'", info=lambda self: None)
bad_with("InfoIsAList", "step() returned info '[]'", info=lambda self: [])


@bad("step() returned one NoneType")
class StepReturnsNothing(Plain):
    def step(self, action):
        super().step(action)


# --------------------------------------------------------------------------------------- raises
@bad("its constructor raised RuntimeError: no simulator")
class RaisesWhenMade(Plain):
    def __init__(self):
        raise RuntimeError("no simulator")


@bad("reset() raised OSError: no port")
class RaisesAtReset(Plain):
    def reset(self, **kwargs):
        raise OSError("no port")


@bad("step() raised ZeroDivisionError")
class RaisesAtEveryStep(Plain):
    def step(self, action):
        return 1 / 0


@bad("step() raised SystemExit")
class Exits(Plain):
    def step(self, action):
        sys.exit(3)


@good
class RaisesNowAndThen(Plain):
    steps = 0

    def step(self, action):
        type(self).steps += 1
        if self.steps % 25 == 0:
            raise ConnectionError("the simulator went away\nfor a moment")
        return super().step(action)


@good
class RaisesWhenClosed(Plain):
    def close(self):
        raise RuntimeError("never closes")


# ------------------------------------------------------------------------------ spaces, metadata
@bad("its action_space is None")
class NoActionSpace(Plain):
    action_space = None


@bad("its observation_space is None")
class NoObservationSpace(Plain):
    observation_space = None


good_with("NoMetadata", metadata={})
good_with("RateIsNone", metadata={"render_fps": None})
bad_with("RateIsText", "render_fps is 'fast'", metadata={"render_fps": "fast"})
bad_with("RateIsZero", "render_fps is 0", metadata={"render_fps": 0})
bad_with("RateIsNegative", "render_fps is -1", metadata={"render_fps": -1})
bad_with("RateIsNan", "render_fps is nan", metadata={"render_fps": float("nan")})


# ------------------------------------------------------------------------------------ the rest
@good
class Prints(Plain):
    def step(self, action):
        print("moved", action)  # noqa: T201
        return super().step(action)


@good
class KeepsEverything(Plain):
    kept: list = []  # noqa: RUF012

    def obs(self):
        self.kept.append(np.zeros(10_000))
        return super().obs()


@good
class ChangesTheActionItGets(Plain):
    def step(self, action):
        action[:] = 9
        return super().step(np.zeros(1))


for _name, _kind in {**GOOD, **{name: kind for name, (kind, _) in BAD.items()}}.items():
    gymnasium.register(f"Odd{_name}-v0", _kind)
