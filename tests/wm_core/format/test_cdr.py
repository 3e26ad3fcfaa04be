"""Our CDR of two messages is ROS's, and nothing that comes in makes it read beyond its bounds."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import Depth, ImageSpec
from wm_core.format import cdr

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
CAMERA = ImageSpec(height=2, width=4)


def read_image(data):
    return cdr.decode_image(data, CAMERA)


def test_decoded_messages_equal_what_was_encoded():
    joint = cdr.decode_joint_state(
        cdr.encode_joint_state(["a", "bcd"], np.array([0.1, -2.0]), 7_000_000_009, np.array([1.0]))
    )
    assert (joint.stamp_ns, joint.names) == (7_000_000_009, ("a", "bcd"))
    assert (joint.position.tolist(), joint.effort.tolist()) == ([0.1, -2.0], [1.0])
    data = cdr.encode_image(PIXELS, CAMERA, 3, "image")
    image = cdr.decode_image(data, CAMERA)
    assert image.stamp_ns == 3
    assert data[image.offset :] == PIXELS.tobytes()
    assert cdr.decode_stamp(data) == 3


@pytest.mark.parametrize("field", [b"rgb8", b"\x0c\x00\x00\x00", b"\x18\x00\x00\x00"])
def test_an_image_whose_encoding_step_or_size_does_not_fit_is_refused(field):
    data = cdr.encode_image(PIXELS, CAMERA, 3, "image")
    assert data.count(field) == 1
    with pytest.raises(ChunkRefused):
        read_image(data.replace(field, b"\x09" + field[1:]))


def test_big_endian_pixels_are_refused_where_they_are_wider_than_a_byte():
    depth = Depth(height=2, width=4)
    for image, refused in ((depth, True), (CAMERA, False)):
        pixels = np.ones(image.shape, image.dtype)
        data = bytearray(cdr.encode_image(pixels, image, 3, "image"))
        cdr.decode_image(bytes(data), image)
        encoding = image.encoding.encode() + b"\x00"
        data[data.index(encoding) + len(encoding)] = 1  # is_bigendian
        with (
            pytest.raises(ChunkRefused, match="big-endian")
            if refused
            else contextlib.nullcontext()
        ):
            cdr.decode_image(bytes(data), image)


@pytest.mark.parametrize("decode", [read_image, cdr.decode_joint_state, cdr.decode_stamp])
def test_big_endian_and_empty_messages_are_refused(decode):
    for data in (b"", b"\x00\x01", b"\x00\x00\x00\x00" + bytes(60)):
        with pytest.raises(ChunkRefused):
            decode(data)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_messages_are_refused_or_read_within_their_bounds(data):
    for decode in (read_image, cdr.decode_joint_state):
        for message in (data, b"\x00\x01\x00\x00" + data):
            with contextlib.suppress(ChunkRefused):
                decode(message)


@pytest.mark.ros
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # rosidl's parser
@pytest.mark.parametrize("names", [[], ["a"], ["left_wheel", "right"], ["abc", "abcd", "abcde"]])
def test_we_decode_what_rclpy_writes_and_the_other_way_round(names):
    serialization = pytest.importorskip("rclpy.serialization")
    messages = pytest.importorskip("sensor_msgs.msg")
    values = np.arange(len(names), dtype=np.float64) - 0.5
    joint = messages.JointState(name=names, position=values.tolist(), effort=values.tolist())
    joint.header.stamp.sec, joint.header.stamp.nanosec = 12, 345
    data = serialization.serialize_message(joint)
    got = cdr.decode_joint_state(data)
    assert got.stamp_ns == 12_000_000_345
    assert got.names == tuple(names)
    np.testing.assert_array_equal(got.position, values)
    np.testing.assert_array_equal(got.effort, values)
    ours = cdr.encode_joint_state(names, values, got.stamp_ns, values)
    assert serialization.deserialize_message(ours, messages.JointState) == joint

    image = messages.Image(height=2, width=3, encoding="mono8", step=3, data=bytes(range(6)))
    image.header.frame_id = "camera_optical"
    data = serialization.serialize_message(image)
    camera = ImageSpec(height=2, width=3, channels=1)
    found = cdr.decode_image(data, camera)
    assert data[found.offset : found.offset + 6] == bytes(range(6))
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    ours = cdr.encode_image(pixels, camera, 0, "camera_optical")
    assert serialization.deserialize_message(ours, messages.Image) == image
