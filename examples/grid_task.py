"""Define a small board game of your own: reach the goal on a 5 x 5 grid, seen as an image.

The agent begins in a random cell, the goal in the last one or, as Grid-v0 with random_goal=true,
in a random one too; an action moves the agent by one cell. Reaching the goal ends the episode with
a reward of 1, less what the moves cost. Importing this module registers the task:

    PYTHONPATH=examples wm train --task grid_task:Grid-v0 --env.image-size 32 --run runs/grid
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

CELLS = 5  #: along each side
CELL_PX = 6
EPISODE_STEPS = 20
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])  #: rows, columns of each action
FLOOR, AGENT, GOAL = (40, 40, 40), (255, 60, 0), (0, 200, 80)


class Grid(gymnasium.Env[np.ndarray, np.int64]):
    """Move to the goal by the shortest way.

    The only reward is 1 - 0.9 t / ``EPISODE_STEPS`` on reaching the goal after t moves, as in
    MiniGrid's empty room. The expert, which takes the shortest way, gets 0.81 on average.

    Args:
        random_goal: draw the goal's cell anew for every episode.
    """

    metadata = {  # noqa: RUF012
        "render_modes": [],
        "render_fps": 5.0,
        "action_names": ("up", "down", "left", "right"),
    }

    def __init__(self, random_goal: bool = False) -> None:
        self._random_goal = random_goal
        side = CELLS * CELL_PX
        self.observation_space = spaces.Box(0, 255, (side + 2, side + 2, 3), np.uint8)
        self.action_space = spaces.Discrete(len(MOVES))  # type: ignore[assignment]
        self._agent = self._goal = np.zeros(2, int)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode with agent and goal in two different cells."""
        super().reset(seed=seed)
        goal = CELLS * CELLS - 1
        if self._random_goal:
            goal = int(self.np_random.integers(CELLS * CELLS))
        agent = (goal + int(self.np_random.integers(1, CELLS * CELLS))) % (CELLS * CELLS)
        self._agent, self._goal = (np.array(divmod(cell, CELLS)) for cell in (agent, goal))
        self._steps = 0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move by one cell; the wall stops the agent."""
        self._agent = np.clip(self._agent + MOVES[int(action)], 0, CELLS - 1)
        self._steps += 1
        reached = bool((self._agent == self._goal).all())
        reward = 1.0 - 0.9 * self._steps / EPISODE_STEPS if reached else 0.0
        return self._observe(), reward, reached, self._steps >= EPISODE_STEPS, {"success": reached}

    def expert_action(self) -> np.int64:
        """Take the shortest way, rows first."""
        row, column = self._goal - self._agent
        return np.int64((0 if row < 0 else 1) if row else (2 if column < 0 else 3))

    def _observe(self) -> np.ndarray:
        side = CELLS * CELL_PX
        image = np.full((side + 2, side + 2, 3), FLOOR, np.uint8)
        for (row, column), colour in ((self._goal, GOAL), (self._agent, AGENT)):
            top, left = 1 + row * CELL_PX, 1 + column * CELL_PX
            image[top : top + CELL_PX, left : left + CELL_PX] = colour
        return image


gymnasium.register("Grid-v0", entry_point="grid_task:Grid", disable_env_checker=True)
