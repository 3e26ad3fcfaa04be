"""Plays the sensors of a robot over real topics, for tests of what a node makes of them."""

from __future__ import annotations

import io
import math
import time

import numpy as np

from tests.wm_ros.conftest import steps_in
from wm_core.contract.spec import Spec
from wm_core.robot import RobotFile
from wm_ros.convert import message_class, set_header, to_ns

PERIOD_S = 0.04
TWIST = """
actions:
  {type: geometry_msgs/TwistStamped, fields: [linear.x, angular.z], low: [-0.5, -2], high: [1, 2]}
reward: {topic: reward, required: false}
"""


def make(kind: str, **fields):
    """A message whose fields may be paths with __ for the dots."""
    msg = message_class(kind)()
    for path, value in fields.items():
        *outer, last = path.split("__")
        inner = msg
        for name in outer:
            inner = getattr(inner, name)
        setattr(inner, last, value)
    return msg


class Robot:
    """Plays sensors: what ``send`` names is published once a period, stamped alike."""

    def __init__(self, watcher) -> None:
        from wm_ros import qos

        self.watcher, self._qos = watcher, qos
        self._publishers: dict[tuple[str, str], object] = {}
        self.sends: dict[tuple[str, str], object] = {}  #: (type, topic) -> messages, or makers
        self.late_s = 0.0  #: age of the stamps
        self._due = 0.0

    def publish(self, kind: str, topic: str, msg, stamp_ns: int | None = None) -> None:
        if stamp_ns is not None and hasattr(msg, "header"):
            set_header(msg.header, stamp_ns)
        self._publisher(kind, topic).publish(msg)

    def publish_until(self, ready, what: str, *messages) -> None:
        """Publish ``messages`` (arguments of ``publish``) every second; the first may get lost."""
        due_s = 0.0

        def said() -> bool:
            nonlocal due_s
            if time.monotonic() >= due_s:
                due_s = time.monotonic() + 1.0
                for message in messages:
                    self.publish(*message)
            return ready()

        self.until(said, what)

    def _publisher(self, kind: str, topic: str):
        key = (kind, topic)
        if key not in self._publishers:
            made = self.watcher.node.create_publisher(message_class(kind), topic, 50)
            self._publishers[key] = made
        return self._publishers[key]

    def step(self) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + PERIOD_S
        stamp_ns = time.time_ns() - round(self.late_s * 1e9)
        for (kind, topic), what in self.sends.items():
            made = what(stamp_ns) if callable(what) else what
            for msg in made if isinstance(made, list) else [made]:
                own = msg.header.stamp.sec if hasattr(msg, "header") else 0
                self.publish(kind, topic, msg, None if own else stamp_ns)
                if hasattr(msg, "header") and not callable(what):
                    msg.header.stamp.sec = 0

    def until(self, ready, what: str) -> None:
        def stepped() -> bool:
            self.step()
            return ready()

        self.watcher.until(stepped, what)


def moving(commands) -> bool:
    return bool(commands) and commands[-1].twist.linear.x != 0.0


def answered(commands, robot, what: str) -> None:
    """Play the sensors until the policy answers three frames that were sent from now on."""
    since_ns = time.time_ns()

    def moved() -> bool:
        last = [to_ns(m.header.stamp) for m in commands[-3:] if m.twist.linear.x != 0.0]
        return len(last) == 3 and min(last) > since_ns

    robot.until(moved, what)


def stopped(commands, robot, what: str) -> None:
    """Play the sensors until three commands from now on were zero."""
    known = len(commands)

    def still() -> bool:
        return len(commands) > known + 3 and not any(m.twist.linear.x for m in commands[-3:])

    robot.until(still, what)


def start(processes, policy_at, folder, spec, **params) -> None:
    policy = policy_at(folder / "policy", bias=0.5, spec=spec)
    processes.start(
        "policy_node",
        {
            "policy_dir": str(policy),
            "state_dir": str(folder / "state"),
            "reward_required": False,
            "exploration": "mean",
            "frozen_s": 0.0,
            **params,
        },
    )


def of_file(folder, text: str) -> tuple[Spec, str]:
    path = folder / "robot.yaml"
    path.write_text(text)
    return RobotFile.load(path).spec(), str(path)


def recorded(processes, folder) -> list:
    """End the node and read what it recorded."""
    assert processes.stop("policy_node") == 0
    return steps_in(folder / "state" / "spool")


