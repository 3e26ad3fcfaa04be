"""Converts one part of an observation: an image, numbers, or choices.

Choices become one-hot vectors; numbers of any shape and kind become float32 vectors.  A value that
its space does not allow is an ``EnvFault``; NaN and infinity are not: they go on as they are, for
whoever decides what may be learnt from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from wm_core.contract.errors import EnvFault, SettingsError, SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import MAX_NUMBERS, Fit, ImageSpec
from wm_core.training.image_rules import PixelRule, pixel_rule, said_space

SpacePath = tuple[str | int, ...]  #: of a part: keys of dictionaries and indices of tuples
_MOST_LETTERS = 64  #: of the name of an input, which is a topic of recordings
#: what recordings and exported policies call their own
_TAKEN = (
    *("action", "step", "prev_action", "is_first", "noise_latent", "noise_action"),
    *("command", "value", "surprise"),
)


def leaves(space: spaces.Space, path: SpacePath = ()) -> Iterator[tuple[SpacePath, spaces.Space]]:
    """List the parts of dictionaries and tuples in each other, with the path to each."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from leaves(part, (*path, index))
    else:
        yield path, space


def key_of(path: SpacePath) -> str:
    """Write a path as people do: ``arm.joints.0``."""
    return ".".join(map(str, path))


def name_of(path: SpacePath) -> str:
    """Name an input by the path to its part: a word that can be a topic and a ROS parameter.

    Keys are joined by underscores, and so is whatever is no letter, digit or underscore:
    ``joint.pos`` becomes ``joint_pos``.

    Raises:
        SettingsError: for a name that is too long.
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", "_".join(map(str, path)))
    if not re.match(r"[A-Za-z_]", name):
        name = f"part_{name}"
    if name in _TAKEN:
        name = f"obs_{name}"
    if len(name) > _MOST_LETTERS:
        raise SettingsError(
            f"observation {key_of(path)!r}: expected a name of at most {_MOST_LETTERS} letters, "
            f"got {len(name)}; give it a shorter key"
        )
    return name


class Converter:
    """Converts one part of an observation.

    Args:
        key: names the part in errors, as the environment does.
        space: of the part.
    """

    def __init__(self, key: str, space: Any) -> None:
        self.key, self.space = key, space

    @property
    def words(self) -> str:
        """Say what becomes of the part, for a person to read."""
        raise NotImplementedError

    def fault(self, wanted: str, got: Any) -> EnvFault:
        """Say that the environment gave something else than the space of this part."""
        return EnvFault(f"observation {self.key!r}: expected {wanted}, got {said_value(got)}")

    def array(self, value: Any) -> np.ndarray:
        """View (*shape) of a value; raises ``EnvFault`` unless it has the shape of its space.

        Axes of length 1 may be missing or too many.
        """
        shape = self.space.shape
        wanted = f"{shape} {self.space.dtype}"
        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise self.fault(wanted, value) from error
        if array.dtype.kind not in "fiub" or array.size != np.prod(shape, dtype=int):
            raise self.fault(wanted, value)
        if array.shape != shape and np.squeeze(array).shape != tuple(n for n in shape if n > 1):
            raise self.fault(wanted, value)
        return array.reshape(shape)


def said_value(value: Any) -> str:
    """Describe a value by its shape and kind, or by its type."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.shape} {value.dtype}"
    return repr(value) if value is None or isinstance(value, int | float) else type(value).__name__


class ImageConverter(Converter):
    """Converts an image, and remembers whether its last pixels were all finite."""

    def __init__(self, key: str, space: spaces.Box, rule: PixelRule) -> None:
        super().__init__(key, space)
        self.rule, self.was_finite = rule, True

    def sensor(self, size: int, fit: Fit) -> ImageSpec:
        """Describe the image at the network's size.

        One with a side below it is not cropped but padded, unless it is to be squeezed.
        """
        if min(self.rule.spec.height, self.rule.spec.width) < size and fit == "crop":
            fit = "pad"
        return self.rule.spec.model_copy(update={"height": size, "width": size, "fit": fit})

    @property
    def words(self) -> str:
        return self.rule.words

    def read(self, value: Any, image: ImageSpec) -> np.ndarray:
        """Make the image (H, W, C) of ``image``, owned by the caller."""
        array, kind = self.array(value), self.space.dtype.kind
        if (array.dtype.kind == "f") != (kind == "f") or (
            self.rule.exact and array.dtype != self.space.dtype
        ):
            raise self.fault(f"{self.space.shape} {self.space.dtype}", value)
        frame, self.was_finite = self.rule.frame(array)
        try:
            return to_network(frame, image)
        except SpecMismatch as error:
            raise EnvFault(f"observation {self.key!r}: {error}") from error


