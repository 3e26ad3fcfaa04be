"""A task whose numbers say where they belong: a step's reward is the action that led to it.

The image's first pixel holds the step within the episode and the episode's number.
"""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces

STEPS = 12  #: of an episode


class CountingTask(gymnasium.Env):
    def __init__(self, size: int = 32, fps: float = 25.0, bad_reward_at: int = -1) -> None:
        self.metadata = {"render_modes": [], "render_fps": fps}
        self.action_space = spaces.Box(
            np.array([-0.5, -2.0], np.float32), np.array([1.0, 2.0], np.float32)
        )
        self.observation_space = spaces.Dict(
            {"image": spaces.Box(0, 255, (size, size, 3), np.uint8)}
        )
        self._size, self._episode, self._step, self._bad = size, -1, 0, bad_reward_at

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._episode, self._step = self._episode + 1, 0
        return self._observe(), {}

    def step(self, action):
        self._step += 1
        reward = float("nan") if self._step == self._bad else float(action[0])
        terminated = self._step == STEPS and self._episode % 2 == 1
        return self._observe(), reward, terminated, self._step >= STEPS and not terminated, {}

    def _observe(self):
        image = np.full((self._size, self._size, 3), 90 + self._step % 2, np.uint8)
        image[0, 0] = (self._step, self._episode % 256, 7)
        return {"image": image}


class ChoosingTask(CountingTask):
    """The same with four choices that the environment numbers from 10; the reward is the index."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.action_space = spaces.Discrete(4, start=10)

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step([action - 10])


class LeversTask(CountingTask):
    """The same with three levers of three, one and two positions, numbered from 10, 7 and 5.

    The reward counts 2 for each position of the first and 1 for that of the last.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.metadata |= {"action_noop": (1, 0, 0)}
        self.action_space = spaces.MultiDiscrete([3, 1, 2], start=[10, 7, 5])

    def step(self, action):
        assert self.action_space.contains(action)
        assert action[1] == 7
        return super().step([2 * (action[0] - 10) + action[2] - 5])


class MeasuringTask(CountingTask):
    """The same with two vectors whose numbers have names."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.metadata |= {"state_names": ("height", "tilt"), "vector_names": ("light",)}
        inputs = dict(self.observation_space.spaces)
        for name, size in (("state", 2), ("vector", 1)):
            inputs[name] = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.observation_space = spaces.Dict(inputs)

    def _observe(self):
        state, vector = np.array([0.25, -0.5], np.float32), np.array([0.75], np.float32)
        return {**super()._observe(), "state": state, "vector": vector}


class PlainTask(gymnasium.Env):
    """A vector alone, until it is drawn."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.full(2, 0.5), {}

    def step(self, action):
        return np.full(2, 0.25), 1.0, False, False, {}

    def render(self):
        return np.full((48, 40, 3), 9, np.uint8)


for name, made in {
    "Counting": CountingTask,
    "Choosing": ChoosingTask,
    "Levers": LeversTask,
    "Measuring": MeasuringTask,
    "Plain": PlainTask,
}.items():
    gymnasium.register(f"{name}-v0", made, order_enforce=False, disable_env_checker=True)
