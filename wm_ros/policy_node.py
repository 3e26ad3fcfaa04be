"""Runs a policy on the robot: sensors in, a command out at a fixed rate, experience to the spool.

Callbacks only remember; the tick decides, on the steady clock.  Silence means stop.
"""

from __future__ import annotations

import gc
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.timer import Timer

from wm_core.contract.errors import SpecMismatch, WmError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_ros import home, params, signals
from wm_ros.actuation import Actuation
from wm_ros.changes import Changes, set_log_level
from wm_ros.commands.build import commands_of, commands_of_parameters
from wm_ros.diagnosis import status_report
from wm_ros.experience import Recorder, Signals
from wm_ros.interventions import Interventions
from wm_ros.pilot import Decision, Pilot
from wm_ros.policy_slot import FolderSource, PolicySlot, check_acceptable
from wm_ros.process import run
from wm_ros.reports import ReportWriter
from wm_ros.safety import Guard
from wm_ros.sensors.source import Senses, Source
from wm_ros.sensors.table import Sensors
from wm_ros.settings import PolicySettings
from wm_ros.stream import Stream
from wm_ros.timing import Due, Pacer, TickStats
from wm_ros.topics.commands import CommandTopics
from wm_ros.topics.episodes import EpisodeTopics
from wm_ros.topics.operator import OperatorServices
from wm_ros.topics.reports import ReportTopics
from wm_ros.topics.sensors import SensorTopics

