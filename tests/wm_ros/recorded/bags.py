"""Writes bags with rosbags: a wheeled robot whose camera shows the number of its frame."""

from __future__ import annotations

import importlib
import io
from pathlib import Path

import numpy as np
import PIL.Image
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
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
    path: Path, messages, *, storage="mcap", compression="none", version=9, serialize=None
):
    """Write (topic, time in ms, message) as a bag."""
    serialize = serialize or TYPES.serialize_cdr
    path.parent.mkdir(exist_ok=True)
    writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])
    if compression != "none":
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, at_ms, msg in sorted(messages, key=lambda m: m[1]):
            kind = "geometry_msgs/msg/Twist" if msg is None else msg.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=TYPES)
            if msg is None:  # a topic on which nothing came
                continue
            data = serialize(msg, kind)
            writer.write(connections[topic], BEGIN_NS + round(at_ms * MS), data)
    return path


def write_mcap(path, messages, *, compression="ZSTD", profile="ros2", encoding="cdr"):
    """Write (topic, time in ms, message) as an MCAP file by the library mcap."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, compression=CompressionType[compression], chunk_size=4096)
        writer.start(profile=profile, library="test")
        channels = {}
        for topic, at_ms, msg in sorted(messages, key=lambda m: m[1]):
            kind = msg.__msgtype__
            if topic not in channels:
                text = TYPES.generate_msgdef(kind, ros_version=2)[0].encode()
                schema = writer.register_schema(kind, "ros2msg", text)
                channels[topic] = writer.register_channel(topic, encoding, schema)
            at_ns = BEGIN_NS + round(at_ms * MS)
            data = bytes(TYPES.serialize_cdr(msg, kind))
            writer.add_message(channels[topic], at_ns, data, at_ns)
        writer.finish()
    return path


def compressed(msg, kind="png", **save):
    """The image ``msg`` as a PNG, or as a JPEG."""
    out = io.BytesIO()
    pixels = msg.data.reshape(msg.height, msg.width, 3)
    PIL.Image.fromarray(pixels).save(out, format=kind, **save)
    return TYPES.types["sensor_msgs/msg/CompressedImage"](
        header=msg.header, format=kind, data=np.frombuffer(out.getvalue(), np.uint8)
    )


def written_by_ros(msg, kind):
    """The bytes of ``msg`` as rclpy writes them."""
    from rclpy.serialization import serialize_message

    return serialize_message(of_ros(msg))


def of_ros(value):
    """The message of ROS with the fields of ``value``, a message of rosbags."""
    if not hasattr(value, "__msgtype__"):
        return value
    package, _, name = value.__msgtype__.split("/")
    made = getattr(importlib.import_module(f"{package}.msg"), name)()
    for field in made.get_fields_and_field_types():
        got = getattr(value, field)
        if isinstance(got, np.ndarray) and got.dtype == np.uint8:
            getattr(made, field).frombytes(got.tobytes())
        else:
            setattr(made, field, of_ros(got))
    return made
