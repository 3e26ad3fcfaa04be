"""Defines the shapes, ranges and units of what a robot sees and does.

Both ends build their arrays from one ``Spec``: the trainer sizes its networks with it, the robot
validates its camera and its actuators against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Annotated, Any

import numpy as np
from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.frozen import Frozen as Frozen
from wm_core.contract.frozen import Name
from wm_core.contract.inputs import MAX_INPUTS, MAX_NUMBERS, Input, Vector, read_inputs
from wm_core.contract.inputs import ImageSpec as ImageSpec
from wm_core.contract.inputs import VectorSpec as VectorSpec

Obs = dict[str, np.ndarray]
OptionIndex = Annotated[int, Field(ge=0)]  #: of a choice
MAX_BOUND = 1e12  #: magnitude of a bound of a command; float32 holds the distance of two


class ActionSpec(Frozen):
    """Describes an action, (size,) float32, and the command (command_size,) of the robot.

    Continuous: in [-1, 1], mapped to ``low`` .. ``high``.  Discrete: one-hot over ``size``
    choices, which ``names`` may name; the command is the index of the choice.  Several choices at
    once, of ``groups``: the one-hots of all of them in a row; the command has one index for each.
    """

    low: tuple[float, ...] = Field(max_length=MAX_NUMBERS)
    high: tuple[float, ...] = Field(max_length=MAX_NUMBERS)
    names: tuple[Name, ...] = Field((), max_length=MAX_NUMBERS)
    units: tuple[Name, ...] = Field((), max_length=MAX_NUMBERS)  #: such as m/s, rad/s, N m
    max_change: float = Field(2.0, gt=0, le=2.0)  #: slew: largest change per tick in [-1, 1] units
    discrete: bool = False  #: exactly one of ``size`` choices; ``max_change`` has no effect
    #: of several independent choices, how many each has; () where there is one choice, or none
    groups: tuple[int, ...] = Field((), max_length=MAX_NUMBERS)
    #: discrete: the choice that stops the robot, or does nothing; of groups: one for each
    noop: OptionIndex | tuple[OptionIndex, ...] = Field(0, validate_default=True)

    @classmethod
    def choices(cls, n: int, names: tuple[str, ...] = (), noop: int = 0) -> ActionSpec:
        """Describe an action that is one of ``n`` choices."""
        return cls(low=(0.0,) * n, high=(1.0,) * n, names=names, discrete=True, noop=noop)

    @classmethod
    def several_choices(
        cls,
        groups: tuple[int, ...],
        names: tuple[str, ...] = (),
        noop: int | tuple[int, ...] = 0,
    ) -> ActionSpec:
        """Describe an action of two or more independent choices.

        Args:
            groups: how many there are to choose from, for each choice.
            names: of all of them in a row, or none.
            noop: for each choice the index that stops the robot; one number: of every choice.
        """
        low, high = (0.0,) * sum(groups), (1.0,) * sum(groups)
        return cls(low=low, high=high, names=names, discrete=True, groups=groups, noop=noop)

    @field_validator("noop")
    @classmethod
    def _of_every_group(
        cls, noop: int | tuple[int, ...], info: ValidationInfo
    ) -> int | tuple[int, ...]:
        groups = info.data.get("groups", ())
        return (noop,) * len(groups) if groups and isinstance(noop, int) else noop

    @model_serializer(mode="wrap")
    def _without_empty_groups(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``groups`` out where there are none: so older versions read what they can run."""
        fields: dict[str, Any] = handler(self)
        if not self.groups:
            fields.pop("groups", None)
        return fields

    @model_validator(mode="after")
    def _consistent(self) -> ActionSpec:
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} entries, high has {len(self.high)}")
        if not all(map(math.isfinite, (*self.low, *self.high))):
            raise ValueError(f"action bounds must be finite, got {self.low} .. {self.high}")
        if max(map(abs, (*self.low, *self.high))) > MAX_BOUND:
            raise ValueError(
                f"action bounds must be within {MAX_BOUND:g}, got {self.low} .. {self.high}"
            )
        if any(lo >= hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise ValueError(f"every low must be below its high, got {self.low} .. {self.high}")
        if self.discrete:
            self._check_choices()
        elif self.groups:
            raise ValueError(f"groups are of choices, so discrete must be true: {self.groups}")
        elif self.noop != 0:
            raise ValueError(f"noop must be one of the choices, got {self.noop}")
        return self

    def _check_choices(self) -> None:
        if self.size < 2 or {*self.low} != {0.0} or {*self.high} != {1.0}:
            raise ValueError(
                f"expected at least 2 choices, each 0 .. 1, got {self.low} .. {self.high}"
            )
        if len(self.names) not in (0, self.size):
            raise ValueError(f"expected {self.size} names, one per choice, got {self.names}")
        if self.groups and (
            len(self.groups) < 2 or min(self.groups) < 2 or sum(self.groups) != self.size
        ):
            raise ValueError(
                f"groups: expected two or more, each of at least 2 choices, {self.size} in all, "
                f"got {self.groups}"
            )
        noops = self.noop if isinstance(self.noop, tuple) else (self.noop,)
        if len(noops) != len(self.sizes) or any(
            i >= n for i, n in zip(noops, self.sizes, strict=True)
        ):
            raise ValueError(
                f"noop must be one of the choices, an index for each of {self.sizes}, "
                f"got {self.noop}"
            )

    @property
    def size(self) -> int:
        return len(self.low)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Count what there is to choose from, for each choice; () where none is a choice."""
        return self.groups or ((self.size,) if self.discrete else ())

    @property
    def begins(self) -> tuple[int, ...]:
        """List where in the action (A,) the one-hot of each choice begins."""
        return (0, *accumulate(self.sizes[:-1])) if self.sizes else ()

    @property
    def kind(self) -> str:
        """Describe it to people: ``2 actions``, ``3 choices`` or ``choices of 3 and 2``."""
        if not self.groups:
            return f"{self.size} {'choices' if self.discrete else 'actions'}"
        *first, last = map(str, self.groups)
        return f"choices of {', '.join(first)} and {last}"

    @property
    def command_size(self) -> int:
        return len(self.sizes) or self.size

    @property
    def zero_command(self) -> np.ndarray:
        """Make the command (command_size,) float32 that stops the robot: zeros or ``noop``."""
        return np.full(self.command_size, self.noop, np.float32)

    def is_chosen(self, action: np.ndarray) -> np.ndarray:
        """Tell of which discrete actions (..., A) each choice is one-hot, (...) bool."""
        whole = ((action == 0.0) | (action == 1.0)).all(-1)
        counts = np.add.reduceat(action, self.begins, axis=-1, dtype=np.float64)
        return np.asarray(whole & (counts == 1.0).all(-1))

    def limit(self, action: np.ndarray, prev_action: np.ndarray) -> np.ndarray:
        """Limit ``action`` (A,) to [-1, 1] and to ``max_change`` around ``prev_action`` (A,).

        Discrete: the one-hot (A,) of its largest entry, for each choice.
        """
        if self.discrete:
            return self._one_hot(self._largest(action))
        near = np.clip(action, prev_action - self.max_change, prev_action + self.max_change)
        return np.clip(near, -1.0, 1.0).astype(np.float32)

    def to_physical(self, action: np.ndarray) -> np.ndarray:
        """Convert an action (A,), clipped to [-1, 1], to a command (command_size,) in ``units``.

        Discrete: the index of the largest entry, for each choice.
        """
        if self.discrete:
            return np.array(self._largest(action), np.float32)
        low, high = np.array([self.low, self.high], np.float32)
        unit = (np.clip(np.asarray(action, np.float32), -1.0, 1.0) + 1.0) * np.float32(0.5)
        return low + unit * (high - low)

    def from_physical(self, command: np.ndarray) -> np.ndarray:
        """Convert a command (command_size,) to an action (A,), clipped to what there is."""
        if self.discrete:
            last = np.array(self.sizes) - 1
            return self._one_hot([int(i) for i in np.clip(np.rint(command), 0, last)])
        low, high = np.array([self.low, self.high], np.float32)
        unit = (np.asarray(command, np.float32) - low) / (high - low)
        return np.clip(unit * 2.0 - 1.0, -1.0, 1.0).astype(np.float32)

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Draw an action (A,) float32 uniformly from all actions."""
        if self.discrete:
            return self._one_hot([int(rng.integers(n)) for n in self.sizes])
        return rng.uniform(-1.0, 1.0, self.size).astype(np.float32)

    def _largest(self, action: np.ndarray) -> list[int]:
        """Find the index of the largest entry of ``action`` (A,) for each choice."""
        if not self.groups:
            return [int(np.argmax(action))]
        return [int(np.argmax(part)) for part in np.split(np.asarray(action), self.begins[1:])]

    def _one_hot(self, indices: Sequence[int]) -> np.ndarray:
        """Make the action (A,) of an index for each choice."""
        action = np.zeros(self.size, np.float32)
        for begin, index in zip(self.begins, indices, strict=True):
            action[begin + index] = 1.0
        return action


class Spec(Frozen):
    """Describes everything that a policy reads and writes, and how often."""

    images: Annotated[
        dict[str, SerializeAsAny[ImageSpec]],
        BeforeValidator(partial(read_inputs, implied=ImageSpec)),
    ] = Field(default_factory=lambda: {"image": ImageSpec()})
    vectors: Annotated[
        dict[str, SerializeAsAny[Vector]], BeforeValidator(partial(read_inputs, implied=Vector))
    ] = Field(default_factory=dict)
    action: ActionSpec
    period_s: float = Field(0.05, gt=0, le=3600)  #: of one agent step

    @model_validator(mode="after")
    def _named_once(self) -> Spec:
        twice = set(self.images) & set(self.vectors)
        if twice or not (self.images or self.vectors):
            raise ValueError(f"need at least one input, each named once; named twice: {twice}")
        if len(self.inputs) > MAX_INPUTS:
            raise ValueError(f"expected at most {MAX_INPUTS} inputs, got {len(self.inputs)}")
        return self

    @property
    def inputs(self) -> dict[str, Input]:
        """List every sensor by name, images first: the order of a policy's inputs."""
        return {**self.images, **self.vectors}

    def check_obs(self, obs: Obs) -> None:
        """Raise ``SpecMismatch`` unless ``obs`` has every input with its shape and dtype."""
        for key, sensor in self.inputs.items():
            if key not in obs:
                raise SpecMismatch(f"observation lacks {key!r}; it has {sorted(obs)}")
            sensor.check(key, obs[key])

    def zeros(self) -> Obs:
        """Make an observation of zeros: images (H, W, C), vectors (n,) float32."""
        return {key: np.zeros(s.shape, s.dtype) for key, s in self.inputs.items()}
