"""Simulates a shuttle on a rail that must remember which of two places will pay.

A panel shows a colour for the first steps of an episode and then nothing.  The shuttle is held in
the middle until the panel turns white, some steps later, and only then can it go to the left or to
the right.  The colour said which of the two pays; whoever has forgotten it can only guess, and a
guess is worth nothing, because the other place costs as much as this one pays.

Nothing but a memory can keep the colour: until the shuttle is let go it moves for no action, and
after that the images are the same for both colours until a place is reached, which holds it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from sim.pixel_task import PixelTask

SPEED_M_S = 2.0  #: most, to either side
CONTROL_S = 0.1
PHYSICS_S = 0.01
PLACE_M = 1.0  #: of each place from the middle of the rail
START_M = 0.1  #: the shuttle starts within this distance of the middle
GO_STEPS = 10  #: control steps between the panel's turning white and the episode's end
CUE_STEPS, DELAY_STEPS = 2, 6

#: what the panel shows for each side that may pay: -1 the right, 1 the left
CUES = {-1: (0.95, 0.6, 0.05, 1.0), 1: (0.1, 0.25, 0.9, 1.0)}
WAIT, GO = (0.1, 0.1, 0.1, 1.0), (1.0, 1.0, 1.0, 1.0)
PLAIN, PAYS, COSTS = (0.55, 0.55, 0.55, 1.0), (0.1, 0.8, 0.2, 1.0), (0.85, 0.1, 0.1, 1.0)

_MODEL = f"""
<mujoco model="recall">
  <option timestep="{PHYSICS_S}" gravity="0 0 0" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".7 .7 .7" diffuse=".3 .3 .3" specular="0 0 0"/>
    <map znear="0.01" zfar="20"/>
  </visual>
  <statistic extent="2" center="0 0 0"/>
  <asset>
    <texture name="sky" type="skybox" builtin="flat" rgb1=".75 .85 .95" width="64" height="64"/>
  </asset>
  <default><geom contype="0" conaffinity="0" condim="1"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="1.6 1.6 .1" rgba=".6 .58 .55 1"/>
    <geom name="rail" type="box" size=".04 {PLACE_M} .02" pos="0 0 .02" rgba=".3 .3 .3 1"/>
    <geom name="panel" type="box" size=".03 1.5 .7" pos=".9 0 1.15"/>
    <geom name="right" type="box" size=".2 .12 .5" pos="0 {-PLACE_M - 0.33} .5"/>
    <geom name="left" type="box" size=".2 .12 .5" pos="0 {PLACE_M + 0.33} .5"/>
    <body name="shuttle">
      <joint name="y" type="slide" axis="0 1 0"/>
      <inertial pos="0 0 .1" mass="1" diaginertia=".01 .01 .01"/>
      <geom type="box" size=".2 .2 .25" pos="0 0 .27" rgba=".55 .1 .55 1"/>
    </body>
    <camera name="front" pos="-2.4 0 1.5" xyaxes="0 -1 0 .28 0 1" fovy="66"/>
  </worldbody>
  <actuator><velocity name="slide" joint="y" kv="60"/></actuator>
