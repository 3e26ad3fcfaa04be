"""Turns actions in [-1, 1], or one-hot, into elements of an environment's action space.

Boxes of any shape become continuous actions.  Of a box of whole numbers every number has an equal
share of [-1, 1].  Discrete, MultiDiscrete and MultiBinary become choices; one that has a single
option is left out, and filled in.  Dictionaries and tuples of boxes, or of choices, are joined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from pydantic import ValidationError

from wm_core.contract.errors import SettingsError
from wm_core.contract.inputs import MAX_NUMBERS
from wm_core.contract.spec import MAX_BOUND, ActionSpec
from wm_core.training.image_rules import said_space
from wm_core.training.parts import SpacePath, key_of, leaves

_Chosen = spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class ActionMap:
    """Turns actions of a policy into elements of an environment's action space, and back.

    Args:
        space: the environment's action space.
        metadata: of the environment: ``action_names``, ``action_units`` and ``action_noop``.

    Raises:
        SettingsError: for a space that a policy cannot act in, such as one without bounds.
    """

    def __init__(self, space: spaces.Space, metadata: Mapping[str, Any]) -> None:
        self._space = space
        found = [(path, _block(path, leaf)) for path, leaf in leaves(space)]
        kinds = {type(block) for _, block in found}
        if len(kinds) != 1:
            raise SettingsError(
                "expected an action space of continuous numbers alone or of choices alone, got "
                f"{said_space(space)}; wrap the task so that it takes one kind"
            )
        self._blocks = found
        self.discrete = kinds == {_Choices}
        try:
            self.spec = self._spec(metadata)  #: of the policy
        except SettingsError:
            raise
        except (TypeError, ValueError) as error:
            raise SettingsError(
                f"action space {said_space(space)} with the metadata "
                f"{ {k: v for k, v in metadata.items() if k.startswith('action_')} }: "
                f"{_reason(error)}"
            ) from error

    def _spec(self, about: Mapping[str, Any]) -> ActionSpec:
        names = tuple(about.get("action_names", ())) or self._own_names()
        if self.discrete:
            sizes = tuple(n for _, block in self._blocks for n in block.sizes if n > 1)
            if not sizes:
                raise SettingsError(
                    f"expected at least 2 choices of action, got {said_space(self._space)}, "
                    "which leaves nothing to choose; give the task a second one, such as to wait"
                )
            if sum(sizes) > MAX_NUMBERS:
                raise SettingsError(
                    f"expected at most {MAX_NUMBERS} choices of action, got {sum(sizes)} of "
                    f"{said_space(self._space)}; split them into several (MultiDiscrete)"
                )
            noop: Any = about.get("action_noop", 0)
            noop = noop if np.ndim(noop) == 0 else self._free(noop)
            if len(sizes) > 1:
                return ActionSpec.several_choices(sizes, names, noop=noop)
            return ActionSpec.choices(
                sizes[0], names, noop=noop if np.ndim(noop) == 0 else noop[0]
            )
        low, high = (
            np.concatenate([getattr(block, end) for _, block in self._blocks])
            for end in ("low", "high")
        )
        return ActionSpec(
            low=tuple(map(float, low)),
            high=tuple(map(float, high)),
            names=names,
            units=tuple(about.get("action_units", ())),
        )

    def _free(self, noops: Any) -> tuple[int, ...]:
        """Leave out what is said of choices that have a single option."""
        sizes = [n for _, block in self._blocks for n in block.sizes]
        if len(noops) != len(sizes):
            raise ValueError(f"action_noop: expected {len(sizes)} indices, got {noops!r}")
        return tuple(int(i) for i, n in zip(noops, sizes, strict=True) if n > 1)

    def _own_names(self) -> tuple[str, ...]:
        """Name continuous actions by the keys that lead to them; () where there are none."""
        if self.discrete or len(self._blocks) < 2:
            return ()
        return tuple(
            key_of(path) if block.size == 1 else f"{key_of(path)}.{i}"
            for path, block in self._blocks
            for i in range(block.size)
        )

    @property
    def rule(self) -> str:
        """Say what the action space became, for a person to read."""
        words = {block.words for _, block in self._blocks}
        return "; ".join([said_space(self._space), *sorted(word for word in words if word)])

    def to_env(self, action: np.ndarray) -> Any:
        """Turn an action (A,) into an element of the space."""
        return self.element(self.spec.to_physical(action))

    def element(self, command: np.ndarray) -> Any:
        """Turn a command (command_size,) in the environment's units into an element."""
        elements, at = {}, 0
        for path, block in self._blocks:
            elements[path] = block.element(command[at : at + block.size])
            at += block.size
        return _assembled(self._space, elements, ())

    def from_env(self, element: Any) -> np.ndarray:
        """Turn an element of the space into the action (A,) float32 that leads to it."""
        return self.spec.from_physical(self.command(element))

    def command(self, element: Any) -> np.ndarray:
        """Turn an element of the space into a command (command_size,) float32."""
        parts = []
        for path, block in self._blocks:
            value = element
            for step in path:
                value = value[step]
            parts.append(block.command(value))
        return np.concatenate(parts).astype(np.float32)


