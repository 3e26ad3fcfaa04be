"""Measure how many frames of a camera reach a policy node over real ROS 2, and are acted upon.

The camera is a process of its own that publishes at a fixed rate, raw or as JPEG, best effort or
reliable; the node runs an untrained policy of the smallest size at the same rate.  Each of them
uses the Fast DDS profile that this package ships, or does not.  Frames count from the first on
that follows once the two have found each other and the policy is loaded.

    python benchmarks/camera_delivery.py --seconds 5 --results out.json
"""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.spec import ActionSpec, Frozen, ImageSpec, Spec
from wm_core.library.agent import Agent

WAIT_S = 120.0  #: bounds every wait for a process
PROFILE = Path(__file__).parents[1] / "launch" / "fastdds.xml"
VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
PICTURES = 8  #: different ones that the camera sends in turn
SIZES = {"vga": (480, 640), "720p": (720, 1280), "1080p": (1080, 1920)}

Size = Literal["vga", "720p", "1080p"]
Kind = Literal["raw", "jpeg"]
Reliability = Literal["best_effort", "reliable"]
Profiled = Literal["both", "node", "camera", "none"]


class Settings(Frozen):
    """Measure the share of frames that arrive, and of ticks that act, in every combination."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    results: str = Field("", description="JSON file for the results; empty: none")
    seconds: float = Field(5.0, gt=0, description="Seconds that the camera runs each time")
    rate_hz: float = Field(30.0, gt=0, description="Frames per second of camera and policy")
    sizes: tuple[Size, ...] = Field(("vga", "720p", "1080p"), description="Sizes of a frame")
    kinds: tuple[Kind, ...] = Field(("raw", "jpeg"), description="How frames are sent")
    reliability: tuple[Reliability, ...] = Field(
        ("best_effort", "reliable"), description="What camera and node ask of the transport"
    )
    profiles: tuple[Profiled, ...] = Field(
        ("both", "node", "none"), description="Who uses the Fast DDS profile of this package"
    )


class Setup(Frozen):
    """Describes one run."""

    size: Size
    kind: Kind
    reliability: Reliability
    profile: Profiled

    @property
    def name(self) -> str:
        """Name the run in results."""
        return f"{self.size}/{self.kind}/{self.reliability}/profile_{self.profile}"


class Delivery(Frozen):
    """Holds what one run came to."""

    sent: int  #: frames
    camera_hz: float  #: frames per second that the camera managed
    delivered: float  #: share of the sent frames that the node heard
    acted: float  #: share of the sent frames that were answered by a movement
    node_core: float  #: share of a core that the node used
    p50_ms: float  #: from stamp to command
    p99_ms: float


def pictures(size: Size) -> list[np.ndarray]:
    """Draw frames (H, W, 3) uint8 that move and have some noise, as a camera's."""
    height, width = SIZES[size]
    rng, y, x = np.random.default_rng(0), *np.ogrid[:height, :width]
    found = []
    for k in range(PICTURES):
        ramps = (x + 40 * k) // 8 % 256, (y + 20 * k) // 4 % 256, (x + y + 60 * k) // 8 % 256
        plain = np.stack([np.broadcast_to(ramp, (height, width)) for ramp in ramps], -1)
        found.append(np.clip(plain + rng.integers(-4, 5, plain.shape), 0, 255).astype(np.uint8))
    return found


def messages(setup: Setup) -> tuple[Any, list[Any]]:
    """Make the frames' messages before any is sent, and name their class."""
    from PIL import Image as Pictures
    from sensor_msgs.msg import CompressedImage, Image

    from wm_ros.sensors.camera import to_image

    if setup.kind == "raw":
        return Image, [to_image(picture, 0, "camera") for picture in pictures(setup.size)]
    found = []
    for picture in pictures(setup.size):
        file = io.BytesIO()
        Pictures.fromarray(picture).save(file, "jpeg", quality=80)
        msg = CompressedImage(format="rgb8; jpeg compressed bgr8")
        msg.data.frombytes(file.getvalue())
        found.append(msg)
    return CompressedImage, found


def play(setup: Setup, frames: int, rate_hz: float, begin: Any, ready: Any, sent: Any) -> None:
    """Be the camera: find the node, wait for ``begin``, send, and give the times of sending."""
    import rclpy

    from wm_ros import qos
    from wm_ros.convert import set_header

    rclpy.init()
    node = rclpy.create_node("camera")
    kind, made = messages(setup)
    topic = "image_raw" if setup.kind == "raw" else "image_raw/compressed"
    camera = node.create_publisher(
        kind, topic, qos.sensor(reliable=setup.reliability == "reliable", depth=5)
    )
    while camera.get_subscription_count() < 1:
        time.sleep(0.02)
    ready.set()
    begin.wait()
    due_s, began_s = time.monotonic(), time.monotonic()
    for number in range(frames):
        time.sleep(max(0.0, due_s - time.monotonic()))
        due_s += 1.0 / rate_hz
        msg = made[number % PICTURES]
        set_header(msg.header, time.time_ns(), "camera")
        camera.publish(msg)
    sent.put((frames - 1) / (time.monotonic() - began_s))
    time.sleep(1.0)  # a reliable frame may still be on its way
    node.destroy_node()
    rclpy.try_shutdown()