</mujoco>
"""


class Recall(PixelTask):
    """Go to the place whose colour was shown, and away from the other one.

    Action: speed in m/s, positive to the left; it has no effect while the shuttle is held.  The
    panel shows the colour in the first ``cue`` control steps, is dark in the next ``delay``, and
    then white: the shuttle is free for the ``GO_STEPS`` that are left.  Reward of a control step:
    the distance gained on the place that pays, over the most that full speed can gain; from the
    step on that reaches a place, 1 at the one that pays and -1 at the other.  The return lies
    within -``GO_STEPS`` .. ``GO_STEPS``, and who does not know the colour gets 0 on average.  A
    place that is reached turns green or red and keeps the shuttle.  Episodes never terminate.
    ``proprio`` is the shuttle's position in m and its speed in m/s; ``info["reached"]`` says
    whether it is at the place that pays.

    Args:
        delay: control steps between colour and go, at least 0.
        cue: control steps that begin under the colour, at least 1.
        image_size: height and width of the image in pixels.
        proprio: whether observations have ``proprio`` too.
        action_repeat: control steps of 0.1 s per agent step; None is 1.
        render_mode: None or ``rgb_array``.
    """

    def __init__(
        self,
        delay: int = DELAY_STEPS,
        cue: int = CUE_STEPS,
        image_size: int = 64,
        proprio: bool = False,
        action_repeat: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        for name, steps, least in (("delay", delay, 0), ("cue", cue, 1)):
            if isinstance(steps, bool) or not isinstance(steps, int) or steps < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {steps}")
        model = mujoco.MjModel.from_xml_string(_MODEL)
        speed = np.array([SPEED_M_S], np.float32)
        super().__init__(
            model,
            mujoco.MjData(model),
            camera=model.camera("front").id,
            action_space=spaces.Box(-speed, speed, dtype=np.float32),
            proprio_size=2,
            control_s=CONTROL_S,
            control_steps=cue + delay + GO_STEPS,
            action_repeat=1 if action_repeat is None else action_repeat,
            image_size=image_size,
            proprio=proprio,
            render_mode=render_mode,
            about={
                "action_names": ("slide",),
                "action_units": ("m/s",),
                "proprio_names": ("position", "speed"),
            },
        )
        self._cue_steps, self._held_steps = cue, cue + delay
        self._pays = self._reached = 0  # a side: -1 or 1; reached is 0 until a place is
        self._elapsed = 0

    @property
    def position(self) -> float:
        """Ground truth of the shuttle: m from the middle of the rail, positive to the left."""
        return float(self._data.qpos[0])

    @property
    def pays(self) -> int:
        """Ground truth: -1 where the right place pays in this episode, 1 where the left one."""
        return self._pays

    @property
    def is_free(self) -> bool:
        """Whether the shuttle follows actions now, which the white panel shows."""
        return self._elapsed >= self._held_steps

    def _restart(self, rng: np.random.Generator) -> None:
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[0] = rng.uniform(-START_M, START_M)
        self._pays, self._reached, self._elapsed = (-1, 1)[rng.integers(2)], 0, 0
        self._paint()
        mujoco.mj_forward(self._model, self._data)

    def _advance(self, action: np.ndarray) -> tuple[float, bool]:
        before, moves = self.position, self.is_free and not self._reached
        self._data.ctrl[0] = action[0] if moves else 0.0
        mujoco.mj_step(self._model, self._data, round(CONTROL_S / PHYSICS_S))
        self._elapsed += 1
        if moves and abs(self.position) >= PLACE_M:
            self._reached = 1 if self.position > 0 else -1
            self._data.qpos[0], self._data.qvel[0] = self._reached * PLACE_M, 0.0
        if self._reached:
            reward = float(self._reached * self._pays)
        else:
            reward = self._pays * (self.position - before) / (SPEED_M_S * CONTROL_S)
        self._paint()
        mujoco.mj_kinematics(self._model, self._data)  # the image shows the state after the step
        mujoco.mj_camlight(self._model, self._data)
        return reward, False

    def _paint(self) -> None:
        """Give the panel and both places the colours of this moment."""
        shown = GO if self.is_free else WAIT
        self._colour("panel", CUES[self._pays] if self._elapsed < self._cue_steps else shown)
        for side, name in ((-1, "right"), (1, "left")):
            here = PAYS if side == self._pays else COSTS
            self._colour(name, here if side == self._reached else PLAIN)

    def _colour(self, geom: str, rgba: tuple[float, ...]) -> None:
        self._model.geom(geom).rgba[:] = rgba

    def _measure(self) -> np.ndarray:
        return np.array([self.position, self._data.qvel[0]], np.float32)

    def _info(self) -> dict[str, Any]:
        return {"reached": bool(self._reached) and self._reached == self._pays}


def expert_action(env: gymnasium.Env[Any, Any]) -> np.ndarray:
    """Go at full speed to the place that pays, by the ground truth: (1,) float32 in m/s."""
    recall = env.unwrapped
    if not isinstance(recall, Recall):
        raise TypeError(f"this expert drives 'sim:recall', got {type(recall).__name__}")
    return np.array([recall.pays * SPEED_M_S], np.float32)
