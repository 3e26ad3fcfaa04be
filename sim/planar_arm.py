"""Simulates an arm of three joints in a plane that is commanded in joint positions."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import mujoco
import numpy as np

from sim.robot_task import RobotTask

JOINTS = ("shoulder", "elbow", "wrist")
LINKS_M = (0.30, 0.25, 0.15)
LIMIT_RAD = (2.6, 2.4, 2.4)
HOME_RAD = (0.4, 0.8, 0.4)
CONTROL_S = 0.05
EPISODE_STEPS = 200
REACHED_M = 0.05
GOAL_M = (0.35, 0.6)  #: goals lie within these distances of the shoulder ...
GOAL_RAD = 1.2  #: ... and at most so far to either side

_MODEL = f"""
<mujoco model="planar_arm">
  <compiler angle="radian"/>
  <option timestep="0.005" gravity="0 0 0" integrator="implicitfast"/>
  <visual><headlight ambient=".6 .6 .6" diffuse=".4 .4 .4" specular="0 0 0"/></visual>
  <statistic extent="1" center="0 0 0"/>
  <default>
    <geom type="capsule" contype="0" conaffinity="0"/>
    <joint type="hinge" axis="0 0 1" damping="1.0" armature=".02"/>
    <position kp="40"/>
  </default>
  <worldbody>
    <geom type="plane" size="1 1 .1" rgba=".85 .85 .85 1"/>
    <body name="goal" mocap="true"><geom type="sphere" size=".05" rgba="1 .05 .05 1"/></body>
    <body pos="0 0 .05">
      <joint name="shoulder" range="-{LIMIT_RAD[0]} {LIMIT_RAD[0]}" limited="true"/>
      <geom size=".035" fromto="0 0 0 {LINKS_M[0]} 0 0" rgba=".1 .2 .7 1"/>
      <body pos="{LINKS_M[0]} 0 0">
        <joint name="elbow" range="-{LIMIT_RAD[1]} {LIMIT_RAD[1]}" limited="true"/>
        <geom size=".03" fromto="0 0 0 {LINKS_M[1]} 0 0" rgba=".2 .4 .8 1"/>
        <body pos="{LINKS_M[1]} 0 0">
          <joint name="wrist" range="-{LIMIT_RAD[2]} {LIMIT_RAD[2]}" limited="true"/>
          <geom size=".025" fromto="0 0 0 {LINKS_M[2]} 0 0" rgba=".3 .6 .9 1"/>
          <site name="tip" pos="{LINKS_M[2]} 0 0"/>
        </body>
      </body>
    </body>
    <camera name="overhead" pos=".2 0 1.7" fovy="45"/>
  </worldbody>
  <actuator>
    <position joint="shoulder"/><position joint="elbow"/><position joint="wrist"/>
  </actuator>
</mujoco>
"""


class PlanarArm(RobotTask):
    """Reach the red ball with the tip as often as possible in ten seconds.

    Action: positions of the three joints in rad, twenty times a second. Reward of a step: metres
    gained towards the ball times 10, and 1 on reaching it, upon which it appears elsewhere.
    Observations: ``image`` from above; ``proprio``: positions in rad, velocities in rad/s, and
    the ball's position (x, y) in m from the shoulder.

    Args:
        image_size: height and width of the image in pixels.
        render_mode: None or ``rgb_array``.
    """

    def __init__(self, image_size: int = 64, render_mode: str | None = None) -> None:
        limits = np.array(LIMIT_RAD)
        super().__init__(
            mujoco.MjModel.from_xml_string(_MODEL),
            cameras={"image": "overhead"},
            measured={"proprio": (*JOINTS, *(f"{j}.velocity" for j in JOINTS), "x", "y")},
            low=-limits,
            high=limits,
            period_s=CONTROL_S,
            steps=EPISODE_STEPS,
            image_size=image_size,
            render_mode=render_mode,
            about={
                "action_names": JOINTS,
                "action_units": ("rad",) * 3,
                "action_home": HOME_RAD,
            },
        )
        self._reached = 0
        self._rng = self.np_random

    @property
    def goal(self) -> np.ndarray:
        """Ground truth (2,) float64 of the ball: x and y in m from the shoulder."""
        return self._data.mocap_pos[0, :2].copy()

    @property
    def joints(self) -> np.ndarray:
        """Ground truth (3,) float64 of the joints in rad."""
        return self._data.qpos[:3].copy()

    def _restart(self, rng: np.random.Generator) -> None:
        self._rng, self._reached = rng, 0
        self._data.qpos[:3] = self._data.ctrl[:] = HOME_RAD
        self._place_goal()

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        before = self._distance()
        self._data.ctrl[:] = action
        self._physics()
        after = self._distance()
        reward = 10.0 * (before - after)
        if after < REACHED_M:
            self._reached += 1
            reward += 1.0
            self._place_goal()
            mujoco.mj_kinematics(self._model, self._data)
        return reward, False

    def _measure(self) -> dict[str, np.ndarray]:
        return {"proprio": np.concatenate([self._data.qpos[:3], self._data.qvel[:3], self.goal])}

    def _info(self) -> dict[str, Any]:
        return {"reached": self._reached}

    def _distance(self) -> float:
        return float(np.linalg.norm(tip_of(self.joints) - self.goal))

    def _place_goal(self) -> None:
        distance, angle = self._rng.uniform(*GOAL_M), self._rng.uniform(-GOAL_RAD, GOAL_RAD)
        self._data.mocap_pos[0] = distance * math.cos(angle), distance * math.sin(angle), 0.05


def tip_of(joints: np.ndarray) -> np.ndarray:
    """Compute where the tip is, (2,) in m from the shoulder, for ``joints`` (3,) in rad."""
    angles = np.cumsum(joints)
    return np.array([np.dot(LINKS_M, np.cos(angles)), np.dot(LINKS_M, np.sin(angles))])


def step_to(joints: np.ndarray, goal: np.ndarray, gain: float = 3.0) -> np.ndarray:
    """Choose positions (3,) in rad that bring the tip nearer to ``goal`` (2,) in m.

    One step of the transposed Jacobian from ``joints`` (3,) in rad.
    """
    angles = np.cumsum(joints)
    links = np.array(LINKS_M)
    jacobian = np.array(
        [
            [-np.dot(links[i:], np.sin(angles[i:])) for i in range(3)],
            [np.dot(links[i:], np.cos(angles[i:])) for i in range(3)],
        ]
    )
    return joints + gain * jacobian.T @ (goal - tip_of(joints))


def expert_action(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    """Bring the tip to the ball by the ground truth: (3,) float32 in rad."""
    arm = env.unwrapped
    if not isinstance(arm, PlanarArm):
        raise TypeError(f"this expert moves 'sim:planar_arm', got {type(arm).__name__}")
    return np.clip(step_to(arm.joints, arm.goal), *arm_limits()).astype(np.float32)


def arm_limits() -> tuple[np.ndarray, np.ndarray]:
    """Give the least and the greatest positions, each (3,) in rad."""
    limits = np.array(LIMIT_RAD)
    return -limits, limits
