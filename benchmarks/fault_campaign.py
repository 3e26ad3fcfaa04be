"""Inject faults into a running robot and check each: stopped in time, named truly, recovered.

A ``policy_node`` of its own runs a policy over real ROS 2; camera, joints, clock, operators and
the receiver of the commands are this script.  Each fault begins while the robot moves.  The time
from the moment at which the fault can be seen to the first safe command is taken by the receiver's
steady clock; the reason is what ``/diagnostics`` says.  Then the fault ends and the robot has to
move again.  The kinds of faults are in ``fault_kinds``.

    python benchmarks/fault_campaign.py --faults 500 --results out.json
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import tyro
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from fault_kinds import JOINTS, Fault, Robot, plan
from geometry_msgs.msg import TwistStamped
from pydantic import Field
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool

from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Frozen, ImageSpec, Spec, VectorSpec
from wm_ros import convert, qos
from wm_ros.sensors.camera import to_image

WAIT_S = 60.0  #: bounds every wait for the node
STALL_S = 0.010  #: a longer pause of this script makes a time not worth judging
TRIES = 6  #: of a fault in whose time this script or the node had to wait for a processor


class Settings(Frozen):
    """Inject faults into a running robot, and check stop, reason and recovery of each."""

    results: str = Field("", description="JSON file for the results of every fault; empty: none")
    faults: int = Field(500, gt=0, description="Number of faults that are injected")
    seed: int = Field(0, ge=0, description="Seed of the order and the variants of the faults")
    period_s: float = Field(0.1, gt=0, description="Seconds of one agent step of the policy")
    stop_periods: float = Field(
        2.0, gt=0, description="Periods within which the safe action has to come"
    )
    policy: str = Field("", description="Folder of a policy; empty: an untrained one is exported")
    kinds: tuple[str, ...] = Field((), description="Kinds of faults to inject; empty: all of them")


def campaign_spec(period_s: float) -> Spec:
    """Describe the robot: a camera, three joints, and an action whose zero is not its middle."""
    return Spec(
        images={"image": ImageSpec(height=32, width=32)},
        vectors={"proprio": VectorSpec(size=3, names=JOINTS)},
        action=ActionSpec(low=(-0.5, -2.0), high=(1.0, 3.0), names=("forward", "turn")),
        period_s=period_s,
    )


@dataclass
class Result:
    """Says how one fault went."""

    kind: str
    variant: str
    robot: str
    stop_periods: float | None = None  #: to the first safe command; None where none was due
    reason: str = ""  #: what the diagnostics said
    named_s: float = 0.0  #: until they said it
    recovered_s: float = 0.0  #: from the fault's end to a robot that moves
    waited_ms: float = 0.0  #: that the node was ready to run and had no processor, meanwhile
    tries: int = 1
    wrong: list[str] = field(default_factory=list)


class Bench:
    """Plays the robot around the node: publishes on time, and notes when each command came."""

    def __init__(self, folder: Path, policy: Path, settings: Settings, *, simulated: bool) -> None:
        self.period_s, self.simulated, self.folder = settings.period_s, simulated, folder
        self.stop_periods = settings.stop_periods
        self.policy = policy
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(
            "fault_campaign", namespace="/campaign", context=self.context
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        make = self.node.create_publisher
        self.camera = make(Image, "image_raw", qos.sensor())
        self.joint_out = make(JointState, "joint_states", qos.signals())
        self.clock_out = make(Clock, "/clock", 10)
        self.emergency = make(Bool, "emergency", qos.command())
        self.takeover = make(TwistStamped, "joystick", qos.command())
        self.commands: list[tuple[float, float, float]] = []  # steady time, forward, turn
        self.diagnoses: list[tuple[float, Any]] = []
        self.hear()
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnoses, 50)
        self.rng = np.random.default_rng(0)
        self.fault: Fault | None = None
        self.seen_s: float | None = None  #: steady time at which the fault could be seen
        self.good_s = 0.0  #: steady time of the last good frame
        self.joined_s = 0.0  #: stamp, on the steady clock, of the last joints that were sent
        self.stalled_s = 0.0  #: longest pause of this script of late
        self.joystick: tuple[float, float] | None = None
        self._due_s, self._beat, self._sim_ns = time.monotonic(), 0, 10**9
        self.jump_ns = 0  #: by which simulated time jumps at the next beat
        self.paused = False  #: simulated time stands still, and the camera with it
        self.process = self._start()

    def hear(self) -> None:
        """Subscribe the commands."""
        self.heard = self.node.create_subscription(
            TwistStamped, "cmd_vel", self._on_command, qos.command()
        )

    def _start(self) -> subprocess.Popen[bytes]:
        params = {
            "policy_dir": str(self.policy),
            "state_dir": str(self.folder / f"state_{self.simulated}"),
            "reward_required": False,
            "exploration": "mean",
            "emergency_stop_topic": "emergency",
            "takeover_topic": "joystick",
            "takeover_timeout_s": 2 * self.period_s,
            "use_sim_time": self.simulated,
            "frozen_s": 1.0,
            "policy_poll_s": 0.1,
        }
        file = self.folder / "params.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": params}}))
        argv = [sys.executable, "-m", "wm_ros.policy_node", "--ros-args"]
        argv += ["-r", "__ns:=/campaign", "-r", "__node:=policy", "--params-file", str(file)]
        log = (self.folder / f"node_{self.simulated}.log").open("wb")
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(argv, stdout=log, stderr=log, env=env)

    def close(self) -> int:
        """End the node; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=WAIT_S)
        finally:
            self.process.kill()
            self.executor.shutdown()
            self.node.destroy_node()
            self.context.try_shutdown()

    # ------------------------------------------------------------------------------- the world

    def _on_command(self, msg: TwistStamped) -> None:
        self.commands.append((time.monotonic(), msg.twist.linear.x, msg.twist.angular.z))

    def _on_diagnoses(self, msg: DiagnosticArray) -> None:
        now = time.monotonic()
        self.diagnoses += [(now, status) for status in msg.status]

    def stamp_ns(self) -> int:
        """Give the time that messages carry."""
        return self._sim_ns if self.simulated else time.time_ns()

    def waited_ms(self) -> float:
        """Give the milliseconds for which the node's first thread had no processor so far."""
        pid = self.process.pid
        try:
            return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) * 1e-6
        except (OSError, IndexError):
            return 0.0

    def pump(self, ready: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Publish on time until ``ready``; False where that took too long."""
        deadline, before = time.monotonic() + timeout_s, time.monotonic()
        while not ready():
            now = time.monotonic()
            self.stalled_s = max(self.stalled_s, now - before - 0.004)
            before = now
            if now > deadline or self.process.poll() is not None:
                return False
            if now >= self._due_s:
                self._publish()
            self.executor.spin_once(timeout_sec=max(0.0, min(0.003, self._due_s - now)))
        return True

    def _publish(self) -> None:
        """Publish one beat: joints, frame, and what people send; half a beat: joints alone."""
        fault, self._beat = self.fault, self._beat + 1
        speed = 1.0 if fault is None else fault.speed
        step_s = self.period_s / 2 / speed
        self._due_s = max(self._due_s + step_s, time.monotonic() - step_s)
        if self.simulated:
            if self.paused:
                return
            self._sim_ns += round(self.period_s / 2 * 1e9) + self.jump_ns
            self.jump_ns = 0
            clock = Clock()
            convert.set_time(clock.clock, self._sim_ns)
            self.clock_out.publish(clock)
        stamp_ns, now = self.stamp_ns(), time.monotonic()
        msg = JointState(name=list(JOINTS), position=[0.1, 0.2, 0.3])
        convert.set_header(msg.header, stamp_ns)
        sent = msg if fault is None or fault.joints is None else fault.joints(msg)
        if sent is not None:
            self.joint_out.publish(sent)
            if fault is None or fault.joints is None:
                self.joined_s = now
        if self.joystick is not None:
            driven = TwistStamped()
            driven.twist.linear.x, driven.twist.angular.z = self.joystick
            self.takeover.publish(driven)
        if self._beat % 2 == 0:
            bad_joints = fault is not None and fault.joints is not None and sent is not None
            self._publish_frame(fault, stamp_ns, now, bad_joints=bad_joints)

    def _publish_frame(
        self, fault: Fault | None, stamp_ns: int, now: float, *, bad_joints: bool
    ) -> None:
        pixels = self.rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        msg = to_image(pixels, stamp_ns, "camera_optical")
        bad = fault is not None and fault.frame is not None
        sent = fault.frame(msg) if fault is not None and fault.frame is not None else msg
        slow = fault is not None and (self._beat // 2) % fault.every != 0
        if fault is not None and self.seen_s is None:
            apart = fault.joints is not None and now - self.joined_s > self.period_s
            if sent is None or slow:
                self.seen_s = self.good_s
            elif bad or bad_joints or apart:
                self.seen_s = now + fault.seen_after_s
        if sent is not None and not slow:
            self.camera.publish(sent)
            if not bad:
                self.good_s = now

    # ------------------------------------------------------------------------------- judgement

    def moves(self, since_s: float, times: int = 5) -> bool:
        """Tell whether the last commands since a time moved the robot, as its policy does."""
        lately = [c for c in self.commands if c[0] >= since_s][-times:]
        return len(lately) == times and all(c[1] != 0.0 for c in lately)

    def policy_said(self, since_s: float) -> list[tuple[float, Any, dict[str, str]]]:
        """List what the diagnostics said of the policy since a time."""
        return [
            (at, status, {v.key: v.value for v in status.values})
            for at, status in self.diagnoses
            if at >= since_s and status.name == "/campaign/policy: policy"
        ]

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node while messages go on."""
        client = self.node.create_client(kind, f"/campaign/policy/{name}")
        self.pump(client.service_is_ready)
        future = client.call_async(request)
        self.pump(future.done)
        self.node.destroy_client(client)
        return future.result()

    def set(self, **params: Any) -> Any:
        """Set parameters of the node at run time."""
        from rcl_interfaces.srv import SetParameters

        values = [
            Parameter(name, value=value).to_parameter_msg() for name, value in params.items()
        ]
        return self.call(SetParameters, "set_parameters", SetParameters.Request(parameters=values))

    def rearm(self) -> Any:
        """Let a latched robot act again."""
        from std_srvs.srv import Trigger

        return self.call(Trigger, "rearm", Trigger.Request())


def inject(bench: Bench, fault: Fault) -> Result:
    """Run one fault from a moving robot to a moving robot."""
    result = Result(fault.kind, fault.variant, "simulated" if bench.simulated else "real time")
    bench.commands, bench.diagnoses = bench.commands[-20:], bench.diagnoses[-20:]
    if not bench.pump(lambda: bench.moves(0.0)):
        result.wrong.append("the robot did not move before the fault")
        return result
    bench.stalled_s, bench.seen_s = 0.0, None
    began, waited_ms = time.monotonic(), bench.waited_ms()
    bench.fault = fault
    if fault.begin is not None:
        fault.begin(bench)
        bench.seen_s = bench.seen_s or time.monotonic()
    _check_stop(bench, fault, result, began)
    result.waited_ms = round(bench.waited_ms() - waited_ms, 3)
    _check_reason(bench, fault, result, began)
    bench.fault = None
    ended = time.monotonic()
    if fault.end is not None:
        fault.end(bench)
    if fault.latches and not bench.rearm().success:
        bench.pump(lambda: time.monotonic() > ended + 5 * bench.period_s)
        if not bench.rearm().success:
            result.wrong.append("rearm was refused after the fault had ended")
    if not bench.pump(lambda: bench.moves(ended)):
        result.wrong.append("the robot did not move again after the fault")
    result.recovered_s = time.monotonic() - ended
    return result


def _check_stop(bench: Bench, fault: Fault, result: Result, began: float) -> None:
    """Wait for the safe action and time it."""
    limit_s = 2 * bench.period_s / fault.speed
    bench.pump(lambda: bench.seen_s is not None)
    seen = bench.seen_s or began
    if fault.stops == "no":
        bench.pump(lambda: time.monotonic() > seen + 4 * limit_s)
        stops = [c for c in bench.commands if c[0] > began and c[1] == 0.0]
        if stops:
            result.wrong.append(f"{len(stops)} safe commands where the robot should go on")
        return

    if fault.stops == "settles":
        bench.pump(lambda: time.monotonic() > seen + 25 * bench.period_s)
        settled = time.monotonic()
        bench.pump(lambda: time.monotonic() > settled + 20 * bench.period_s)
        if any(at > settled and not x for at, x, _ in bench.commands):
            result.wrong.append("it still stops now and then")
        return

    def zeros() -> list[float]:
        return [at for at, x, z in bench.commands if at >= seen and x == z == 0.0]

    if fault.stops == "zero":
        bench.pump(lambda: bool(zeros()), timeout_s=10.0)
        if not zeros():
            result.wrong.append("no safe command came")
            return
        first = zeros()[0]
        result.stop_periods = (first - seen) / (limit_s / 2)
        bench.pump(lambda: time.monotonic() > first + limit_s)
        if fault.every == 1 and any(at > first and x for at, x, _ in bench.commands):
            result.wrong.append("the policy acted again while the fault lasted")
    else:  # nothing, or the last command over and over
        bench.pump(lambda: time.monotonic() > seen + 2 * limit_s)
        after = [c for c in bench.commands if c[0] > seen + limit_s]
        until = max((at for at, _, _ in bench.commands if at > seen), default=seen)
        result.stop_periods = None if after else (until - seen) / (limit_s / 2)
        if fault.stops == "none" and after:
            result.wrong.append(f"{len(after)} commands where none was to be sent")
        if fault.stops == "hold" and len({c[1:] for c in after}) != 1:
            result.wrong.append("the held command changed, or none came")
        return
    if result.stop_periods is not None and result.stop_periods > bench.stop_periods:
        result.wrong.append(f"the safe command came after {result.stop_periods:.2f} periods")


def _check_reason(bench: Bench, fault: Fault, result: Result, began: float) -> None:
    """Wait until the diagnostics name the reason, at a level above OK where the robot stops."""

    def named() -> bool:
        for at, status, values in reversed(bench.policy_said(began)):
            level = ord(status.level)
            fits = values.get("standing") in fault.reasons and (level > 0 or fault.stops == "no")
            everything = " ".join(s.message for t, s in bench.diagnoses if t >= began)
            if fits and fault.said in everything:
                result.reason, result.named_s = values["standing"], at - began
                return True
        return False

    if not bench.pump(named, timeout_s=12.0):
        said = [(s.message[:80], v.get("standing")) for _, s, v in bench.policy_said(began)][-2:]
        result.wrong.append(f"expected {fault.reasons} {fault.said!r}, diagnostics said {said}")


def run(bench: Bench, faults: list[Fault], progress: Callable[[str], None]) -> list[Result]:
    """Inject every fault in turn; one that the machine disturbed is injected again."""
    results = []
    for number, fault in enumerate(faults, 1):
        for tries in range(1, TRIES + 1):
            result = inject(bench, fault)
            result.tries = tries
            if not result.wrong or max(bench.stalled_s, result.waited_ms * 1e-3) < STALL_S:
                break
        results.append(result)
        progress(f"{number}/{len(faults)} {fault.kind} {fault.variant}: {result.wrong or 'ok'}")
        if bench.process.poll() is not None:
            result.wrong.append(f"the node ended with {bench.process.returncode}")
            break
    return results


def table(results: list[Result]) -> str:
    """Lay out the results by kind."""
    by_kind: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_kind[result.robot, result.kind].append(result)
    lines = [
        "robot      kind                      n  wrong  again  stop p50  max  named p50  back p50"
    ]
    for (robot, kind), some in sorted(by_kind.items()):
        stops = [r.stop_periods for r in some if r.stop_periods is not None]
        lines.append(
            f"{robot:10} {kind:24} {len(some):3} {sum(bool(r.wrong) for r in some):5} "
            f"{sum(r.tries > 1 for r in some):6} "
            + (f"{np.median(stops):8.2f} {max(stops):5.2f}" if stops else f"{'-':>8} {'-':>5}")
            + f" {np.median([r.named_s for r in some]):8.2f} s"
            + f" {np.median([r.recovered_s for r in some]):7.2f} s"
        )
    return "\n".join(lines)


def main(settings: Settings) -> None:
    """Inject, print a table, write the results, and exit with 1 where a fault went wrong."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policies = folder / "policies"
        if settings.policy:
            os.symlink(Path(settings.policy).resolve(), policies)
        else:
            from wm_core.library.agent import Agent

            Agent.create("dreamer_v3", campaign_spec(settings.period_s)).export(policies / "0")
        oldest_s = PolicyRunner.load(next(policies.iterdir())).card.max_obs_age_s
        robot = Robot(settings.period_s, oldest_s)
        for simulated, faults in plan(settings.faults, settings.seed, robot):
            chosen = [f for f in faults if not settings.kinds or f.kind in settings.kinds]
            if not chosen:
                continue
            bench = Bench(folder, policies, settings, simulated=simulated)
            try:
                results += run(bench, chosen, print)
            finally:
                print("exit code", bench.close())
    print(table(results))
    wrong = [r for r in results if r.wrong]
    print(f"{len(results)} faults, {len(wrong)} wrong")
    if settings.results:
        Path(settings.results).write_text(json.dumps([asdict(r) for r in results], indent=1))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    random.seed(0)
    main(tyro.cli(Settings))
