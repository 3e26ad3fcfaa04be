"""Runs a policy on the robot: sensors in, a command out at a fixed rate, experience to the spool.

Callbacks only remember; the tick decides, on the steady clock.  Silence means stop.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from wm_core.contract.errors import SpecMismatch, WmError
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_ros import home, params, realtime, signals
from wm_ros.actuation import Actuation
from wm_ros.changes import Changes, set_log_level
from wm_ros.commands.build import commands_of, commands_of_parameters
from wm_ros.control_loop import ControlLoop
from wm_ros.diagnosis import Finding, detail
from wm_ros.experience import Recorder
from wm_ros.given import unused_files
from wm_ros.interventions import Interventions
from wm_ros.judge import Judge
from wm_ros.pilot import Decision, Pilot
from wm_ros.policy_slot import PolicySlot, check_acceptable
from wm_ros.policy_source import FolderSource
from wm_ros.process import run
from wm_ros.reasons import OK, WARN
from wm_ros.reports import ReportWriter
from wm_ros.safety import Guard
from wm_ros.sensors.source import Source
from wm_ros.sensors.table import Sensors
from wm_ros.settings import PolicySettings
from wm_ros.standing import Standing
from wm_ros.status import StatusBoard
from wm_ros.stream import Stream
from wm_ros.tick_stats import TickStats
from wm_ros.topics.commands import CommandTopics
from wm_ros.topics.episodes import EpisodeTopics
from wm_ros.topics.operator import OperatorServices
from wm_ros.topics.reports import ReportTopics, say
from wm_ros.topics.sensors import SensorTopics
from wm_ros.topics.ticker import Ticker


class PolicyNode(LifecycleNode):
    """Runs a policy on a robot.

    Subscribes its sensors and ``reward``; publishes the command, ``~/status`` and
    ``/diagnostics``; offers ``~/rearm``.  Parameters: ``wm_ros.settings.PolicySettings``, and
    ``SensorSettings`` for each sensor.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("policy", **kwargs)
        params.declare(self, params.POLICY)
        self._settings = params.read(self, PolicySettings)
        set_log_level(self, self._settings.log_level)
        self._configured = False
        Changes(
            self,
            params.POLICY,
            PolicySettings,
            apply=self._apply,
            configured=lambda: self._configured,
        )
        self._spec: Spec | None = None
        self._active = False
        self._closers = ExitStack()
        self._standing = Standing(self._detail)

    # ------------------------------------------------------------------------------ life cycle

    def begin(self) -> None:
        """Configure and activate by itself, unless a lifecycle manager is to do it."""
        for text in unused_files(sys.argv, self.get_fully_qualified_name()):
            say(self, WARN, text)
        if self._settings.autostart:
            if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                raise SpecMismatch("the node could not be configured; see above")
            if not signals.remember():
                self.trigger_activate()

    def finish(self) -> None:
        """Send the last safe command if the robot runs, and close everything."""
        if self._active:
            self._stop_robot()
        self._tear_down()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy, begin to watch for new ones, open the topics."""
        try:
            self._robot = params.read_robot(self)
            self._settings = self._robot.settings
            self._set_up(self._settings)
        except Exception as error:  # rclpy would swallow it
            known = isinstance(error, WmError | OSError)
            self.get_logger().error(str(error) if known else traceback.format_exc())
            self._tear_down()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to tick."""
        self._signals.episodes.resume()
        self._pilot.activate(time.monotonic_ns())
        self._loop.set_pace(self._period_ns(), self._settings)
        self._active = self._loop.active = True
        self._loop.arm()
        for warning in realtime.enter(self._settings):
            say(self, WARN, warning)
        gc.collect()
        gc.freeze()  # what lives now lives on: later collections need not walk it
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot and the ticks."""
        self._stop_robot()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close topics, threads and files."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot if it runs, and close everything."""
        self.finish()
        return TransitionCallbackReturn.SUCCESS

    def _set_up(self, s: PolicySettings) -> None:
        """Build every part; ``_closers`` closes them in the reverse order."""
        folder = self._open_home(s)
        self._commands = commands_of(self._robot)
        self._signals = Judge(self._robot)
        self._recorder = Recorder(reward_required=s.reward_required)
        self._sensors = (
            Sensors.of_parameters(self._robot.sensors, self._period_ns())
            if self._robot.file is None
            else Sensors.of_file(self._robot.file, self._period_ns())
        )
        self._guard = Guard(s)
        self._reports = ReportWriter(folder)
        self._closers.callback(self._reports.close)
        self._stream = Stream(s, folder)
        fixed = FolderSource(Path(s.policy_dir).expanduser()) if s.policy_dir else None
        self._slot = PolicySlot(
            fixed or self._stream,
            s,
            seed=s.seed,
            log=folder / "swaps.jsonl",
            accept=self._accept,
            on_event=self._say,
        )
        self._pilot = Pilot(
            self._slot,
            self._guard,
            Actuation(
                self._commands, lambda names: self._sensors.pose(names, time.monotonic_ns())
            ),
            self._signals,
            self._recorder,
            s,
            interventions=Interventions(s),
            seed=s.seed,
        )
        self._loop = self._make_loop()
        self._loop.set_pace(self._period_ns(), s)
        self._board = StatusBoard(self._loop, self._slot, self._stream)
        for close in (self._write_reports, self._stream.close, self._recorder.close):
            self._closers.callback(close)
        self._closers.callback(self._slot.close)
        found = fixed is not None and self._slot.look()
        if fixed is not None and fixed.is_policy and not found and self._slot.refusals:
            raise SpecMismatch(self._slot.refusals[-1])
        self._slot.between_ticks()
        self._adopt()
        self._open_topics()
        self._slot.start()
        self._configured = True

    def _open_home(self, s: PolicySettings) -> Path:
        """Occupy the folder of this node's files; returns it."""
        name = self.get_name()
        folder = home.home_of(s.state_dir, self.get_namespace(), name)
        home.occupy(folder, self._closers, node=self.get_fully_qualified_name())
        spool = Path(s.spool_dir or folder / "spool").expanduser()
        if s.record:
            moved = home.take_over_old_spool(folder, spool, node=name, robot=s.robot)
            if moved:
                self.get_logger().info(
                    f"{moved} recordings of an earlier release moved to {spool}"
                )
        return folder

    def _apply(self, settings: PolicySettings) -> None:
        """Give settings that were changed by ``ros2 param set`` to the parts that use them."""
        if settings.log_level != self._settings.log_level:
            set_log_level(self, settings.log_level)
        if self._configured:
            settings = self._robot.changed(settings)
            if self._robot.file is None:
                self._commands.use(commands_of_parameters(settings))
            self._guard.use(settings)
            self._pilot.use(settings)
            self._slot.use(settings)
            self._loop.use(settings)
        self._settings = settings

    def _make_loop(self) -> ControlLoop:
        return ControlLoop(
            pilot=self._pilot,
            sensors=self._sensors,
            signals=self._signals,
            recorder=self._recorder,
            guard=self._guard,
            stats=TickStats(),
            standing=self._standing,
            simulated=bool(self.get_parameter("use_sim_time").value),
            ros_now_ns=lambda: self.get_clock().now().nanoseconds,
            publish=self._publish,
            wake_at=lambda when_ns: self._ticker.wake_at(when_ns),
            say=partial(say, self),
            report_soon=lambda: self._report_topics.soon(),
        )

    def _open_topics(self) -> None:
        s, closers = self._settings, self._closers
        EpisodeTopics(self, closers, self._signals)
        SensorTopics(
            self,
            closers,
            self._sensors,
            reliable=s.image_reliability == "reliable",
            on_message=self._on_sensor,
        )
        self._command_topics = CommandTopics(self, closers, self._commands, s.base_frame)
        OperatorServices(
            self,
            closers,
            self._pilot,
            self._commands,
            s,
            stop_now=self._stop_at_once,
            roll_back=self._slot.roll_back,
        )
        self._ticker = Ticker(self, closers, self._on_timer)
        self._report_topics = ReportTopics(self, closers, s.robot, self._judge)

    def _stop_robot(self) -> None:
        """Send the safe command, see it acknowledged, tick no more."""
        self._active = self._loop.active = False
        self._ticker.stop()
        self._publish(self._pilot.stop(time.monotonic_ns(), final=True))
        self._command_topics.wait_for_acked(0.3)

    def _stop_at_once(self) -> None:
        """Send the command of an emergency stop; the ticks that follow go on with it."""
        if self._active:
            self._publish(self._pilot.stop(time.monotonic_ns(), urgent=True))

    def _tear_down(self) -> None:
        """Close what ``_set_up`` opened, as far as it came; may be called twice."""
        self._configured = False
        self._closers.close()
        self._spec = None

    # -------------------------------------------------------------------------------- policies

    def _accept(self, runner: PolicyRunner) -> None:
        """Raise ``SpecMismatch`` for a policy that this robot cannot run (the slot's thread)."""
        self._robot.check(runner.spec)
        self._sensors.check(runner.spec)
        self._signals.check(runner.spec)
        check_acceptable(runner.spec, commands=self._commands, running=self._spec)
        self._stream.begin(runner.card.task, runner.spec)

    def _adopt(self) -> None:
        """Take sizes and period from the first policy."""
        runner = self._slot.runner
        if runner is None or self._spec is not None:
            return
        self._spec = spec = runner.spec
        period_ns, trained_ns = self._period_ns(), round(spec.period_s * 1e9)
        period_s, card = period_ns * 1e-9, runner.card
        self._guard.begin(
            period_s=period_s,
            card_max_obs_age_s=card.max_obs_age_s,
            card_surprise_limit=card.surprise_limit or 0.0,
        )
        self._sensors.begin(spec, period_ns, card.max_obs_age_s)
        self._signals.begin(spec, period_ns)
        self._recorder.open(self._stream.put if self._stream.records else None, period_ns)
        self._pilot.begin(runner, period_s)
        for warning in self._commands.warnings():
            say(self, WARN, warning)
        self._loop.trained_period_ns = trained_ns
        self._loop.set_pace(period_ns, self._settings)
        if period_ns != trained_ns:
            text = (
                f"period_s {period_s:g} s overrides the {spec.period_s:g} s of the policy's card"
            )
            rates = f"{1 / period_s:.3g} Hz, trained at {1 / spec.period_s:.3g} Hz"
            say(self, WARN, f"{text}: it acts at {rates}")

    def _period_ns(self) -> int:
        s, spec = self._settings, self._spec
        return round((s.period_s or (s.idle_period_s if spec is None else spec.period_s)) * 1e9)

    def _say(self, text: str) -> None:
        warns = ("refused", "rolled back", "no policy")
        say(self, WARN if any(word in text for word in warns) else OK, text)

    # ------------------------------------------------------------------------------- callbacks

    def _on_sensor(self, source: Source, msg: Any) -> None:
        """Remember a message; a tick that waits for one of the first sensor runs next."""
        now = time.monotonic_ns()
        self._sensors.on_message(source, msg, now)
        if source.is_image:
            self._board.frame_bytes = len(msg)
        if source is self._sensors.first:
            self._loop.on_frame(now, source.stamp_ns)

    def _on_timer(self) -> None:
        self._loop.on_time()
        self._adopt()

    def _publish(self, decision: Decision) -> None:
        if decision.command is not None:
            self._command_topics.publish(
                decision.command, stamp_ns=decision.stamp_ns, held=decision.held
            )

    # --------------------------------------------------------------------------------- reports

    def _detail(self, word: str) -> str:
        return detail(word, loop=self._loop, slot=self._slot)

    def _judge(self) -> tuple[dict[str, Any], list[Finding]]:
        report = self._write_reports()
        return report, self._board.statuses(report)

    def _write_reports(self) -> dict[str, Any]:
        report = self._board.report()
        # Not once the node is being torn down: its publishers are gone by then.
        unheard = self._command_topics.problems() if self._configured else {}
        report["command_problems"] = unheard
        self._reports.put("status.json", report)
        self._reports.put("ticks.json", self._board.ticks())
        return report


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
