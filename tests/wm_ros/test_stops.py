"""Whatever goes wrong, the robot stops: silent camera, dead simulator, signals, misfits."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from unittest.mock import Mock

import numpy as np
import pytest

from tests.wm_ros.conftest import START, WAIT_S, steps_in
from wm_ros.convert import to_ns

pytestmark = pytest.mark.ros

COUNTING = {"task": "counting_task:Counting-v0"}
PERIOD_S = 0.04


@pytest.fixture
def commands(watcher):
    """Every command in the order in which they came."""
    from geometry_msgs.msg import TwistStamped

    return watcher.listen(TwistStamped, "cmd_vel")


@pytest.fixture
def camera(watcher):
    """A camera of the test's own: ``camera(frame)`` publishes one frame, best effort."""
    from sensor_msgs.msg import Image

    from wm_ros import qos
    from wm_ros.sensors.camera import to_image

    publisher = watcher.node.create_publisher(Image, "image_raw", qos.sensor())

    def publish(frame: np.ndarray) -> None:
        publisher.publish(to_image(frame, time.time_ns(), "camera_optical"))

    return publish


def moving(commands) -> bool:
    return bool(commands) and commands[-1].twist.linear.x != 0.0


def stopped(commands) -> bool:
    """Whether the robot stands still: ten safe actions in a row, when no frame is on its way."""
    return len(commands) > 10 and not any(m.twist.linear.x for m in commands[-10:])


def run_camera(watcher, camera, what: str, ready, size: int = 32) -> None:
    """Publish noise at the policy's rate until ``ready``."""
    rng, due = np.random.default_rng(0), 0.0

    def published() -> bool:
        nonlocal due
        if time.monotonic() >= due:
            camera(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
            due = time.monotonic() + PERIOD_S
        return ready()

    watcher.until(published, what)


def start_robot(processes, folder, **params):
    """A policy node of its own, without a trainer and without rewards."""
    processes.start(
        "policy_node", {"state_dir": str(folder / "state"), "reward_required": False, **params}
    )


def test_a_camera_that_falls_silent_stops_the_robot(
    processes, watcher, commands, camera, policy_at, tmp_path
):
    """How soon it stops is tested with the pacer, whose clock is passed in."""
    policy, frames = policy_at(tmp_path / "policy", bias=0.5), []
    start_robot(processes, tmp_path, policy_dir=str(policy))

    def counted(frame):
        frames.append(frame)
        camera(frame)

    for _ in range(3):  # and it goes on when the camera comes back
        run_camera(watcher, counted, "a moving robot", lambda: moving(commands))
        watcher.until(lambda: stopped(commands), "safe actions that go on")
    answers = [m.header for m in commands if m.twist.linear.x != 0.0]
    stamps = [to_ns(header.stamp) for header in answers]
    assert len(set(stamps)) == len(stamps) <= len(frames)  # no frame moves the robot twice
    assert {header.frame_id for header in answers} == {"base_link"}
    stops = {to_ns(m.header.stamp) for m in commands if m.twist.linear.x == 0.0}
    assert len(stops) > 10  # a safe action without a new frame carries the time at which it left
    assert not stops & set(stamps)
    assert min(stops) > stamps[0] - 60 * 10**9


def test_a_killed_simulator_stops_the_robot_although_its_clock_stands_still(
    processes, watcher, commands, policy_at, report_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start("sim_node", {**COUNTING, "use_sim_time": True})
    start_robot(processes, tmp_path, policy_dir=str(policy), use_sim_time=True)
    watcher.until(lambda: moving(commands), "a moving robot")
    processes.running["sim_node"].kill()
    watcher.until(lambda: stopped(commands), "safe actions that go on")
    processes.start("sim_node", {**COUNTING, "use_sim_time": True})  # its clock begins anew
    watcher.until(lambda: moving(commands), "a robot that moves again")
    assert processes.stop("policy_node") == 0
    status = report_of(tmp_path / "state" / "status.json")
    assert status["safe_by_reason"]["no_frame"] > 10


def test_without_a_policy_and_without_a_trainer_the_robot_gets_zeros_only(
    processes, watcher, commands, report_of, tmp_path
):
    processes.start("sim_node", COUNTING)
    start_robot(processes, tmp_path, trainer_url="http://127.0.0.1:9")
    watcher.until(lambda: len(commands) > 30, "commands")
    assert not any(m.twist.linear.x or m.twist.angular.z for m in commands)
    assert processes.stop("policy_node") == 0
    status = report_of(tmp_path / "state" / "status.json")
    assert status["ticks"] == 0
    assert set(status["safe_by_reason"]) == {"no_policy"}
    assert sum(status["dropped"].values()) == status["safe_ticks"]


def test_a_disk_that_refuses_everything_is_reported_and_the_robot_goes_on(
    processes, watcher, commands, camera, policy_at, tmp_path
):
    from diagnostic_msgs.msg import DiagnosticArray

    policy = policy_at(tmp_path / "policy", bias=0.5)
    diagnostics = watcher.listen(DiagnosticArray, "/diagnostics")
    (tmp_path / "wall").write_text("a file where the node's folder should be")
    start_robot(processes, tmp_path / "wall", policy_dir=str(policy), seal_steps=8)

    def said() -> bool:
        values = {v.key: v.value for m in diagnostics for s in m.status for v in s.values}
        return int(values.get("spool_dropped_write_error", 0)) > 0

    run_camera(watcher, camera, "steps that are counted", said)
    run_camera(watcher, camera, "a moving robot", lambda: moving(commands))
    assert processes.stop("policy_node") == 0
    assert "reports cannot be written" in processes.said("policy_node")
    assert "could not be written" in processes.said("policy_node")
    assert "Traceback" not in processes.said("policy_node")


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (np.zeros((16, 24, 3), np.uint8), "expected a frame of at least 32x32, got 24x16"),
        (np.zeros((64, 64, 1), np.uint8), "expected encoding rgb8 or bgr8 .* got 'mono8'"),
    ],
)
def test_a_camera_that_does_not_fit_the_card_is_refused_with_expected_and_got(
    processes, watcher, commands, camera, policy_at, frame, said, tmp_path
):
    import re

    from diagnostic_msgs.msg import DiagnosticArray

    policy = policy_at(tmp_path / "policy", bias=0.5)
    diagnostics = watcher.listen(DiagnosticArray, "/diagnostics")
    start_robot(processes, tmp_path, policy_dir=str(policy))

    def refused() -> bool:
        camera(frame)
        found = [s for m in diagnostics for s in m.status if re.search(said, s.message)]
        return any(s.level == b"\x02" for s in found)

    watcher.until(refused, "an error in the diagnostics")
    assert commands
    assert not any(m.twist.linear.x for m in commands)
    assert re.search(said, processes.said("policy_node"))