class _Numbers:
    """Maps a box: bounds (size,), elements of its shape and dtype."""

    def __init__(self, key: str, box: spaces.Box) -> None:
        self._box, self._whole = box, box.dtype.kind in "iub"
        self.size = int(np.prod(box.shape, dtype=int))
        low, high = (np.ravel(end).astype(np.float64) for end in (box.low, box.high))
        self.low, self.high = low, high
        if not 0 < self.size <= MAX_NUMBERS:
            raise SettingsError(
                f"action{key}: expected 1 to {MAX_NUMBERS} numbers, got {said_space(box)}"
            )
        fine = (np.abs(low) <= MAX_BOUND) & (np.abs(high) <= MAX_BOUND)
        with np.errstate(over="ignore"):
            fine &= low.astype(np.float32) < high.astype(np.float32)
        if not fine.all():
            i = int(np.argmin(fine))
            raise SettingsError(
                f"action{key}: expected finite bounds within {MAX_BOUND:g}, each low below its "
                f"high, got {low[i]:g} .. {high[i]:g} for number {i}; give the task's "
                "action_space the limits of what it drives"
            )

    @property
    def words(self) -> str:
        shaped = "" if len(self._box.shape) == 1 else "flattened"
        return ", ".join(w for w in (shaped, "whole numbers" if self._whole else "") if w)

    def element(self, command: np.ndarray) -> np.ndarray:
        dtype: Any = self._box.dtype
        if not self._whole:
            exact = command.astype(dtype).reshape(self._box.shape)
            return np.asarray(np.clip(exact, self._box.low, self._box.high))
        share = (command.astype(np.float64) - self.low) / (self.high - self.low)
        count = self.high - self.low + 1.0
        steps = np.clip(np.floor(np.nan_to_num(share) * count), 0.0, count - 1.0)
        return (self.low + steps).astype(dtype).reshape(self._box.shape)

    def command(self, element: Any) -> np.ndarray:
        value = np.ravel(np.asarray(element, np.float64))
        if not self._whole:
            return value
        count = self.high - self.low + 1.0  # the middle of the number's share
        return self.low + (value - self.low + 0.5) / count * (self.high - self.low)


class _Choices:
    """Maps choices: an index for each that has more than one option."""

    def __init__(self, space: Any) -> None:
        self._space = space
        if isinstance(space, spaces.MultiBinary):
            sizes, starts = np.full(space.shape, 2), np.zeros(space.shape, int)
        else:
            sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
            starts = space.start
        self.sizes = tuple(int(n) for n in np.ravel(sizes))
        self._starts = np.ravel(starts).astype(np.int64)
        self._free = np.array(self.sizes) > 1
        self.size = int(self._free.sum())

    @property
    def words(self) -> str:
        lone = len(self.sizes) - self.size
        return f"{lone} of a single option left out" if lone else ""

    def element(self, command: np.ndarray) -> Any:
        chosen = self._starts.copy()
        chosen[self._free] += np.rint(command).astype(np.int64)
        if isinstance(self._space, spaces.Discrete):
            return int(chosen[0])
        return chosen.astype(self._space.dtype).reshape(self._space.shape)

    def command(self, element: Any) -> np.ndarray:
        return (np.ravel(np.asarray(element)) - self._starts)[self._free].astype(np.float64)


def _block(path: SpacePath, space: spaces.Space) -> Any:
    key = f" {key_of(path)!r}" if path else ""
    if isinstance(space, spaces.Box):
        return _Numbers(key, space)
    if isinstance(space, _Chosen):
        return _Choices(space)
    raise SettingsError(
        f"action{key}: expected a Box with bounds, Discrete, MultiDiscrete or MultiBinary, or a "
        f"Dict or Tuple of these, got {said_space(space)}"
    )


def _assembled(space: spaces.Space, elements: Mapping[SpacePath, Any], path: SpacePath) -> Any:
    """Put the elements of all parts together as ``space`` has them."""
    if isinstance(space, spaces.Dict):
        return {k: _assembled(s, elements, (*path, k)) for k, s in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_assembled(s, elements, (*path, i)) for i, s in enumerate(space.spaces))
    return elements[path]


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(e["msg"].removeprefix("Value error, ") for e in error.errors())
    return str(error)
