"""Makes environments by the name of a task, and the ``Spec`` that a policy for them has.

``walker_walk`` is a task of this project, ``my_package.my_module:MyTask-v0`` a user's own, and
``CartPole-v1`` any other that Gymnasium has; ``CartPole-v1@pixels`` gives rendered images.
What their observations and actions become stands in ``training.spaces``.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
from gymnasium.wrappers import AddRenderObservation

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.spec import Spec
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, split_view
from wm_core.training.atari import NAMESPACE, make_game
from wm_core.training.spaces import ActionMap, ObsReader

HOME = "sim"  #: the module whose tasks need no prefix


def task_names() -> list[str]:
    """List the names of this project's own tasks, sorted; empty where they are not installed."""
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
    """Make the environment of ``task``; keyword arguments go to its constructor.

    Raises:
        SettingsError: for a task that does not exist (naming the nearest) or does not load.
    """
    name, view = split_view(task)
    task_names()  # importing them registers them
    if view:
        kwargs["render_mode"] = "rgb_array"
    try:
        if name.startswith(NAMESPACE):
            env: gymnasium.Env = make_game(name, **kwargs)
        else:
            env = gymnasium.make(name, disable_env_checker=True, **kwargs)
        if view:
            only = view == "pixels"
            env = AddRenderObservation(env, only, render_key=IMAGE_KEY, obs_key=VECTOR_KEY)
    except ModuleNotFoundError as error:
        missing = error.name or name.split(":")[0]
        raise SettingsError(f"task {task!r}: module {missing!r} is not installed here") from error
    except gymnasium.error.UnregisteredEnv as error:
        if ":" in name or "/" in name:
            raise SettingsError(f"task {task!r}: there is no such id: {error}") from error
        raise SettingsError(nearest(name, gymnasium.registry, what="task")) from error
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"task {task!r} cannot be made: {reason}") from error
    return env


def spec_of(env: gymnasium.Env, *, image_size: int = 64) -> Spec:
    """Give the inputs and actions of a policy for ``env``.

    Args:
        env: observations are boxes or choices (one, or a dictionary of them), actions a box or a
            choice.
        image_size: height and width that larger images are cropped and resized to, pixels.

    Raises:
        SettingsError: for spaces that a policy cannot use, such as actions without bounds.
    """
    reader = ObsReader(env.observation_space, env.metadata, image_size=image_size)
    rate_hz = float(env.metadata.get("render_fps") or 20.0)
    return Spec(
        images=reader.images,
        vectors=reader.vectors,
        action=ActionMap(env.action_space, env.metadata).spec,
        period_s=1.0 / rate_hz,
    )


def rules_of(env: gymnasium.Env, *, image_size: int = 64) -> dict[str, str]:
    """Say of each input and of the action which part of ``env`` it comes from, and by what rule.

    Args:
        env: as for ``spec_of``.
        image_size: height and width of the images that the network sees, pixels.
    """
    reader = ObsReader(env.observation_space, env.metadata, image_size=image_size)
    return {**reader.rules, "action": ActionMap(env.action_space, env.metadata).rule}