def test_a_larger_camera_is_resized(processes, watcher, commands, camera, policy_at, tmp_path):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    start_robot(processes, tmp_path, policy_dir=str(policy))
    run_camera(watcher, camera, "a moving robot", lambda: moving(commands), size=96)


def test_a_second_camera_works_by_parameters_alone_and_its_silence_stops_the_robot(
    processes, watcher, commands, camera, policy_at, spec_of, report_of, tmp_path
):
    from sensor_msgs.msg import Image

    from wm_ros import qos
    from wm_ros.sensors.camera import to_image

    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(more=("wrist",)))
    wrist = watcher.node.create_publisher(Image, "arm/image_raw", qos.sensor())
    start_robot(
        processes,
        tmp_path,
        policy_dir=str(policy),
        sensors=["image", "wrist"],
        wrist={"topic": "arm/image_raw"},
    )

    def both(frame):
        wrist.publish(to_image(frame, time.time_ns(), "wrist_optical"))
        camera(frame)

    def stopped_by_the_wrist():  # on a busy machine a late first camera stops it too
        report = report_of(tmp_path / "state" / "status.json")
        return "no_wrist" in report.get("safe_by_reason", {}) and not moving(commands)

    run_camera(watcher, both, "a moving robot", lambda: moving(commands))
    run_camera(watcher, camera, "a robot that stops for its wrist", stopped_by_the_wrist)
    run_camera(watcher, both, "a robot that moves again", lambda: moving(commands))
    assert processes.stop("policy_node") == 0
    steps = steps_in(tmp_path / "state" / "spool")
    assert steps
    assert all(step.obs.keys() == {"image", "wrist"} for step in steps)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT] * 2])
