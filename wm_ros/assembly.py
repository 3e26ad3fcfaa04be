"""Builds the parts that run a policy on a robot, and hands them the first policy; no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_ros.commands.build import commands_of, commands_of_parameters
from wm_ros.control_loop import ControlLoop, Outside
from wm_ros.episodes.experience import Recorder
from wm_ros.episodes.judge import Judge
from wm_ros.pilot import Pilot, check_exploration
from wm_ros.policies.loading import check_acceptable
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.policies.trusted import open_trusted, running_of, trust_of
from wm_ros.reporting.diagnosis import detail
from wm_ros.reporting.live import LiveView
from wm_ros.reporting.status import StatusBoard
from wm_ros.robot import Robot
from wm_ros.safety.actuation import Actuation
from wm_ros.safety.guard import Guard
from wm_ros.safety.interventions import Interventions
from wm_ros.safety.reasons import OK, WARN
from wm_ros.safety.standing import Standing
from wm_ros.sensors.table import Sensors
from wm_ros.settings import PolicySettings
from wm_ros.stream import Stream
from wm_ros.timing.tick_stats import TickStats

_WARNING_WORDS = ("refused", "rolled back", "no policy")  #: of what a slot says


class Assembly:
    """Joins sensors, policy, safety, commands and the record of one robot.

    Args:
        robot: what file and parameters say of it.
        folder: of the node's files.
        outside: what the parts need of the node.
        people: what they do to the robot; None: nothing was done before.
    """

    def __init__(
        self, robot: Robot, folder: Path, outside: Outside, people: Interventions | None = None
    ) -> None:
        self.settings = s = robot.settings
        self.robot, self._outside = robot, outside
        self.spec: Spec | None = None  #: of the first policy
        self.commands = commands_of(robot)
        self.signals = Judge(robot)
        self.recorder = Recorder(reward_required=s.reward_required)
        self.sensors = (
            Sensors.of_parameters(robot.sensors, self.period_ns)
            if robot.file is None
            else Sensors.of_file(robot.file, self.period_ns)
        )
        self.guard = Guard(s)
        trust = trust_of(s, folder)
        self.stream = Stream(s, folder, trust)
        self._fixed = FolderSource(Path(s.policy_dir).expanduser()) if s.policy_dir else None
        self.slot = PolicySlot(
            self._fixed or self.stream,
            s,
            seed=s.seed,
            log=folder / "swaps.jsonl",
            accept=self._accept,
            opens=partial(open_trusted, trust=trust),
            simulated=outside.simulated,
            on_first=self._begin_record,
            on_event=self._on_event,
        )
        self.stream.running = lambda: running_of(self.slot.runner)
        actuation = Actuation(
            self.commands, lambda names: self.sensors.pose(names, time.monotonic_ns())
        )
        self.pilot = Pilot(
            self.slot,
            self.guard,
            actuation,
            self.signals,
            self.recorder,
            s,
            interventions=people or Interventions(s),
            seed=s.seed,
            calm=self._calm,
        )
        self._is_calm = False
        self.loop = ControlLoop(
            pilot=self.pilot,
            sensors=self.sensors,
            signals=self.signals,
            recorder=self.recorder,
            guard=self.guard,
            stats=TickStats(),
            standing=Standing(lambda word: detail(word, loop=self.loop, slot=self.slot)),
            outside=outside,
        )
        self.loop.set_pace(self.period_ns, s)
        self.board = StatusBoard(self.loop, self.slot, self.stream)
        view = LiveView(self.loop, self.board, self.slot, self.stream, actuation, self._known_spec)
        self.stream.snapshot, self.stream.rest_s = view.snapshot, view.rest_s

    @property
    def period_ns(self) -> int:
        """Give the time between two ticks: the owner's, the policy's, or that of waiting."""
        s = self.settings
        own = s.idle_period_s if self.spec is None else self.spec.period_s
        return round((s.period_s or own) * 1e9)

    def start(self, closers: ExitStack, open_topics: Callable[[], None]) -> None:
        """Take the policy that is there, if one is, and begin to watch for others.

        Args:
            closers: closes the parts.
            open_topics: opens what the node hears and says, before anything is watched.

        Raises:
            SpecMismatch: for a fixed policy that this robot cannot run.
        """
        for close in (self.stream.close, self.recorder.close, self.slot.close):
            closers.callback(close)
        found = self._fixed is not None and self.slot.look()
        if self._fixed is not None and self._fixed.is_policy and not found and self.slot.refusals:
            raise SpecMismatch(self.slot.refusals[-1])
        self.slot.between_ticks()
        self.adopt()
        open_topics()
        self.slot.start()

    def use(self, settings: PolicySettings) -> None:
        """Work by settings that were changed while the node runs.

        Raises:
            WmError: for settings that this robot cannot work by; then those before still hold.
        """
        settings = self.robot.changed(settings)
        if self.spec is not None:
            check_exploration(settings, self.spec.action)
        if self.robot.file is None:
            self.commands.use(commands_of_parameters(settings))
        self.settings = settings
        for part in (self.guard, self.pilot, self.slot, self.loop):
            part.use(settings)
        self._is_calm = False  # the slot is told anew

    def _accept(self, runner: PolicyRunner) -> None:
        """Raise ``SpecMismatch`` for a policy that this robot cannot run (the slot's thread)."""
        self.robot.check(runner.spec)
        self.sensors.check(runner.spec)
        self.signals.check(runner.spec)
        check_acceptable(runner.spec, commands=self.commands, running=self.spec)
        check_exploration(self.settings, runner.spec.action)

    def _begin_record(self, runner: PolicyRunner) -> None:
        """Begin the record of a proven policy that will be the first (the slot's thread)."""
        self.stream.begin(runner.card.task, runner.spec, self.robot.codecs)

    def adopt(self) -> None:
        """Take sizes and period from the first policy, once there is one."""
        runner = self.slot.runner
        if runner is None or self.spec is not None:
            return
        self.spec = spec = runner.spec
        period_ns, trained_ns = self.period_ns, round(spec.period_s * 1e9)
        period_s, card = period_ns * 1e-9, runner.card
        self.guard.begin(
            period_s=period_s,
            card_max_obs_age_s=card.max_obs_age_s,
            card_surprise_limit=card.surprise_limit or 0.0,
        )
        self.sensors.begin(spec, period_ns, card.max_obs_age_s)
        self.signals.begin(spec, period_ns)
        self.recorder.open(self.stream.put if self.stream.records else None, period_ns)
        self.pilot.begin(runner, period_s)
        self.loop.trained_period_ns = trained_ns
        self.loop.set_pace(period_ns, self.settings)
        for warning in self.commands.warnings():
            self._outside.say(WARN, warning)
        if period_ns != trained_ns:
            self._outside.say(
                WARN,
                f"period_s {period_s:g} s overrides the {spec.period_s:g} s of the policy's card: "
                f"it acts at {1 / period_s:.3g} Hz, trained at {1 / spec.period_s:.3g} Hz",
            )

    def _known_spec(self) -> Spec | None:
        """Give the spec of the first policy once every part has taken it over (any thread)."""
        return self.spec if self.loop.trained_period_ns else None

    def _calm(self) -> bool:
        """Tell whether exploration pauses; the policy then acts by its mean (control thread)."""
        calm = self.stream.pressure() == "pause"
        if calm != self._is_calm:
            self._is_calm, s = calm, self.settings
            self.slot.use(s.model_copy(update={"exploration": "mean"}) if calm else s)
            word = "pauses: the spool is nearly full" if calm else "goes on: the spool has room"
            self._outside.say(WARN if calm else OK, f"exploration {word}")
        return calm

    def _on_event(self, text: str) -> None:
        warns = any(word in text for word in _WARNING_WORDS)
        self._outside.say(WARN if warns else OK, text)
