"""A sensor that gives nothing usable says why, in one sentence and truly."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import pytest

from tests.wm_ros.conftest import Watcher
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_ros.sensors.camera import Camera, to_image
from wm_ros.sensors.joint_states import JointStates, from_vector
from wm_ros.sensors.table import Sensors
from wm_ros.sensors.unheard import Talker, Unheard, why_unheard

SPEC = Spec(
    images={"image": ImageSpec(height=8, width=8), "wrist": ImageSpec(height=8, width=8)},
    vectors={"arm": VectorSpec(size=2, names=("pan", "lift"))},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
    period_s=0.04,
)
PERIOD_NS = 40_000_000


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (Unheard("/eye", "a/B"), "nobody publishes on /eye (expected a/B)"),
        (Unheard("/eye", "a/B", alike=("/front", "/rear")), "; a/B comes on /front, /rear"),
        (
            Unheard("/eye", "a/B", publishers=(Talker("/cam", "a/C"),)),
            "/eye carries a/C from /cam, expected a/B: name another topic, or another type",
        ),
        (
            Unheard("/eye", "a/B", publishers=(Talker("/cam", "a/B"), Talker("/x", "a/C"))),
            "/cam, /x publishes on /eye, but nothing came; it may not have begun",
        ),
        (
            Unheard(
                "/eye",
                "sensor_msgs/Image",
                is_image=True,
                publishers=(Talker("/cam", "sensor_msgs/Image"),),
            ),
            "may not have begun, or wait for something itself; raw images of more than 0.5 MB get "
            "lost on their way unless publisher and node use the Fast DDS profile",
        ),
        (
            Unheard(
                "/eye",
                "a/B",
                is_image=True,
                wants_reliable=True,
                publishers=(Talker("/cam", "a/B", "BEST_EFFORT"),),
            ),
            "/cam publishes on /eye as best effort and this node asks for reliable",
        ),
    ],
)
def test_silence_has_a_cause(known, said):
    assert said in why_unheard(known)


def test_no_compressed_image_is_said_to_be_too_large():
    kind = "sensor_msgs/CompressedImage"
    known = Unheard("/eye", kind, is_image=True, publishers=(Talker("/cam", kind),))
    assert why_unheard(known).endswith("it may not have begun, or wait for something itself")


@pytest.fixture
def heard(watcher):
    """Sensors that are subscribed by a node of the test's own, for real."""
    from wm_ros.topics.sensors import SensorTopics

    sensors = Sensors(
        [Camera("image"), Camera("wrist", "wrist/image_raw"), JointStates("arm")], PERIOD_NS
    )
    sensors.begin(SPEC, PERIOD_NS)
    came = []

    def remember(source, msg):
        came.append(source)
        sensors.on_message(source, msg, time.monotonic_ns())

    with ExitStack() as closers:
        SensorTopics(watcher.node, closers, sensors, reliable=True, on_message=remember)
        yield sensors


def sense(sensors):
    now_ns = time.monotonic_ns()
    return sensors.sense(fresh=True, now_ns=now_ns, ros_now_ns=time.time_ns())


def pixels(stamp_ns: int):
    return to_image(np.zeros((8, 8, 3), np.uint8), stamp_ns, "")


@pytest.fixture
def driver(processes, watcher):
    """Publishes beside the node that hears: one participant may not have a topic twice."""
    found = Watcher(processes.domain)
    yield found
    found.close()


