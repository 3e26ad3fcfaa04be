"""Which sensor feeds which input, and what belongs to one observation."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import Depth
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
from wm_ros.policies.loading import check_acceptable
from wm_ros.sensors.camera import Camera
from wm_ros.sensors.depth import DepthCamera
from wm_ros.sensors.joint_states import JointStates
from wm_ros.sensors.table import Sensors, assign

MS = 1_000_000
PERIOD = 40 * MS
ACTION = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))


def spec_with(images=("image",), vectors=(), *, named=False) -> Spec:
    names = {name: (f"{name}_a", f"{name}_b") if named else () for name in vectors}
    return Spec(
        images={name: ImageSpec(height=8, width=8) for name in images},
        vectors={name: VectorSpec(size=2, names=names[name]) for name in vectors},
        action=ACTION,
    )


def fed(sources, spec) -> dict[str, str]:
    return {name: source.name for name, source in assign(sources, spec).items()}


@pytest.mark.parametrize("names", [(), ("joint_states",), ("arm", "hand")])
def test_one_camera_and_one_joint_state_feed_a_policy_whatever_it_calls_its_inputs(names):
    sources = [Camera("image"), JointStates("joint_states")]
    got = fed(sources, spec_with(("front",), names, named=len(names) > 1))
    assert got == {"front": "image"} | dict.fromkeys(names, "joint_states")


def test_two_inputs_that_nothing_tells_apart_never_get_the_same_joints():
    sources = [Camera("image"), JointStates("joint_states")]
    with pytest.raises(SpecMismatch, match=r"'arm' and 'hand' would both .* arm.joints and hand"):
        assign(sources, spec_with(("front",), ("arm", "hand")))


def test_sensors_feed_the_inputs_of_their_names():
    names = ["wrist", "image", "arm", "hand"]
    sources = [Camera(n) for n in names[:2]] + [JointStates(n) for n in names[2:]]
    assert fed(sources, spec_with(("image", "wrist"), ("arm", "hand"))) == {n: n for n in names}


def test_a_depth_camera_and_a_colour_camera_are_told_apart_by_what_the_policy_wants():
    spec = spec_with().model_copy(update={"images": {"far": Depth(), "front": ImageSpec()}})
    sources = [Camera("image"), DepthCamera("depth")]
    assert fed(sources, spec) == {"far": "depth", "front": "image"}


@pytest.mark.parametrize(
    ("sources", "images", "vectors", "said"),
    [
        ([Camera("image")], ("image", "wrist"), (), r"'wrist' is .* could feed it: \[\] of"),
        ([Camera("a"), Camera("b")], ("image",), (), r"could feed it: \['a', 'b'\]"),
        ([Camera("image")], ("image",), ("arm",), r"'arm' is \(n,\) float32; .*: \[\]"),
        ([JointStates("image")], ("image",), (), r"'image' is \(H, W, 3\) uint8; .*: \[\]"),
        ([Camera("image"), JointStates("arm")], (), ("arm",), "first sensor, 'image'"),
        (
            [Camera("image"), JointStates("a"), JointStates("b")],
            ("image",),
            ("arm", "hand"),
            r"'arm' is .*: \['a', 'b'\]",
        ),
    ],
)
def test_a_policy_whose_inputs_have_no_sensor_is_refused(sources, images, vectors, said):
    with pytest.raises(SpecMismatch, match=said):
        assign(sources, spec_with(images, vectors))


def commands_of(kind):
    """The command of a robot with one channel."""
    return CommandSet([CommandChannel(COMMANDS[kind](("x", "y")))])


@pytest.mark.parametrize(
    ("kind", "action", "said"),
    [
        ("index", ACTION, "the action of the policy is continuous"),
        ("twist", ActionSpec.choices(3), "one of several choices"),
        ("twist_stamped", ActionSpec(low=(0.0,), high=(1.0,)), "twist_fields names 2 elements"),
    ],
)
def test_a_policy_whose_action_no_command_carries_is_refused(kind, action, said):
    spec, commands = spec_with().model_copy(update={"action": action}), commands_of(kind)
    with pytest.raises(SpecMismatch, match=said):
        check_acceptable(spec, commands=commands, running=None)


def test_a_policy_of_another_spec_than_the_running_one_is_refused():
    commands = commands_of("joint")
    check_acceptable(spec_with(), commands=commands, running=spec_with())
    with pytest.raises(SpecMismatch, match="expected the running policy's spec"):
        check_acceptable(spec_with(), commands=commands, running=spec_with(("front",)))


# --------------------------------------------------------------------- one observation of several


@pytest.fixture
def frame_of():
    """Makes an image message of one colour at a stamp."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from wm_ros.sensors.camera import to_image

    return lambda value, stamp: to_image(np.full((8, 8, 3), value, np.uint8), stamp, "")


