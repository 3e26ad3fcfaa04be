"""Decides what a tick sends, from policy, safety and exploration, and records it; no ROS.

The node gathers the observation, asks the pilot, publishes, and reports to the pilot that the
command was sent.  The policy gets ``is_first`` exactly where the record begins an episode.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm_core.contract.errors import WmError
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_ros.experience import Recorder, Signal, Signals
from wm_ros.policy_slot import PolicySlot
from wm_ros.safety import Guard, limited, safe_command
from wm_ros.sensors.source import Senses
from wm_ros.settings import PilotSettings


@dataclass(frozen=True, slots=True)
class Decision:
    """Holds the outcome of one tick: the command to send, and what to record of it."""

    command: np.ndarray | None  #: (command_size,) physical units; None: send nothing
    stamp_ns: int
    safe: str | None  #: the reason of the safe action; None where the policy acts
    action: np.ndarray | None = None  #: (A,) in [-1, 1] or one-hot, after every limit
    requested_action: np.ndarray | None = None  #: (A,) in [-1, 1], what the policy asked for
    policy_version: int = -1  #: -1 where no policy chose
    obs: Obs = field(default_factory=dict)
    signal: Signal | None = None
    begins: str | None = None


class Pilot:
    """Decides what each tick sends and has it recorded.

    Args:
        slot: the running policy.
        guard: says when the robot must stop.
        signals: reward and flags that wait for their tick.
        recorder: where ticks are recorded.
        settings: exploration.
        seed: of every random draw.
    """

    def __init__(
        self,
        slot: PolicySlot,
        guard: Guard,
        signals: Signals,
        recorder: Recorder,
        settings: PilotSettings,
        *,
        seed: int = 0,
    ) -> None:
        self._slot, self._guard = slot, guard
        self._signals, self._recorder = signals, recorder
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._spec: Spec | None = None
        self._sent = np.zeros(0, np.float32)  # (A,) in [-1, 1], what was sent last
        self._command: np.ndarray | None = None  # the same in physical units
        self._random = np.zeros(0, np.float32)
        self._hold = self._prefill = 0  # ticks that are left

    def begin(self, runner: PolicyRunner) -> None:
        """Take over the action's limits, and the steps collected so far, from the first policy."""
        self._spec = spec = runner.spec
        self._sent = spec.action.from_physical(spec.action.zero_command)
        self._prefill = self._settings.random_prefill - runner.card.agent_steps

    def use(self, settings: PilotSettings) -> None:
        """Explore by changed settings from the next tick on."""
        self._settings = settings

    @property
    def prev_action(self) -> np.ndarray:
        """Give the action (A,) in [-1, 1] or one-hot that was sent last; empty before a policy."""
        return self._sent

    def decide(self, senses: Senses) -> Decision:
        """Choose the command of this tick: the policy's, or the safe one."""
        if self._spec is None or self._slot.runner is None:
            return self._safe("no_policy", senses)
        if senses.obs is None:
            return self._safe(senses.refused or "no_frame", senses)
        reason = self._guard.check_frame(
            fresh=senses.fresh, receive_age_s=senses.receive_age_s, stamp_age_s=senses.stamp_age_s
        )
        if reason is None and not senses.fresh:
            return Decision(self._command, senses.stamp_ns, None)  # a short gap: the command stays
        signal = self._signals.take(senses.stamp_ns) if senses.fresh else None
        if reason is None:
            reason = self._guard.check_obs(senses.obs)
        if reason is not None:
            return self._safe(reason, senses, signal)
        return self._act(senses, senses.obs, signal, self._spec)

    def _act(self, senses: Senses, obs: Obs, signal: Signal | None, spec: Spec) -> Decision:
        begins = self._recorder.begins(senses.stamp_ns, signal)
        try:
            out = self._slot.act(obs, self._sent, begins is not None)
        except WmError:
            return self._safe(self._guard.trip("policy_failed"), senses, signal)
        runner = self._slot.runner
        assert runner is not None
        version, requested = runner.card.version, out.action
        if self._prefill > 0:
            self._prefill -= 1
            version, wanted = -1, self._random_action(spec.action)
        else:
            wanted = self._explore(requested, spec.action)
        action = limited(wanted, self._sent, spec.action)
        if action is None:
            return self._safe(self._guard.trip("nan_action"), senses, signal)
        return Decision(
            command=spec.action.to_physical(action),
            stamp_ns=senses.stamp_ns,
            safe=None,
            action=action,
            requested_action=requested,
            policy_version=version,
            obs=obs,
            signal=signal,
            begins=begins,
        )

    def _explore(self, action: np.ndarray, spec: ActionSpec) -> np.ndarray:
        """Add noise to the policy's ``action`` (A,); now and then draw another choice."""
        noise = self._settings.exploration_noise
        if noise <= 0:
            return action
        if spec.discrete:
            return spec.random(self._rng) if self._rng.random() < noise else action
        return action + self._rng.standard_normal(spec.size).astype(np.float32) * np.float32(noise)

    def _random_action(self, spec: ActionSpec) -> np.ndarray:
        """Draw a uniform action (A,), which is held for a few ticks."""
        if self._hold == 0:
            self._hold = self._settings.random_hold
            self._random = spec.random(self._rng)
        self._hold -= 1
        return self._random

    def _safe(self, reason: str, senses: Senses, signal: Signal | None = None) -> Decision:
        """Stop; the command carries the stamp of a new frame, and none where it answers none."""
        stamp_ns = senses.stamp_ns if senses.fresh else 0
        obs = senses.obs or {}
        return Decision(self._safe_command(), stamp_ns, reason, obs=obs, signal=signal)

    def sent(self, decision: Decision, *, missed: bool, skipped: int = 0) -> None:
        """Record a decision whose command was sent; prepare the next step, of a new policy too.

        Args:
            decision: what ``decide`` returned.
            missed: it was sent later than one period after its schedule.
            skipped: ticks before it that were skipped altogether.
        """
        if skipped:
            self._recorder.skipped["tick_skipped"] += skipped
        self._remember(decision.command, decision.action)
        if decision.action is not None or (decision.safe == "nan_obs" and decision.signal):
            self._record(decision, missed)
        else:
            self._recorder.skip(decision.safe or "repeated")
        self._slot.between_ticks()
        self._slot.prepare(self._sent)

    def _remember(self, command: np.ndarray | None, action: np.ndarray | None = None) -> None:
        """Keep what was sent last: ``command`` (command_size,), the ``action`` (A,) in units."""
        spec = self._spec
        if spec is not None and command is not None and command.size == spec.action.command_size:
            self._command = command
            self._sent = spec.action.from_physical(command) if action is None else action

    def _record(self, decision: Decision, missed: bool) -> None:
        """Record what was sent; an observation with a NaN is kept, marked as not valid."""
        acted, begins = decision.action is not None, decision.begins
        if not acted:
            begins = self._recorder.begins(decision.stamp_ns, decision.signal)
        self._recorder.add(
            decision.obs,
            self._sent,
            decision.signal,
            stamp_ns=decision.stamp_ns,
            begins=begins,
            requested_action=decision.requested_action,
            policy_version=decision.policy_version,
            missed=missed,
            is_intervention=not acted,
        )

    def stop(self) -> np.ndarray | None:
        """Break off the record and return the safe command (command_size,); None: send nothing."""
        self._recorder.break_off("stopped")
        command = self._safe_command()
        self._remember(command)
        return command

    def _safe_command(self) -> np.ndarray | None:
        spec = self._spec
        zero = np.zeros(0, np.float32) if spec is None else spec.action.zero_command
        return safe_command(self._guard.settings.safe_action, zero, self._command)