def test_a_signal_ends_the_node_with_a_last_zero_and_exit_code_0(
    processes, watcher, commands, policy_at, signals, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    processes.start("sim_node", COUNTING)
    start_robot(processes, tmp_path, policy_dir=str(policy))
    watcher.until(lambda: moving(commands), "a moving robot")
    for number in signals[1:]:
        processes.running["policy_node"].send_signal(number)
    assert processes.stop("policy_node", signals[0]) == 0
    watcher.until(lambda: not moving(commands), "a last zero")
    assert processes.stop("sim_node", signals[0]) == 0
    assert "Traceback" not in processes.said("policy_node") + processes.said("sim_node")


#: a node in which every tick, and the end of the record, raise once the file ``fault`` is there
FAILS = """
from pathlib import Path
from wm_ros.control_loop import ControlLoop
from wm_ros.episodes.experience import Recorder
def failing(work):
    def call(*given, **named):
        if Path("fault").exists():
            raise RuntimeError(f"{work.__name__} fails")
        return work(*given, **named)
    return call
ControlLoop.on_time = failing(ControlLoop.on_time)
Recorder.break_off = failing(Recorder.break_off)
"""


def test_a_node_that_raises_sends_its_last_command_and_closes_everything_whatever_else_raises(
    processes, watcher, commands, policy_at, report_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    state = tmp_path / "state"
    processes.start("sim_node", COUNTING)
    given = {"policy_dir": str(policy), "state_dir": str(state), "reward_required": False}
    before = ("-c", FAILS + START.format("policy_node"))
    process = processes.start("policy_node", given, before=before)
    watcher.until(lambda: moving(commands), "a moving robot")
    (tmp_path / "fault").touch()
    assert process.wait(timeout=WAIT_S) == 1
    watcher.until(lambda: not moving(commands), "a last zero")
    assert report_of(state / "status.json")["active"] is False  # written as the last thing
    said = processes.said("policy_node")
    told = ("RuntimeError: on_time fails", "the robot's stop failed", "break_off fails")
    places = [said.index(text) for text in told]  # every error is said, the cause first
    assert places == sorted(places)


#: a node whose activation raises when it is already to tick
ACTIVATES_NOT = """
from wm_ros.process import realtime
def enter(settings):
    raise RuntimeError("enter fails")
realtime.enter = enter
"""


def test_a_node_whose_activation_raises_says_so_and_ends_instead_of_driving(
    processes, policy_at, report_of, tmp_path
):
    policy, state = policy_at(tmp_path / "policy", bias=0.5), tmp_path / "state"
    given = {"policy_dir": str(policy), "state_dir": str(state), "reward_required": False}
    before = ("-c", ACTIVATES_NOT + START.format("policy_node"))
    assert processes.start("policy_node", given, before=before).wait(timeout=WAIT_S) == 2
    said = processes.said("policy_node")
    assert "RuntimeError: enter fails" in said  # rclpy itself says nothing
    assert "could not be activated" in said
    assert report_of(state / "status.json")["active"] is False


@pytest.mark.parametrize("broken", [0, 1])
def test_a_channel_that_cannot_be_sent_keeps_no_other_from_its_last_command(broken):
    from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
    from wm_ros.topics.commands import CommandTopics

    publishers = [Mock(), Mock()]
    publishers[broken].publish.side_effect = RuntimeError("of the test")
    node = Mock(**{"create_publisher.side_effect": publishers})
    node.get_clock.return_value.now.return_value.nanoseconds = 1
    pair = [CommandChannel(COMMANDS["twist"](["linear.x"], topic=topic)) for topic in "ab"]
    topics = CommandTopics(node, ExitStack(), CommandSet(pair), "base_link")
    with pytest.raises(RuntimeError, match="of the test"):
        topics.publish_last(np.zeros(0), held=frozenset())
    assert [p.publish.call_count for p in publishers] == [1, 1]


def test_a_simulated_robot_stops_when_commands_fall_silent(processes, watcher, tmp_path):
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import JointState

    publisher = watcher.node.create_publisher(TwistStamped, "cmd_vel", 1)
    rewards = watcher.listen(JointState, "reward", 50)
    processes.start("sim_node", COUNTING)
    command = TwistStamped()
    command.twist.linear.x = 0.75

    def driven() -> bool:
        publisher.publish(command)
        return bool(rewards) and rewards[-1].position[0] == 0.75

    watcher.until(driven, "a robot that obeys")
    # A command without a stamp is obeyed but answers no frame: nothing may be learnt from it.
    assert not any(m.position[4] for m in rewards)
    watcher.until(lambda: rewards[-1].position[:2].tolist() == [0.0, 0.0], "a stop")


def test_a_joystick_with_stamps_of_another_clock_does_not_hold_up_a_simulated_robot(
    processes, watcher
):
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import JointState

    publisher = watcher.node.create_publisher(TwistStamped, "cmd_vel", 1)
    rewards = watcher.listen(JointState, "reward", 50)
    processes.start("sim_node", {**COUNTING, "rate_factor": 4.0, "answer_wait_s": 60.0})
    command = TwistStamped()
    command.twist.linear.x = 0.75

    def driven() -> bool:
        command.header.stamp = watcher.node.get_clock().now().to_msg()
        publisher.publish(command)
        return sum(m.position[0] == 0.75 for m in rewards) >= 20

    watcher.until(driven, "frames that wait for no answer")
    assert not any(m.position[4] for m in rewards)
