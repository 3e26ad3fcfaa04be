"""Simulates a base with two driven wheels and two cameras, one ahead and one behind."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import mujoco
import numpy as np

from sim import seek
from sim.robot_task import RobotTask

CONTROL_S = 0.1
EPISODE_STEPS = 200

_ONBOARD = '<camera name="onboard"'
_REAR = '<camera name="rear" pos="-.02 0 .3" xyaxes="0 1 0 -.1 0 1" fovy="105"/>'
_MODEL = seek._MODEL.replace(_ONBOARD, f"{_REAR}\n      {_ONBOARD}")


class DiffDrive(RobotTask):
    """Drive to the red pillar as often as possible in twenty seconds, seen ahead and behind.

    The arena and the rewards are those of ``seek``. Action: forward speed in m/s and turn rate in
    rad/s, positive to the left, ten times a second. Observations: the images ``front`` and
    ``rear``; ``odometry``: measured speed in m/s and turn rate in rad/s.

    Args:
        image_size: height and width of both images in pixels.
        render_mode: None or ``rgb_array``.
    """

    def __init__(self, image_size: int = 64, render_mode: str | None = None) -> None:
        low, high = np.array([seek.FORWARD_M_S, seek.TURN_RAD_S]).T
        super().__init__(
            mujoco.MjModel.from_xml_string(_MODEL),
            cameras={"front": "onboard", "rear": "rear"},
            measured={"odometry": ("linear.x", "angular.z")},
            low=low,
            high=high,
            period_s=CONTROL_S,
            steps=EPISODE_STEPS,
            image_size=image_size,
            render_mode=render_mode,
            about={"action_names": ("linear.x", "angular.z"), "action_units": ("m/s", "rad/s")},
        )
        self._reached = 0
        self._rng = self.np_random

    @property
    def pose(self) -> np.ndarray:
        """Ground truth (3,) float64 of the robot: x and y in m, heading in rad."""
        return self._data.qpos.copy()

    @property
    def target(self) -> np.ndarray:
        """Ground truth (2,) float64 of the pillar: x and y in m."""
        return self._data.mocap_pos[0, :2].copy()

    def _restart(self, rng: np.random.Generator) -> None:
        self._rng, self._reached = rng, 0
        self._data.qpos[:2] = rng.uniform(-seek.START_M, seek.START_M, 2)
        self._data.qpos[2] = rng.uniform(-math.pi, math.pi)
        self._place_target()

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        before = self._distance()
        self._data.ctrl[:] = action[0], 0.0, action[1]
        self._physics()
        after = self._distance()
        reward = (before - after) / (seek.FORWARD_M_S[1] * CONTROL_S)
        if after < seek.REACHED_M:
            self._reached += 1
            reward += seek.REACHED_REWARD
            self._place_target()
            mujoco.mj_kinematics(self._model, self._data)
        return reward, False

    def _measure(self) -> dict[str, np.ndarray]:
        heading = self._data.qpos[2]
        vx, vy, turn = self._data.qvel
        return {"odometry": np.array([math.cos(heading) * vx + math.sin(heading) * vy, turn])}

    def _info(self) -> dict[str, Any]:
        return {"reached": self._reached}

    def _distance(self) -> float:
        return float(np.hypot(*(self._data.qpos[:2] - self._data.mocap_pos[0, :2])))

    def _place_target(self) -> None:
        while True:
            self._data.mocap_pos[0, :2] = self._rng.uniform(-seek.START_M, seek.START_M, 2)
            if self._distance() >= seek.APART_M:
                return


def expert_action(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    """Turn to the pillar and drive there, by the ground truth: (2,) float32 in m/s and rad/s."""
    base = env.unwrapped
    if not isinstance(base, DiffDrive):
        raise TypeError(f"this expert drives 'sim:diff_drive', got {type(base).__name__}")
    x, y, heading = base.pose
    dx, dy = base.target - (x, y)
    error = math.remainder(math.atan2(dy, dx) - heading, 2 * math.pi)
    turn = np.clip(6.0 * error, *seek.TURN_RAD_S)
    return np.array([seek.FORWARD_M_S[1] * max(0.0, math.cos(error)), turn], np.float32)
