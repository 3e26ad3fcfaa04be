"""People stop the robot, drive it themselves and let it run for a while, over real topics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.conftest import steps_in

pytestmark = pytest.mark.ros

FORWARD = 0.625  # m/s of the tiny policy with a bias of 0.5


@pytest.fixture
def start(processes, tmp_path, policy_at):
    """Starts the policy node without rewards."""
    policy = policy_at(tmp_path / "policy", bias=0.5)

    def run(**params):
        given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state"), **params}
        processes.start("policy_node", {"reward_required": False, **given})

    return run


@pytest.fixture
def commands(watcher):
    from geometry_msgs.msg import TwistStamped

    return watcher.listen(TwistStamped, "cmd_vel")


@pytest.fixture
def says(watcher):
    """Waits until the diagnostics' first status says a text."""
    from diagnostic_msgs.msg import DiagnosticArray

    heard = watcher.listen(DiagnosticArray, "/diagnostics")

    def wait(text: str) -> None:
        del heard[:]
        watcher.until(lambda: any(text in m.status[0].message for m in heard), f"{text!r}")

    return wait


def moves(msg) -> bool:
    return msg.twist.linear.x > 0.0


def stands(msg) -> bool:
    return msg.twist.linear.x == msg.twist.angular.z == 0.0


@pytest.fixture
def button(watcher):
    """An emergency stop: ``button(True)`` presses it."""
    from std_msgs.msg import Bool

    publisher = watcher.node.create_publisher(Bool, "stop_button", 1)

    def press(down: bool) -> None:
        publisher.publish(Bool(data=down))

    return press


def test_the_emergency_stop_is_the_last_word(watcher, played, start, commands, button, says):
    from geometry_msgs.msg import TwistStamped

    joystick = watcher.node.create_publisher(TwistStamped, "joy_vel", 1)
    # hold: an emergency stop does not hold a velocity
    start(emergency_stop_topic="stop_button", takeover_topic="joy_vel", safe_action="hold")
    played.wait_until(commands, moves, "a moving robot")
    button(True)
    played.wait_until(commands, stands, "a robot that stands")
    refused = played.trigger("rearm")
    assert not refused.success
    assert refused.message.startswith("still emergency_stop")
    button(False)
    says("emergency_stop")
    assert all(stands(m) for m in played.settle(commands))  # released, and latched all the same
    drive = TwistStamped()
    drive.twist.linear.x = 0.5
    watcher.node.create_timer(0.05, lambda: joystick.publish(drive))
    assert all(stands(m) for m in played.settle(commands, 30))  # it beats a takeover
    assert not played.trigger("run").success
    assert played.trigger("rearm").success
    played.wait_until(commands, lambda m: m.twist.linear.x == 0.5, "a takeover")
    answer = played.trigger("stop")
    assert answer.success
    played.wait_until(commands, stands, "a robot that the service stopped")
    assert played.trigger("rearm").success
    played.wait_until(commands, moves, "a robot that moves again")


def test_an_emergency_stop_that_is_missing_falls_silent_or_was_pressed_before_stops_the_robot(
    processes, watcher, played, start, commands, says
):
    from std_msgs.msg import Bool

    from wm_ros import qos

    start(emergency_stop_topic="stop_button", emergency_stop_timeout_s=1.0)
    says("emergency_missing")
    assert all(stands(m) for m in commands)
    publisher = watcher.node.create_publisher(Bool, "stop_button", qos.sensor())
    beat = watcher.node.create_timer(0.1, lambda: publisher.publish(Bool(data=False)))
    played.wait_until(commands, moves, "a robot that moves while its heartbeat beats")
    beat.cancel()
    played.wait_until(commands, stands, "a robot that stands")
    says("emergency_silent")
    assert not played.trigger("rearm").success
    beat.reset()
    watcher.until(lambda: played.trigger("rearm").success, "a rearm")
    played.wait_until(commands, moves, "a robot that moves again")
    assert processes.stop("policy_node") == 0
    played.wait_until(commands, stands, "its last command", 1)  # all before it have come then
    watcher.node.destroy_publisher(publisher)
    latched = watcher.node.create_publisher(Bool, "stop_button", qos.latched())
    latched.publish(Bool(data=True))  # before the node begins
    beat.cancel()
    del commands[:]
    start(emergency_stop_topic="stop_button")
    says("the emergency stop was pressed")
    assert all(stands(m) for m in commands)
    latched.publish(Bool(data=False))
    watcher.until(lambda: played.trigger("rearm").success, "a rearm")
    played.wait_until(commands, moves, "a robot that moves")
    watcher.node.destroy_publisher(latched)  # the button's driver dies
    played.wait_until(commands, stands, "a robot that stands")


def test_a_person_drives_within_the_limits_and_the_record_says_so(
    processes, watcher, played, start, commands, says, tmp_path
):
    from geometry_msgs.msg import TwistStamped

    joystick = watcher.node.create_publisher(TwistStamped, "joy_vel", 1)
    rate = [2.5, 50.0]  # 0.1 m/s in a period
    start(takeover_topic="joy_vel", takeover_timeout_s=0.5, max_rate=rate)
    played.wait_until(commands, lambda m: m.twist.linear.x == FORWARD, "the policy")
    drive = TwistStamped()
    drive.twist.linear.x, drive.twist.angular.z = -9.0, 0.25  # the card allows -0.5 .. 1.0
    timer = watcher.node.create_timer(0.05, lambda: joystick.publish(drive))
    played.wait_until(commands, lambda m: m.twist.linear.x == -0.5, "the joystick", 20)
    assert commands[-1].twist.angular.z == 0.25
    says("takeover")
    drive.twist.linear.x = float("nan")  # is no command: the last one lasts its time
    played.wait_until(commands, lambda m: m.twist.linear.x > 0.2, "the policy again")
    timer.cancel()
    played.wait_until(commands, lambda m: m.twist.linear.x == FORWARD, "all of it", 20)
    speeds = np.array([m.twist.linear.x for m in commands])
    # A start begins at rest, so nothing but a start lets the speed fall further than a step.
    assert np.abs(np.diff(speeds)[speeds[1:] * np.sign(speeds[:-1]) > 0.1001]).max() <= 0.1001
    assert processes.stop("policy_node") == 0
    assert "takeover: command: expected 2 finite numbers" in processes.said("policy_node")
    steps = steps_in(tmp_path / "state" / "spool")
    driven = [s for s in steps if s.is_intervention]
    assert len(driven) > 10
    assert len(steps) > len(driven)
    np.testing.assert_allclose(driven[-1].action, [-1.0, 0.125], atol=1e-6)  # what was sent
    np.testing.assert_allclose(driven[-1].requested_action, [0.5, 0.5])  # what the policy wished
    assert all(s.policy_version == 0 for s in driven)


def test_a_robot_runs_for_its_time_and_only_when_it_is_started(
    watcher, played, start, commands, says
):
    start(run_on_start=False, run_s=2.0)
    says("not_started")
    assert all(stands(m) for m in commands)
    for _ in range(2):
        answer = played.trigger("run")
        assert (answer.success, answer.message) == (True, "runs for 2 s")
        played.wait_until(commands, moves, "a moving robot")
        played.wait_until(commands, stands, "a robot whose time is over")
        says("run_over")
