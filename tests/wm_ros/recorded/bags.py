"""Writes bags with rosbags: a wheeled robot whose camera shows the number of its frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY)
BEGIN_NS = 1_700_000_000_000_000_000
MS = 1_000_000
ROBOT = """\
robot: rover
rate_hz: 10
tolerance_s: 0.05
observations:
  image: {type: sensor_msgs/Image, topic: camera/image_raw, height: 8, width: 8}
  odometry: {type: nav_msgs/Odometry, topic: odom, fields: [linear.x, angular.z]}
actions:
  type: geometry_msgs/Twist
  topic: cmd_vel
  fields: [linear.x, angular.z]
  low: [-1.0, -2.0]
  high: [1.0, 2.0]
"""


def time_of(stamp_ns):
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return TYPES.types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)


def header(stamp_ns):
    return TYPES.types["std_msgs/msg/Header"](stamp=time_of(stamp_ns), frame_id="base")


def vector(x=0.0, y=0.0, z=0.0):
    return TYPES.types["geometry_msgs/msg/Vector3"](x=x, y=y, z=z)


def image(stamp_ns, value, *, height=8, width=8):
    pixels = np.full(height * width * 3, value % 256, np.uint8)
    return TYPES.types["sensor_msgs/msg/Image"](
        header=header(stamp_ns), height=height, width=width, encoding="rgb8",
        is_bigendian=0, step=width * 3, data=pixels,
    )  # fmt: skip


def twist(forward, turn=0.0):
    return TYPES.types["geometry_msgs/msg/Twist"](
        linear=vector(x=float(forward)), angular=vector(z=float(turn))
    )


def odometry(stamp_ns, forward):
    types = TYPES.types
    pose = types["geometry_msgs/msg/PoseWithCovariance"](
        pose=types["geometry_msgs/msg/Pose"](
            position=types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
            orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        covariance=np.zeros(36),
    )
    moved = types["geometry_msgs/msg/TwistWithCovariance"](
        twist=twist(forward), covariance=np.zeros(36)
    )
    return types["nav_msgs/msg/Odometry"](
        header=header(stamp_ns), child_frame_id="base", pose=pose, twist=moved
    )


def float32(value):
    return TYPES.types["std_msgs/msg/Float32"](data=float(value))


def boolean(value):
    return TYPES.types["std_msgs/msg/Bool"](data=bool(value))


def drive(frames=20, *, period_ms=100, latency_ms=20):
    """(topic, time of writing in ms, message) of a drive whose frames hold their numbers.

    Frame i is taken at i periods and written ``latency_ms`` later; its command, i hundredths of
    a metre per second, is written 5 ms after that.
    """
    for i in range(frames):
        taken = i * period_ms
        stamp_ns = BEGIN_NS + taken * MS
        yield "/odom", taken + 2, odometry(stamp_ns + MS, i / 100)
        yield "/camera/image_raw", taken + latency_ms, image(stamp_ns, i)
        yield "/cmd_vel", taken + latency_ms + 5, twist(i / 100)


def write_bag(
    path: Path, messages, *, storage="mcap", compression="none", version=9, compression_format=None
):
    """Write (topic, time in ms, message) as a bag."""
    writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])
    if compression != "none":
        kind = compression_format or CompressionFormat.ZSTD
        writer.set_compression(CompressionMode[compression.upper()], kind)
    with writer:
        connections = {}
        for topic, at_ms, msg in sorted(messages, key=lambda m: m[1]):
            kind = msg.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            data = TYPES.serialize_cdr(msg, kind)
            writer.write(connections[topic], BEGIN_NS + round(at_ms * MS), data)
    return path
