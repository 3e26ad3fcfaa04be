"""Converts observations and actions between a Gymnasium environment's spaces and a policy's.

Observations become dictionaries of the policy's inputs: images at the network's size (the same
rule as on a robot) and float32 vectors; what stands in dictionaries and tuples is named by the
path to it.  ``training.parts`` converts one part, ``training.image_rules`` says what is an image,
``training.action_map`` turns actions into elements of the environment's action space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium import spaces
from pydantic import ValidationError

from wm_core.contract.errors import EnvFault, SettingsError
from wm_core.contract.inputs import MAX_INPUTS, Fit, ImageSpec
from wm_core.contract.spec import Obs, Spec, VectorSpec
from wm_core.contract.views import IMAGE_KEY, VECTOR_KEY, names_of
from wm_core.format.meta import MAX_UNPACKED_BYTES
from wm_core.store.env_recorder import SEAL_STEPS
from wm_core.training.action_map import ActionMap as ActionMap
from wm_core.training.image_rules import said_space
from wm_core.training.parts import (
    ImageConverter,
    SpacePath,
    VectorConverter,
    converter_of,
    key_of,
    leaves,
    name_of,
    said_value,
)

#: of one observation, so that a chunk of them can be stored, with half a megabyte for the rest
_ONE_STEP_BYTES = MAX_UNPACKED_BYTES // SEAL_STEPS - 2**19


class ObsReader:
    """Turns the observations of an environment into the inputs of a policy.

    Args:
        space: the environment's observation space.
        metadata: of the environment; ``<key>_names`` lists the names of a vector's numbers.
        image_size: height and width of the images that the network sees, pixels.
        fit: how an image of another shape is brought to that size; one with a smaller side is
            padded where it would be cropped.

    Raises:
        SettingsError: for a space that cannot become images and vectors.
    """

    def __init__(
        self,
        space: spaces.Space,
        metadata: Mapping[str, Any],
        *,
        image_size: int = 64,
        fit: Fit = "crop",
    ) -> None:
        self.images: dict[str, ImageSpec] = {}  #: the inputs that are images, by name
        self.vectors: dict[str, VectorSpec] = {}  #: the inputs that are vectors, by name
        self.rules: dict[str, str] = {}  #: what became of each part of the space, by input's name
        self._parts: dict[str, tuple[SpacePath, ImageConverter | VectorConverter]] = {}
        for path, leaf in leaves(space):
            part = converter_of(key_of(path) or "the observation", leaf)
            if part is None:
                continue
            name = self._name(path, part)
            self._parts[name] = (path, part)
            if isinstance(part, ImageConverter):
                self.images[name] = part.sensor(image_size, fit)
            else:
                self.vectors[name] = _vector(path, name, part.size, metadata)
            self.rules[name] = _rule(path, part, self.images.get(name))
        self._check(space)

    def _name(self, path: SpacePath, part: Any) -> str:
        """Name a part by its path; a single one is the image or the vector."""
        name = (
            name_of(path)
            if path
            else IMAGE_KEY
            if isinstance(part, ImageConverter)
            else VECTOR_KEY
        )
        if name in self._parts:
            other = key_of(self._parts[name][0])
            raise SettingsError(
                f"observations {other!r} and {key_of(path)!r} would both be the input {name!r}; "
                "give one of them another key"
            )
        return name

    def _check(self, space: spaces.Space) -> None:
        """Refuse what no policy or recording can hold."""
        if not 0 < len(self._parts) <= MAX_INPUTS:
            raise SettingsError(
                f"expected 1 to {MAX_INPUTS} inputs, got {len(self._parts)} of the observation "
                f"space {said_space(space)}; join or leave out some of its parts"
            )
        total = sum(sensor.recorded_bytes for sensor in (self.images | self.vectors).values())
        if total > _ONE_STEP_BYTES:
            raise SettingsError(
                f"expected observations of at most {_ONE_STEP_BYTES} bytes, got {total}: "
                f"{', '.join(self._parts)}; leave out some of them, or take smaller images"
            )

    @property
    def not_finite(self) -> tuple[str, ...]:
        """Name the images of the last observation that came from NaN or infinity.

        Vectors keep such numbers; pixels cannot.
        """
        return tuple(
            name
            for name, (_, part) in self._parts.items()
            if isinstance(part, ImageConverter) and not part.was_finite
        )

    def read(self, observation: Any, spec: Spec) -> Obs:
        """Turn an element of the space into the inputs of ``spec``, which may use fewer of them.

        Returns:
            Images (H, W, C) at the network's size and vectors (n,) float32, owned by the caller;
            choices are one-hot vectors (n,).

        Raises:
            EnvFault: for a value that its space does not allow.
            SettingsError: for inputs of ``spec`` that this environment does not give.
        """
        obs: Obs = {}
        for name, sensor in spec.inputs.items():
            path, part = self._parts.get(name, ((), None))
            if part is None or isinstance(part, ImageConverter) != isinstance(sensor, ImageSpec):
                raise SettingsError(
                    f"the policy's input {name!r} ({sensor.what}) is not among the environment's: "
                    f"images {[*self.images]}, vectors {[*self.vectors]}"
                )
            value = _at(observation, path)
            if isinstance(part, ImageConverter):
                obs[name] = part.read(value, spec.images[name])
            else:
                obs[name] = part.read(value)
        return obs


def said_env(env: gymnasium.Env) -> str:
    """Name ``env`` in an error, by its id or its class."""
    name = env.spec.id if env.spec else type(env.unwrapped).__name__
    return f"task {name!r}"


def _at(observation: Any, path: SpacePath) -> Any:
    """Follow ``path`` into an observation; raises ``EnvFault`` where it ends early."""
    value = observation
    for depth, step in enumerate(path):
        where = f"observation {key_of(path[:depth])!r}" if depth else "observation"
        if isinstance(value, Mapping):
            if step not in value:
                raise EnvFault(f"{where}: expected the key {step!r}, got {[*map(str, value)]}")
        elif not isinstance(step, int):
            raise EnvFault(f"{where}: expected a dictionary, got {said_value(value)}")
        elif not isinstance(value, Sequence) or step >= len(value):
            wanted = f"a tuple of at least {step + 1} parts"
            raise EnvFault(f"{where}: expected {wanted}, got {said_value(value)}")
        value = value[step]
    return value


def _vector(path: SpacePath, name: str, size: int, metadata: Mapping[str, Any]) -> VectorSpec:
    """Describe a vector, with the names that the environment gives its numbers."""
    names = names_of(metadata, key_of(path) or VECTOR_KEY) or names_of(metadata, name)
    try:
        return VectorSpec(size=size, names=names)
    except (TypeError, ValidationError) as error:
        raise SettingsError(
            f"metadata['{name}_names']: expected a list of {size} short names, got {names!r:.80}"
        ) from error


def _rule(path: SpacePath, part: Any, image: ImageSpec | None) -> str:
    """Say what becomes of a part, in words."""
    words = [": ".join([*([key_of(path)] if path else []), said_space(part.space)]), part.words]
    if image is not None:
        own = part.rule.spec
        if (own.height, own.width) != (image.height, image.width):
            words.append(f"{own.width}x{own.height} {_FITTED[image.fit]}")
    return "; ".join(word for word in words if word)


_FITTED = {"crop": "cropped and resized", "pad": "resized and padded", "squeeze": "squeezed"}
