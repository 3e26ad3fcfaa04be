"""Measure the robot's side: converting a VGA frame, starting, ticking at several rates, stopping.

The policy is an untrained one, which a ``policy_node`` of its own runs over real ROS 2; the camera
is this script.  ``stamp_to_command`` is measured where the command arrives.  The node starts from
compiled modules, as an installed one does.

    python benchmarks/robot_times.py --stops 20 --rate-hz 20 50 100 --json
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import rclpy
import tyro
from geometry_msgs.msg import TwistStamped
from pydantic import Field
from sensor_msgs.msg import Image

from wm_core.bench.report import Report
from wm_core.contract.image import to_network
from wm_core.contract.spec import ActionSpec, Frozen, ImageSpec, Spec
from wm_core.library.agent import Agent
from wm_ros import qos
from wm_ros.convert import to_ns
from wm_ros.sensors.camera import to_frame, to_image

WAIT_S = 120.0  #: bounds every wait for the node
QUANTILES = {"p50": 0.5, "p99": 0.99}
_UNITS = {"s": "s", "mib": "MiB", "share": "x"}  #: of figures by the end of their names


class Settings(Frozen):
    """Measure how long frames, ticks and starts take, and a silent camera to stop the robot."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    frames: int = Field(500, gt=0, description="Number of frames that are converted")
    stops: int = Field(20, ge=0, description="Number of times that the camera falls silent")
    period_s: float = Field(0.05, gt=0, description="Seconds between two frames of the camera")
    rate_hz: tuple[float, ...] = Field(
        (20.0, 50.0, 100.0), description="Rates of camera and policy whose ticks are measured"
    )
    seconds: float = Field(10.0, gt=0, description="Seconds that each rate is measured")
    size: str = Field("micro", description="Size of the policy that the node runs")
    realtime_priority: int = Field(0, ge=0, le=99, description="Parameter of the node; 0: none")
    warm_up: tuple[Literal["auto", "on", "off"], ...] = Field(
        ("auto",), description="Parameter of the node; each rate is measured with every one"
    )


def conversion_ms(frames: int, image: ImageSpec) -> dict[str, list[float]]:
    """Milliseconds of each step from a message to the network's input, frame by frame."""
    rng = np.random.default_rng(0)
    msg = to_image(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8), 0, "camera")
    times: dict[str, list[float]] = {"to_frame": [], "to_network": []}
    for _ in range(frames):
        begin = time.perf_counter()
        frame = to_frame(msg, image.channels)
        viewed = time.perf_counter()
        to_network(frame, image)
        times["to_frame"].append((viewed - begin) * 1e3)
        times["to_network"].append((time.perf_counter() - viewed) * 1e3)
    return times


