"""Keeps a policy's carry from step to step: what a robot and an evaluation act with.

``prev_action`` is what was really sent, at ``is_first`` too: the network sees zeros there, the
slew limit sees what the actuator does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wm_core.contract.errors import PolicyFailed, SpecMismatch
from wm_core.contract.spec import Obs

if TYPE_CHECKING:
    from wm_core.contract.runner import Ahead, PolicyRunner

PolicyCarry = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """Holds what a policy answers to one observation."""

    action: np.ndarray  #: (A,) float32 in [-1, 1], after the slew limit; discrete: one-hot
    #: (command_size,) float32, the same in physical units; discrete: index.  To compare with only:
    #: the robot explores and limits behind the policy, and sends a command of its own
    command: np.ndarray
    carry: PolicyCarry  #: the next step's carry by input name, batch axis of 1 included
    value: float | None = None  #: expected discounted return, in units of reward
    surprise: float | None = None  #: nats by which the observation moved the prior


class PolicyEngine:
    """Runs a policy and keeps its carry from step to step, for a robot or an evaluation.

    Args:
        runner: the policy; engines may share one as long as they take turns in one thread.
        seed: of the draws; the same seed and inputs give the same actions.
        mean: take the mean action instead of drawing it.
        estimates: which of ``value`` and ``surprise`` to compute at each step; may be changed.
    """

    def __init__(
        self,
        runner: PolicyRunner,
        *,
        seed: int,
        mean: bool = False,
        estimates: Collection[str] = ("value", "surprise"),
    ) -> None:
        self.runner, self.mean, self.estimates = runner, mean, estimates
        self._ahead: Ahead | None = None
        self._rng = np.random.default_rng(seed)
        self._carry, self._fresh = runner.initial_carry(), True

    def reset(self) -> None:
        """Make the next ``act`` begin an episode."""
        self._fresh = True

    def prepare(self, sent_action: np.ndarray) -> None:
        """Run what the next step needs no observation for; call it once a command has left.

        ``act`` answers the same, bit for bit, whether this was called or not, and with whichever
        action: what it prepared is used where it is half of that step.

        Args:
            sent_action: (A,) in [-1, 1], what was really sent: the next ``prev_action``.
        """
        self._ahead = self.runner.prepare(
            sent_action,
            self._fresh,
            self._carry,
            self._rng,
            mean=self.mean,
            before=self._ahead,
        )

    def warm(self) -> None:
        """Fill the caches just before an observation comes; it changes no answer."""
        self.runner.warm()

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: bool = False) -> PolicyOutput:
        """Take one step from the kept carry; ``prev_action`` is (A,), see ``PolicyRunner.run``.

        Raises:
            SpecMismatch: for an observation or action that does not fit; the carry stays.
            PolicyFailed: as above; the next step begins an episode.
        """
        first = bool(is_first) or self._fresh
        try:
            out = self.runner.run(
                obs,
                prev_action,
                first,
                self._carry,
                self._rng,
                mean=self.mean,
                ahead=self._ahead,
                estimates=self.estimates,
            )
        except PolicyFailed:
            self._carry, self._fresh, self._ahead = self.runner.initial_carry(), True, None
            raise
        self._carry, self._fresh, self._ahead = out.carry, False, None
        return out

    @property
    def carry(self) -> PolicyCarry:
        """Give what the next step starts from, by input name; zeros before an episode."""
        return self.runner.initial_carry() if self._fresh else dict(self._carry)

    @carry.setter
    def carry(self, value: Mapping[str, np.ndarray]) -> None:
        """Continue from ``value``, (1, ...) by input name, instead of from a reset."""
        want = self.runner.initial_carry()
        if value.keys() != want.keys():
            raise SpecMismatch(f"carry: expected {sorted(want)}, got {sorted(value)}")
        for name, zeros in want.items():
            if value[name].shape != zeros.shape:
                raise SpecMismatch(
                    f"carry {name!r}: expected {zeros.shape}, got {value[name].shape}"
                )
        self._carry = {name: np.asarray(value[name], np.float32) for name in want}
        self._fresh = False
