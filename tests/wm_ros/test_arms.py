"""Robots that are driven by positions: held where they are, never slammed, each channel apart."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from wm_core.contract.spec import ActionSpec

pytestmark = pytest.mark.ros

JOINTS = ("shoulder", "elbow")
POSE = {"elbow": -0.5, "shoulder": 1.5}  # in another order than the policy's
RATE = 2.0  # rad/s: 0.08 rad in a period
STEP = RATE * 0.04 + 1e-4


@pytest.fixture
def arm_policy(policy_at, spec_of, tmp_path):
    """A policy that moves both joints to 1 rad of -2 .. 2."""
    action = ActionSpec(low=(-2.0,) * 2, high=(2.0,) * 2, names=JOINTS, units=("rad",) * 2)
    spec = spec_of().model_copy(update={"action": action})
    return policy_at(tmp_path / "policy", bias=0.5, spec=spec)


@pytest.fixture
def start(processes, tmp_path, arm_policy):
    """Starts the policy node without rewards, on the arm's policy unless told otherwise."""

    def run(**params):
        given = {"policy_dir": str(arm_policy), "state_dir": str(tmp_path / "state"), **params}
        processes.start("policy_node", {"reward_required": False, **given})

    return run


def test_an_arm_is_held_at_its_pose_moves_from_there_and_stays_when_the_camera_ends(
    processes, watcher, played, start, report_of, tmp_path
):
    from sensor_msgs.msg import JointState

    commands, played.picture = watcher.listen(JointState, "joint_command"), None
    start(command_type="joint_position", safe_action="hold", max_rate=[RATE])
    status = tmp_path / "state" / "status.json"
    watcher.until(lambda: report_of(status).get("safe_ticks", 0) > 20, "safe ticks")
    assert not commands  # nothing was sent yet, and where the joints are is not known
    played.joints = dict(POSE)
    held = played.settle(commands)
    assert {tuple(m.name) for m in held} == {JOINTS}
    np.testing.assert_allclose([m.position for m in held], [[1.5, -0.5]] * len(held), atol=1e-6)
    assert not any(len(m.effort) or len(m.velocity) for m in held)
    played.picture = played.noise
    played.wait_until(commands, lambda m: list(m.position) == [1.0, 1.0], "the policy's command")
    way = np.array([m.position for m in commands])
    assert np.abs(np.diff(way, axis=0)).max() <= STEP
    assert np.abs(way[0] - [1.5, -0.5]).max() <= STEP
    played.picture = None
    stopped = played.settle(commands, 40)[20:]
    assert {tuple(m.position) for m in stopped} == {(1.0, 1.0)}
    assert processes.stop("policy_node") == 0
    assert not any(tuple(m.position) == (0.0, 0.0) for m in commands)


def test_without_joint_states_limits_of_rate_stop_an_arm_and_a_posture_is_reached_slowly(
    processes, watcher, played, start, report_of, tmp_path
):
    pytest.importorskip("trajectory_msgs", reason="needs trajectory_msgs")
    from trajectory_msgs.msg import JointTrajectory

    commands = watcher.listen(JointTrajectory, "joint_trajectory")
    start(
        command_type="joint_trajectory",
        safe_action="posture",
        safe_posture=[0.5],
        max_rate=[RATE],
        max_jerk=[40.0],
    )
    status = tmp_path / "state" / "status.json"
    watcher.until(
        lambda: report_of(status).get("safe_by_reason", {}).get("no_pose", 0) > 10, "no_pose"
    )
    assert not commands
    played.joints = {"elbow": -0.5, "shoulder": 3.0}  # the range ends at 2
    watcher.until(
        lambda: report_of(status)["safe_by_reason"].get("pose_out_of_range", 0) > 10,
        "pose_out_of_range",
    )
    assert not commands
    played.joints = dict(POSE)
    played.wait_until(
        commands, lambda m: list(m.points[0].positions) == [1.0, 1.0], "the policy's command"
    )
    played.picture = None
    played.wait_until(commands, lambda m: list(m.points[0].positions) == [0.5, 0.5], "the posture")
    way = np.array([m.points[0].positions for m in commands])
    assert np.abs(np.diff(way, axis=0)).max() <= STEP
    assert np.abs(way[0] - [1.5, -0.5]).max() <= STEP
    reached = commands[-1].points[0].time_from_start
    assert (reached.sec, reached.nanosec) == (0, 40_000_000)


