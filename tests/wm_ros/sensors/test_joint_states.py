"""Joints are found by their names, whatever the order, the number or the publisher."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import Vector
from wm_core.robot.parts import JointsPart
from wm_ros.sensors.joint_states import JointStates
from wm_ros.sensors.source import Absent
from wm_ros.sensors.table import sources_of

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from rclpy.serialization import serialize_message  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

MS = 1_000_000
NAMES = ("pan", "lift", "elbow")
ARM = Vector(size=3, names=NAMES)
NAMELESS = Vector(size=3)


def joints(stamp_ms: int = 0, *, velocity: dict | None = None, **position: float) -> JointState:
    msg = JointState(name=[*position], position=[*position.values()])
    if velocity:
        msg.velocity = [velocity.get(name, 0.0) for name in position]
    msg.header.stamp.nanosec = stamp_ms * MS
    return msg


def hear(source, *messages) -> None:
    for msg in messages:
        source.on_message(serialize_message(msg), 1)


def heard_by(kind, *messages, stamp_ms=0, within_ms=20, **said) -> list[float]:
    source = JointStates("joints", **said)
    source.bind(kind)
    hear(source, *messages)
    return source.observe(kind, stamp_ms * MS, within_ms * MS).tolist()


SORTED = joints(elbow=3.0, lift=2.0, pan=1.0)


def test_the_policy_gets_its_order_whatever_that_of_the_message():
    assert heard_by(ARM, SORTED) == [1, 2, 3]


def test_more_joints_than_wanted_are_passed_over():
    assert heard_by(ARM, joints(wheel=9.0, elbow=3.0, finger=8.0, lift=2.0, pan=1.0)) == [1, 2, 3]


def test_velocities_and_efforts_go_by_the_same_names():
    msg = joints(elbow=3.0, lift=2.0, pan=1.0, velocity={"pan": 10.0, "lift": 20.0, "elbow": 30.0})
    msg.effort = [0.3, 0.2, 0.1]
    assert heard_by(Vector(size=6, names=NAMES), msg) == [1, 2, 3, 10, 20, 30]
    named = Vector(size=3, names=("pan", "pan.velocity", "elbow.effort"))
    assert heard_by(named, msg) == pytest.approx([1, 10, 0.3])
    chosen = {"joints": ("elbow", "pan"), "fields": ("effort", "velocity")}
    assert heard_by(Vector(size=4), msg, **chosen) == pytest.approx([0.3, 0.1, 30, 10])


def test_a_joint_that_is_really_called_so_wins():
    msg = joints(**{"pan": 1.0, "pan.velocity": 5.0, "lift": 2.0})
    assert heard_by(Vector(size=2, names=("pan.velocity", "lift")), msg) == [5, 2]


def test_joints_of_a_sensor_tell_a_policy_what_its_own_names_mean():
    other = Vector(size=2, names=("q0", "q1"))
    assert heard_by(other, SORTED, joints=("lift", "pan")) == [2, 1]


@pytest.mark.parametrize(
    ("msg", "said"),
    [
        (joints(a=1.0, b=2.0, c=3.0), "expected the joints pan, lift, elbow, but .* has a, b, c"),
        (joints(pan=1.0, elbow=3.0), "expected the joints lift, but .* has elbow, pan"),
        (JointState(name=["pan", "lift", "elbow"], position=[1.0, 2.0]), "of 3 names, got 2"),
        (JointState(name=["pan", "pan", "lift"], position=[1.0] * 3), r"twice: \['pan'\]"),
        (JointState(name=[*NAMES], velocity=[1.0] * 3), "pan, lift, elbow, .* no such field"),
        (JointState(position=[1.0, 2.0, 3.0]), "has none with a name"),
    ],
)
def test_joints_that_are_not_there_are_refused_by_name(msg, said):
    with pytest.raises(SpecMismatch, match=said):
        heard_by(ARM, msg)


@pytest.mark.parametrize(
    ("kind", "said", "error"),
    [
        (NAMELESS, {"joints": ("pan", "lift")}, "wants 3 numbers, and 2 are named: pan, lift"),
        (NAMELESS, {"joints": ("pan", "pan", "lift")}, "named twice"),
        (Vector(size=2, names=("pan", "pan")), {}, "named twice"),
        (Vector(size=4, names=NAMES), {}, "wants 4 numbers, and 3 are named"),
    ],
)
def test_names_that_do_not_fit_the_input_are_refused_before_anything_is_heard(kind, said, error):
    with pytest.raises(SpecMismatch, match=error):
        JointStates("joints", **said).bind(kind)


# ------------------------------------------------------------------------ policies without names


def test_without_names_the_first_message_sets_the_order_of_all_later_ones():
    source = JointStates("joints")
    hear(source, joints(0, a=1.0, b=2.0, c=3.0))
    assert source.observe(NAMELESS, 0, MS).tolist() == [1, 2, 3]
    hear(source, joints(50, c=30.0, a=10.0, b=20.0))
    assert source.observe(NAMELESS, 50 * MS, MS).tolist() == [10, 20, 30]
    assert "a, b, c" in source.note


@pytest.mark.parametrize("other", [{"a": 1.0, "b": 2.0, "x": 3.0}, {"a": 1.0, "b": 2.0}])
def test_without_names_other_joints_later_are_refused(other):
    source = JointStates("joints")
    hear(source, joints(0, a=1.0, b=2.0, c=3.0))
    source.observe(NAMELESS, 0, MS)
    hear(source, joints(50, **other))
    with pytest.raises(SpecMismatch, match="of the first message, a, b, c; this one lacks c"):
        source.observe(NAMELESS, 50 * MS, MS)


def test_without_names_velocities_fill_up_what_positions_leave():
    msg = joints(a=1.0, b=2.0, velocity={"a": 3.0, "b": 4.0})
    assert heard_by(Vector(size=4), msg) == [1, 2, 3, 4]
    assert heard_by(Vector(size=2), msg) == [1, 2]
    with pytest.raises(SpecMismatch, match=r"expected 3 positions, .* got 2 and 2"):
        heard_by(NAMELESS, msg)


def test_a_message_without_names_counts_by_its_order_for_a_policy_without_names():
    assert heard_by(NAMELESS, JointState(position=[1.0, 2.0, 3.0])) == [1, 2, 3]


# ------------------------------------------------------------------------------ several publishers


def test_publishers_on_one_topic_are_joined_each_joint_from_its_nearest_message():
    messages = [joints(0, pan=1.0), joints(5, lift=2.0, elbow=3.0), joints(10, pan=1.5)]
    assert heard_by(ARM, *messages, stamp_ms=8) == [1.5, 2, 3]


def test_a_joint_beyond_the_tolerance_is_not_taken():
    with pytest.raises(SpecMismatch, match="expected the joints pan,"):
        heard_by(ARM, joints(0, pan=1.0), joints(50, lift=2.0, elbow=3.0), stamp_ms=50)


def test_a_joint_that_came_and_went_is_missing_with_its_age_not_unknown():
    source = JointStates("joints")
    hear(source, joints(0, pan=1.0), joints(0, lift=2.0, elbow=3.0))
    source.observe(ARM, 0, MS)
    hear(source, joints(50, lift=2.0, elbow=3.0))
    with pytest.raises(Absent, match=r"pan came last .* s ago"):
        source.observe(ARM, 50 * MS, MS)


def two_topics() -> list:
    part = JointsPart(
        type="sensor_msgs/JointState", topic=("arm/joints", "hand/joints"), joints=("pan", "grip")
    )
    return sources_of("proprio", part)


def test_topics_are_joined_by_name():
    arm, hand = two_topics()
    hear(arm, joints(0, pan=1.0, lift=7.0))
    hear(hand, joints(3, grip=0.5))
    assert arm.observe(None, 0, 20 * MS).tolist() == [1, 0.5]


def test_a_topic_that_is_silent_is_the_one_that_is_named():
    arm, hand = two_topics()
    hear(arm, joints(0, pan=1.0))
    with pytest.raises(Absent) as caught:
        arm.observe(None, 0, 20 * MS)
    assert caught.value.source is hand


def test_a_number_that_is_none_passes_and_stops_the_robot_elsewhere():
    assert np.isnan(heard_by(ARM, joints(pan=float("nan"), lift=0.0, elbow=0.0))[0])