@pytest.mark.ros
def test_every_cause_of_a_useless_sensor_is_named_over_real_topics(watcher, driver, heard):
    from sensor_msgs.msg import CompressedImage, Image, JointState

    from wm_ros import qos

    image, wrist, arm = heard.sources
    node = driver.node

    def says(source, *parts: str) -> None:
        def said() -> bool:
            sense(heard)
            return all(part in source.problem() for part in parts)

        watcher.until(said, f"{parts} of {source.topic}, which says {source.problem()!r}")

    says(image, "nobody publishes on /robot1/image_raw (expected sensor_msgs/Image)")
    node.create_publisher(Image, "camera/image_raw", qos.sensor(reliable=True))
    says(image, "sensor_msgs/Image comes on /robot1/camera/image_raw")
    node.create_publisher(CompressedImage, "wrist/image_raw", 1)
    says(wrist, "carries sensor_msgs/CompressedImage from /robot1/watcher, expected")
    worse = node.create_publisher(Image, "image_raw", qos.sensor())
    says(image, "on /robot1/image_raw as best effort", "image_reliability: best_effort")
    node.destroy_publisher(worse)

    eye = node.create_publisher(Image, "image_raw", qos.sensor(reliable=True))
    watcher.until(lambda: eye.get_subscription_count() > 0, "a subscription")
    says(arm, "nobody publishes on /robot1/joint_states")
    joints = node.create_publisher(JointState, "joint_states", 10)
    watcher.until(lambda: joints.get_subscription_count() > 0, "a subscription")
    says(arm, "/robot1/watcher publishes on /robot1/joint_states, but nothing came")

    def send(image_late_s: float, arm_late_s: float, names=("pan", "lift")) -> None:
        now_ns = time.time_ns()
        eye.publish(pixels(now_ns - round(image_late_s * 1e9)))
        stamp_ns = 0 if arm_late_s < 0 else now_ns - round(arm_late_s * 1e9)
        joints.publish(from_vector(np.arange(len(names)), stamp_ns, names))

    def says_while(source, *parts: str, **sent) -> None:
        def said() -> bool:
            send(**{"image_late_s": 0.0, "arm_late_s": 0.0} | sent)
            watcher.executor.spin_once(timeout_sec=0.02)
            sense(heard)
            return all(part in source.problem() for part in parts)

        watcher.until(said, f"{parts} of {source.topic}, which says {source.problem()!r}")

    says_while(
        arm,
        "expected the joints lift, but /robot1/joint_states has hip, pan",
        names=("hip", "pan"),
    )
    says_while(arm, "stamps lie ", " s behind the clock", arm_late_s=60.0)
    says_while(image, " s ahead of the clock", image_late_s=-60.0)
    says_while(arm, "no stamp (0)", arm_late_s=-1.0)
    says_while(arm, "the nearest is 0.", "allowed are 0.040 s", arm_late_s=0.9)
    says(arm, "/robot1/joint_states is silent since ")
    node.destroy_publisher(joints)
    says(arm, "nobody publishes on it any more")
    senses = sense(heard)
    assert senses.obs is None
    assert senses.ages["/robot1/joint_states"] > 1.0
    assert senses.ages["/robot1/wrist/image_raw"] == float("inf")


@pytest.mark.ros
def test_a_sensor_in_order_has_no_problem(watcher, heard):
    from sensor_msgs.msg import Image, JointState

    node, sources = watcher.node, heard.sources
    cameras = [node.create_publisher(Image, s.topic, 1) for s in sources[:2]]
    joints = node.create_publisher(JointState, "joint_states", 10)

    def well() -> bool:
        stamp_ns = time.time_ns()
        for camera in cameras:
            camera.publish(pixels(stamp_ns))
        joints.publish(from_vector(np.array([2.0, 1.0]), stamp_ns, ("lift", "pan")))
        watcher.executor.spin_once(timeout_sec=0.02)
        senses = sense(heard)
        return senses.obs is not None and not any(s.problem() for s in sources)

    watcher.until(well, f"sensors without a problem: {[s.problem() for s in sources]}")
    assert sense(heard).obs["arm"].tolist() == [1, 2]
    assert max(sense(heard).ages.values()) < 60


@pytest.mark.ros
def test_messages_that_no_tick_takes_are_not_silence(watcher, driver, heard):
    """As in a node that is not active."""
    from sensor_msgs.msg import JointState

    arm = heard.sources[2]
    joints = driver.node.create_publisher(JointState, "joint_states", 10)

    def well() -> bool:
        joints.publish(from_vector(np.zeros(2), time.time_ns(), ("pan", "lift")))
        watcher.executor.spin_once(timeout_sec=0.02)
        return arm.problem() == ""

    driver.until(well, f"joints without a problem: {arm.problem()}")
    assert arm.messages > 0


def test_a_sensor_that_the_policy_does_not_use_is_no_problem():
    image, joints = sources = [Camera("image"), JointStates("joint_states")]
    sensors = Sensors(sources, PERIOD_NS)
    assert "nobody publishes" in joints.problem()
    only = {"images": {"image": ImageSpec(height=8, width=8)}, "vectors": {}}
    sensors.begin(SPEC.model_copy(update=only), PERIOD_NS)
    assert joints.problem() == ""
    assert "nobody publishes" in image.problem()
