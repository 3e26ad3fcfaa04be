"""What each kind of message gives, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.robot.parts import (
    ImuPart,
    LaserScanPart,
    NumbersPart,
    OdometryPart,
    PosePart,
    RangePart,
    TwistPart,
)
from wm_ros.sensors.source import Absent
from wm_ros.sensors.table import sources_of

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseStamped, Quaternion, Twist, TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from sensor_msgs.msg import Imu, LaserScan, Range  # noqa: E402
from std_msgs.msg import Float32MultiArray, Float64MultiArray  # noqa: E402

MS = 1_000_000
NAN, INF = math.nan, math.inf


def read(part, msg) -> list[float]:
    [source] = sources_of("it", part)
    source.on_message(msg, 0)
    return source.observe(None, source.stamp_ns, 0).tolist()


def turned(axis: str, angle: float) -> Quaternion:
    return Quaternion(w=math.cos(angle / 2), **{axis: math.sin(angle / 2)})


# ---------------------------------------------------------------------------------------- motion


def imu(**fields) -> ImuPart:
    return ImuPart(type="sensor_msgs/Imu", topic="imu", **fields)


def test_an_imu_gives_the_fields_that_are_named_in_their_order():
    msg = Imu()
    msg.angular_velocity.z, msg.linear_acceleration.x = 2.0, 9.5
    assert read(imu(fields=["linear_acceleration.x", "angular_velocity.z"]), msg) == [9.5, 2]
    assert len(read(imu(), msg)) == 6


@pytest.mark.parametrize(
    ("axis", "angle", "want"),
    [
        ("x", 0.0, {"gravity.z": -1.0, "roll": 0.0}),
        ("x", math.pi / 2, {"gravity.y": -1.0, "gravity.z": 0.0, "roll": math.pi / 2}),
        ("y", math.pi / 6, {"gravity.x": 0.5, "pitch": math.pi / 6}),
        ("z", 1.0, {"gravity.z": -1.0, "yaw": 1.0, "orientation.w": math.cos(0.5)}),
    ],
)
def test_angles_and_gravity_follow_from_the_orientation(axis, angle, want):
    msg = Imu(orientation=turned(axis, angle))
    assert read(imu(fields=[*want]), msg) == pytest.approx([*want.values()], abs=1e-6)


def test_what_an_imu_says_it_does_not_measure_is_refused():
    msg = Imu(orientation=turned("z", 1.0))
    msg.orientation_covariance[0] = -1.0
    assert len(read(imu(), msg)) == 6  # of what it measures
    for field in ("yaw", "gravity.x", "orientation.w"):
        with pytest.raises(SpecMismatch, match=r"expected orientation, .* measures none"):
            read(imu(fields=[field]), msg)


def test_a_quaternion_of_zeros_is_no_orientation():
    zeros = Quaternion(w=0.0)
    with pytest.raises(SpecMismatch, match="it: expected an orientation in orientation"):
        read(imu(fields=["yaw"]), Imu(orientation=zeros))


def test_odometry_gives_velocities_and_pose():
    part = OdometryPart(
        type="nav_msgs/Odometry", fields=["linear.x", "angular.z", "y", "yaw", "qw"]
    )
    msg = Odometry()
    msg.twist.twist.linear.x, msg.twist.twist.angular.z = 0.5, -1.0
    msg.pose.pose.position.y, msg.pose.pose.orientation = 3.0, turned("z", 2.0)
    assert read(part, msg) == pytest.approx([0.5, -1, 3, 2, math.cos(1)])


def test_a_pose_gives_position_and_orientation():
    part = PosePart(type="geometry_msgs/PoseStamped", topic="goal", fields=["x", "yaw"])
    msg = PoseStamped()
    msg.pose.position.x, msg.pose.orientation = 4.0, turned("z", -1.0)
    assert read(part, msg) == pytest.approx([4, -1])


def test_a_velocity_is_read_with_and_without_a_stamp_scaled_and_shifted():
    fields = {"topic": "wanted", "fields": ["linear.x", "angular.z"]}
    plain = Twist()
    plain.linear.x, plain.angular.z = 1.0, 2.0
    part = TwistPart(type="geometry_msgs/Twist", scale=[10, 100], offset=1, **fields)
    assert read(part, plain) == [11, 201]
    part = TwistPart(type="geometry_msgs/TwistStamped", **fields)
    assert read(part, TwistStamped(twist=plain)) == [1, 2]


# --------------------------------------------------------------------------------- distances


@pytest.mark.parametrize(
    ("seen", "want"),
    [(1.5, 1.5), (INF, 3.0), (NAN, 3.0), (-INF, 0.25), (4.5, 3.0), (3.5, 3.0), (0.1, 0.1)],
)
def test_a_range_is_what_it_saw_or_the_most(seen, want):
    part = RangePart(type="sensor_msgs/Range", topic="range", max_m=3.0)
    msg = Range(range=seen, min_range=0.25, max_range=4.0)
    assert read(part, msg) == pytest.approx([want])


def scan(ranges, low=-1.5, step=None, **fields) -> LaserScan:
    step = step or (2 * -low) / (len(ranges) - 1)
    return LaserScan(
        ranges=[float(r) for r in ranges],
        angle_min=low,
        angle_max=low + step * (len(ranges) - 1),
        angle_increment=step,
        **{"range_min": 0.1, "range_max": 20.0, **fields},
    )


def beams(n: int, **fields) -> LaserScanPart:
    return LaserScanPart(type="sensor_msgs/LaserScan", beams=n, max_m=10.0, **fields)


def test_a_sector_of_a_scan_is_as_far_as_its_nearest_reading():
    ranges = [5, 4, 3, 9, 9, 2, 8, 8, 8]
    assert read(beams(3), scan(ranges)) == [3, 2, 8]
    assert read(beams(3, reduce="nearest"), scan(ranges)) == [4, 9, 8]


def test_what_a_scan_did_not_see_is_the_most():
    ranges = [INF, NAN, 0.05, 30, -INF, 15, 0, 7, 6]
    assert read(beams(9), scan(ranges)) == pytest.approx([10, 10, 10, 10, 0.1, 10, 10, 7, 6])


def test_a_scan_of_another_width_gives_the_same_sectors():
    wide = scan(range(1, 10), low=-2.0)  # steps of 0.5 rad
    assert read(beams(2, from_rad=-1.0, to_rad=1.0), wide) == [3, 5]
    assert read(beams(2, from_rad=-1.2, to_rad=-0.2), wide) == [3, 4]


def test_a_scan_around_is_cut_wherever_it_begins():
    around = np.arange(8.0) + 1  # at 0, 45, 90 ... degrees
    msg = scan(around, low=0.0, step=math.pi / 4)
    quarter = math.pi / 4
    assert read(beams(3, from_rad=-1.5 * quarter, to_rad=1.5 * quarter), msg) == [8, 1, 2]


def test_a_scan_that_turns_the_other_way_gives_its_sectors_in_order_of_angle():
    msg = scan([1, 2, 3, 4], low=1.5, step=-1.0)
    assert read(beams(2), msg) == [3, 1]


def test_a_coarse_scan_gives_finer_sectors_its_nearest_reading():
    assert read(beams(6), scan([1, 2, 3])) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("msg", "said"),
    [
        (scan([1] * 9, low=-1.0), r"covers -1.571 .. 1.571 rad, got -1.000 .. 1.000"),
        (scan([1] * 9, low=0.0, step=0.2), r"got 0.000 .. 1.600"),
        (LaserScan(), "expected readings, got 0"),
        (LaserScan(ranges=[1.0, 2.0]), "got 2 with 0.0 rad between"),
    ],
)
def test_a_scan_that_does_not_cover_what_is_wanted_is_refused(msg, said):
    with pytest.raises(SpecMismatch, match=said):
        read(beams(3, from_rad=-math.pi / 2, to_rad=math.pi / 2), msg)


def test_a_scanner_that_changes_its_shape_is_followed():
    [source] = sources_of("it", beams(2))
    for ranges in ([1, 2], [3, 3, 4, 4], [5, 6]):
        source.on_message(scan(ranges), 0)
        assert source.decode(source.history.newest.message, None).tolist() == [
            ranges[0],
            ranges[-1],
        ]


# ------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("kind", "message"),
    [("Float32MultiArray", Float32MultiArray), ("Float64MultiArray", Float64MultiArray)],
)
def test_bare_numbers_are_taken_as_many_as_are_stated(kind, message):
    part = NumbersPart(type=f"std_msgs/{kind}", topic="touch", size=3, scale=2.0)
    assert read(part, message(data=[1.0, 2.0, 3.0])) == [2, 4, 6]
    with pytest.raises(SpecMismatch, match="expected 3 numbers, got 2"):
        read(part, message(data=[1.0, 2.0]))


def test_what_has_no_stamp_counts_from_its_arrival_on():
    part = NumbersPart(type="std_msgs/Float32MultiArray", topic="touch", size=1)
    [source] = sources_of("it", part)
    source.ros_now = lambda: 100 * MS
    source.on_message(Float32MultiArray(data=[5.0]), 900 * MS, age_ns=30 * MS)
    assert (source.stamp_ns, source.arrived_ns) == (70 * MS, 870 * MS)
    assert source.observe(None, 75 * MS, 10 * MS).tolist() == [5]
    with pytest.raises(Absent, match=r"nearest is 0.020 s from .* allowed are 0.010 s"):
        source.observe(None, 90 * MS, 10 * MS)


def goal(**fields):
    part = PosePart(
        type="geometry_msgs/PoseStamped", topic="goal", fields=["x"], latest=True, **fields
    )
    [source] = sources_of("it", part)
    return source


def test_of_a_goal_the_last_counts_however_old_and_whatever_its_stamp():
    source = goal()
    with pytest.raises(Absent, match="none came yet"):
        source.observe(None, 0, 0)
    for x in (1.0, 2.0):
        msg = PoseStamped()
        msg.pose.position.x, msg.header.stamp.sec = x, 99 - int(x)
        source.on_message(msg, 1)
    assert source.observe(None, 10**18, 0).tolist() == [2]


def test_a_goal_may_state_an_age_after_which_it_counts_no_more():
    source = goal(max_age_s=0.5)
    source.on_message(PoseStamped(), 1)  # long ago by the steady clock
    with pytest.raises(Absent, match="s old"):
        source.observe(None, 0, 0)
