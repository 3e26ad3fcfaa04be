"""Messages to arrays and back, byte for byte."""

from __future__ import annotations

import time

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_ros.experience import Signal

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import TwistStamped  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402

from wm_ros import convert  # noqa: E402

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def image_of(rows: np.ndarray, encoding: str, *, pad: int = 0) -> Image:
    height, width, depth = rows.shape
    padded = np.zeros((height, width * depth + pad), np.uint8)
    padded[:, : width * depth] = rows.reshape(height, -1)
    msg = Image(height=height, width=width, encoding=encoding, step=padded.shape[1])
    msg.data.frombytes(padded.tobytes())
    return msg


@pytest.mark.parametrize("pad", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "rows", "want"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("rgba8", np.dstack([RGB, RGB[..., 0]]), RGB),
        ("bgra8", np.dstack([RGB[..., ::-1], RGB[..., 0]]), RGB),
        ("mono8", RGB[..., :1], RGB[..., :1]),
    ],
)
def test_every_encoding_and_padding_gives_the_same_pixels(encoding, rows, want, pad):
    got = convert.to_frame(image_of(rows, encoding, pad=pad), want.shape[2])
    np.testing.assert_array_equal(got, want)


def test_a_frame_survives_the_round_trip():
    msg = convert.to_image(RGB, 1_234_567_890_123, "camera_optical")
    np.testing.assert_array_equal(convert.to_frame(msg, 3), RGB)
    assert convert.to_ns(msg.header.stamp) == 1_234_567_890_123
    assert msg.step == 21


@pytest.mark.parametrize(
    ("msg", "channels", "said"),
    [
        (image_of(RGB, "16UC1"), 3, "expected encoding rgb8 .* got '16UC1'"),
        (image_of(RGB[..., :1], "mono8"), 3, "got 'mono8'"),
        (image_of(RGB, "rgb8"), 1, "expected encoding mono8, got 'rgb8'"),
        (Image(height=5, width=7, encoding="rgb8", step=20), 3, "expected at least 5 rows"),
        (Image(height=5, width=7, encoding="rgb8", step=21), 3, "and 0 bytes"),
    ],
)
def test_what_does_not_fit_is_refused_with_expected_and_got(msg, channels, said):
    with pytest.raises(SpecMismatch, match=said):
        convert.to_frame(msg, channels)


def test_a_vga_frame_is_converted_in_well_under_a_millisecond():
    frame = np.zeros((480, 640, 3), np.uint8)
    began = time.perf_counter()
    for _ in range(20):
        convert.to_frame(convert.to_image(frame, 0, ""), 3)
    assert (time.perf_counter() - began) / 20 < 0.005  # assigning an array takes 56 ms


def test_reward_and_flags_survive_the_round_trip_and_need_their_names():
    signal = Signal(5, -0.25, True, True, True, False)
    assert convert.to_signal(convert.from_signal(signal)) == signal
    plain = JointState(name=["is_last", "reward", "is_first", "is_terminal"])
    plain.position = [1.0, 2.0, 0.0, 0.0]
    assert convert.to_signal(plain) == Signal(0, 2.0, False, True, False, True)
    plain.position = [0.0, 2.0, 0.0, 1.0]  # nothing can follow, so this is the last
    assert convert.to_signal(plain) == Signal(0, 2.0, False, True, True, True)
    with pytest.raises(SpecMismatch, match="lacks"):
        convert.to_signal(JointState(name=["reward"], position=[1.0]))


@pytest.mark.parametrize("kind", ["twist_stamped", "twist", "joint"])
def test_a_command_survives_the_round_trip_in_every_message(kind):
    fields = ["linear.x", "angular.z"]
    value = np.array([0.5, -1.25], np.float32)
    msg = convert.to_command(
        kind, value, fields=fields, names=("left",), stamp_ns=77, frame_id="base_link"
    )
    assert isinstance(msg, convert.command_topic(kind)[0])
    got, stamp = convert.from_command(kind, msg, 2, fields=fields)
    np.testing.assert_array_equal(got, value)
    assert stamp == (0 if kind == "twist" else 77)


def test_a_choice_is_an_index_by_its_name_on_a_topic_that_no_joint_listens_to():
    choice = np.array([2.0], np.float32)
    for names, name in ((("stop", "go", "left"), "left"), ((), "choice_2")):
        msg = convert.to_command(
            "index", choice, fields=[], names=names, stamp_ns=77, frame_id="base_link"
        )
        assert (list(msg.name), list(msg.position), list(msg.effort)) == ([name], [2.0], [])
        assert convert.from_command("index", msg, 1, fields=[]) == (choice, 77)
    assert convert.command_topic("index")[1] not in (
        convert.command_topic("joint")[1],
        convert.command_topic("twist")[1],
    )


def test_a_command_that_is_no_number_is_refused():
    msg = TwistStamped()
    msg.twist.linear.x = float("nan")
    with pytest.raises(SpecMismatch, match="expected 1 finite"):
        convert.from_command("twist_stamped", msg, 1, fields=["linear.x"])


def test_no_policy_means_a_twist_of_zeros_and_an_empty_joint_command():
    nothing = np.zeros(0, np.float32)
    twist = convert.to_command(
        "twist", nothing, fields=["linear.x"], names=(), stamp_ns=0, frame_id=""
    )
    assert twist.linear.x == twist.angular.z == 0.0
    for kind in ("joint", "index"):
        joint = convert.to_command(kind, nothing, fields=[], names=(), stamp_ns=0, frame_id="")
        assert convert.from_command(kind, joint, 3, fields=[]) == (None, 0)


def test_joint_states_become_a_vector_of_positions_and_velocities():
    msg = JointState(position=[1.0, 2.0], velocity=[3.0, 4.0])
    assert convert.to_vector(msg, 2, "joint_states").tolist() == [1, 2]
    assert convert.to_vector(msg, 4, "joint_states").tolist() == [1, 2, 3, 4]
    with pytest.raises(SpecMismatch, match="expected 3 positions"):
        convert.to_vector(msg, 3, "joint_states")
