"""Decides what a tick sends, from policy, safety and exploration, and records it; no ROS.

The node gathers the observation, asks the pilot, publishes, and reports to the pilot that the
command was sent.  The policy gets ``is_first`` exactly where the record begins an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from wm_core.contract.engine import PolicyOutput
from wm_core.contract.errors import PolicySlow, SpecMismatch, WmError
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_ros.episodes.experience import Recorder, Signal, Signals
from wm_ros.policies.slot import PolicySlot
from wm_ros.safety.actuation import Actuation
from wm_ros.safety.guard import Guard, limited
from wm_ros.safety.interventions import Interventions
from wm_ros.sensors.source import Senses
from wm_ros.settings import PilotSettings

#: reasons for which an observation is recorded though the policy does not act on it: it is not
#: finite, or the last of its episode
STILL_RECORDED = ("nan_obs", "no_episode", "resetting", "reset_failed")
_LONGEST_S = 0.5  #: between two observations: what is longer says nothing of a frozen camera
_MOVING_SHARE = 0.02  #: of a velocity's range: a command beyond it moves the robot


@dataclass(frozen=True, slots=True)
class Decision:
    """Holds the outcome of one tick: the command to send, and what to record of it."""

    command: np.ndarray | None  #: (command_size,) physical units; None: send nothing
    stamp_ns: int  #: of the image that it answers; 0: of none
    safe: str | None  #: the reason why the policy does not act; None where it does
    held: frozenset[int] = frozenset()  #: channels to which nothing is sent
    action: np.ndarray | None = None  #: (A,) in [-1, 1] or one-hot, after every limit
    requested_action: np.ndarray | None = None  #: (A,) in [-1, 1], what the policy asked for
    policy_version: int = -1  #: -1 where no policy chose
    obs: Obs = field(default_factory=dict)
    signal: Signal | None = None
    begins: str | None = None
    taken_over: bool = False  #: a person chose the command


def check_exploration(settings: PilotSettings, action: ActionSpec) -> None:
    """Raise ``SpecMismatch`` for a share of random choices above 1."""
    if action.discrete and settings.exploration_noise > 1:
        raise SpecMismatch(
            "exploration_noise: expected at most 1, for the policy takes choices, of which it is "
            f"the share that is taken at random; got {settings.exploration_noise:g}"
        )


class Pilot:
    """Decides what each tick sends and has it recorded.

    Args:
        slot: the running policy.
        guard: says when the robot must stop.
        actuation: limits commands and knows the safe ones.
        signals: reward and flags that wait for their tick.
        recorder: where ticks are recorded.
        settings: exploration.
        interventions: what people do to the robot.
        seed: of every random draw.
        calm: says whether exploration pauses, so that less experience comes.
    """

    def __init__(
        self,
        slot: PolicySlot,
        guard: Guard,
        actuation: Actuation,
        signals: Signals,
        recorder: Recorder,
        settings: PilotSettings,
        *,
        interventions: Interventions,
        seed: int = 0,
        calm: Callable[[], bool] = lambda: False,
    ) -> None:
        self._slot, self._guard, self._actuation = slot, guard, actuation
        self._signals, self._recorder = signals, recorder
        self._settings, self.interventions = settings, interventions
        self._calm = calm
        self._rng = np.random.default_rng(seed)
        self._spec: Spec | None = None
        self._sent = np.zeros(0, np.float32)  # (A,) in [-1, 1], what was sent last
        self._random = np.zeros(0, np.float32)
        self._hold = self._prefill = 0  # ticks that are left
        self._waited = False  # the tick before was between two episodes
        self._left_alone = False  # nothing was sent, because something else drives the robot
        self._moving = self._taken_over = False
        self._observed_ns = 0  # when the last observation was checked

    @property
    def latched(self) -> str | None:
        """Return the reason for which the robot stays stopped until a rearm; None: it does not."""
        return self.interventions.emergency.latched or self._guard.latched

    def begin(self, runner: PolicyRunner, period_s: float | None = None) -> None:
        """Take over the action's limits, and the steps collected so far, from the first policy.

        Args:
            runner: the policy.
            period_s: true seconds between two ticks; None: as the policy's card says.
        """
        self._spec = spec = runner.spec
        card_s = spec.period_s
        self._actuation.begin(spec.action, period_s=period_s or card_s, card_period_s=card_s)
        self._sent = self._actuation.prev_action()
        self._prefill = self._settings.random_prefill - runner.card.agent_steps

    def use(self, settings: PilotSettings) -> None:
        """Explore by changed settings from the next tick on."""
        self._settings = settings

    def narrowed(self) -> list[str]:
        """Say where a limit that nobody stated holds in place of the policy's own."""
        return self._actuation.commands.narrowed()

    @property
    def prev_action(self) -> np.ndarray:
        """Give the action (A,) in [-1, 1] or one-hot that was sent last; empty before a policy."""
        return self._sent

    def activate(self, now_ns: int) -> None:
        """Begin to act anew, from where the robot is, at the time ``now_ns``; a latch stays."""
        self._guard.activate()
        self._actuation.soft_start()
        self.interventions.run.activate(now_ns)

    def rearm(self, now_ns: int) -> str | None:
        """Let a stopped robot act again; or give the reason, in one word, that still holds."""
        cause = self.interventions.emergency.cause(now_ns) or self._guard.cause
        if cause is not None:
            return cause
        self.interventions.emergency.release()
        self._guard.rearm()
        self._actuation.soft_start()
        return None

    def decide(self, senses: Senses, now_ns: int) -> Decision:
        """Choose the command of this tick: the policy's, a person's, or the safe one.

        Args:
            senses: the observation, or why there is none.
            now_ns: steady time.
        """
        between = self._signals.stops(now_ns)
        reason, signal = self._reason(senses, now_ns)
        between = between or self._signals.stops(now_ns)  # it may have ended with this observation
        waited, self._waited = self._waited, between is not None
        if self._left_alone:
            self._actuation.moved_by_others()
            self._left_alone = False
        if waited and between is None:
            self._actuation.soft_start()  # whoever reset the robot has moved it
        stop = self.interventions.emergency.check(now_ns)
        if stop is not None:
            return self._safe(stop, senses, now_ns, signal, urgent=True)
        latched, values = self._guard.check_latch(), self.interventions.takeover.active(now_ns)
        if values and latched is None and self._spec is not None:
            waits = between if signal is None else None  # the last of an episode is recorded
            return self._follow(values, senses, signal, now_ns, waits or reason)
        if self._taken_over:
            self._taken_over = False
            self._actuation.soft_start()
        if waited and between is not None and self._signals.quiet:
            self._left_alone = True
            return self._nothing(between, senses, signal)
        reason = between or reason or latched or self.interventions.run.check(now_ns)
        if reason is not None:
            return self._safe(reason, senses, now_ns, signal)
        assert self._spec is not None
        assert senses.obs is not None
        if not senses.fresh:  # a short gap: the command stays
            return Decision(self._actuation.last, senses.stamp_ns, None)
        return self._act(senses, senses.obs, signal, self._spec, now_ns)

    def _nothing(self, reason: str, senses: Senses, signal: Signal | None) -> Decision:
        """Send nothing, because something else drives the robot."""
        held = frozenset(range(len(self._actuation.commands.channels)))
        return Decision(None, 0, reason, held, obs=senses.obs or {}, signal=signal)

    def _reason(self, senses: Senses, now_ns: int) -> tuple[str | None, Signal | None]:
        """Say in one word what is wrong with the observation, and take its reward."""
        guard = self._guard
        guard.begin_tick()
        if self._spec is None or self._slot.runner is None:
            return guard.trip("no_policy"), None
        if senses.obs is None:
            return guard.trip(senses.refused or "no_frame"), None
        reason = guard.check_frame(
            fresh=senses.fresh, receive_age_s=senses.receive_age_s, stamp_age_s=senses.stamp_age_s
        )
        signal = self._signals.judge(senses, self._sent, now_ns) if senses.fresh else None
        if reason is None and senses.fresh:
            elapsed_s = min((now_ns - self._observed_ns) * 1e-9, _LONGEST_S)
            self._observed_ns = now_ns
            reason = guard.check_obs(senses.obs, moving=self._moving, elapsed_s=elapsed_s)
        return reason, signal

    def _act(
        self, senses: Senses, obs: Obs, signal: Signal | None, spec: Spec, now_ns: int
    ) -> Decision:
        begins, calm = self._recorder.begins(senses.stamp_ns, signal), self._calm()
        try:
            out = self._slot.act(obs, self._sent, begins is not None)
        except WmError as error:
            slow = isinstance(error, PolicySlow)
            reason = self._guard.trip("policy_slow" if slow else "policy_failed")
            return self._safe(reason, senses, now_ns, signal)
        runner = self._slot.runner
        assert runner is not None
        version, requested = runner.card.version, out.action
        if self._prefill > 0 and not calm:
            self._prefill -= 1
            version, wanted = -1, self._random_action(spec.action)
        else:
            wanted = requested if calm else self._explore(requested, spec.action)
        chosen = self._chosen(out, wanted, spec.action)
        if isinstance(chosen, str):
            return self._safe(chosen, senses, now_ns, signal)
        action, command = chosen
        self._guard.acted()
        return Decision(
            command=command,
            stamp_ns=senses.stamp_ns,
            safe=None,
            action=action,
            requested_action=requested,
            policy_version=version,
            obs=obs,
            signal=signal,
            begins=begins,
        )

    def _chosen(
        self, out: PolicyOutput, wanted: np.ndarray, spec: ActionSpec
    ) -> tuple[np.ndarray, np.ndarray] | str:
        """Limit what is wanted, (A,), to an action (A,) and its command; or say why not."""
        # The slew of the card is the actuation's: it knows where the robot is.
        action = limited(wanted, wanted, spec)
        if action is None:
            return self._guard.trip("nan_action")
        surprised = self._guard.check_surprise(out.surprise)
        if surprised is not None:
            return surprised
        command = spec.to_physical(action)
        got = self._actuation.limited(command)
        if isinstance(got, str):
            return self._guard.trip(got)
        same = (got == command).all()  # of choices of a robot file: the index of every channel
        return (action if same else spec.from_physical(got)), got

    def _follow(
        self,
        values: Mapping[int, np.ndarray | None],
        senses: Senses,
        signal: Signal | None,
        now_ns: int,
        reason: str | None,
    ) -> Decision:
        """Send what a person commands; the policy follows what it sees and what was sent."""
        assert self._spec is not None
        if not self._taken_over:
            self._taken_over = True
            self._actuation.soft_start()
        got = self._actuation.taken_over(values, now_ns)
        if isinstance(got, str):
            return self._safe(got, senses, now_ns, signal)
        command, held = got
        decision = Decision(
            command, senses.stamp_ns if senses.fresh else 0, "takeover", held, taken_over=True
        )
        if reason is not None or senses.obs is None or not senses.fresh or held:
            return decision
        action = self._actuation.action_of(command)
        if action is None:  # of no choice, so there is nothing to learn from
            return decision
        begins = self._recorder.begins(senses.stamp_ns, signal)
        requested, version = None, -1
        with suppress(WmError):  # the person drives on
            requested = self._slot.act(senses.obs, self._sent, begins is not None).action
            version = self._slot.runner.card.version if self._slot.runner is not None else -1
        return replace(
            decision,
            action=action,
            requested_action=requested,
            policy_version=version,
            obs=senses.obs,
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

    def _safe(
        self,
        reason: str,
        senses: Senses,
        now_ns: int,
        signal: Signal | None = None,
        *,
        urgent: bool = False,
    ) -> Decision:
        """Stop; the command answers a new frame, or none."""
        command, held = self._actuation.safe(now_ns, urgent=urgent)
        stamp_ns = senses.stamp_ns if senses.fresh else 0
        return Decision(command, stamp_ns, reason, held, obs=senses.obs or {}, signal=signal)

    def sent(self, decision: Decision, *, missed: bool, skipped: int = 0) -> None:
        """Record a decision whose command was sent; prepare the next step, of a new policy too.

        Args:
            decision: what ``decide`` returned.
            missed: it was sent later than one period after its schedule.
            skipped: ticks before it that were skipped altogether.
        """
        if skipped:
            self._recorder.skipped["tick_skipped"] += skipped
        if decision.safe is not None or decision.action is not None:  # else it is a repetition
            self._remember(decision.command, decision.held, decision.action)
        if decision.action is not None or (decision.safe in STILL_RECORDED and decision.signal):
            self._record(decision, missed)
        elif decision.safe is None:
            self._recorder.repeat()
        else:
            self._recorder.skip(decision.safe)
        self._slot.between_ticks()
        self._slot.prepare(self._sent)

    def warm(self) -> None:
        """Run the policy once more and forget the answer, shortly before a frame is due."""
        if (runner := self._slot.runner) is not None:
            runner.warm()

    def _remember(
        self, command: np.ndarray | None, held: frozenset[int], action: np.ndarray | None = None
    ) -> None:
        """Keep what was sent last: ``command`` (command_size,), the ``action`` (A,) in units."""
        if self._spec is None:
            return
        self._actuation.sent(command, held)
        self._sent = self._actuation.prev_action() if action is None else action
        self._moving = self._actuation.moving(_MOVING_SHARE)

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
            is_intervention=decision.taken_over or not acted,
        )
        if acted and decision.requested_action is None:  # the policy failed under a takeover
            self._recorder.break_off("policy_failed")  # and begins anew with the next step

    def stop(self, send: Callable[[Decision], None], now_ns: int, *, final: bool) -> None:
        """Send the safe command, and only then, as that may fail, break off the record.

        Args:
            send: sends a decision at once.
            now_ns: steady time.
            final: no command follows; else it is an emergency stop.
        """
        command, held = self._actuation.safe(now_ns, urgent=not final, final=final)
        send(Decision(command, 0, "stopped", held))
        self._remember(command, held)
        self._recorder.break_off("stopped")
