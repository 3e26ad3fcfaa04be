"""Tasks by name: a Gymnasium environment and the ``Spec`` that a policy for it has.

``walker_walk`` is a task of this project, ``my_package.my_module:MyTask-v0`` a user's own.
Observations become dictionaries of what the policy sees: images at the network's size (the same
crop and area resize as on a robot) and float32 vectors.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.image import to_network
from wm_core.contract.spec import ActionSpec, ImageSpec, Obs, Spec, VectorSpec

HOME = "sim"  #: the module whose tasks need no prefix


def task_names() -> list[str]:
    """The names of this project's own tasks, sorted; empty where they are not installed."""
    try:
        importlib.import_module(HOME)
    except ModuleNotFoundError:
        return []
    return sorted(
        spec.id
        for spec in gymnasium.registry.values()
        if isinstance(spec.entry_point, str)
        and spec.entry_point.split(".")[0].split(":")[0] == HOME
    )


def make_env(task: str, **kwargs: Any) -> gymnasium.Env:
    """The environment of ``task``; keyword arguments go to its constructor.

    Raises:
        SettingsError: for a task that does not exist (naming the nearest) or does not load.
    """
    name = task if ":" in task else f"{HOME}:{task}"
    module = name.split(":", 1)[0]
    try:
        return gymnasium.make(name, disable_env_checker=True, **kwargs)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"task {task!r}: module {error.name or module!r} is not installed here"
        ) from error
    except gymnasium.error.UnregisteredEnv as error:
        if ":" in task:
            raise SettingsError(
                f"task {task!r}: {module} registers no such id: {error}"
            ) from error
        raise SettingsError(nearest(task, task_names(), what="task")) from error


def _inputs(env: gymnasium.Env) -> dict[str, spaces.Box]:
    space = env.observation_space
    boxes = space.spaces if isinstance(space, spaces.Dict) else {_only_key(space): space}
    for key, box in boxes.items():
        if not isinstance(box, spaces.Box) or len(box.shape) not in (1, 3):
            raise SettingsError(f"observation {key!r}: expected an image or a vector, got {box}")
    return boxes  # type: ignore[return-value]


def _only_key(space: spaces.Space) -> str:
    return "image" if space.shape is not None and len(space.shape) == 3 else "vector"


def spec_of(env: gymnasium.Env, *, image_size: int = 64) -> Spec:
    """What a policy for ``env`` sees and does.

    Args:
        env: boxes as observation (one, or a dictionary of them) and as action.
        image_size: height and width that larger images are cropped and resized to, pixels.

    Raises:
        SettingsError: for spaces that a policy cannot have, such as discrete actions.
    """
    boxes = _inputs(env)
    action = env.action_space
    if not isinstance(action, spaces.Box) or len(action.shape) != 1:
        raise SettingsError(f"expected a continuous action (a 1-D Box), got {action}")
    images = {
        k: ImageSpec(height=image_size, width=image_size, channels=b.shape[2])  # type: ignore[arg-type]
        for k, b in boxes.items()
        if len(b.shape) == 3
    }
    vectors = {
        k: VectorSpec(size=b.shape[0], names=tuple(env.metadata.get(f"{k}_names", ())))
        for k, b in boxes.items()
        if len(b.shape) == 1
    }
    rate_hz = float(env.metadata.get("render_fps") or 20.0)
    return Spec(
        images=images,
        vectors=vectors,
        action=ActionSpec(
            low=tuple(float(x) for x in action.low),
            high=tuple(float(x) for x in action.high),
            names=tuple(env.metadata.get("action_names", ())),
            units=tuple(env.metadata.get("action_units", ())),
        ),
        period_s=1.0 / rate_hz,
    )


def to_obs(observation: Any, spec: Spec) -> Obs:
    """What the policy sees of an environment's ``observation``: the inputs of ``spec``."""
    if not isinstance(observation, dict):
        observation = {"image" if np.ndim(observation) == 3 else "vector": observation}
    obs: Obs = {k: to_network(np.asarray(observation[k]), s) for k, s in spec.images.items()}
    vectors = {k: np.asarray(observation[k], np.float32) for k in spec.vectors}
    return obs | vectors
