"""Offers MuJoCo tasks seen through a camera, as Gymnasium environments.

Importing this package registers every task, so ``gymnasium.make("sim:cartpole_swingup")`` and
``gymnasium.make("sim:seek", image_size=128, proprio=True)`` work; neither MuJoCo nor dm_control is
imported before a task is made.

It also chooses headless rendering on the CPU unless the environment variables say otherwise. They
must be set before OpenGL is first loaded, which is why this happens here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

os.environ.setdefault("MUJOCO_GL", "egl")
# Mesa's software renderer: at 64x64 its worker threads cost more time than they save.
os.environ.setdefault("LP_NUM_THREADS", "0")

#: the twenty dm_control tasks of the vision benchmark
SUITE_TASKS = (
    "acrobot_swingup",
    "ball_in_cup_catch",
    "cartpole_balance",
    "cartpole_balance_sparse",
    "cartpole_swingup",
    "cartpole_swingup_sparse",
    "cheetah_run",
    "finger_spin",
    "finger_turn_easy",
    "finger_turn_hard",
    "hopper_hop",
    "hopper_stand",
    "pendulum_swingup",
    "quadruped_run",
    "quadruped_walk",
    "reacher_easy",
    "reacher_hard",
    "walker_run",
    "walker_stand",
    "walker_walk",
)
#: every task that is seen by one camera, by the name that follows ``sim:``
TASKS = (*SUITE_TASKS, "recall", "seek", "seek_discrete")
_OWN_TASKS = {
    "recall": "sim.recall:Recall",
    "seek": "sim.seek:Seek",
    "seek_discrete": "sim.seek:SeekDiscrete",
}
#: robots that a file of examples/robots describes, by the name of the robot
ROBOT_TASKS = {
    "diff_drive": "sim.diff_drive:DiffDrive",
    "planar_arm": "sim.planar_arm:PlanarArm",
    "walker": "sim.walker:Walker",
}

Expert = Callable[[gymnasium.Env[Any, Any]], np.ndarray]


def expert(name: str) -> Expert | None:
    """Return a scripted policy that reads the ground truth, or None where the task has none.

    It maps the environment to an action: (A,) float32 in the units of its action space, or () the
    index of a choice.
    """
    module = {**_OWN_TASKS, **ROBOT_TASKS}.get(name, "").partition(":")[0]
    if not module:
        return None
    found: Expert = importlib.import_module(module).expert_action
    return found


def _register() -> None:
    own = {**_OWN_TASKS, **ROBOT_TASKS}
    for name in (*TASKS, *ROBOT_TASKS):
        gymnasium.register(
            name,
            own.get(name, "sim.suite:SuiteTask"),
            kwargs={"name": name} if name in SUITE_TASKS else {},
            # The tasks end their episodes themselves and check the order of calls, so none of
            # Gymnasium's wrappers is needed, and none costs time.
            order_enforce=False,
            disable_env_checker=True,
        )


_register()
