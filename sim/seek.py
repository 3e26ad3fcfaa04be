"""Simulates a robot with two driven wheels and a camera that searches a red pillar.

It is made to be learnt from pixels in minutes: one strong colour matters, every step is rewarded
for the distance gained towards the pillar, and a pillar that is reached appears elsewhere, so that
there is always a reward to gain. Four walls of different colours show the direction.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from sim.pixel_task import Obs, PixelTask

FORWARD_M_S = (-0.2, 0.8)
TURN_RAD_S = (-4.0, 4.0)
CONTROL_S = 0.1
EPISODE_STEPS = 100
PHYSICS_S = 0.01
ARENA_M = 1.5  #: from the middle to each wall
START_M = 1.1  #: robot and pillar start within this distance of the middle, on both axes
APART_M = 1.0  #: a new pillar is at least this far from the robot
REACHED_M = 0.5  #: between the middle of the robot's axle and that of the pillar
REACHED_REWARD = 2.0
AHEAD_RAD = 0.3  #: the expert that chooses drives where the pillar is that near to straight ahead

# Planar joints carry the chassis. Velocity servos act in its own frame: one drives it forward, one
# keeps it from slipping sideways as wheels do, one turns it. Only chassis and walls collide. The
# chassis lies ahead of the axle, so a wall that is hit at a slant turns the robot along itself.
_MODEL = f"""
<mujoco model="seek">
  <option timestep="{PHYSICS_S}" gravity="0 0 0" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".6 .6 .6" diffuse=".4 .4 .4" specular="0 0 0"/>
    <map znear="0.01" zfar="20"/>
  </visual>
  <statistic extent="2" center="0 0 0"/>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1=".75 .85 .95" width="64" height="64"/>
    <texture name="tiles" type="2d" builtin="checker" rgb1=".62 .62 .62" rgb2=".54 .54 .54"
             width="64" height="64"/>
    <material name="floor" texture="tiles" texrepeat="3 3" specular="0"/>
  </asset>
  <default>
    <geom contype="0" conaffinity="0" condim="1"/>
    <default class="wall"><geom type="box" contype="1" conaffinity="1"/></default>
  </default>
  <worldbody>
    <geom name="floor" type="plane" size="{ARENA_M} {ARENA_M} .1" material="floor"/>
    <geom class="wall" size=".05 1.6 .3" pos="{ARENA_M + 0.05} 0 .3" rgba=".15 .25 .75 1"/>
    <geom class="wall" size=".05 1.6 .3" pos="{-ARENA_M - 0.05} 0 .3" rgba=".95 .8 .2 1"/>
    <geom class="wall" size="1.6 .05 .3" pos="0 {ARENA_M + 0.05} .3" rgba=".1 .55 .25 1"/>
    <geom class="wall" size="1.6 .05 .3" pos="0 {-ARENA_M - 0.05} .3" rgba=".45 .25 .6 1"/>
    <body name="target" mocap="true">
      <geom type="cylinder" size=".18 .4" pos="0 0 .4" rgba="1 .05 .05 1"/>
    </body>
    <body name="robot">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="yaw" type="hinge" axis="0 0 1"/>
      <inertial pos="0 0 .1" mass="4" diaginertia=".05 .05 .05"/>
      <geom name="chassis" type="cylinder" size=".15 .05" pos=".1 0 .09" rgba=".2 .2 .2 1"
            contype="1" conaffinity="1"/>
      <geom type="cylinder" size=".05 .015" pos="0 .14 .05" euler="90 0 0" rgba="0 0 0 1"/>
      <geom type="cylinder" size=".05 .015" pos="0 -.14 .05" euler="90 0 0" rgba="0 0 0 1"/>
      <site name="base"/>
      <camera name="onboard" pos=".17 0 .3" xyaxes="0 -1 0 .1 0 1" fovy="105"/>
    </body>
    <camera name="overhead" pos="0 0 4.2" fovy="45"/>
  </worldbody>
  <actuator>
    <velocity name="forward" site="base" gear="1 0 0 0 0 0" kv="60" forcerange="-60 60"/>
    <velocity name="sideways" site="base" gear="0 1 0 0 0 0" kv="400"/>
    <velocity name="turn" joint="yaw" kv="1.0" forcerange="-6 6"/>
  </actuator>
