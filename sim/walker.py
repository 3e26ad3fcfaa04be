"""Simulates a small walker on four legs without a camera: joints and an inertial sensor."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import mujoco
import numpy as np

from sim.robot_task import RobotTask

LEGS = ("front_left", "front_right", "rear_left", "rear_right")
JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "knee"))
HOME_RAD = (0.6, -1.2) * 4  #: legs bent, feet below the hips
REACH_RAD = 0.8  #: largest deviation of a joint from its home
CONTROL_S = 0.04
EPISODE_STEPS = 250
FALLEN_M = 0.09  #: a trunk this low has fallen
STEP_HZ = 1.2  #: of the scripted gait
SWING_RAD, LIFT_RAD = 0.3, 0.4
GRAVITY = ("gravity.x", "gravity.y", "gravity.z")
TURNING = ("angular_velocity.x", "angular_velocity.y", "angular_velocity.z")

_LEG = """
      <body name="{leg}" pos="{x} {y} 0">
        <joint name="{leg}_hip"/>
        <geom type="capsule" size=".02" fromto="0 0 0 0 0 -.12" mass=".15"/>
        <body pos="0 0 -.12">
          <joint name="{leg}_knee"/>
          <geom type="capsule" size=".016" fromto="0 0 0 0 0 -.12" mass=".1"/>
          <geom type="sphere" size=".024" pos="0 0 -.12" mass=".03" friction="1.2 .01 .001"
                contype="1" conaffinity="1"/>
        </body>
      </body>"""
_PLACES = ((0.16, 0.11), (0.16, -0.11), (-0.16, 0.11), (-0.16, -0.11))
_LEGS = "".join(_LEG.format(leg=n, x=x, y=y) for n, (x, y) in zip(LEGS, _PLACES, strict=True))
_SERVOS = "".join(f'<position joint="{joint}"/>' for joint in JOINTS)
_MODEL = f"""
<mujoco model="walker">
  <compiler angle="radian"/>
  <option timestep="0.004" integrator="implicitfast"/>
  <default>
    <geom contype="0" conaffinity="0"/>
    <joint type="hinge" axis="0 -1 0" damping=".4" armature=".01" range="-2.5 2.5" limited="true"/>
    <position kp="60" forcerange="-8 8"/>
  </default>
  <worldbody>
    <geom type="plane" size="20 20 .1" contype="1" conaffinity="1" friction="1.2 .01 .001"/>
    <body name="trunk" pos="0 0 .225">
      <freejoint/>
      <geom type="box" size=".2 .08 .04" mass="2.5" contype="1" conaffinity="1"/>
      <site name="imu"/>{_LEGS}
    </body>
  </worldbody>
  <actuator>{_SERVOS}</actuator>
  <sensor><gyro site="imu"/></sensor>
</mujoco>
"""


class Walker(RobotTask):
    """Walk ahead for ten seconds without falling.

    Action: positions of the eight joints in rad, 25 times a second. Reward of a step: metres
    gained ahead times 10. The episode ends when the trunk has fallen. Observation: ``proprio``,
    without any camera: positions in rad and velocities in rad/s of the joints, turn rates of the
    trunk in rad/s, and the unit vector downwards in its frame.

    Args:
        image_size: has no effect, as there is no camera.
        render_mode: None or ``rgb_array``; nothing is rendered.
    """

    def __init__(self, image_size: int = 64, render_mode: str | None = None) -> None:
        home = np.array(HOME_RAD)
        velocities = tuple(f"{joint}.velocity" for joint in JOINTS)
        super().__init__(
            mujoco.MjModel.from_xml_string(_MODEL),
            cameras={},
            measured={"proprio": (*JOINTS, *velocities, *TURNING, *GRAVITY)},
            low=home - REACH_RAD,
            high=home + REACH_RAD,
            period_s=CONTROL_S,
            steps=EPISODE_STEPS,
            image_size=image_size,
            render_mode=render_mode,
            about={
                "action_names": JOINTS,
                "action_units": ("rad",) * len(JOINTS),
                "action_home": HOME_RAD,
            },
        )

    @property
    def steps_taken(self) -> int:
        """Count the agent steps of this episode."""
        return self._taken or 0

    def _restart(self, rng: np.random.Generator) -> None:
        self._data.qpos[7:] = np.array(HOME_RAD) + rng.uniform(-0.02, 0.02, len(JOINTS))
        self._data.ctrl[:] = HOME_RAD

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        before = self._data.qpos[0]
        self._data.ctrl[:] = action
        self._physics()
        fallen = self._data.qpos[2] < FALLEN_M or self._down()[2] > -0.5
        return 10.0 * float(self._data.qpos[0] - before), bool(fallen)

    def _down(self) -> np.ndarray:
        """Compute the unit vector downwards in the trunk's frame, (3,)."""
        return -self._data.body("trunk").xmat.reshape(3, 3)[2]

    def _measure(self) -> dict[str, np.ndarray]:
        data = self._data
        return {
            "proprio": np.concatenate(
                [data.qpos[7:], data.qvel[6:], data.sensordata, self._down()]
            )
        }

    def _info(self) -> dict[str, Any]:
        return {"x": float(self._data.qpos[0])}


def gait(phase: float) -> np.ndarray:
    """Choose positions (8,) in rad of a trot, in which opposite legs move together.

    Args:
        phase: of the gait in rad.
    """
    found = []
    for i, home in enumerate(HOME_RAD):
        own = phase + (0.0 if i // 2 in (0, 3) else math.pi)
        if i % 2 == 0:
            found.append(home + SWING_RAD * math.cos(own))
        else:
            found.append(home - LIFT_RAD * max(0.0, -math.sin(own)))
    return np.array(found)


def expert_action(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    """Trot by the time of the episode: (8,) float32 in rad."""
    walker = env.unwrapped
    if not isinstance(walker, Walker):
        raise TypeError(f"this expert moves 'sim:walker', got {type(walker).__name__}")
    return gait(2 * math.pi * STEP_HZ * CONTROL_S * walker.steps_taken).astype(np.float32)
