"""Messages to arrays and back, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_ros import convert
from wm_ros.commands import COMMANDS
from wm_ros.episodes import signal_message
from wm_ros.episodes.experience import Signal
from wm_ros.sensors.camera import to_frame, to_image
from wm_ros.sensors.depth import to_millimetres
from wm_ros.sensors.joint_states import to_vector

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import TwistStamped  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402

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
    got = to_frame(image_of(rows, encoding, pad=pad), want.shape[2])
    np.testing.assert_array_equal(got, want)


def test_a_frame_survives_the_round_trip():
    msg = to_image(RGB, 1_234_567_890_123, "camera_optical")
    np.testing.assert_array_equal(to_frame(msg, 3), RGB)
    assert convert.to_ns(msg.header.stamp) == 1_234_567_890_123
    assert msg.step == 21


@pytest.mark.parametrize(
    ("msg", "channels", "said"),
    [
        (image_of(RGB, "16UC1"), 3, "expected encoding rgb8 .* got '16UC1'"),
        (image_of(RGB[..., :1], "mono8"), 3, "got 'mono8'"),
        (image_of(RGB, "rgb8"), 1, "expected encoding mono8 or 8UC1, got 'rgb8'"),
        (Image(height=5, width=7, encoding="rgb8", step=20), 3, "expected at least 5 rows"),
        (Image(height=5, width=7, encoding="rgb8", step=21), 3, "and 0 bytes"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_with_expected_and_got(msg, channels, said):
    with pytest.raises(SpecMismatch, match=said):
        to_frame(msg, channels)


def depth_of(distances, encoding: str, dtype: str, *, pad: int = 0) -> Image:
    """A depth image of the numbers (H, W), with padded rows."""
    pixels = np.asarray(distances, dtype)
    msg = image_of(pixels.view(np.uint8).reshape(*pixels.shape, -1), encoding, pad=pad)
    msg.is_bigendian = int(dtype.startswith(">"))
    return msg


@pytest.mark.parametrize("pad", [0, 4])
@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_depth_in_millimetres_keeps_every_number_in_either_byte_order(dtype, pad):
    got = to_millimetres(depth_of([[0, 1, 258], [5000, 65535, 7]], "16UC1", dtype, pad=pad))
    assert got.dtype == np.uint16
    assert got[..., 0].tolist() == [[0, 1, 258], [5000, 65535, 7]]


@pytest.mark.parametrize("dtype", ["<f4", ">f4"])
def test_depth_in_metres_becomes_millimetres_and_what_is_unknown_becomes_0(dtype):
    metres = [[0.25, 1.0004, 70.0], [np.nan, np.inf, -1.0]]
    got = to_millimetres(depth_of(metres, "32FC1", dtype))
    assert got[..., 0].tolist() == [[250, 1000, 65535], [0, 0, 0]]


def test_a_colour_image_is_no_depth():
    with pytest.raises(SpecMismatch, match="expected encoding 16UC1 or 32FC1, got 'rgb8'"):
        to_millimetres(image_of(RGB, "rgb8"))


def test_a_frame_is_a_view_of_the_message_and_goes_out_as_bytes():
    """Assigning an array to msg.data would convert it element by element: 56 ms for VGA."""
    msg = to_image(RGB, 0, "")
    frame = to_frame(msg, 3)
    msg.data[0] = 255 - msg.data[0]
    assert frame[0, 0, 0] == msg.data[0] != RGB[0, 0, 0]
    assert msg.data.tobytes() == frame.tobytes()


def test_reward_and_flags_survive_the_round_trip_and_need_their_names():
    signal = Signal(5, -0.25, True, True, True, False)
    assert signal_message.to_signal(signal_message.from_signal(signal)) == signal
    plain = JointState(name=["is_last", "reward", "is_first", "is_terminal"])
    plain.position = [1.0, 2.0, 0.0, 0.0]
    assert signal_message.to_signal(plain) == Signal(0, 2.0, False, True, False, True)
    plain.position = [0.0, 2.0, 0.0, 1.0]  # nothing can follow, so this is the last
    assert signal_message.to_signal(plain) == Signal(0, 2.0, False, True, True, True)
    with pytest.raises(SpecMismatch, match="lacks"):
        signal_message.to_signal(JointState(name=["reward"], position=[1.0]))


FIELDS = ("linear.x", "angular.z")


def encoded(command, value, names=(), stamp_ns=77):
    array = np.array(value, np.float32)
    return command.encode(array, names=names, stamp_ns=stamp_ns, frame_id="base_link")


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_command_survives_the_round_trip_in_every_message(kind):
    command = COMMANDS[kind](FIELDS)
    value = [2.0] if command.discrete else [0.5, -1.25]
    msg = encoded(command, value, ("left",))
    assert isinstance(msg, command.message_class)
    got, stamp = command.decode(msg, len(value))
    assert got.tolist() == value
    assert stamp == (77 if command.stamped else 0)


def test_a_choice_is_an_index_by_its_name_on_a_topic_that_no_joint_listens_to():
    command = COMMANDS["index"]()
    for names, name in ((("stop", "go", "left"), "left"), ((), "choice_2")):
        msg = encoded(command, [2.0], names)
        assert (list(msg.name), list(msg.position), list(msg.effort)) == ([name], [2.0], [])
    assert command.topic not in {c.default_topic for c in COMMANDS.values() if not c.discrete}


def test_a_command_that_is_no_number_is_refused():
    msg = TwistStamped()
    msg.twist.linear.x = float("nan")
    with pytest.raises(SpecMismatch, match="expected 1 finite"):
        COMMANDS["twist_stamped"](["linear.x"]).decode(msg, 1)


def test_no_policy_means_a_twist_of_zeros_and_an_empty_joint_command():
    twist = encoded(COMMANDS["twist"](["linear.x"]), [])
    assert twist.linear.x == twist.angular.z == 0.0
    for kind in ("joint", "index"):
        command = COMMANDS[kind]()
        assert command.decode(encoded(command, [], stamp_ns=0), 3) == (None, 0)


def test_joint_states_become_a_vector_of_positions_and_velocities():
    msg = JointState(position=[1.0, 2.0], velocity=[3.0, 4.0])
    assert to_vector(msg, 2, "joint_states").tolist() == [1, 2]
    assert to_vector(msg, 4, "joint_states").tolist() == [1, 2, 3, 4]
    with pytest.raises(SpecMismatch, match="expected 3 positions"):
        to_vector(msg, 3, "joint_states")