def stop_ms(node: Any, settings: Settings, report: Report) -> list[float]:
    """Milliseconds from the last frame to the first zero command, once per silence."""
    camera = node.create_publisher(Image, "image_raw", qos.sensor())
    answers: list[tuple[int, bool]] = []  # stamp, or 0 without a frame; whether all is zero

    def on_command(msg: TwistStamped) -> None:
        zero = not (msg.twist.linear.x or msg.twist.angular.z)
        answers.append((to_ns(msg.header.stamp), zero))

    node.create_subscription(TwistStamped, "cmd_vel", on_command, qos.command())

    def until(ready: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not ready():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {WAIT_S:.0f} s for {what}")
            rclpy.spin_once(node, timeout_sec=0.001)

    rng, times = np.random.default_rng(0), []
    for number in range(settings.stops):
        report.progress(f"stop {number + 1}")
        sent_s, moved, deadline = 0.0, 0, time.monotonic() + WAIT_S
        while moved < 10:  # frames that were answered by a movement
            if time.monotonic() > deadline:
                raise SystemExit(f"waited {WAIT_S:.0f} s for a robot that moves")
            frame = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
            answers.clear()
            sent_s = time.monotonic()
            camera.publish(to_image(frame, time.time_ns(), "camera"))
            while time.monotonic() < sent_s + settings.period_s and moved < 10:
                rclpy.spin_once(node, timeout_sec=0.001)
                if any(stamp and not zero for stamp, zero in answers):
                    moved += 1
                    answers.clear()
        until(lambda: any(zero for _, zero in answers), "a zero command")
        times.append((time.monotonic() - sent_s) * 1e3)
    return times


@contextmanager
def robot_node(folder: str, **params: str) -> Iterator[subprocess.Popen[bytes]]:
    """A ``policy_node`` that runs the policy in ``folder``, as a process of its own."""
    argv = [sys.executable, "-m", "wm_ros.policy_node", "--ros-args", "--log-level", "warn"]
    given = {"policy_dir": f"{folder}/policy", "state_dir": f"{folder}/state", **params}
    for name, value in {"reward_required": "false", **given}.items():
        argv += ["-p", f"{name}:={value}"]
    robot = subprocess.Popen(argv, env=_compiled(folder))
    try:
        yield robot
    finally:
        robot.terminate()
        robot.wait()


def _compiled(folder: str) -> dict[str, str]:
    """Environment in which Python keeps compiled modules below ``folder`` and finds them there."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    return env


def start_and_ticks(
    node: Any, folder: str, rate_hz: float, how: Settings, warm_up: str
) -> dict[str, float]:
    """Start a node, show it frames at ``rate_hz``; what its start and its ticks took."""
    camera = node.create_publisher(Image, "image_raw", qos.sensor())
    told: list[tuple[float, float]] = []  # steady time of a movement, ms since its frame's stamp

    def on_command(msg: TwistStamped) -> None:
        if msg.twist.linear.x or msg.twist.angular.z:
            age_ms = (time.time_ns() - to_ns(msg.header.stamp)) * 1e-6
            told.append((time.monotonic(), age_ms))

    heard = node.create_subscription(TwistStamped, "cmd_vel", on_command, qos.command())
    frames = np.random.default_rng(0).integers(0, 256, (16, 480, 640, 3), dtype=np.uint8)
    begin_s, shown = time.monotonic(), 0
    rate = {"period_s": repr(1.0 / rate_hz), "realtime_priority": str(how.realtime_priority)}
    rate["warm_up"] = f"'{warm_up}'"  # on and off are no words in YAML
    with robot_node(folder, **rate) as robot:
        due_s, began_cpu_s = time.monotonic(), 0.0
        while not told or time.monotonic() < told[0][0] + how.seconds:
            if time.monotonic() > begin_s + WAIT_S + how.seconds:
                raise SystemExit(f"waited {WAIT_S:.0f} s for a robot that moves")
            if time.monotonic() >= due_s:
                due_s += 1.0 / rate_hz
                shown += 1
                camera.publish(to_image(frames[shown % 16], time.time_ns(), "camera"))
            began_cpu_s = began_cpu_s if told else _cpu_s(robot.pid)
            rclpy.spin_once(node, timeout_sec=max(0.0, min(0.002, due_s - time.monotonic())))
        share = (_cpu_s(robot.pid) - began_cpu_s) / (time.monotonic() - told[0][0])
        found = {"first_action_s": told[0][0] - begin_s, "core_share": share}
        found["resident_mib"] = _resident_mib(robot.pid)
        time.sleep(1.5)  # the node writes its report once a second
        report = json.loads(Path(folder, "state", "status.json").read_text())
    node.destroy_subscription(heard)
    node.destroy_publisher(camera)
    ages = [ms for _, ms in told[int(rate_hz) :]] or [0.0]  # without the first second
    found |= {
        f"stamp_to_command/{q}_ms": float(np.quantile(ages, s)) for q, s in QUANTILES.items()
    }
    found |= {f"tick/{q}_ms": float(report[f"tick_{q}_ms"]) for q in QUANTILES}
    return found


def _cpu_s(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(pid: int) -> float:
    rows = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(rows["VmRSS"].split()[0]) / 1024


def measure_robot(settings: Settings, spec: Spec, report: Report) -> list[float]:
    """Report starts and ticks at each rate; milliseconds to each stop of another node."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with tempfile.TemporaryDirectory() as folder:
        Agent.create("dreamer_v3", spec, size=settings.size).export(Path(folder) / "policy")
        first = [sys.executable, "-c", "import wm_ros.policy_node"]
        subprocess.run(first, env=_compiled(folder), check=True)
        rclpy.init()
        node = rclpy.create_node("robot_times")
        try:
            for rate_hz, warm_up in itertools.product(settings.rate_hz, settings.warm_up):
                report.progress(f"{rate_hz:g} Hz")
                found = start_and_ticks(node, folder, rate_hz, settings, warm_up)
                way = "" if len(settings.warm_up) == 1 else f"warm_up_{warm_up}/"
                for name, value in found.items():
                    unit = _UNITS.get(name.rpartition("_")[2], "ms")
                    report.add(f"robot/{rate_hz:g}hz/{way}{name}", value, unit)
            if not settings.stops:
                return []
            with robot_node(folder):
                return stop_ms(node, settings, report)
        finally:
            rclpy.try_shutdown()


def main(settings: Settings) -> None:
    """Measure and report."""
    image = ImageSpec()
    action = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))
    spec = Spec(images={"image": image}, action=action, period_s=settings.period_s)
    with Report("robot times", as_json=settings.json_) as report:
        times = conversion_ms(settings.frames, image)
        if settings.stops or settings.rate_hz:
            times["last_frame_to_zero"] = measure_robot(settings, spec, report)
        for name, values in times.items():
            if not values:
                continue
            for quantile, share in QUANTILES.items():
                report.add(f"robot/{name}/{quantile}", float(np.quantile(values, share)), "ms")


if __name__ == "__main__":
    main(tyro.cli(Settings))