def camera(colour=(200, 40, 60), size: int = 32):
    """Frames of one colour with a pixel of noise, so that none counts as frozen."""
    from wm_ros.sensors.camera import to_image

    rng = np.random.default_rng(0)

    def frame(stamp_ns: int):
        pixels = np.full((size, size, len(colour)), colour, np.uint8)
        pixels[: size // 4] = rng.integers(0, 256, (size // 4, size, len(colour)))
        return to_image(pixels, stamp_ns, "eye")

    return frame


def image(encoding: str, pixels: np.ndarray, width: int = 32):
    """An image message of the bytes of ``pixels`` (H, ...)."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    height = rows.shape[0] * 2 // 3 if encoding.startswith("nv") else rows.shape[0]
    msg = make(
        "sensor_msgs/Image", height=height, width=width, step=rows.shape[1], encoding=encoding
    )
    msg.data.frombytes(rows.tobytes())
    return msg


def packed(kind: str, pixels: np.ndarray, named: str = "", **options):
    """A compressed image of ``pixels``, of whose bytes ``cut`` keeps a part."""
    from PIL import Image

    file, cut = io.BytesIO(), options.get("cut", 1.0)
    Image.fromarray(pixels).save(file, kind)
    data = file.getvalue()
    return make(
        "sensor_msgs/CompressedImage",
        format=named or kind.lower(),
        data=[*options.get("before", b""), *data[: int(len(data) * cut)]],
    )


EVERYTHING = (
    """
robot: every
rate_hz: 25
tolerance_s: 3.0
observations:
  image: {type: sensor_msgs/Image, topic: eye, height: 32, width: 32}
  side: {type: sensor_msgs/CompressedImage, topic: side/compressed, height: 16, width: 16}
  far: {type: sensor_msgs/Image, topic: far, colours: depth, height: 8, width: 8}
  grip: {type: sensor_msgs/CompressedImage, topic: near/compressedDepth, colours: depth,
         height: 8, width: 8}
  body:
    - {type: sensor_msgs/JointState, topic: [arm/joints, hand/joints], joints: [pan, grip, lift],
       fields: [position, velocity], scale: [1, 1, 1, 10, 10, 10]}
    - {type: sensor_msgs/Imu, topic: imu/data, fields: [angular_velocity.z, gravity.z, pitch]}
    - {type: nav_msgs/Odometry, fields: [linear.x, yaw], prefix: odom.}
    - {type: sensor_msgs/Range, topic: range/front, max_m: 3}
    - {type: sensor_msgs/LaserScan, beams: 3, max_m: 5}
    - {type: std_msgs/Float32MultiArray, topic: touch, size: 2}
    - {type: std_msgs/Float64MultiArray, topic: heat, names: [left, right], offset: -20}
    - {type: geometry_msgs/Twist, topic: wanted, fields: [linear.y], prefix: wanted.}
    - {type: geometry_msgs/TwistStamped, topic: wind, fields: [linear.x], prefix: wind.,
       latest: true}
    - {type: geometry_msgs/PoseStamped, topic: goal, fields: [x, yaw], prefix: goal.,
       latest: true}
    - {type: prev_action}
"""
    + TWIST
)
BODY = {
    **{"pan": 1.0, "grip": 0.25, "lift": 2.0},
    **{"pan.velocity": 1.0, "grip.velocity": 0.0, "lift.velocity": 2.0},
    **{"angular_velocity.z": 0.5, "gravity.z": -math.cos(0.5), "pitch": 0.5},
    **{"odom.linear.x": 0.75, "odom.yaw": 1.0, "range": 3.0},
    **{"beam_0": 1.0, "beam_1": 5.0, "beam_2": 2.0},
    **{"value_0": 6.0, "value_1": 7.0, "left": 1.0, "right": 2.0},
    **{"wanted.linear.y": 0.125, "wind.linear.x": -3.0, "goal.x": 8.0, "goal.yaw": -1.0},
    **{"prev.linear.x": 0.5, "prev.angular.z": 0.5},
}


def turned(axis: str, angle: float):
    return make("geometry_msgs/Quaternion", w=math.cos(angle / 2), **{axis: math.sin(angle / 2)})


def everything() -> dict:
    from PIL import Image

    def packed(pixels) -> list[int]:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return list(file.getvalue())

    depth = make("sensor_msgs/Image", height=8, width=8, step=16, encoding="16UC1")
    depth.data.frombytes(np.full((8, 8), 1234, np.uint16).tobytes())
    return {
        ("sensor_msgs/JointState", "arm/joints"): make(
            "sensor_msgs/JointState",
            name=["lift", "spare", "pan"],
            position=[2.0, 9.0, 1.0],
            velocity=[0.2, 9.0, 0.1],
        ),
        ("sensor_msgs/JointState", "hand/joints"): make(
            "sensor_msgs/JointState", name=["grip"], position=[0.25], velocity=[0.0]
        ),
        ("sensor_msgs/Imu", "imu/data"): make(
            "sensor_msgs/Imu", angular_velocity__z=0.5, orientation=turned("y", 0.5)
        ),
        ("nav_msgs/Odometry", "odom"): make(
            "nav_msgs/Odometry",
            twist__twist__linear__x=0.75,
            pose__pose__orientation=turned("z", 1.0),
        ),
        ("sensor_msgs/Range", "range/front"): make(
            "sensor_msgs/Range", range=math.inf, max_range=4.0
        ),
        ("sensor_msgs/LaserScan", "scan"): make(
            "sensor_msgs/LaserScan",
            ranges=[1.0, 4.0, math.inf, math.nan, 2.0, 3.0],
            angle_min=-1.0,
            angle_increment=0.4,
            range_max=10.0,
        ),
        ("std_msgs/Float32MultiArray", "touch"): make(
            "std_msgs/Float32MultiArray", data=[6.0, 7.0]
        ),
        ("std_msgs/Float64MultiArray", "heat"): make(
            "std_msgs/Float64MultiArray", data=[21.0, 22.0]
        ),
        ("geometry_msgs/Twist", "wanted"): make("geometry_msgs/Twist", linear__y=0.125),
        ("sensor_msgs/CompressedImage", "side/compressed"): make(
            "sensor_msgs/CompressedImage",
            format="rgb8; png compressed bgr8",
            data=packed(np.full((20, 20, 3), (10, 200, 30), np.uint8)),
        ),
        ("sensor_msgs/CompressedImage", "near/compressedDepth"): make(
            "sensor_msgs/CompressedImage",
            format="16UC1; compressedDepth png",
            data=[*bytes(12), *packed(np.full((8, 8), 765, np.uint16))],
        ),
        ("sensor_msgs/Image", "far"): depth,
        ("sensor_msgs/Image", "eye"): camera(),
    }
