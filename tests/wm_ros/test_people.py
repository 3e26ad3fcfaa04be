"""People stop the robot, drive it themselves and let it run for a while, over real topics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.conftest import WAIT_S, steps_in

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
    watcher.until(lambda: played.trigger("rearm").success, "a rearm")
    played.wait_until(commands, lambda m: m.twist.linear.x == 0.5, "a takeover")
    answer = played.trigger("stop")
    assert answer.success
    played.wait_until(commands, stands, "a robot that the service stopped")
    watcher.until(lambda: played.trigger("rearm").success, "a rearm")
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


def test_an_emergency_stop_outlives_the_node_and_ends_with_a_rearm(
    processes, watcher, played, start, commands, says, tmp_path
):
    kept = tmp_path / "state" / "emergency_stop"
    start()
    played.wait_until(commands, moves, "a moving robot")
    assert played.trigger("stop").success
    watcher.until(kept.exists, "the file, while the node still runs")
    assert processes.stop("policy_node") == 0
    played.wait_until(commands, stands, "its last command", 1)  # all before it have come then
    del commands[:]
    start()  # as systemd does
    says("emergency_stop: the emergency stop was pressed")
    assert all(stands(m) for m in played.settle(commands))
    assert "emergency_stop was latched before this start" in processes.said("policy_node")
    watcher.until(lambda: played.trigger("rearm").success, "a rearm")
    played.wait_until(commands, moves, "a robot that moves again")
    assert processes.stop("policy_node") == 0
    assert not kept.exists()


def test_an_emergency_stop_outlives_a_clean_up_though_the_disk_refuses_to_keep_it(
    processes, watcher, played, start, commands, says, tmp_path
):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    (tmp_path / "wall").write_text("a file where the node's folder should be")
    start(state_dir=str(tmp_path / "wall" / "state"))
    played.wait_until(commands, moves, "a moving robot")
    assert played.trigger("stop").success
    played.wait_until(commands, stands, "a robot that stands")
    for name in ("DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        number = getattr(Transition, f"TRANSITION_{name}")
        request = ChangeState.Request(transition=Transition(id=number))
        assert watcher.call(ChangeState, "policy/change_state", request).success
    says("emergency_stop: the emergency stop was pressed")
    assert all(stands(m) for m in played.settle(commands))
    watcher.until(lambda: played.trigger("rearm").success, "a rearm")
    played.wait_until(commands, moves, "a robot that moves again")
    assert processes.stop("policy_node") == 0
    assert "an emergency stop, or its end, cannot be kept" in processes.said("policy_node")
    assert "Traceback" not in processes.said("policy_node")


@pytest.mark.parametrize("takeover", ["cmd_vel", "/robot1/cmd_vel", "joy_vel", "arm", "other", ""])
def test_a_takeover_that_would_hear_a_command_of_the_node_is_refused(takeover):
    from wm_core.contract.errors import SettingsError
    from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
    from wm_ros.topics.operator import check_takeover

    whole = {"arm": "/robot1/arm", "other": "/robot1/other"}
    whole |= dict.fromkeys(("cmd_vel", "/robot1/cmd_vel", "joy_vel"), "/robot1/base/vel")
    base = CommandChannel(COMMANDS["twist"](["linear.x"]), takeover=takeover)
    arm = CommandChannel(COMMANDS["joint_position"](topic="arm"), safe="hold")
    if takeover in ("other", ""):
        check_takeover(CommandSet([base, arm]), whole.__getitem__)
        return
    said = f"expected a topic .* got '{takeover}', which is {whole[takeover]}"
    with pytest.raises(SettingsError, match=said):
        check_takeover(CommandSet([base, arm]), whole.__getitem__)


def test_a_node_whose_takeover_is_remapped_to_its_command_is_not_configured(
    processes, policy_at, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    rules = ("joy_vel:=base/vel", "cmd_vel:=/robot1/base/vel")
    process = processes.start("policy_node", {**given, "takeover_topic": "joy_vel"}, remaps=rules)
    assert process.wait(timeout=WAIT_S) == 2
    said = processes.said("policy_node")
    assert "expected a topic on which this node sends nothing, got 'joy_vel'" in said
    assert "/robot1/base/vel" in said
    assert "Traceback" not in said
