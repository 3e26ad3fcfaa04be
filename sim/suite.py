"""Steps and renders the dm_control tasks of the vision benchmark without its overhead.

dm_control's ``Environment.step`` builds an observation after every control step; here it is built
once per agent step, and only when ``proprio`` asks for it. Dynamics, rewards and episode ends are
dm_control's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from sim.pixel_task import PixelTask

EPISODE_STEPS = 1000  #: control steps, in every task of the suite
ACTION_REPEAT = 2
#: the side view in nearly all models; the quadruped is followed by its third camera
DEFAULT_CAMERA, CAMERAS = 0, {"quadruped_run": 2, "quadruped_walk": 2}


class SuiteTask(PixelTask):
    """Is one task of dm_control's suite, seen by the camera that the vision benchmark uses.

    Actions are in actuator units within the model's control range. ``proprio`` is the task's own
    observation, flattened in its own order. Episodes are truncated after ``EPISODE_STEPS`` control
    steps; none of the twenty tasks terminates earlier.

    Args:
        name: domain and task such as ``cartpole_swingup``.
        image_size: height and width of the image in pixels.
        proprio: whether observations have ``proprio`` too.
        action_repeat: control steps per agent step; None is 2.
        render_mode: None or ``rgb_array``.
    """

    def __init__(
        self,
        name: str,
        image_size: int = 64,
        proprio: bool = False,
        action_repeat: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        self._env = load(name)
        self._task, self._physics = self._env.task, self._env.physics
        self._substeps = round(self._env.control_timestep() / self._physics.timestep())
        spec = self._env.action_spec()
        self._env.reset()  # some observations need a state to be measured in
        super().__init__(
            self._physics.model.ptr,
            self._physics.data.ptr,
            camera=camera_of(name),
            action_space=spaces.Box(
                spec.minimum.astype(np.float32), spec.maximum.astype(np.float32), dtype=np.float32
            ),
            proprio_size=self._measure().size,
            control_s=self._env.control_timestep(),
            control_steps=EPISODE_STEPS,
            action_repeat=ACTION_REPEAT if action_repeat is None else action_repeat,
            image_size=image_size,
            proprio=proprio,
            render_mode=render_mode,
            about={"suite": split(name), "camera": camera_of(name)},
        )
        self._seeded = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        if seed is not None:
            self._seeded = False
        return super().reset(seed=seed, options=options)

    def _restart(self, rng: np.random.Generator) -> None:
        if not self._seeded:  # the task draws from a generator of its own, seeded once from ours
            self._task.random.seed(int(rng.integers(2**32)))
            self._seeded = True
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        self._task.before_step(action, self._physics)
        self._physics.step(self._substeps)
        self._task.after_step(self._physics)
        reward = float(self._task.get_reward(self._physics))
        return reward, self._task.get_termination(self._physics) == 0.0

    def _measure(self) -> np.ndarray:
        parts = self._task.get_observation(self._physics).values()
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def camera_of(name: str) -> int:
    """Return the index of the camera through which the vision benchmark sees task ``name``."""
    return CAMERAS.get(name, DEFAULT_CAMERA)


def load(name: str) -> Any:
    """Make dm_control's own environment of the task ``name``, such as ``ball_in_cup_catch``."""
    from dm_control import suite

    domain, task = split(name)
    return suite.load(domain, task)


def split(name: str) -> tuple[str, str]:
    """Split ``name`` into the domain and the task of dm_control."""
    head = "ball_in_cup" if name.startswith("ball_in_cup") else name.split("_", 1)[0]
    return head, name[len(head) + 1 :]