_ARM_NOW_NS = 1_000
_REWARD_POLL_NS = 1_000_000  #: between two looks for the reward of a frame


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
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._simulated = bool(self.get_parameter("use_sim_time").value)
        self._spec: Spec | None = None
        self._active = False
        self._closers = ExitStack()
        self._safe_because = ""

    # ------------------------------------------------------------------------------ life cycle

    def begin(self) -> None:
        """Configure and activate by itself, unless a lifecycle manager is to do it."""
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
        self._pilot.activate(time.monotonic_ns())
        self._new_pacer()
        self._active = True
        self._tick_timer.reset()
        self._arm()
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
        self._signals, self._stats = Signals(), TickStats()
        self._recorder = Recorder(reward_required=s.reward_required)
        self._sensors = (
            Sensors.of_parameters(self._robot.sensors, self._period_ns())
            if self._robot.file is None
            else Sensors.of_file(self._robot.file, self._period_ns())
        )
        self._guard = Guard(s)
        self._new_pacer()
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
        for close in (self._write_reports, self._stream.close, self._recorder.close):
            self._closers.callback(close)
        self._closers.callback(self._slot.close)
        if fixed is not None and not self._slot.look() and PolicyFolder(fixed.root).onnx.exists():
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
        self._settings = settings

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
            self, closers, self._pilot, self._commands, s, stop_now=self._stop_at_once
        )
        self._tick_timer: Timer = self.create_timer(3600.0, self._on_timer, clock=self._steady)
        self._tick_timer.cancel()
        closers.callback(self.destroy_timer, self._tick_timer)
        ReportTopics(self, closers, self._write_reports)

    def _stop_robot(self) -> None:
        """Send the safe command, see it acknowledged, tick no more."""
        self._active = False
        self._tick_timer.cancel()
        self._publish(self._pilot.stop(time.monotonic_ns()))
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
        check_acceptable(runner.spec, commands=self._commands, running=self._spec)
        self._stream.begin(runner.card.task, runner.spec)

    def _adopt(self) -> None:
        """Take sizes and period from the first policy."""
        runner = self._slot.runner
        if runner is None or self._spec is not None:
            return
        self._spec = runner.spec
        period_ns = self._period_ns()
        period_s, card = period_ns * 1e-9, runner.card
        self._guard.begin(
            period_s=period_s,
            card_max_obs_age_s=card.max_obs_age_s,
            card_surprise_limit=card.surprise_limit or 0.0,
        )
        self._sensors.begin(runner.spec, period_ns, card.max_obs_age_s)
        self._recorder.open(self._stream.put if self._stream.records else None, period_ns)
        self._pilot.begin(runner, period_s)
        for warning in self._commands.warnings():
            self.get_logger().warning(warning)
        self._new_pacer()

    def _period_ns(self) -> int:
        s, spec = self._settings, self._spec
        return round((s.period_s or (s.idle_period_s if spec is None else spec.period_s)) * 1e9)

    def _new_pacer(self) -> None:
        self._pacer = Pacer(
            self._period_ns(),
            time.monotonic_ns(),
            simulated=self._simulated,
            frame_wait=self._settings.frame_wait,
        )

    def _say(self, text: str) -> None:
        # Two lines: rclpy ties a severity to the place of the call.
        if "refused" in text:
            self.get_logger().warning(text)
        else:
            self.get_logger().info(text)

    # ------------------------------------------------------------------------------- callbacks

    def _on_sensor(self, source: Source, msg: Any) -> None:
        """Remember a message; a tick that waits for one of the first sensor runs next."""
        now = time.monotonic_ns()
        self._sensors.on_message(source, msg, now)
        if source is self._sensors.first:
            self._pacer.on_frame(now, source.stamp_ns)
            self._arm()

    # ------------------------------------------------------------------------------------ tick

    def _arm(self, wait_ns: int | None = None) -> None:
        """Have the one-shot timer fire when the pacer next wants to be asked."""
        if not self._active:
            return
        if wait_ns is None:
            wait_ns = self._pacer.next_call_ns() - time.monotonic_ns()
        self._tick_timer.timer_period_ns = max(wait_ns, _ARM_NOW_NS)
        self._tick_timer.reset()

    def _on_timer(self) -> None:
        now, first = time.monotonic_ns(), self._sensors.first
        if first is not None and now >= self._pacer.next_call_ns():
            waited_ns, period_ns = now - first.arrived_ns, self._pacer.period_ns
            if self._signals.may_come(first.stamp_ns, waited_ns=waited_ns, period_ns=period_ns):
                self._arm(_REWARD_POLL_NS)
                return
        due = self._pacer.poll(now)
        if due is not None:
            self._tick(due, now)
        self._arm()

    def _tick(self, due: Due, now_ns: int) -> None:
        ros_now_ns = self.get_clock().now().nanoseconds
        senses = self._sensors.sense(fresh=due.fresh, now_ns=now_ns, ros_now_ns=ros_now_ns)
        if due.fresh:
            self._signals.on_tick()
        decision = self._pilot.decide(senses, now_ns)
        self._publish(decision)
        left_ns = time.monotonic_ns()
        missed = self._stats.add(
            due, now_ns, left_ns, obs_age_ms=self._obs_age_ms(senses, left_ns), safe=decision.safe
        )
        self._pilot.sent(decision, missed=missed, skipped=due.skipped)
        self._sensors.on_sent(self._pilot.prev_action)
        self._note(decision.safe)
        self._adopt()

    def _note(self, safe: str | None) -> None:
        """Say what makes the robot stop, and that it goes on; a misfit once, the rest seldom."""
        why = "" if safe is None else self._sensors.refusal or safe
        if why == self._safe_because:
            return
        self._safe_because = why
        if self._sensors.refusal:
            self.get_logger().error(f"safe action: {why}")
        elif why:
            self.get_logger().warning(f"safe action: {why}", throttle_duration_sec=2.0)
        else:
            self.get_logger().info("the policy acts", throttle_duration_sec=2.0)

    def _obs_age_ms(self, senses: Senses, left_ns: int) -> float | None:
        first = self._sensors.first
        if senses.obs is None or first is None:
            return None
        if self._simulated:  # the simulated clock stands still while the policy thinks
            return (left_ns - first.arrived_ns) * 1e-6
        return (self.get_clock().now().nanoseconds - senses.stamp_ns) * 1e-6

    def _publish(self, decision: Decision) -> None:
        if decision.command is not None:
            self._command_topics.publish(
                decision.command, stamp_ns=decision.stamp_ns, held=decision.held
            )

    # --------------------------------------------------------------------------------- reports

    def _write_reports(self) -> dict[str, Any]:
        report = status_report(
            active=self._active,
            slot=self._slot,
            signals=self._signals,
            recorder=self._recorder,
            stats=self._stats,
            sensors=self._sensors,
            guard=self._guard,
            stream=self._stream,
        )
        self._reports.put("status.json", report)
        self._reports.put("ticks.json", self._stats.to_json(self._period_ns() * 1e-9))
        return report


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