def test_bare_numbers_go_to_a_forward_controller_with_the_range_of_the_card(
    watcher, played, start
):
    from std_msgs.msg import Float64MultiArray

    commands = watcher.listen(Float64MultiArray, "commands")
    start(command_type="multi_array", safe_action="none")
    played.wait_until(commands, lambda m: list(m.data) == [1.0, 1.0], "the policy's command")
    played.picture = None
    watcher.until(lambda: played.watcher is watcher and quiet(watcher, commands), "silence")


def quiet(watcher, messages) -> bool:
    """Whether nothing more comes for a while of spinning."""
    seen = len(messages)
    for _ in range(10):
        watcher.executor.spin_once(timeout_sec=0.05)
    return len(messages) == seen


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"command_type": "joint"}, "is in 'rad', a position; use joint_position"),
        (  # before there is any policy
            {"command_type": "joint_position", "policy_dir": ""},
            "zeros would move the robot; set safe_action",
        ),
        (
            {
                "command_type": "joint_position",
                "safe_action": "posture",
                "safe_posture": [3.0],
                "max_rate": [1.0],
            },
            "outside of its range",
        ),
    ],
)
def test_a_command_that_would_move_the_arm_wrongly_is_refused_when_it_is_configured(
    processes, start, params, said
):
    start(**params)
    assert processes.running["policy_node"].wait(timeout=60) == 2
    assert said in processes.said("policy_node")
    assert "Traceback" not in processes.said("policy_node")


def test_a_base_with_an_arm_stops_and_is_taken_over_each_channel_in_its_own_way(
    processes, watcher, played, start, policy_at, spec_of, tmp_path
):
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Bool

    file = {
        "robot": "mobile",
        "observations": {
            "image": {
                "type": "sensor_msgs/Image",
                "topic": "image_raw",
                "height": 32,
                "width": 32,
            }
        },
        "actions": [
            {
                "type": "geometry_msgs/TwistStamped",
                "low": -1.0,
                "high": 1.0,
                "frame": "torso",
                "takeover": "joy_vel",
            },
            {
                "type": "sensor_msgs/JointState",
                "mode": "position",
                "joints": list(JOINTS),
                "low": -2.0,
                "high": 2.0,
                "safe": "hold",
            },
        ],
        "safety": {"emergency_stop_topic": "stop_button"},
    }
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(file))
    action = ActionSpec(low=(-1.0,) * 2 + (-2.0,) * 2, high=(1.0,) * 2 + (2.0,) * 2)
    spec = spec_of().model_copy(update={"action": action})
    policy = policy_at(tmp_path / "mobile", bias=0.5, spec=spec)
    bases, arms = (
        watcher.listen(TwistStamped, "cmd_vel"),
        watcher.listen(JointState, "joint_command"),
    )
    button = watcher.node.create_publisher(Bool, "stop_button", 1)
    played.picture = None
    start(policy_dir=str(policy), robot_file=str(tmp_path / "robot.yaml"))
    assert not any(m.twist.linear.x for m in played.settle(bases))
    assert not arms
    played.picture = played.noise
    played.wait_until(bases, lambda m: m.twist.linear.x == 0.5, "a moving base")
    played.wait_until(arms, lambda m: list(m.position) == [1.0, 1.0], "a moving arm")
    assert bases[-1].header.frame_id == "torso"
    joystick, drive = watcher.node.create_publisher(TwistStamped, "joy_vel", 1), TwistStamped()
    drive.twist.linear.x = -0.25
    timer = watcher.node.create_timer(0.05, lambda: joystick.publish(drive))
    played.wait_until(bases, lambda m: m.twist.linear.x == -0.25, "a person's base", 10)
    assert {tuple(m.position) for m in played.settle(arms)} == {(1.0, 1.0)}  # it waits
    timer.cancel()
    played.wait_until(bases, lambda m: m.twist.linear.x == 0.5, "the policy's base")
    played.picture = None
    played.wait_until(bases, lambda m: m.twist.linear.x == 0.0, "a base that stands", 10)
    assert {tuple(m.position) for m in played.settle(arms)} == {(1.0, 1.0)}
    played.picture = played.noise
    played.wait_until(bases, lambda m: m.twist.linear.x == 0.5, "a base that moves again")
    button.publish(Bool(data=True))
    played.wait_until(bases, lambda m: m.twist.linear.x == 0.0, "an emergency stop", 20)
    assert {tuple(m.position) for m in played.settle(arms)} == {(1.0, 1.0)}
