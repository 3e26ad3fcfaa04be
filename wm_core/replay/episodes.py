"""Holds episodes in memory: a replay of your own arrays, without a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import INPUTS, ImageSpec, input_of
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_core.replay.batch import make_batch
from wm_core.store.index import FLAG_BITS

NO_POLICY = -1  #: version of the policy of steps that were recorded elsewhere
Arrays = np.ndarray | Sequence[np.ndarray]  #: (N, T, ...), or N arrays (T_i, ...)


class Episodes:
    """Holds whole episodes one after the other, from which windows are drawn.

    Args:
        spec: of observations and actions.
        obs: by input, (steps, ...) of all episodes.
        steps: (steps,) of the fields key, action, reward, flags and policy_version.
    """

    def __init__(self, spec: Spec, obs: Obs, steps: np.ndarray) -> None:
        self.spec, self._obs, self._steps = spec, obs, steps

    def __len__(self) -> int:
        """Count the agent steps of all episodes."""
        return len(self._steps)

    @classmethod
    def from_arrays(
        cls,
        *,
        action: Arrays,
        reward: Arrays,
        is_terminal: Arrays | None = None,
        spec: Spec | None = None,
        **obs: Arrays,
    ) -> Episodes:
        """Take N episodes as arrays (N, T, ...), or as lists of N arrays (T_i, ...).

        Nothing is shifted: ``action[t]`` was chosen after seeing ``obs[t]``, and ``reward[t]``
        arrived together with ``obs[t]``, so the first reward of an episode counts for nothing.

        Args:
            action: (N, T, A) in [-1, 1]; for choices, one-hot.
            reward: (N, T).
            is_terminal: (N, T) bool: nothing can follow; only the last step of an episode can be.
                None: every episode was cut by a time limit.
            spec: of the arrays; None: made from them, with actions from -1 to 1.
            obs: by input, images (N, T, H, W, C) uint8 and vectors (N, T, n).

        Raises:
            SpecMismatch: for an array of another shape, type or range.
        """
        if not len(reward) or any(np.ndim(episode) != 1 or not len(episode) for episode in reward):
            raise SpecMismatch(
                "reward: expected (N, T), or N arrays (T_i,), of at least one step each; "
                "one episode alone is array[None]"
            )
        if not obs:
            raise SpecMismatch("expected at least one input by name, such as image=... or x=...")
        arrays = {"action": action, "reward": reward} | obs
        if is_terminal is not None:
            arrays["is_terminal"] = is_terminal
        lengths = [len(episode) for episode in reward]
        flat = {name: _joined(name, array, lengths) for name, array in arrays.items()}
        spec = spec or _spec_of({name: flat[name] for name in obs}, flat["action"])
        inputs = _checked(spec, flat)
        size, last = spec.action.size, np.cumsum(lengths) - 1
        fields = [("key", "i8"), ("action", "f4", (size,)), ("reward", "f4"), ("flags", "u1")]
        steps = np.zeros(len(flat["reward"]), [*fields, ("policy_version", "i8")])
        steps["key"], steps["policy_version"] = np.arange(len(steps)), NO_POLICY
        steps["action"], steps["reward"] = flat["action"], flat["reward"]
        steps["flags"][last] |= FLAG_BITS["is_last"]
        steps["flags"][[0, *last[:-1] + 1]] |= FLAG_BITS["is_first"]
        if is_terminal is not None:
            ends = flat["is_terminal"].astype(bool)
            if np.delete(ends, last).any():
                raise SpecMismatch(
                    "is_terminal: expected it only at the last step of an episode, got it before; "
                    "end the episode there"
                )
            steps["flags"][ends] |= FLAG_BITS["is_terminal"]
        return cls(spec, inputs, steps)

    def windows(
        self, *, batch: int, length: int, updates: int, seed: int = 0
    ) -> Iterator[Batch[np.ndarray]]:
        """Draw ``updates`` batches of windows (B, T, ...), each window equally likely.

        A window may reach from one episode into the next: ``is_first`` is set where that begins.

        Args:
            batch: B, windows of a batch.
            length: T, steps of a window.
            updates: how many batches are drawn.
            seed: of the draws.

        Raises:
            SpecMismatch: where all episodes together have fewer than ``length`` steps.
        """
        if len(self) < length:
            raise SpecMismatch(f"expected at least {length} steps for a window, got {len(self)}")
        rng = np.random.default_rng(seed)
        for _ in range(updates):
            start = rng.integers(len(self) - length + 1, size=batch)
            rows = start[:, None] + np.arange(-1, length)
            obs = {name: array[rows[:, 1:]] for name, array in self._obs.items()}
            yield make_batch(self._steps[np.maximum(rows, 0)], obs, start > 0)


def _joined(name: str, episodes: Arrays, lengths: list[int]) -> np.ndarray:
    """Join the arrays of all episodes to one (steps, ...)."""
    got = [len(episode) for episode in episodes]
    if got != lengths or not sum(lengths):
        raise SpecMismatch(f"{name}: expected episodes of {lengths} steps, as reward, got {got}")
    return np.concatenate([np.asarray(episode) for episode in episodes])


def _spec_of(obs: Obs, action: np.ndarray) -> Spec:
    """Make the spec of arrays (steps, ...), of the kinds of sensor that shapes and types tell."""
    inputs = {}
    for name, array in obs.items():
        dtype = np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype
        box = SimpleNamespace(shape=array.shape[1:], dtype=dtype, low=array, high=array)
        if (sensor := input_of(box)) is None:
            kinds = ", ".join(kind.what for kind in INPUTS.values())
            raise SpecMismatch(
                f"{name}: expected steps of one of {kinds}, got {array.shape[1:]} {array.dtype}"
            )
        inputs[name] = sensor
    high = (1.0,) * action.shape[-1]
    return Spec(
        images={k: s for k, s in inputs.items() if isinstance(s, ImageSpec)},
        vectors={k: s for k, s in inputs.items() if not isinstance(s, ImageSpec)},
        action=ActionSpec(low=tuple(-x for x in high), high=high),
    )


def _checked(spec: Spec, flat: Obs) -> Obs:
    """Return the inputs that ``spec`` names, (steps, ...) each; raise where an array misfits."""
    action, reward = flat["action"], flat["reward"]
    if action.shape != (len(reward), spec.action.size) or not (np.abs(action) <= 1.0).all():
        low, high = (action.min(), action.max()) if action.size else (0, 0)
        raise SpecMismatch(
            f"action: expected (N, T, {spec.action.size}) within -1 .. 1, got steps of shape "
            f"{action.shape[1:]} within {low:g} .. {high:g}; see ActionSpec.from_physical"
        )
    if spec.action.discrete and not spec.action.is_chosen(action).all():
        each = f" for each of the {spec.action.kind}" if spec.action.groups else ""
        raise SpecMismatch(f"action: expected one-hot choices, exactly one 1 per step{each}")
    if reward.ndim != 1 or not np.isfinite(reward).all():
        raise SpecMismatch(f"reward: expected (N, T) finite numbers, got steps {reward.shape[1:]}")
    inputs: Obs = {}
    for name, sensor in spec.inputs.items():
        if name not in flat:
            raise SpecMismatch(f"expected the inputs {[*spec.inputs]}, got {sorted(flat)}")
        array = flat[name]
        if array.dtype.kind == sensor.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(sensor.dtype, copy=False)
            if not np.isfinite(array).all():
                raise SpecMismatch(f"{name}: expected finite numbers, got NaN or infinity")
        sensor.check(name, array[0])
        inputs[name] = array
    return inputs
