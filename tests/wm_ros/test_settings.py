"""Parameters of a real node become settings: nested names, old names, sensors."""

from __future__ import annotations

import pytest

from wm_core.contract.errors import SettingsError

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from rclpy.parameter import Parameter  # noqa: E402

from wm_ros.parameters import params  # noqa: E402
from wm_ros.settings import PolicySettings  # noqa: E402


@pytest.fixture
def node_with(watcher):
    """Makes a node with parameters given by name, and declares those of the policy node."""
    from rclpy.node import Node

    made = []

    def make(**given):
        overrides = [Parameter(name.replace("__", "."), value=v) for name, v in given.items()]
        made.append(Node("given", context=watcher.context, parameter_overrides=overrides))
        params.declare(made[-1], params.POLICY)
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()


def test_nested_names_reach_the_parts(node_with):
    node = node_with(upload__bytes_per_s=5e4, delivery__keep=2, spool__overflow="drop_newest")
    settings = params.read(node, PolicySettings)
    assert settings.upload.bytes_per_s == 5e4
    assert settings.delivery.keep == 2
    assert settings.spool.overflow == "drop_newest"
    assert settings.upload.connect_s == 5.0


def test_names_of_earlier_releases_are_still_read_and_new_ones_win(node_with):
    old = {"spool_max_bytes": 3_000_000, "seal_steps": 8, "seal_s": 0.5}
    spool = params.read(node_with(**old, spool__seal_steps=16), PolicySettings).spool
    assert (spool.max_bytes, spool.seal_steps, spool.seal_s) == (3_000_000, 16, 0.5)


def test_sensors_have_the_topics_of_their_kinds_unless_told_otherwise(node_with):
    names = ["image", "wrist", "joint_states", "gripper"]
    given = {"gripper__type": "joint_states", "gripper__topic": "hand/joints"}
    found = params.read_sensors(node_with(sensors=names, **given), names)
    assert {name: (s.type, s.topic) for name, s in found.items()} == {
        "image": ("camera", "image_raw"),
        "wrist": ("camera", "wrist/image_raw"),
        "joint_states": ("joint_states", "joint_states"),
        "gripper": ("joint_states", "hand/joints"),
    }


def test_a_parameter_of_a_sensor_that_is_not_listed_is_refused(node_with):
    with pytest.raises(SettingsError, match=r"unknown parameter 'wrist\.topic'"):
        node_with(wrist__topic="somewhere")


def test_an_unknown_kind_of_sensor_is_refused_with_the_nearest(node_with):
    node = node_with(sensors=["image"], image__type="camra")
    with pytest.raises(SettingsError, match=r"unknown image\.type 'camra'; did you mean 'camera'"):
        params.read_sensors(node, ["image"])
