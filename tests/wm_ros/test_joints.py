"""Joints by name and cameras of every encoding in a real node: recorded is what was sent."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.played_sensors import (
    PERIOD_S,
    Robot,
    answered,
    camera,
    make,
    moving,
    packed,
    recorded,
    start,
    stopped,
)
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_ros.convert import set_header

pytestmark = pytest.mark.ros


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


def test_parameters_alone_name_a_compressed_camera_and_the_joints_that_a_policy_means(
    processes, watcher, robot, commands, status, policy_at, tmp_path
):
    start(
        processes,
        policy_at,
        tmp_path,
        arm_spec(names=()),
        sensors=["image", "proprio"],
        **{
            "image.type": "compressed",
            "image.topic": "eye/compressed",
            "proprio.type": "joint_states",
            "proprio.joints": ["elbow", "pan", "lift"],
            "proprio.fields": ["position"],
        },
    )
    robot.sends[("sensor_msgs/CompressedImage", "eye/compressed")] = packed(
        "PNG", np.full((40, 40, 3), (10, 200, 30), np.uint8)
    )
    robot.sends[JOINTS] = joints("pan", "lift", "elbow")
    answered(commands, robot, "a robot that moves")
    last = recorded(processes, tmp_path)[-1].obs
    assert last["proprio"].tolist() == [3, 1, 2]
    assert (last["image"] == (10, 200, 30)).all()


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
