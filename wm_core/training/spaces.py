"""Converts observations and actions between a Gymnasium environment's spaces and a policy's.

Observations become dictionaries of the policy's inputs: images at the network's size (the same
rule as on a robot) and float32 vectors.  Actions in [-1, 1], or one-hot, become elements of the
environment's action space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from wm_core.contract.errors import SettingsError
from wm_core.contract.image import to_network
from wm_core.contract.inputs import ImageSpec, input_of
from wm_core.contract.spec import ActionSpec, Obs, Spec, VectorSpec
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, names_of


class ObsReader:
    """Turns the observations of an environment into the inputs of a policy.

    Args:
        space: the environment's observation space.
        metadata: of the environment; ``<key>_names`` lists the names of a vector's numbers.
        image_size: height and width of the images that the network sees, pixels.
        fit: how an image of another shape is brought to that size.

    Raises:
        SettingsError: for a space that cannot become images and vectors.
    """

    def __init__(
        self,
        space: spaces.Space,
        metadata: Mapping[str, Any],
        *,
        image_size: int = 64,
        fit: str = "crop",
    ) -> None:
        self._space, self._parts = space, _parts_of(space)
        self.images: dict[str, ImageSpec] = {}  #: the inputs that are images, by name
        self.vectors: dict[str, VectorSpec] = {}  #: the inputs that are vectors, by name
        for key, part in self._parts.items():
            image = _image_of(part)
            if image is not None:
                size = {"height": image_size, "width": image_size}
                self.images[key] = image.model_copy(update=size)
            else:
                names = names_of(metadata, key)
                self.vectors[key] = VectorSpec(size=_vector_size(key, part), names=names)

    def read(self, observation: Any, spec: Spec) -> Obs:
        """Turn an element of the space into the inputs of ``spec``, which may use fewer of them.

        Returns:
            Images (H, W, C) at the network's size and vectors (n,) float32, owned by the caller;
            one of n choices is a one-hot vector (n,).
        """
        keyed = isinstance(self._space, spaces.Dict)
        values = observation if keyed else dict.fromkeys(self._parts, observation)
        obs: Obs = {}
        for key, image in spec.images.items():
            frame = np.asarray(values[key])
            obs[key] = to_network(frame.reshape(*frame.shape[:2], -1), image)
        for key, vector in spec.vectors.items():
            part = self._parts[key]
            if isinstance(part, spaces.Discrete):
                obs[key] = np.zeros(vector.size, np.float32)
                obs[key][int(values[key]) - int(part.start)] = 1.0
            else:
                obs[key] = np.array(values[key], np.float32).reshape(-1)
        return obs


class ActionMap:
    """Turns actions in [-1, 1], or one-hot, into elements of an environment's action space.

    Args:
        space: the environment's action space.
        metadata: of the environment: ``action_names``, ``action_units`` and ``action_noop``.

    Raises:
        SettingsError: for a space that a policy cannot act in, such as one without bounds.
    """

    def __init__(self, space: spaces.Space, metadata: Mapping[str, Any]) -> None:
        self._space = space
        self.spec = _action_of(space, metadata)  #: of the policy

    def to_env(self, action: np.ndarray) -> Any:
        """Turn an action (A,) into an element of the space."""
        return self.element(self.spec.to_physical(action))

    def element(self, command: np.ndarray) -> Any:
        """Turn a command (command_size,) in the environment's units into an element."""
        if isinstance(self._space, spaces.Discrete):
            return int(command[0]) + int(self._space.start)
        return command

    def from_env(self, element: Any) -> np.ndarray:
        """Turn an element of the space into the action (A,) float32 that leads to it."""
        return self.spec.from_physical(self.command(element))

    def command(self, element: Any) -> np.ndarray:
        """Turn an element of the space into a command (command_size,) float32."""
        command = np.atleast_1d(np.asarray(element, np.float32))
        return command - np.float32(getattr(self._space, "start", 0))


def _parts_of(space: spaces.Space) -> dict[str, spaces.Space]:
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


def _action_of(space: spaces.Space, about: Mapping[str, Any]) -> ActionSpec:
    names = tuple(about.get("action_names", ()))
    if isinstance(space, spaces.Discrete):
        return ActionSpec.choices(int(space.n), names, noop=about.get("action_noop", 0))
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise SettingsError(f"expected a 1-D Box or a Discrete action space, got {space}")
    if not np.isfinite([space.low, space.high]).all() or (space.low >= space.high).any():
        raise SettingsError(
            f"expected actions with finite bounds, each low below its high, got {space}; "
            "give the task an action space with bounds"
        )
    return ActionSpec(
        low=tuple(float(x) for x in space.low),
        high=tuple(float(x) for x in space.high),
        names=names,
        units=tuple(about.get("action_units", ())),
    )