@pytest.fixture
def two_cameras():
    """Two cameras that feed a policy: image, which sets the pace, and wrist."""
    sensors = Sensors([Camera("image"), Camera("wrist")], PERIOD)
    sensors.begin(spec_with(("image", "wrist")), PERIOD)
    return sensors


def sense(sensors):
    return sensors.sense(fresh=True, now_ns=0, ros_now_ns=0)


@pytest.mark.ros
def test_from_the_second_camera_comes_the_frame_nearest_to_the_first_ones(two_cameras, frame_of):
    first, second = two_cameras.sources
    for stamp in (60, 90, 125):
        two_cameras.on_message(second, frame_of(stamp, stamp * MS), 0)
    two_cameras.on_message(first, frame_of(7, 100 * MS), 0)
    senses = sense(two_cameras)
    assert senses.stamp_ns == 100 * MS
    assert {name: int(v[0, 0, 0]) for name, v in senses.obs.items()} == {"image": 7, "wrist": 90}


@pytest.mark.ros
@pytest.mark.parametrize("stamp", [None, 59, 141])
def test_a_second_camera_more_than_a_period_away_means_no_observation(
    two_cameras, frame_of, stamp
):
    first, second = two_cameras.sources
    if stamp is not None:
        two_cameras.on_message(second, frame_of(1, stamp * MS), 0)
    two_cameras.on_message(first, frame_of(1, 100 * MS), 0)
    senses = sense(two_cameras)
    assert (senses.obs, senses.refused) == (None, "no_wrist")


@pytest.mark.ros
def test_a_second_camera_that_is_too_slow_is_said_to_be_with_what_to_change(two_cameras, frame_of):
    first, second = two_cameras.sources
    for stamp in (100, 200, 300):  # 10 Hz, and a period of 40 ms
        two_cameras.on_message(second, frame_of(1, stamp * MS), stamp * MS)
    two_cameras.on_message(first, frame_of(1, 350 * MS), 350 * MS)
    detail = two_cameras.sense(fresh=True, now_ns=350 * MS, ros_now_ns=350 * MS).detail
    assert "10 Hz only, one message in 0.1 s" in detail
    assert "allowed are 0.040 s" in detail
    assert "tolerance_s" in detail
    two_cameras.on_message(first, frame_of(1, 900 * MS), 900 * MS)  # its driver fell silent
    late = two_cameras.sense(fresh=True, now_ns=900 * MS, ros_now_ns=900 * MS)
    assert (late.refused, "Hz only" in late.detail) == ("no_wrist", False)


@pytest.mark.ros
@pytest.mark.parametrize(
    ("stamp_s", "word"), [(0, "stale_stamp"), (90, "stale_stamp"), (110, "stamp_in_future")]
)
def test_a_wrong_stamp_of_the_pace_is_not_blamed_on_the_other_sensors(
    two_cameras, frame_of, stamp_s, word
):
    first, second = two_cameras.sources
    now = 100_000 * MS
    two_cameras.on_message(first, frame_of(1, stamp_s * 1000 * MS), now)
    silent = two_cameras.sense(fresh=True, now_ns=now, ros_now_ns=now)
    assert silent.refused == "no_wrist"  # it gave nothing at all
    two_cameras.on_message(second, frame_of(1, now), now)
    senses = two_cameras.sense(fresh=True, now_ns=now, ros_now_ns=now)
    assert (senses.obs, senses.refused, second.apart) == (None, word, "")
    two_cameras.on_message(first, frame_of(1, now), now)
    assert two_cameras.sense(fresh=True, now_ns=now, ros_now_ns=now).refused is None


@pytest.mark.ros
def test_gaps_between_the_stamps_of_the_first_sensor_alone_are_missed_frames(
    two_cameras, frame_of
):
    first, second = two_cameras.sources
    for k in (0, 1, 4):
        two_cameras.on_message(first, frame_of(1, k * PERIOD), 0)
        two_cameras.on_message(second, frame_of(1, 5 * k * PERIOD), 0)
    assert (two_cameras.frames, two_cameras.frames_missed) == (3, 2)
