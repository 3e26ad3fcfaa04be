"""The robot's policy: a camera in, a command out at a fixed rate, experience to the spool.

Callbacks only remember; the tick decides, on the steady clock.  Silence means stop.
"""

from __future__ import annotations

import gc
import json
import os
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.timer import Timer
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from wm_core.contract.errors import SpecMismatch, WmError
from wm_core.contract.image import to_network
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Obs, Spec
from wm_core.link.spool import SpoolSettings
from wm_ros import convert, params, qos
from wm_ros.experience import Recorder, Signals
from wm_ros.pilot import Decision, Pilot, PilotSettings, Senses
from wm_ros.policy_slot import FolderSource, PolicySlot, SlotSettings
from wm_ros.process import run
from wm_ros.reports import ReportWriter
from wm_ros.safety import Guard, SafetySettings
from wm_ros.stream import Stream, StreamSettings
from wm_ros.timing import Due, Pacer, TickStats

_ARM_NOW_NS = 1_000
_PARTNER_POLL_NS = 1_000_000


class PolicyNode(LifecycleNode):
    """Runs a policy on a robot.

    Subscribes ``image_raw``, ``joint_states`` (where the policy wants a vector) and ``reward``;
    publishes ``cmd_vel`` or ``joint_command``, ``~/status`` and ``/diagnostics``; offers
    ``~/rearm``.  Parameters: ``wm_ros.params.POLICY``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("policy", **kwargs)
        self._params = params.declare(self, params.POLICY)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._simulated = bool(self.get_parameter("use_sim_time").value)
        self._spec: Spec | None = None
        self._image_key = ""
        self._active = False

    # ------------------------------------------------------------------------------ life cycle

    def begin(self) -> None:
        """Configure and activate by itself, unless a lifecycle manager is to do it."""
        if self._params["autostart"]:
            if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
                raise SpecMismatch("the node could not be configured; see above")
            self.trigger_activate()

    def finish(self) -> None:
        """Send the last safe command and close everything."""
        if self._active:
            self._stop_robot()
        self._tear_down()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy, begin to watch for new ones, open the topics."""
        try:
            self._params = params.read(self, params.POLICY)
            self._set_up(self._params)
        except (WmError, OSError) as error:
            self.get_logger().error(str(error))
            self._tear_down()
            return TransitionCallbackReturn.FAILURE
        except Exception:  # rclpy would swallow it
            self.get_logger().error(traceback.format_exc())
            self._tear_down()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to tick."""
        self._guard.rearm()
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
        if self._active:
            self._stop_robot()
        self._tear_down()
        return TransitionCallbackReturn.SUCCESS

    def _set_up(self, p: dict[str, Any]) -> None:
        home = Path(os.environ.get("ROS_HOME", "~/.ros")).expanduser()
        state_dir = Path(p["state_dir"] or home / "wm_ros" / self.get_name())
        self._reports = ReportWriter(state_dir)
        self._stream = Stream(_stream_settings(p, state_dir))
        self._signals, self._stats = Signals(), TickStats()
        self._guard = Guard(_safety_settings(p))
        fixed = FolderSource(Path(p["policy_dir"]).expanduser()) if p["policy_dir"] else None
        self._slot = PolicySlot(
            fixed or self._stream,
            SlotSettings(
                swap_mode=p["swap_mode"],
                history_s=p["history_s"],
                mean=p["exploration"] == "mean",
                seed=p["seed"],
                log=state_dir / "swaps.jsonl",
            ),
            accept=self._accept,
            on_event=self._say,
        )
        self._pilot = Pilot(
            self._slot,
            self._guard,
            self._signals,
            PilotSettings(
                p["exploration_noise"], p["random_prefill"], p["random_hold"], p["seed"]
            ),
            p["safe_action"],
        )
        self._frame: Image | None = None
        self._frame_ns = 0  # steady time of its arrival
        self._joints: deque[JointState] = deque(maxlen=10)
        self._counts = {"frames": 0, "frames_missed": 0, "signals_refused": 0}
        self._refusal = ""
        self._frame_stamp_ns = 0
        self._new_pacer()
        if fixed is not None and not self._slot.look() and (fixed.root / "policy.onnx").exists():
            raise SpecMismatch(self._slot.refusals[-1] if self._slot.refusals else "no policy")
        self._slot.between_ticks()
        self._adopt()
        self._open_topics(p)
        self._slot.start()

    def _open_topics(self, p: dict[str, Any]) -> None:
        reliable = p["image_reliability"] == "reliable"
        self._ins = [
            self.create_subscription(
                Image, "image_raw", self._on_image, qos.camera(reliable=reliable)
            ),
            self.create_subscription(JointState, "reward", self._on_signal, qos.signals()),
            self.create_subscription(JointState, "joint_states", self._on_joints, qos.joints()),
        ]
        topic = "joint_command" if p["command_type"] == "joint" else "cmd_vel"
        self._command = self.create_publisher(
            convert.command_class(p["command_type"]), topic, qos.command()
        )
        self._status = self.create_publisher(String, "~/status", qos.latched())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self._rearm = self.create_service(Trigger, "~/rearm", self._on_rearm)
        self._tick_timer: Timer = self.create_timer(3600.0, self._on_timer, clock=self._steady)
        self._tick_timer.cancel()
        self._report_timer: Timer = self.create_timer(1.0, self._report, clock=self._steady)

    def _stop_robot(self) -> None:
        """Send the safe command, see it acknowledged, tick no more."""
        self._active = False
        self._tick_timer.cancel()
        command = self._pilot.stop_command()
        if command is not None:
            self._publish(command, 0)
            self._command.wait_for_all_acked(Duration(seconds=0.3))

    def _tear_down(self) -> None:
        """Close what ``_set_up`` opened, as far as it came; may be called twice."""
        if hasattr(self, "_tick_timer"):
            for timer in (self._tick_timer, self._report_timer):
                self.destroy_timer(timer)
            for subscription in self._ins:
                self.destroy_subscription(subscription)
            for publisher in (self._command, self._status, self._diagnostics):
                self.destroy_publisher(publisher)
            self.destroy_service(self._rearm)
            del self._tick_timer
        if hasattr(self, "_slot"):
            self._slot.close()
        if hasattr(self, "_pilot"):
            self._pilot.close()
        if hasattr(self, "_stream"):
            self._stream.close()
        if hasattr(self, "_pilot"):
            self._write_reports()
            self._spec = None
            del self._pilot
        if hasattr(self, "_reports"):
            self._reports.close()

    # -------------------------------------------------------------------------------- policies

    def _accept(self, runner: PolicyRunner) -> None:
        """Raise ``SpecMismatch`` for a policy that this robot cannot run (the slot's thread)."""
        spec, p = runner.spec, self._params
        if len(spec.images) != 1:
            raise SpecMismatch(f"expected a policy with one camera, got {sorted(spec.images)}")
        if p["command_type"] != "joint" and spec.action.size != len(p["twist_fields"]):
            raise SpecMismatch(
                f"twist_fields names {len(p['twist_fields'])} elements, the policy's action has "
                f"{spec.action.size}; set twist_fields or command_type"
            )
        if self._spec is not None and _wire_form(spec) != _wire_form(self._spec):
            raise SpecMismatch(f"expected the running policy's spec {self._spec}, got {spec}")
        self._stream.begin(runner.card.task, spec)

    def _adopt(self) -> None:
        """Take sizes and period from the first policy."""
        runner = self._slot.runner
        if runner is None or self._spec is not None:
            return
        self._spec = spec = runner.spec
        self._image_key = next(iter(spec.images))
        period_ns = self._period_ns()
        limit = self._params["max_obs_age_s"] or runner.card.max_obs_age_s
        self._guard.settings = _safety_settings(
            self._params, max_obs_age_s=max(0.0, limit), period_s=period_ns * 1e-9
        )
        self._pilot.begin(
            spec,
            Recorder(
                self._stream.put if self._stream.records else None,
                period_ns,
                reward_required=self._params["reward_required"],
            ),
        )
        self._new_pacer()

    def _period_ns(self) -> int:
        period_s = self._params["period_s"]
        if not period_s:
            period_s = self._params["idle_period_s"] if self._spec is None else self._spec.period_s
        return round(period_s * 1e9)

    def _new_pacer(self) -> None:
        self._pacer = Pacer(
            self._period_ns(),
            time.monotonic_ns(),
            simulated=self._simulated,
            frame_wait=self._params["frame_wait"],
        )

    def _say(self, text: str) -> None:
        (self.get_logger().warning if "refused" in text else self.get_logger().info)(text)

    # ------------------------------------------------------------------------------- callbacks

    def _on_image(self, msg: Image) -> None:
        """Remember the newest frame; a tick that waits for it runs next."""
        now = time.monotonic_ns()
        stamp = convert.to_ns(msg.header.stamp)
        gap = stamp - self._frame_stamp_ns
        if self._counts["frames"] and gap > 0:
            self._counts["frames_missed"] += max(0, round(gap / self._pacer.period_ns) - 1)
        self._counts["frames"] += 1
        self._frame, self._frame_ns, self._frame_stamp_ns = msg, now, stamp
        self._pacer.on_frame(now, stamp)
        self._arm()

    def _on_signal(self, msg: JointState) -> None:
        try:
            self._signals.put(convert.to_signal(msg))
        except SpecMismatch as error:
            self._counts["signals_refused"] += 1
            self.get_logger().error(str(error), throttle_duration_sec=5.0)

    def _on_joints(self, msg: JointState) -> None:
        self._joints.append(msg)

    def _on_rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, f"was latched by {self._guard.latched}"
        self._guard.rearm()
        return response

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
        now = time.monotonic_ns()
        if now >= self._pacer.next_call_ns() and self._partner_may_come(now):
            self._arm(_PARTNER_POLL_NS)
            return
        due = self._pacer.poll(now)
        if due is not None:
            self._tick(due, now)
        self._arm()

    def _partner_may_come(self, now_ns: int) -> bool:
        """Whether a frame waits for its reward, which travels on another topic."""
        return (
            self._signals.counts["signals"] > 0
            and self._frame_ns > 0
            and now_ns - self._frame_ns < self._pacer.period_ns // 10
            and not self._signals.has(self._frame_stamp_ns)
        )

    def _tick(self, due: Due, now_ns: int) -> None:
        senses = self._sense(due.fresh, now_ns)
        decision = self._pilot.decide(senses)
        if decision.command is not None:
            self._publish(decision.command, decision.stamp_ns)
        left_ns = time.monotonic_ns()
        missed = self._stats.add(
            due, now_ns, left_ns, obs_age_ms=self._obs_age_ms(senses, left_ns), safe=decision.safe
        )
        self._note(decision)
        self._pilot.sent(decision, missed=missed)
        self._adopt()

    def _obs_age_ms(self, senses: Senses, left_ns: int) -> float | None:
        if senses.obs is None:
            return None
        if self._simulated:  # the simulated clock stands still while the policy thinks
            return (left_ns - self._frame_ns) * 1e-6
        return (self.get_clock().now().nanoseconds - senses.stamp_ns) * 1e-6

    def _sense(self, fresh: bool, now_ns: int) -> Senses:
        """What the sensors said, as the policy wants it."""
        frame = self._frame
        if frame is None or self._spec is None:
            return Senses(None)
        stamp_ns, obs, refused = self._frame_stamp_ns, None, None
        try:
            obs = self._observe(frame, stamp_ns, self._spec)
            if obs is None:
                refused = "no_joint_states"
        except SpecMismatch as error:
            refused, self._refusal = "frame_refused", str(error)
            self.get_logger().error(f"refused: {error}", throttle_duration_sec=5.0)
        return Senses(
            obs=obs,
            stamp_ns=stamp_ns,
            fresh=fresh,
            receive_age_s=(now_ns - self._frame_ns) * 1e-9,
            stamp_age_s=(self.get_clock().now().nanoseconds - stamp_ns) * 1e-9,
            refused=refused,
        )

    def _observe(self, frame: Image, stamp_ns: int, spec: Spec) -> Obs | None:
        image = spec.images[self._image_key]
        obs: Obs = {
            self._image_key: to_network(convert.to_frame(frame, image.channels), image)
        }
        for key, vector in spec.vectors.items():
            found = self._joints_at(stamp_ns)
            if found is None:
                return None
            obs[key] = convert.to_vector(found, vector.size, "joint_states")
        return obs

    def _joints_at(self, stamp_ns: int) -> JointState | None:
        """The joint state of this stamp, or the nearest one at most a period away."""
        def distance(msg: JointState) -> int:
            return abs(convert.to_ns(msg.header.stamp) - stamp_ns)

        nearest = min(self._joints, key=distance, default=None)
        if nearest is None or distance(nearest) > self._pacer.period_ns:
            return None
        return nearest

    def _publish(self, command: np.ndarray, stamp_ns: int) -> None:
        self._command.publish(
            convert.to_command(
                self._params["command_type"],
                command,
                fields=self._params["twist_fields"],
                names=() if self._spec is None else self._spec.action.names,
                stamp_ns=stamp_ns,
                frame_id=self._params["base_frame"],
            )
        )

    def _note(self, decision: Decision) -> None:
        if decision.safe is None:
            self._refusal = ""
        elif decision.safe != "no_policy":
            self.get_logger().warning(
                f"safe action: {decision.safe}", throttle_duration_sec=5.0
            )

    # --------------------------------------------------------------------------------- reports

    def _report(self) -> None:
        report = self._write_reports()
        self._status.publish(String(data=json.dumps(report)))
        self._diagnostics.publish(self._diagnosis(report))

    def _write_reports(self) -> dict[str, Any]:
        report = self._status_report()
        self._reports.put("status.json", report)
        self._reports.put("ticks.json", self._stats.to_json(self._period_ns() * 1e-9))
        return report

    def _status_report(self) -> dict[str, Any]:
        recorder, stats, stream = self._pilot.recorder, self._stats, self._stream.counters()
        returns = self._signals.returns
        return {
            "time_s": round(time.time(), 3),
            "active": self._active,
            "session": self._stream.session,
            **self._slot.counters(),
            "return_now": self._signals.return_now,
            "return_last": returns[-1] if returns else None,
            "returns": returns[-20:],
            "episodes": self._signals.counts["episodes"],
            "signals_without_tick": self._signals.counts["signals_without_tick"],
            **({"steps_recorded": 0} if recorder is None else recorder.counters()),
            "dropped": {} if recorder is None else dict(recorder.skipped),
            "breaks": {} if recorder is None else dict(recorder.breaks),
            "steps_streamed": stream.get("spool_steps_sealed", 0),
            "chunks_sealed": stream.get("spool_chunks_sealed", 0),
            "chunks_acked": stream.get("uploader_acked", 0),
            "ticks": stats.ticks,
            "missed_ticks": stats.missed_ticks,
            "safe_ticks": stats.safe_ticks,
            "safe_by_reason": dict(stats.safe_by_reason),
            "tick_p50_ms": stats.tick_ms.percentile(50),
            "tick_p99_ms": stats.tick_ms.percentile(99),
            "obs_age_p99_ms": stats.obs_age_ms.percentile(99),
            **self._counts,
            "refusal": self._refusal,
            "refusals": self._slot.refusals[-3:],
            "latched": self._guard.latched,
            "stream": stream,
        }

    def _diagnosis(self, report: dict[str, Any]) -> DiagnosticArray:
        status = DiagnosticStatus(name=f"{self.get_name()}: policy", hardware_id="")
        status.level, status.message = self._health(report)
        status.values = [
            KeyValue(key=key, value=str(value))
            for key, value in report.items()
            if not isinstance(value, (dict, list))
        ]
        status.values += [KeyValue(key=k, value=str(v)) for k, v in report["stream"].items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.get_clock().now().to_msg()
        return array

    def _health(self, report: dict[str, Any]) -> tuple[bytes, str]:
        if self._refusal:
            return DiagnosticStatus.ERROR, f"refused: {self._refusal}"
        if report["policy_version"] < 0:
            return DiagnosticStatus.WARN, "no policy yet: safe actions only"
        if self._guard.latched:
            return DiagnosticStatus.ERROR, f"latched by {self._guard.latched}: call ~/rearm"
        last_s = (time.monotonic_ns() - self._frame_ns) * 1e-9
        if last_s > 1.0:
            return DiagnosticStatus.ERROR, f"no frame for {last_s:.1f} s: safe actions only"
        if report["frames_missed"] > 0.05 * max(1, report["frames"]):
            return (
                DiagnosticStatus.WARN,
                "frames go missing: see image_reliability and the Fast DDS profile",
            )
        return DiagnosticStatus.OK, f"policy version {report['policy_version']} runs"


def _wire_form(spec: Spec) -> tuple[object, ...]:
    """What must stay the same while the robot runs: inputs, action and period."""
    return (spec.images, spec.vectors, spec.action, spec.period_s)


def _safety_settings(
    p: dict[str, Any], *, max_obs_age_s: float = 0.0, period_s: float = 0.05
) -> SafetySettings:
    return SafetySettings(
        max_obs_age_s=max_obs_age_s,
        max_receive_age_s=p["max_gap_s"] or period_s,
        frozen_frames=p["frozen_frames"],
        safe_action=p["safe_action"],
        latch=p["latch_safe"],
    )


def _stream_settings(p: dict[str, Any], state_dir: Path) -> StreamSettings:
    return StreamSettings(
        robot=p["robot"],
        spool_dir=Path(p["spool_dir"]).expanduser() if p["spool_dir"] else state_dir / "spool",
        cache_dir=state_dir / "policies",
        spool=SpoolSettings(
            seal_steps=p["seal_steps"], seal_s=p["seal_s"], max_bytes=p["spool_max_bytes"]
        ),
        trainer_url=p["trainer_url"],
        channel=p["channel"],
        token_file=p["token_file"],
        record=p["record"],
    )


def main(argv: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