class NumbersConverter(Converter):
    """Converts numbers of any shape into a vector, row by row."""

    @property
    def size(self) -> int:
        return int(np.prod(self.space.shape, dtype=int))

    @property
    def words(self) -> str:
        return "" if len(self.space.shape) == 1 else "flattened"

    def read(self, value: Any) -> np.ndarray:
        """Make the vector (n,) float32, owned by the caller."""
        with np.errstate(over="ignore"):
            return np.array(self.array(value), np.float32).reshape(-1)


class ChoicesConverter(Converter):
    """Converts one or more choices into one-hot vectors, one behind the other."""

    def __init__(self, key: str, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
        super().__init__(key, space)
        counts: Any = space.n if isinstance(space, spaces.Discrete) else space.nvec
        self._counts = np.ravel(counts).astype(np.int64)
        self._starts = np.ravel(space.start).astype(np.int64)
        self._begins = np.cumsum(self._counts) - self._counts

    @property
    def size(self) -> int:
        return int(self._counts.sum())

    @property
    def words(self) -> str:
        return f"one-hot of {' + '.join(map(str, self._counts[:8]))}"

    def read(self, value: Any) -> np.ndarray:
        """Make the vector (n,) float32; a choice that is not finite is NaN throughout."""
        chosen = self.array(value).reshape(-1)
        vector = np.zeros(self.size, np.float32)
        finite = np.isfinite(chosen)
        index = np.where(finite, chosen, 0).astype(np.int64) - self._starts
        index[~finite] = 0
        off = finite & (chosen != np.rint(np.where(finite, chosen, 0)))
        if (off | (index < 0) | (index >= self._counts)).any():
            i = int(np.argmax(off | (index < 0) | (index >= self._counts)))
            last = self._starts[i] + self._counts[i] - 1
            raise EnvFault(
                f"observation {self.key!r}: expected a whole number of "
                f"{self._starts[i]} .. {last}, got {chosen[i]}"
            )
        vector[self._begins + index] = 1.0
        for i in np.flatnonzero(~finite):
            vector[self._begins[i] : self._begins[i] + self._counts[i]] = np.nan
        return vector


VectorConverter = NumbersConverter | ChoicesConverter


def converter_of(key: str, space: spaces.Space) -> ImageConverter | VectorConverter | None:
    """Choose how a part of an observation is converted; None for one without any numbers.

    Raises:
        SettingsError: for a space that cannot become an image or a vector of a fixed size.
    """
    part: VectorConverter
    if isinstance(space, spaces.Box):
        if 0 in space.shape:
            return None
        rule = pixel_rule(key, space)
        if rule is not None:
            return ImageConverter(key, space, rule)
        part = NumbersConverter(key, space)
    elif isinstance(space, spaces.MultiBinary):
        part = NumbersConverter(key, space)
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        part = ChoicesConverter(key, space)
    else:
        raise SettingsError(
            f"observation {key!r}: expected numbers of a fixed size (Box, Discrete, "
            f"MultiDiscrete, MultiBinary, or Dict and Tuple of these), got {said_space(space)}; "
            "leave it out (FilterObservation) or convert it (TransformObservation of Gymnasium)"
        )
    if not 0 < part.size <= MAX_NUMBERS:
        raise SettingsError(
            f"observation {key!r}: expected 1 to {MAX_NUMBERS} numbers, got {part.size} of "
            f"{said_space(space)}; convert it to fewer by a Gymnasium wrapper "
            "(TransformObservation)"
        )
    return part
