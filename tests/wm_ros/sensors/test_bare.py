"""Images are read from their bytes as rclpy reads them, and what is odd is left to rclpy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from wm_ros.sensors.bare import bare_compressed, bare_image  # noqa: E402
from wm_ros.sensors.camera import Camera  # noqa: E402

words = st.text(st.characters(min_codepoint=1, max_codepoint=0x24F), max_size=9)


@settings(deadline=None)
@given(words, words, st.binary(max_size=40), st.integers(0, 2**32 - 1), st.integers(0, 1))
def test_every_field_is_that_of_the_message(frame, encoding, pixels, number, big):
    msg = Image(height=number, width=7, step=number, encoding=encoding, is_bigendian=big)
    msg.header.frame_id = frame
    msg.data.frombytes(pixels)
    got = bare_image(serialize_message(msg))
    assert (got.height, got.width, got.step) == (number, 7, number)
    assert (got.encoding, got.is_bigendian, bytes(got.data)) == (encoding, big, pixels)


@settings(deadline=None)
@given(words, words, st.binary(max_size=40))
def test_every_field_of_a_compressed_image_is_that_of_the_message(frame, named, data):
    msg = CompressedImage(format=named)
    msg.header.frame_id = frame
    msg.data.frombytes(data)
    got = bare_compressed(serialize_message(msg))
    assert (got.format, bytes(got.data)) == (named, data)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_bytes_of_any_kind_do_no_harm(data):
    for read in (bare_image, bare_compressed):
        read(data)
        read(b"\x00\x01\x00\x00" + data)


def test_what_is_encoded_otherwise_is_left_to_rclpy():
    msg = Image(height=1, width=1, step=3, encoding="rgb8")
    msg.data.frombytes(b"abc")
    data = serialize_message(msg)
    assert bare_image(b"\x00\x00" + data[2:]) is None  # the other order of bytes
    assert bare_image(data[:-4]) is None
    assert bytes(Camera("eye")._read(data).data) == b"abc"


def test_the_pixels_are_a_view_of_the_bytes():
    msg = Image(height=1, width=1, step=3, encoding="rgb8")
    msg.data.frombytes(b"abc")
    data = serialize_message(msg)
    assert bare_image(data).data.obj is data