</mujoco>
"""


#: what ``SeekDiscrete`` may choose: forward speed in m/s and turn rate in rad/s
CHOICES = {
    "stop": (0.0, 0.0),
    "forward": (FORWARD_M_S[1], 0.0),
    "left": (0.0, TURN_RAD_S[1]),
    "right": (0.0, TURN_RAD_S[0]),
}


class Seek(PixelTask):
    """Drive to the red pillar as often as possible in ten seconds, ten decisions a second.

    Action: forward speed in m/s and turn rate in rad/s, positive to the left. Reward per control
    step: distance gained on the pillar over the most that full speed can gain, so within about
    [-1, 1], and ``REACHED_REWARD`` more on reaching it, upon which it appears elsewhere. Episodes
    never terminate and are truncated after ``EPISODE_STEPS``. ``proprio`` is the measured forward
    speed in m/s and turn rate in rad/s; ``info["reached"]`` counts the pillars of this episode.

    Args:
        image_size: height and width of the image in pixels.
        proprio: whether observations have ``proprio`` too.
        action_repeat: control steps of 0.1 s per agent step; None is 1.
        view: ``onboard`` or ``overhead``, the camera that takes the images.
        render_mode: None or ``rgb_array``.
    """

    def __init__(
        self,
        image_size: int = 64,
        proprio: bool = False,
        action_repeat: int | None = None,
        view: str = "onboard",
        render_mode: str | None = None,
    ) -> None:
        model = mujoco.MjModel.from_xml_string(_MODEL)
        low, high = np.array([FORWARD_M_S, TURN_RAD_S], np.float32).T
        super().__init__(
            model,
            mujoco.MjData(model),
            camera=model.camera(view).id,
            action_space=spaces.Box(low, high, dtype=np.float32),
            proprio_size=2,
            control_s=CONTROL_S,
            control_steps=EPISODE_STEPS,
            action_repeat=1 if action_repeat is None else action_repeat,
            image_size=image_size,
            proprio=proprio,
            render_mode=render_mode,
            about={
                "action_names": ("forward", "turn"),
                "action_units": ("m/s", "rad/s"),
                "proprio_names": ("forward", "turn"),
            },
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
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:2] = rng.uniform(-START_M, START_M, 2)
        self._data.qpos[2] = rng.uniform(-math.pi, math.pi)
        self._place_target()
        mujoco.mj_forward(self._model, self._data)

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        before = self._distance()
        self._data.ctrl[:] = action[0], 0.0, action[1]
        mujoco.mj_step(self._model, self._data, round(CONTROL_S / PHYSICS_S))
        after = self._distance()
        reward = (before - after) / (FORWARD_M_S[1] * CONTROL_S)
        if after < REACHED_M:
            self._reached += 1
            reward += REACHED_REWARD
            self._place_target()
        mujoco.mj_kinematics(self._model, self._data)  # the image shows the state after the step
        mujoco.mj_camlight(self._model, self._data)
        return reward, False

    def _measure(self) -> np.ndarray:
        heading = self._data.qpos[2]
        vx, vy, turn = self._data.qvel
        forward = math.cos(heading) * vx + math.sin(heading) * vy
        return np.array([forward, turn], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"reached": self._reached}

    def _distance(self) -> float:
        return float(np.hypot(*(self._data.qpos[:2] - self._data.mocap_pos[0, :2])))

    def _place_target(self) -> None:
        """Put the pillar at a random place in the arena that is not near the robot."""
        while True:
            self._data.mocap_pos[0, :2] = self._rng.uniform(-START_M, START_M, 2)
            if self._distance() >= APART_M:
                return


class SeekDiscrete(Seek):
    """``Seek`` for policies that choose: the action is the index of one of ``CHOICES``.

    Args:
        kwargs: as for ``Seek``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.action_space = spaces.Discrete(len(CHOICES))  # type: ignore[assignment]
        self.metadata = {**self.metadata, "action_names": tuple(CHOICES), "action_units": ()}
        self._commands = np.array([*CHOICES.values()])

    def step(self, action: Any) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Drive as one of ``CHOICES``, by its index, for one agent step."""
        if not self.action_space.contains(action):
            raise ValueError(f"expected an index below {len(CHOICES)}, got {action}")
        return super().step(self._commands[action])


def expert_action(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    """Turn to the pillar and drive there, by the ground truth.

    (2,) float32 for ``Seek``, () int64 for ``SeekDiscrete``.
    """
    seek = env.unwrapped
    if not isinstance(seek, Seek):
        raise TypeError(f"this expert drives 'sim:seek', got {type(seek).__name__}")
    x, y, heading = seek.pose
    dx, dy = seek.target - (x, y)
    error = math.remainder(math.atan2(dy, dx) - heading, 2 * math.pi)
    if isinstance(seek, SeekDiscrete):
        aside = "left" if error > 0 else "right"
        return np.array([*CHOICES].index("forward" if abs(error) < AHEAD_RAD else aside))
    turn = np.clip(6.0 * error, *TURN_RAD_S)
    forward = FORWARD_M_S[1] * max(0.0, math.cos(error))
    return np.array([forward, turn], np.float32)
