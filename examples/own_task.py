"""Define a task of your own: a Gymnasium environment with an image and a continuous action.

A dot starts in the middle of a corridor, one end of which is lit. The reward is higher towards the
lit end, so a policy must look where the light is. Importing this module registers the task; then

    PYTHONPATH=examples wm tasks own_task:Corridor-v0
    PYTHONPATH=examples wm train --task own_task:Corridor-v0 --size micro --run runs/corridor

describe and train it, as does `wm.train("runs/corridor", task="own_task:Corridor-v0")` in Python.
It needs nothing but NumPy and takes microseconds per step, so it is also a quick test of a change
to the learner.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

PERIOD_S = 0.1  #: of an agent step
EPISODE_STEPS = 25
SPEED_M_S = 3.0  #: at full action; the corridor is 2 m long
DOT_PX = 8
DARK, LIT, DOT = 40, 200, (255, 60, 0)


class Corridor(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Move the dot to the lit end.

    The action is the dot's speed in m/s. The reward of a step is where the dot is: 1 at the lit
    end, 0 in the middle, -1 at the dark end. A random policy gets about 0 and the best one about
    22 in an episode of ``EPISODE_STEPS``.

    Args:
        image_size: height and width of the image in pixels.
    """

    # `render_fps` is the one thing that the project asks for beyond Gymnasium's rules: the rate of
    # agent steps in Hz. Names and units of the action are for people and for the policy's card.
    metadata = {  # noqa: RUF012
        "render_modes": [],
        "render_fps": 1.0 / PERIOD_S,
        "action_names": ("speed",),
        "action_units": ("m/s",),
    }

    def __init__(self, image_size: int = 64) -> None:
        self._size = image_size
        self.observation_space = spaces.Dict(  # type: ignore[assignment]
            {"image": spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)}
        )
        self.action_space = spaces.Box(-SPEED_M_S, SPEED_M_S, (1,), np.float32)
        self._x_m, self._lit_side, self._steps = 0.0, 1, 0

    @property
    def lit_side(self) -> int:
        """-1 where the left end is lit, 1 where the right one is."""
        return self._lit_side

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode: dot in the middle, light at either end."""
        super().reset(seed=seed)
        self._x_m, self._steps = 0.0, 0
        self._lit_side = 1 if self.np_random.random() < 0.5 else -1
        return self._observe(), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move for one period; episodes end by the time limit only, so they are truncated."""
        speed_m_s = float(np.clip(action[0], -SPEED_M_S, SPEED_M_S))
        self._x_m = float(np.clip(self._x_m + speed_m_s * PERIOD_S, -1.0, 1.0))
        self._steps += 1
        reward = self._lit_side * self._x_m
        return self._observe(), reward, False, self._steps >= EPISODE_STEPS, {}

    def _observe(self) -> dict[str, np.ndarray]:
        size = self._size
        image = np.full((size, size, 3), DARK, np.uint8)
        lit = slice(size // 2, None) if self._lit_side > 0 else slice(None, size // 2)
        image[:, lit] = LIT
        left = round((self._x_m + 1.0) / 2.0 * (size - DOT_PX))
        top = (size - DOT_PX) // 2
        image[top : top + DOT_PX, left : left + DOT_PX] = DOT
        return {"image": image}


gymnasium.register("Corridor-v0", entry_point="own_task:Corridor", disable_env_checker=True)
