"""A robot whose topics have other names, given as ``ros2 launch`` gives camera_topic and remap."""

from __future__ import annotations

import pytest

from wm_ros.process.launching import remappings

pytestmark = pytest.mark.ros


def test_camera_and_command_may_have_other_names(processes, watcher, policy_at, tmp_path):
    from geometry_msgs.msg import TwistStamped

    rules = tuple(
        f"{old}:={new}" for old, new in remappings("/camera/image_raw", "cmd_vel:=base/cmd_vel")
    )
    commands = watcher.listen(TwistStamped, "base/cmd_vel")
    policy = policy_at(tmp_path / "policy", bias=0.5)
    given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    processes.start("sim_node", {"task": "counting_task:Counting-v0"}, remaps=rules)
    processes.start("policy_node", given, remaps=rules)
    watcher.until(lambda: any(m.twist.linear.x for m in commands), "the policy's command")
    names = {name for name, _ in watcher.node.get_topic_names_and_types()}
    assert "/camera/image_raw" in names
    assert "/robot1/image_raw" not in names


def test_a_camera_on_another_topic_is_named(processes, watcher, policy_at, tmp_path):
    """Where no name was given, the diagnostics say which topic has such messages."""
    from diagnostic_msgs.msg import DiagnosticArray

    found = watcher.listen(DiagnosticArray, "/diagnostics")
    policy = policy_at(tmp_path / "policy", bias=0.5)
    given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    rules = ("image_raw:=/camera/image_raw",)
    processes.start("sim_node", {"task": "counting_task:Counting-v0"}, remaps=rules)
    processes.start("policy_node", given)

    def said() -> str:
        return " ".join(status.message for array in found[-3:] for status in array.status)

    watcher.until(lambda: "/camera/image_raw" in said(), "the other topic's name")
    assert "/robot1/image_raw" in said()
