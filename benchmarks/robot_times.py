"""Measure the robot's side: converting a VGA frame, and stopping when the camera falls silent.

The policy is an untrained one of the smallest size, which a ``policy_node`` of its own runs over
real ROS 2; the camera is this script.

    python benchmarks/robot_times.py --stops 20 --json
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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


class Settings(Frozen):
    """Measure how long a VGA frame takes to convert, and a silent camera to stop the robot."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    frames: int = Field(500, gt=0, description="Number of frames that are converted")
    stops: int = Field(20, ge=0, description="Number of times that the camera falls silent")
    period_s: float = Field(0.05, gt=0, description="Seconds between two frames of the camera")


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


def measure_stops(settings: Settings, spec: Spec, report: Report) -> list[float]:
    """Milliseconds to each stop of a ``policy_node`` that is started for it."""
    with tempfile.TemporaryDirectory() as folder:
        Agent.create("dreamer_v3", spec).export(Path(folder) / "policy")
        argv = [sys.executable, "-m", "wm_ros.policy_node", "--ros-args", "--log-level", "warn"]
        for name, value in {
            "policy_dir": f"{folder}/policy",
            "state_dir": f"{folder}/state",
            "reward_required": "false",
        }.items():
            argv += ["-p", f"{name}:={value}"]
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        robot = subprocess.Popen(argv)
        rclpy.init()
        try:
            return stop_ms(rclpy.create_node("robot_times"), settings, report)
        finally:
            rclpy.try_shutdown()
            robot.terminate()
            robot.wait()


def main(settings: Settings) -> None:
    """Measure and report."""
    image = ImageSpec()
    action = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))
    spec = Spec(images={"image": image}, action=action, period_s=settings.period_s)
    with Report("robot times", as_json=settings.json_) as report:
        times = conversion_ms(settings.frames, image)
        if settings.stops:
            times["last_frame_to_zero"] = measure_stops(settings, spec, report)
        for name, values in times.items():
            for quantile, share in QUANTILES.items():
                report.add(f"robot/{name}/{quantile}", float(np.quantile(values, share)), "ms")


if __name__ == "__main__":
    main(tyro.cli(Settings))
