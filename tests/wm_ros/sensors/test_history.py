"""How long messages are kept, and which of them belongs to a stamp."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_ros.sensors.history import Heard, MessageLog, stamp_of

MS = 1_000_000


def heard(name: str, stamp_ms: int, arrived_ms: int | None = None) -> Heard:
    arrived_ms = stamp_ms if arrived_ms is None else arrived_ms
    return Heard(name, stamp_ms * MS, arrived_ms * MS, lambda data: data.decode())


def near(recent: MessageLog, stamp_ms: int, within_ms: int = 10**6) -> list[str]:
    return [h.message for h in recent.around(stamp_ms * MS, within_ms * MS)]


def test_the_nearest_comes_first_and_of_equally_near_ones_the_later():
    recent = MessageLog(1000 * MS, 10)
    for name, stamp in (("a", 0), ("c", 20), ("b", 10), ("d", 30)):  # out of order, as it happens
        recent.add(heard(name, stamp))
    assert near(recent, 10) == ["b", "c", "a", "d"]
    assert near(recent, 11) == ["b", "c", "a", "d"]
    assert near(recent, 26, within_ms=6) == ["d", "c"]
    assert near(recent, 100, within_ms=69) == []


def test_of_one_stamp_the_last_to_come_is_first():
    recent = MessageLog(1000 * MS, 10)
    for name in "abc":
        recent.add(heard(name, 5))
    assert near(recent, 5)[0] == "c"


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(-5, 55))
def test_every_message_is_found_in_the_order_of_its_distance(stamps, wanted):
    recent = MessageLog(10**15, 100)
    for stamp in stamps:
        recent.add(heard(str(stamp), stamp))
    distances = [abs(int(name) - wanted) for name in near(recent, wanted)]
    assert distances == sorted(abs(s - wanted) for s in stamps)
    assert recent.distance_ns(wanted * MS) == distances[0] * MS


def test_500_hz_are_kept_for_seconds_and_80_ms_of_latency_find_their_message():
    recent = MessageLog(2000 * MS, 4096)
    for tick in range(5000):
        recent.add(heard(str(tick), 2 * tick))
    assert len(recent) == 1001
    assert near(recent, 9998 - 80, within_ms=20)[0] == str((9998 - 80) // 2)
    assert recent.rate_hz == pytest.approx(500)


def test_never_more_than_the_most_are_kept():
    recent = MessageLog(10**15, 3)
    for stamp in range(9):
        recent.add(heard(str(stamp), stamp))
    assert near(recent, 9) == ["8", "7", "6"]


def test_a_stamp_from_the_future_makes_nothing_old_and_is_itself_forgotten():
    recent = MessageLog(100 * MS, 10)
    recent.add(heard("future", 3_600_000, 0))
    for now in range(10, 91, 10):
        recent.add(heard(str(now), now, now))
    assert near(recent, 50, within_ms=0) == ["50"]
    for now in range(100, 301, 10):
        recent.add(heard(str(now), now, now))
    assert "future" not in near(recent, 0, within_ms=10**8)


def test_a_clock_that_is_set_back_loses_no_new_message():
    recent = MessageLog(100 * MS, 3)
    for now in (0, 10, 20):
        recent.add(heard("old", 97_000 + now, now))
    for now in (30, 40, 50):
        recent.add(heard("new", now, now))
    assert near(recent, 40) == ["new", "new", "new"]


def test_simulated_time_ten_times_slower_forgets_by_its_own_pace():
    recent = MessageLog(100 * MS, 1000)
    for tick in range(50):  # 2 ms of simulated time take 20 ms
        recent.add(heard(str(tick), 2 * tick, 20 * tick))
    assert len(recent) == 50


@pytest.mark.parametrize(("order", "flag"), [("<", 1), (">", 0)])
def test_the_stamp_is_read_from_the_bytes_in_either_order(order, flag):
    data = bytes([0, flag, 0, 0]) + struct.pack(f"{order}iI", 12, 345) + b"rest"
    assert stamp_of(data) == 12_000_000_345


def test_bytes_are_read_once_and_only_when_somebody_looks():
    reads = []
    message = Heard(b"abc", 0, 0, lambda data: reads.append(data) or data.decode())
    assert reads == []
    assert message.message == message.message == "abc"
    assert reads == [b"abc"]


@pytest.mark.ros
def test_the_stamp_of_real_messages_is_where_it_is_looked_for():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from rclpy.serialization import serialize_message

    from wm_ros.convert import message_class

    for name in (
        "sensor_msgs/Image",
        "sensor_msgs/CompressedImage",
        "sensor_msgs/JointState",
        "sensor_msgs/Imu",
        "sensor_msgs/Range",
        "sensor_msgs/LaserScan",
        "nav_msgs/Odometry",
        "geometry_msgs/PoseStamped",
        "geometry_msgs/TwistStamped",
    ):
        msg = message_class(name)()
        msg.header.stamp.sec, msg.header.stamp.nanosec = 1_700_000_000, 7
        msg.header.frame_id = "somewhere"
        assert stamp_of(serialize_message(msg)) == 1_700_000_000_000_000_007, name
