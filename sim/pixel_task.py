"""Defines what all tasks of this package share: spaces, seeding, action repeat, time limit."""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from sim.camera import Camera

Obs = dict[str, np.ndarray]


class PixelTask(gymnasium.Env[Obs, np.ndarray]):
    """Is a MuJoCo task that is seen through a camera, once per agent step.

    A subclass defines in ``_restart`` how an episode begins, in ``_advance`` what one control step
    does and its reward, and in ``_measure`` the robot's measurements of itself.

    Args:
        model: MuJoCo model; the visual quality is lowered in place.
        data: state that belongs to ``model``.
        camera: index of the camera that takes the images.
        action_space: (A,) float32 in physical units.
        proprio_size: length of what ``_measure`` returns.
        control_s: length of a control step in seconds.
        control_steps: control steps until an episode is truncated.
        action_repeat: control steps per agent step; rewards are summed over them.
        image_size: height and width of the image in pixels.
        proprio: whether observations have ``proprio`` too.
        render_mode: None or ``rgb_array``.
        about: more entries of ``metadata``, such as the names of the action's parts.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        *,
        camera: int,
        action_space: spaces.Box,
        proprio_size: int,
        control_s: float,
        control_steps: int,
        action_repeat: int,
        image_size: int,
        proprio: bool,
        render_mode: str | None,
        about: dict[str, Any] | None = None,
    ) -> None:
        if action_repeat < 1:
            raise ValueError(f"action_repeat must be at least 1, got {action_repeat}")
        if image_size < 8:
            raise ValueError(f"image_size must be at least 8 pixels, got {image_size}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        fps = round(1.0 / (control_s * action_repeat), 6)
        self.metadata = {**type(self).metadata, **(about or {}), "render_fps": fps}
        self.render_mode = render_mode
        self.action_space = action_space
        self._low, self._high = action_space.low, action_space.high
        shape = (image_size, image_size, 3)
        inputs: dict[str, spaces.Space[Any]] = {"image": spaces.Box(0, 255, shape, np.uint8)}
        if proprio:
            inputs["proprio"] = spaces.Box(-np.inf, np.inf, (proprio_size,), np.float32)
        self.observation_space = spaces.Dict(inputs)  # type: ignore[assignment]
        self._proprio = proprio
        self._repeat, self._limit = action_repeat, control_steps
        self._taken: int | None = None  # control steps of this episode; None: reset is needed
        self._model, self._data = model, data
        self._camera = Camera(model, size=image_size, camera=camera)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Begin an episode and return its first observation; ``options`` has no effect."""
        super().reset(seed=seed)
        self._restart(self.np_random)
        self._taken = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Hold ``action`` (A,), in physical units, for one agent step."""
        if self._taken is None:
            raise gymnasium.error.ResetNeeded("the episode has not begun or is over: call reset()")
        action = np.asarray(action, np.float64)
        if action.shape != self._low.shape or not np.isfinite(action).all():
            raise ValueError(f"expected {self._low.shape} finite numbers, got {action}")
        action = np.clip(action, self._low, self._high)
        reward, terminated, truncated = 0.0, False, False
        for _ in range(self._repeat):
            step_reward, terminated = self._advance(action)
            reward += step_reward
            self._taken += 1
            truncated = self._taken >= self._limit and not terminated
            if terminated or truncated:
                self._taken = None
                break
        return self._observe(), reward, terminated, truncated, self._info()

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """Render the present state as an image (H, W, 3) uint8 of the size of the observation."""
        return None if self.render_mode is None else self._camera.image(self._data)

    def close(self) -> None:
        """Free the OpenGL context."""
        self._camera.close()

    def _observe(self) -> Obs:
        obs = {"image": self._camera.image(self._data)}
        if self._proprio:
            obs["proprio"] = self._measure()
        return obs

    def _info(self) -> dict[str, Any]:
        return {}

    def _restart(self, rng: np.random.Generator) -> None:
        """Put the task at the start of an episode; all random numbers come from ``rng``."""
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        """Take a control step under ``action`` (A,) float64; returns reward and ``terminated``."""
        raise NotImplementedError

    def _measure(self) -> np.ndarray:
        """Return the measurements (n,) float32 of the robot's own body."""
        raise NotImplementedError
