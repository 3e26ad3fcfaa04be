"""Makes environments by the name of a task, and the ``Spec`` that a policy for them has.

``walker_walk`` is a task of this project, ``my_package.my_module:MyTask-v0`` a user's own, and
``CartPole-v1`` any other that Gymnasium has; ``CartPole-v1@pixels`` gives rendered images.
Observations become dictionaries of the policy's inputs: images at the network's size (the same
crop and area resize as on a robot) and float32 vectors.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import AddRenderObservation

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.image import to_network
from wm_core.contract.inputs import ImageSpec, input_of
from wm_core.contract.spec import ActionSpec, Obs, Spec, VectorSpec
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, names_of, split_view
from wm_core.training.atari import NAMESPACE, make_game

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


def _inputs(space: spaces.Space) -> dict[str, spaces.Space]:
    """Name the parts of an observation; a single one is the image or the vector."""
    if isinstance(space, spaces.Dict):
        return dict(space.spaces)
    return {IMAGE_KEY if _image_of(space) else VECTOR_KEY: space}


def _image_of(space: spaces.Space) -> ImageSpec | None:
    """Give the image input that ``space`` is, or None; (H, W) has one channel."""
    if isinstance(space, spaces.Box) and len(space.shape) == 2:
        space = spaces.Box(space.low[..., None], space.high[..., None], dtype=space.dtype)  # type: ignore[arg-type]
    image = input_of(space)
    return image if isinstance(image, ImageSpec) else None


def _vector_size(key: str, space: spaces.Space) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box) and len(space.shape) <= 2:
        return int(np.prod(space.shape))
    raise SettingsError(
        f"observation {key!r}: expected an image (H, W, 1 or 3) uint8, a vector or a choice, "
        f"got {space}"
    )


def _action_of(env: gymnasium.Env) -> ActionSpec:
    action, about = env.action_space, env.metadata
    names = tuple(about.get("action_names", ()))
    if isinstance(action, spaces.Discrete):
        return ActionSpec.choices(int(action.n), names, noop=about.get("action_noop", 0))
    if not isinstance(action, spaces.Box) or len(action.shape) != 1:
        raise SettingsError(f"expected a 1-D Box or a Discrete action space, got {action}")
    if not np.isfinite([action.low, action.high]).all() or (action.low >= action.high).any():
        raise SettingsError(
            f"expected actions with finite bounds, each low below its high, got {action}; "
            "give the task an action space with bounds"
        )
    return ActionSpec(
        low=tuple(float(x) for x in action.low),
        high=tuple(float(x) for x in action.high),
        names=names,
        units=tuple(about.get("action_units", ())),
    )


def spec_of(env: gymnasium.Env, *, image_size: int = 64) -> Spec:
    """Give the inputs and actions of a policy for ``env``.

    Args:
        env: observations are boxes or choices (one, or a dictionary of them), actions a box or a
            choice.
        image_size: height and width that larger images are cropped and resized to, pixels.

    Raises:
        SettingsError: for spaces that a policy cannot use, such as actions without bounds.
    """
    images, vectors = {}, {}
    for key, space in _inputs(env.observation_space).items():
        image = _image_of(space)
        if image is not None:
            images[key] = image.model_copy(update={"height": image_size, "width": image_size})
        else:
            names = names_of(env.metadata, key)
            vectors[key] = VectorSpec(size=_vector_size(key, space), names=names)
    rate_hz = float(env.metadata.get("render_fps") or 20.0)
    return Spec(images=images, vectors=vectors, action=_action_of(env), period_s=1.0 / rate_hz)


def to_obs(observation: Any, spec: Spec, space: spaces.Space) -> Obs:
    """Turn an environment's ``observation`` into the inputs of ``spec``.

    Args:
        observation: an element of ``space``.
        spec: of the policy, which may use fewer inputs than there are.
        space: the environment's observation space.

    Returns:
        Images (H, W, C) at the network's size and vectors (n,) float32; one of n choices is
        a one-hot vector (n,).
    """
    parts = _inputs(space)
    values = observation if isinstance(space, spaces.Dict) else dict.fromkeys(parts, observation)
    obs: Obs = {}
    for key, image in spec.images.items():
        frame = np.asarray(values[key])
        obs[key] = to_network(frame.reshape(*frame.shape[:2], -1), image)
    for key, vector in spec.vectors.items():
        part = parts[key]
        if isinstance(part, spaces.Discrete):
            obs[key] = np.zeros(vector.size, np.float32)
            obs[key][int(values[key]) - int(part.start)] = 1.0
        else:
            obs[key] = np.array(values[key], np.float32).reshape(-1)
    return obs
