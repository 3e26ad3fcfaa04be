"""Defines what the simulated robots share: any number of cameras, measurements by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from sim.camera import Camera

Obs = dict[str, np.ndarray]


class RobotTask(gymnasium.Env[Obs, np.ndarray]):
    """Is a robot with several cameras or none, whose measurements have names.

    A subclass defines in ``_restart`` how an episode begins, in ``_advance`` what an agent step
    does and its reward, and in ``_measure`` the vectors of an observation.

    Args:
        model: MuJoCo model.
        cameras: of the model, by the names of the images.
        measured: names of the numbers of each vector, by the vector's name.
        low: (A,) least action in physical units.
        high: (A,) greatest action.
        period_s: of one agent step.
        steps: after which an episode is truncated.
        image_size: height and width of every image in pixels.
        render_mode: None or ``rgb_array``.
        about: more entries of ``metadata``, such as the names of the action's elements.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        model: mujoco.MjModel,
        *,
        cameras: Mapping[str, str],
        measured: Mapping[str, tuple[str, ...]],
        low: np.ndarray,
        high: np.ndarray,
        period_s: float,
        steps: int,
        image_size: int,
        render_mode: str | None,
        about: dict[str, Any],
    ) -> None:
        fps = round(1.0 / period_s, 6)
        names = {"vector_names": dict(measured)}
        self.metadata = {**type(self).metadata, **about, **names, "render_fps": fps}
        self.render_mode = render_mode
        self._model, self._data = model, mujoco.MjData(model)
        self._substeps, self._limit = round(period_s / model.opt.timestep), steps
        self._taken: int | None = None  # steps of this episode; None: reset is needed
        self._cameras = {
            name: Camera(model, size=image_size, camera=model.camera(camera).id)
            for name, camera in cameras.items()
        }
        shape = (image_size, image_size, 3)
        inputs: dict[str, spaces.Space[Any]] = {
            name: spaces.Box(0, 255, shape, np.uint8) for name in cameras
        }
        for name, numbers in measured.items():
            inputs[name] = spaces.Box(-np.inf, np.inf, (len(numbers),), np.float32)
        self.observation_space = spaces.Dict(inputs)  # type: ignore[assignment]
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Begin an episode and return its first observation; ``options`` has no effect."""
        super().reset(seed=seed)
        mujoco.mj_resetData(self._model, self._data)
        self._restart(self.np_random)
        mujoco.mj_forward(self._model, self._data)
        self._taken = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Hold ``action`` (A,), in physical units, for one agent step."""
        if self._taken is None:
            raise gymnasium.error.ResetNeeded("the episode has not begun or is over: call reset()")
        space = self.action_space
        assert isinstance(space, spaces.Box)
        action = np.asarray(action, np.float64)
        if action.shape != space.shape or not np.isfinite(action).all():
            raise ValueError(f"expected {space.shape} finite numbers, got {action}")
        reward, terminated = self._advance(np.clip(action, space.low, space.high))
        self._taken += 1
        truncated = self._taken >= self._limit and not terminated
        if terminated or truncated:
            self._taken = None
        return self._observe(), reward, terminated, truncated, self._info()

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Render the first camera as (H, W, 3) uint8; None without one or without the mode."""
        if self.render_mode is None or not self._cameras:
            return None
        return next(iter(self._cameras.values())).image(self._data)

    def close(self) -> None:
        """Free the OpenGL contexts."""
        for camera in self._cameras.values():
            camera.close()

    def _observe(self) -> Obs:
        obs = {name: camera.image(self._data) for name, camera in self._cameras.items()}
        return {**obs, **{name: v.astype(np.float32) for name, v in self._measure().items()}}

    def _physics(self) -> None:
        """Take one agent step of physics; what cameras and sensors see follows."""
        mujoco.mj_step(self._model, self._data, self._substeps)
        mujoco.mj_forward(self._model, self._data)

    def _info(self) -> dict[str, Any]:
        return {}

    def _restart(self, rng: np.random.Generator) -> None:
        """Put the robot at the start of an episode; all random numbers come from ``rng``."""
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        """Take an agent step under ``action`` (A,) float64; returns reward and ``terminated``."""
        raise NotImplementedError

    def _measure(self) -> dict[str, np.ndarray]:
        """Return each vector (n,) of the observation by its name."""
        raise NotImplementedError