def environment(profiled: bool) -> dict[str, str]:
    """Give the environment of a process with, or without, the profile."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {**env, VARIABLE: str(PROFILE)} if profiled else env


def start_node(folder: Path, setup: Setup, rate_hz: float) -> subprocess.Popen[bytes]:
    """Start a policy node on the policy in ``folder``."""
    compressed = {"image.type": "compressed", "image.topic": "image_raw/compressed"}
    params = {
        "policy_dir": str(folder / "policy"),
        "state_dir": str(folder / "state"),
        "reward_required": "false",
        "period_s": repr(1.0 / rate_hz),
        "image_reliability": setup.reliability,
        "frozen_s": "0.0",
        **({"sensors": "[image]", **compressed} if setup.kind == "jpeg" else {}),
    }
    argv = [sys.executable, "-m", "wm_ros.policy_node", "--ros-args", "--log-level", "error"]
    argv += [part for name, value in params.items() for part in ("-p", f"{name}:={value}")]
    env = environment(setup.profile in ("both", "node"))
    return subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL)


def start_camera(setup: Setup, settings: Settings, frames: int) -> tuple[Any, Any, Any, Any]:
    """Start the camera; its process, what begins it, what it is ready by, and its rate."""
    spawn = multiprocessing.get_context("spawn")
    begin, ready, sent = spawn.Event(), spawn.Event(), spawn.Queue()
    args = (setup, frames, settings.rate_hz, begin, ready, sent)
    camera = spawn.Process(target=play, args=args, daemon=True)
    before = dict(os.environ)
    os.environ.update(environment(setup.profile in ("both", "camera")))
    try:
        camera.start()  # it has the environment of this moment
    finally:
        os.environ.clear()
        os.environ.update(before)
    return camera, begin, ready, sent


def cpu_s(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def status_of(folder: Path) -> dict[str, Any]:
    """Read the node's newest report; {} before the first."""
    path = folder / "state" / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def measure_one(node: Any, folder: Path, setup: Setup, settings: Settings) -> Delivery:
    """Run camera and node once; ``node`` hears the commands."""
    import rclpy
    from geometry_msgs.msg import TwistStamped

    from wm_ros import qos
    from wm_ros.convert import to_ns

    answers: dict[int, float] = {}  # stamp of a frame -> ms until its command came

    def on_command(msg: TwistStamped) -> None:
        stamp_ns = to_ns(msg.header.stamp)
        if msg.twist.linear.x or msg.twist.angular.z:
            answers.setdefault(stamp_ns, (time.time_ns() - stamp_ns) * 1e-6)

    heard = node.create_subscription(TwistStamped, "cmd_vel", on_command, qos.command())
    frames = round(settings.seconds * settings.rate_hz)
    (folder / "state" / "status.json").unlink(missing_ok=True)
    robot = start_node(folder, setup, settings.rate_hz)
    camera, begin, ready, sent = start_camera(setup, settings, frames)

    def spin_until(done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_S + settings.seconds
        while not done():
            if time.monotonic() > deadline:
                raise SystemExit(f"{setup.name}: waited {WAIT_S:.0f} s for {what}")
            rclpy.spin_once(node, timeout_sec=0.01)

    try:
        spin_until(lambda: ready.is_set() and bool(status_of(folder).get("active")), "the node")
        known, began_s = cpu_s(robot.pid), time.monotonic()
        begin.set()
        spin_until(lambda: not sent.empty(), "the camera")
        camera_hz = sent.get()
        core = (cpu_s(robot.pid) - known) / (time.monotonic() - began_s)
        spin_until(lambda: time.monotonic() > began_s + frames / settings.rate_hz + 2.2, "reports")
        delivered = status_of(folder)["frames"] / frames
    finally:
        robot.terminate()
        robot.wait()
        camera.join(WAIT_S)
        node.destroy_subscription(heard)
    ages = [*answers.values()] or [float("nan")]
    p50, p99 = (float(np.quantile(ages, share)) for share in (0.5, 0.99))
    return Delivery(
        sent=frames,
        camera_hz=camera_hz,
        delivered=delivered,
        acted=len(answers) / frames,
        node_core=core,
        p50_ms=p50,
        p99_ms=p99,
    )


_UNITS = {"sent": "frames", "camera_hz": "Hz", "p50_ms": "ms", "p99_ms": "ms"}


def main(settings: Settings) -> None:
    """Measure every combination and report."""
    import rclpy

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    action = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))
    spec = Spec(images={"image": ImageSpec()}, action=action, period_s=1 / settings.rate_hz)
    choices = (settings.sizes, settings.kinds, settings.reliability, settings.profiles)
    results = {}
    with (
        Report("camera delivery", as_json=settings.json_) as report,
        tempfile.TemporaryDirectory() as name,
    ):
        folder = Path(name)
        Agent.create("dreamer_v3", spec).export(folder / "policy")
        rclpy.init()
        node = rclpy.create_node("listener")
        try:
            for size, kind, reliability, profile in itertools.product(*choices):
                setup = Setup(size=size, kind=kind, reliability=reliability, profile=profile)
                report.progress(setup.name)
                got = measure_one(node, folder, setup, settings).model_dump()
                results[setup.name] = got
                for key, value in got.items():
                    report.add(f"{setup.name}/{key}", value, _UNITS.get(key, "x"))
                if settings.results:
                    Path(settings.results).write_text(json.dumps(results, indent=1) + "\n")
        finally:
            rclpy.try_shutdown()


if __name__ == "__main__":
    main(tyro.cli(Settings))
