"""Runs a policy on the robot: sensors in, a command out at a fixed rate, experience to the spool.

Callbacks only remember; the tick decides, on the steady clock.  Silence means stop.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from pathlib import Path
from typing import Any

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from wm_core.contract.errors import SpecMismatch, WmError
from wm_ros.assembly import Assembly
from wm_ros.control_loop import Outside
from wm_ros.parameters import params
from wm_ros.parameters.changes import Changes, set_log_level
from wm_ros.parameters.given import unused_files
from wm_ros.pilot import Decision
from wm_ros.process import home, realtime, signals
from wm_ros.process.run import run
from wm_ros.reporting.diagnosis import Diagnosis
from wm_ros.reporting.reports import ReportWriter
from wm_ros.safety.interventions import Interventions
from wm_ros.safety.reasons import WARN
from wm_ros.safety.stop_file import StopFile
from wm_ros.sensors.source import Source
from wm_ros.settings import PolicySettings
from wm_ros.topics.commands import CommandTopics
from wm_ros.topics.episodes import EpisodeTopics
from wm_ros.topics.operator import OperatorServices
from wm_ros.topics.reports import ReportTopics, say
from wm_ros.topics.sensors import SensorTopics
from wm_ros.topics.ticker import TickTimer

_Change = Callable[["PolicyNode", LifecycleState], TransitionCallbackReturn]


def _logged(change: _Change) -> _Change:
    """Log what a change of state raises: rclpy would swallow it, and calls ``on_error`` next."""

    @wraps(change)
    def tried(node: PolicyNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return change(node, state)
        except Exception:
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR

    return tried


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
        self._active = False
        self._closers = ExitStack()
        self._emergency = ""  # the stop that was latched when the parts were closed

    # ------------------------------------------------------------------------------ life cycle

    def begin(self) -> None:
        """Configure and activate by itself, unless a lifecycle manager is to do it."""
        for text in unused_files(sys.argv, self.get_fully_qualified_name()):
            say(self, WARN, text)
        if self._settings.autostart:
            if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                raise SpecMismatch("the node could not be configured; see above")
            if signals.remember():
                return
            if self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
                raise SpecMismatch("the node could not be activated; see above")

    def finish(self) -> None:
        """Send the last safe command if the robot runs, and close everything whatever fails."""
        try:
            if self._active:
                self._stop_robot()
        except Exception:  # said here: closing may raise as well
            self.get_logger().error(f"the robot's stop failed: {traceback.format_exc()}")
            raise
        finally:
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

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to tick."""
        parts = self._parts
        parts.signals.episodes.resume()
        parts.pilot.activate(time.monotonic_ns())
        parts.loop.set_pace(parts.period_ns, self._settings)
        self._active = parts.loop.active = True
        parts.loop.arm()
        for warning in realtime.enter(self._settings):
            say(self, WARN, warning)
        gc.collect()
        gc.freeze()  # what lives now lives on: later collections need not walk it
        return super().on_activate(state)

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot and the ticks."""
        self._stop_robot()
        return super().on_deactivate(state)

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close topics, threads and files."""
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot if it runs, and close everything."""
        self.finish()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop the robot if it still runs and close everything, so that it can begin anew."""
        self.finish()
        return super().on_error(state)

    def _set_up(self, s: PolicySettings) -> None:
        """Build every part; ``_closers`` closes them in the reverse order."""
        folder = self._open_home(s)
        self._reports = ReportWriter(folder)
        self._closers.callback(self._reports.close)
        stop_file = StopFile(folder)
        self._closers.callback(stop_file.close)
        latched = self._emergency or stop_file.found
        if latched:
            say(self, WARN, f"{latched} was latched before this start: it lasts until ~/rearm")
        outside = Outside(
            simulated=bool(self.get_parameter("use_sim_time").value),
            ros_now_ns=lambda: self.get_clock().now().nanoseconds,
            publish=self._publish,
            wake_at=lambda when_ns: self._ticker.wake_at(when_ns),
            say=partial(say, self),
            report_soon=lambda: self._report_topics.soon(),
        )
        people = Interventions(s, latched, stop_file.keep)
        self._parts = Assembly(self._robot, folder, outside, people)
        self._closers.callback(self._write_reports)
        self._parts.start(self._closers, self._open_topics)
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
        if self._configured:
            self._parts.use(settings)
            settings = self._parts.settings  # with what a robot file states
        if settings.log_level != self._settings.log_level:
            set_log_level(self, settings.log_level)
        self._settings = settings

    def _open_topics(self) -> None:
        s, closers, parts = self._settings, self._closers, self._parts
        EpisodeTopics(self, closers, parts.signals)
        SensorTopics(
            self,
            closers,
            parts.sensors,
            reliable=s.image_reliability == "reliable",
            on_message=self._on_sensor,
        )
        self._command_topics = CommandTopics(self, closers, parts.commands, s.base_frame)
        OperatorServices(
            self,
            closers,
            parts.pilot,
            parts.commands,
            s,
            stop_now=self._stop_at_once,
            roll_back=parts.slot.roll_back,
        )
        self._ticker = TickTimer(self, closers, self._on_timer)
        self._report_topics = ReportTopics(self, closers, s.robot, self._judge)

    def _stop_robot(self) -> None:
        """Send the safe command, see it acknowledged, tick no more."""
        self._active = self._parts.loop.active = False
        self._ticker.stop()
        try:
            self._parts.pilot.stop(self._publish_last, time.monotonic_ns(), final=True)
        finally:  # it may have been sent
            self._command_topics.wait_for_acked(0.3)

    def _stop_at_once(self) -> None:
        """Send the command of an emergency stop; the ticks that follow go on with it."""
        if self._active:
            self._parts.pilot.stop(self._publish, time.monotonic_ns(), final=False)

    def _tear_down(self) -> None:
        """Close what ``_set_up`` opened, as far as it came; may be called twice."""
        if self._configured:
            self._emergency = self._parts.pilot.interventions.emergency.latched
        self._configured = False
        try:
            self._closers.close()
        finally:
            gc.unfreeze()  # else none of it could be collected

    # ------------------------------------------------------------------------------- callbacks

    def _on_sensor(self, source: Source, msg: Any) -> None:
        """Remember a message; a tick that waits for one of the first sensor runs next."""
        now, parts = time.monotonic_ns(), self._parts
        parts.sensors.on_message(source, msg, now)
        if source.is_image:
            parts.loop.frame_bytes = len(msg)
        if source is parts.sensors.first:
            parts.loop.on_frame(now, source.stamp_ns)

    def _on_timer(self) -> None:
        self._parts.loop.on_time()
        self._parts.adopt()

    def _publish(self, decision: Decision) -> None:
        if decision.command is not None:
            self._command_topics.publish(
                decision.command, stamp_ns=decision.stamp_ns, held=decision.held
            )

    def _publish_last(self, decision: Decision) -> None:
        if decision.command is not None:
            self._command_topics.publish_last(decision.command, held=decision.held)

    # --------------------------------------------------------------------------------- reports

    def _judge(self) -> tuple[dict[str, Any], list[Diagnosis]]:
        realtime.lend()
        report = self._write_reports()
        return report, self._parts.board.statuses(report)

    def _write_reports(self) -> dict[str, Any]:
        report = self._parts.board.report()
        # Not once the node is being torn down: its publishers are gone by then.
        unheard = self._command_topics.problems() if self._configured else {}
        report["command_problems"] = unheard
        self._reports.put("status.json", report)
        self._reports.put("ticks.json", self._parts.board.ticks())
        return report


def main(argv: list[str] | None = None) -> int:
    """Run the node until a signal ends it; the exit code."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
