"""Every kind of sensor over real topics: what the policy gets is what was sent, or it stops."""

from __future__ import annotations

import io
import math
import time

import numpy as np
import pytest

from tests.wm_ros.conftest import steps_in
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.robot import RobotFile
from wm_ros.convert import message_class, set_header, to_ns

pytestmark = pytest.mark.ros

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
        key = (kind, topic)
        if key not in self._publishers:
            made = self.watcher.node.create_publisher(message_class(kind), topic, 50)
            self._publishers[key] = made
        if stamp_ns is not None and hasattr(msg, "header"):
            set_header(msg.header, stamp_ns)
        self._publishers[key].publish(msg)

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


@pytest.fixture
def robot(watcher) -> Robot:
    return Robot(watcher)


@pytest.fixture
def commands(watcher):
    from geometry_msgs.msg import TwistStamped

    return watcher.listen(TwistStamped, "cmd_vel")


@pytest.fixture
def status(watcher):
    """The newest report of the node."""
    import json

    from std_msgs.msg import String

    from wm_ros import qos

    reports = watcher.listen(String, "policy/status", qos.latched())
    return lambda: json.loads(reports[-1].data) if reports else {}


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
            "frozen_frames": 0,
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


# ------------------------------------------------------------------------ everything in one robot

EVERYTHING = (
    """
robot: every
rate_hz: 25
tolerance_s: 3.0
observations:
  image: {type: sensor_msgs/Image, topic: eye, height: 32, width: 32}
  side: {type: sensor_msgs/CompressedImage, topic: side/compressed, height: 16, width: 16}
  far: {type: sensor_msgs/Image, topic: far, colours: depth, height: 8, width: 8}
  near: {type: sensor_msgs/CompressedImage, topic: near/compressedDepth, colours: depth,
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


def test_every_kind_of_message_reaches_policy_and_record_as_the_robot_file_says(
    processes, watcher, robot, commands, status, policy_at, tmp_path
):
    spec, file = of_file(tmp_path, EVERYTHING)
    assert dict(zip(spec.vectors["body"].names, BODY, strict=True)) == {k: k for k in BODY}
    start(processes, policy_at, tmp_path, spec, robot_file=file)
    robot.sends = everything()
    wind = make("geometry_msgs/TwistStamped", twist__linear__x=-3.0)
    goal = make(
        "geometry_msgs/PoseStamped", pose__position__x=8.0, pose__orientation=turned("z", -1.0)
    )
    robot.until(
        lambda: "no_body.wind" in status().get("safe_by_reason", {}), "a wait for the wind"
    )
    robot.publish("geometry_msgs/TwistStamped", "wind", wind, 1)  # both once, of long ago
    robot.publish("geometry_msgs/PoseStamped", "goal", goal, 1)
    answered(commands, robot, "a robot that moves")
    steps = recorded(processes, tmp_path)
    assert steps
    last = steps[-1].obs
    np.testing.assert_allclose(last["body"], [*BODY.values()], atol=1e-6)
    assert (last["image"][-1] == (200, 40, 60)).all()
    assert (last["side"] == (10, 200, 30)).all()
    assert (last["far"] == 1234).all()
    assert (last["near"] == 765).all()


# -------------------------------------------------------------------------------- no camera at all

WALKER = (
    """
robot: walker
rate_hz: 25
tolerance_s: 0.5
observations:
  body:
    - {type: sensor_msgs/Imu, topic: imu}
    - {type: sensor_msgs/JointState, joints: [hip, knee]}
"""
    + TWIST
)


@pytest.mark.parametrize("pace", ["timer", "body"])
def test_a_robot_without_a_camera_acts_stops_for_its_joints_and_goes_on(
    processes, watcher, robot, commands, status, policy_at, tmp_path, pace
):
    spec, file = of_file(tmp_path, f"pace: {pace}\n{WALKER}")
    start(processes, policy_at, tmp_path, spec, robot_file=file)
    body = {("sensor_msgs/Imu", "imu"): make("sensor_msgs/Imu", linear_acceleration__z=9.8)}
    legs = make("sensor_msgs/JointState", name=["knee", "hip"], position=[0.2, 0.1])
    for _ in range(2):
        robot.sends = body | {("sensor_msgs/JointState", "joint_states"): legs}
        robot.until(lambda: moving(commands), "a robot that moves")
        robot.sends = body
        robot.until(lambda: not moving(commands), "a robot that stops")
    robot.until(lambda: status().get("frames", 0) > 0 or pace == "timer", "a count of frames")
    assert status()["safe_by_reason"]["no_body.joint_states"] > 0
    steps = recorded(processes, tmp_path)
    np.testing.assert_allclose(steps[-1].obs["body"], [0, 0, 0, 0, 0, 9.8, 0.1, 0.2], atol=1e-6)


# ------------------------------------------------------------------------------- joints by name


def arm_spec(names=("pan", "lift", "elbow")) -> Spec:
    return Spec(
        images={"image": ImageSpec(height=32, width=32)},
        vectors={"proprio": VectorSpec(size=3, names=names)},
        action=ActionSpec(low=(-0.5, -2.0), high=(1.0, 2.0), names=("forward", "turn")),
        period_s=PERIOD_S,
    )


def joints(*names: str, positions=None):
    known = {"pan": 1.0, "lift": 2.0, "elbow": 3.0}
    positions = positions or [known.get(name, 9.0) for name in names]
    return make("sensor_msgs/JointState", name=[*names], position=positions)


JOINTS = ("sensor_msgs/JointState", "joint_states")


def test_joints_in_any_order_are_recorded_under_their_names_and_wrong_ones_stop_the_robot(
    processes, watcher, robot, commands, status, policy_at, tmp_path
):
    start(processes, policy_at, tmp_path, arm_spec())
    robot.sends[("sensor_msgs/Image", "image_raw")] = camera()
    fitting = [
        joints("pan", "lift", "elbow"),
        joints("elbow", "lift", "pan"),
        joints("wheel", "elbow", "pan", "finger", "lift"),
        [joints("elbow"), joints("lift", "pan")],
    ]
    misfits = [
        (joints("a", "b", "c"), ""),
        (joints("pan", "elbow"), ""),
        (joints("pan", "pan", "lift"), "twice: ['pan']"),
        (joints("pan", "lift", "elbow", positions=[1.0]), "3 names, got 1"),
        (joints(), ""),
    ]
    robot.sends[JOINTS] = joints("a", "b", "c")
    told = "expected the joints pan, lift, elbow, but joint_states has a, b, c"
    robot.until(lambda: told in status().get("refusal", "").replace("/robot1/", ""), told)
    for sent in fitting:
        robot.sends[JOINTS] = sent
        answered(commands, robot, f"a robot that moves by {sent}")
        for misfit, _ in misfits:
            robot.sends[JOINTS] = misfit
            stopped(commands, robot, f"a robot that stops for {misfit}")
    for misfit, said in misfits[2:4]:
        robot.sends[JOINTS] = misfit
        robot.until(lambda s=said: s in status()["refusal"], f"a refusal: {said}")
    assert status()["safe_by_reason"]["no_joint_states"] > 0  # they were there, and are not now
    steps = recorded(processes, tmp_path)
    assert len(steps) >= 4
    assert {tuple(step.obs["proprio"].tolist()) for step in steps} == {(1.0, 2.0, 3.0)}


def test_a_policy_without_names_keeps_the_order_of_the_first_message(
    processes, watcher, robot, commands, status, policy_at, tmp_path
):
    start(processes, policy_at, tmp_path, arm_spec(names=()))
    robot.sends[("sensor_msgs/Image", "image_raw")] = camera()
    robot.sends[JOINTS] = joints("pan", "lift", "elbow")
    robot.until(lambda: moving(commands), "a robot that moves")
    robot.sends[JOINTS] = joints("pan", "lift", "other")
    robot.until(lambda: "lacks elbow" in status().get("refusal", ""), "a refusal")
    robot.sends[JOINTS] = joints("elbow", "lift", "pan")
    answered(commands, robot, "steps of the other order")
    steps = recorded(processes, tmp_path)
    assert {tuple(step.obs["proprio"].tolist()) for step in steps} == {(1.0, 2.0, 3.0)}


def test_joints_at_500_hz_are_found_behind_a_camera_that_is_80_ms_late(
    processes, watcher, robot, commands, status, policy_at, tmp_path
):
    start(processes, policy_at, tmp_path, arm_spec())
    robot.late_s, joined, seen = 0.080, {}, camera()

    def burst(stamp_ns: int) -> list:
        """What came at 500 Hz since the last frame, up to now; the elbow tells which one it is."""
        made = []
        for k in range(20):
            at_ns = stamp_ns + 80_000_000 - k * 2_000_000
            number = at_ns // 2_000_000 % 1_000_000
            made.append(joints("elbow", "lift", "pan", positions=[float(number), 2.0, 1.0]))
            set_header(made[-1].header, at_ns)
        return made[::-1]

    def frame(stamp_ns: int):
        joined[stamp_ns] = stamp_ns // 2_000_000 % 1_000_000
        return seen(stamp_ns)

    robot.sends = {JOINTS: burst, ("sensor_msgs/Image", "image_raw"): frame}
    robot.until(lambda: status().get("steps_recorded", 0) > 20, "steps")
    counts = status()
    assert counts["ticks"] > counts["safe_by_reason"].get("no_joint_states", 0)
    steps = recorded(processes, tmp_path)
    apart = [abs(step.obs["proprio"][2] - joined[step.stamp_ns]) for step in steps]
    assert sorted(apart)[len(apart) // 2] <= 10  # of 2 ms; a busy machine may leave out a burst


# ---------------------------------------------------------------------------------- encodings


def test_cameras_of_every_encoding_drive_the_policy_over_one_topic(
    processes, watcher, robot, commands, status, policy_at, spec_of, tmp_path
):
    from tests.wm_ros.sensors.test_encodings import packed_422, to_yuv

    def flat(colour) -> np.ndarray:
        return np.full((32, 32, 3), colour, np.uint8)

    def bayer(rgb) -> np.ndarray:
        mosaic = rgb[..., 1].copy()
        mosaic[0::2, 0::2], mosaic[1::2, 1::2] = rgb[0, 0, 0], rgb[0, 0, 2]
        return mosaic

    def nv12(rgb) -> np.ndarray:
        yuv = to_yuv(rgb)
        return np.vstack([yuv[..., 0], yuv[::2, ::2, 1:].reshape(16, 32)])

    encodings = {
        "bgr8": lambda rgb: rgb[..., ::-1].reshape(32, -1),
        "bgra8": lambda rgb: np.dstack([rgb[..., ::-1], rgb[..., 0]]).reshape(32, -1),
        "yuv422_yuy2": lambda rgb: packed_422(rgb, "yuYv"),
        "yuv422": lambda rgb: packed_422(rgb, "uyvY"),
        "nv12": nv12,
        "bayer_rggb8": bayer,
    }
    start(processes, policy_at, tmp_path, spec_of())
    topic = ("sensor_msgs/Image", "image_raw")
    for i, (encoding, rows_of) in enumerate(encodings.items()):
        rows = rows_of(flat((200 - 20 * i, 40, 60 + 20 * i)))
        msg = make(topic[0], height=32, width=32, step=rows.shape[1], encoding=encoding)
        msg.data.frombytes(np.ascontiguousarray(rows).tobytes())
        robot.sends[topic] = msg
        answered(commands, robot, f"steps of {encoding}")
        robot.sends[topic] = make(topic[0], height=32, width=32, step=64, encoding="mono16")
        stopped(commands, robot, "a robot that stops for another encoding")
    robot.until(lambda: "got 'mono16'" in status()["refusal"], "a refusal")
    seen = [step.obs["image"].reshape(-1, 3) for step in recorded(processes, tmp_path)]
    assert all(np.ptp(pixels, axis=0).max() == 0 for pixels in seen)
    for i, encoding in enumerate(encodings):
        wanted = np.array((200 - 20 * i, 40, 60 + 20 * i))
        assert any(np.abs(pixels[0] - wanted).max() <= 3 for pixels in seen), encoding
