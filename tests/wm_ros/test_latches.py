"""A latched robot stays stopped for every reason; frozen cameras and deaf drivers are seen."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.ros


@pytest.fixture
def start(processes, tmp_path, policy_at):
    """Starts the policy node without rewards."""

    def run(policy=None, **params):
        policy = policy or policy_at(tmp_path / "policy", bias=0.5)
        given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state"), **params}
        processes.start("policy_node", {"reward_required": False, **given})

    return run


@pytest.fixture
def commands(watcher):
    from geometry_msgs.msg import TwistStamped

    return watcher.listen(TwistStamped, "cmd_vel")


@pytest.fixture
def statuses(watcher):
    """Gives every status of the diagnostics by the end of its name, the newest of each."""
    from diagnostic_msgs.msg import DiagnosticArray

    heard = watcher.listen(DiagnosticArray, "/diagnostics")

    def newest() -> dict:
        return {s.name.partition(": ")[2]: s for m in heard for s in m.status}

    return newest


def moves(msg) -> bool:
    return msg.twist.linear.x > 0.0


def stands(msg) -> bool:
    return msg.twist.linear.x == 0.0


def test_every_reason_latches_and_a_rearm_is_refused_while_it_lasts(
    watcher, played, start, commands, policy_at, spec_of, tmp_path
):
    policy = policy_at(tmp_path / "felt", bias=0.5, spec=spec_of(vectors=1))
    played.joints = {"wheel": 0.5}
    start(policy, latch_safe=True, max_gap_s=0.5)

    def small() -> np.ndarray:
        return np.zeros((16, 16, 3), np.uint8)

    faults = {
        "frame_refused": lambda: setattr(played, "picture", small),
        "no_joint_states": lambda: played.joints.clear(),
        "no_frame": lambda: setattr(played, "picture", None),
        "nan_obs": lambda: played.joints.update(wheel=float("nan")),
    }
    for word, break_it in faults.items():
        watcher.until(lambda: played.trigger("rearm").success, "a rearm")
        played.wait_until(commands, moves, "a moving robot", 10)
        break_it()
        played.wait_until(commands, stands, f"a robot that stands for {word}")
        refused = played.trigger("rearm")
        while word not in refused.message:  # a late frame may have latched it before
            assert not refused.success
            played.settle(commands)
            refused = played.trigger("rearm")
        assert not refused.success
        played.picture, played.joints = played.noise, {"wheel": 0.5}
        mended = played.settle(commands, 30)
        assert all(stands(m) for m in mended[10:])  # mended, and latched


def test_a_frozen_camera_stops_a_moving_robot_by_default_though_a_pixel_flickers(
    watcher, played, start, commands, statuses
):
    still, flicker = played.noise(), iter(range(10**9))

    def frozen() -> np.ndarray:
        frame = still.copy()
        frame[3, 4] = next(flicker) % 256  # a dead pixel, or a clock in the picture
        return frame

    def noisy() -> np.ndarray:
        return np.clip(still.astype(int) + (played.noise() % 3) - 1, 0, 255).astype(np.uint8)

    played.picture = noisy  # a still scene of a real camera
    start()
    played.wait_until(commands, moves, "a moving robot")
    later = played.settle(commands, 60)  # 2.4 s
    assert sum(moves(m) for m in later) > 40
    played.picture = frozen
    played.wait_until(commands, stands, "a robot that stands", 20)
    watcher.until(lambda: "frozen_frame" in statuses()["policy"].message, "the reason")
    played.picture = noisy
    played.wait_until(commands, moves, "a robot that moves again")


def test_equal_frames_are_no_fault_while_the_robot_is_told_to_stand(
    watcher, played, start, commands, policy_at, tmp_path, report_of
):
    still = played.noise()
    played.picture = lambda: still
    # forward and turn at rest: -0.5 .. 1.0 m/s and -2 .. 2 rad/s
    start(policy_at(tmp_path / "rest", bias=[-1 / 3, 0.0]))
    status = tmp_path / "state" / "status.json"
    watcher.until(lambda: report_of(status).get("ticks", 0) > 60, "2.4 s of the same image")
    assert "frozen_frame" not in report_of(status)["safe_by_reason"]


def test_a_command_that_no_driver_takes_is_named(watcher, played, start, statuses):
    from geometry_msgs.msg import Twist, TwistStamped

    start()

    def said(text: str) -> None:
        watcher.until(
            lambda: (
                "command cmd_vel" in statuses()
                and text in statuses()["command cmd_vel"].message
                and (text == "a driver takes it") == (statuses()["command cmd_vel"].level == b"\0")
            ),
            repr(text),
        )

    said("no node subscribes /robot1/cmd_vel")
    wrong = watcher.node.create_subscription(Twist, "cmd_vel", lambda m: None, 1)
    said(
        "takes geometry_msgs/Twist on /robot1/cmd_vel, this node sends geometry_msgs/TwistStamped"
    )
    watcher.until(lambda: "no driver takes" in statuses()["policy"].message, "the policy's status")
    watcher.node.destroy_subscription(wrong)
    watcher.node.create_subscription(TwistStamped, "cmd_vel", lambda m: None, 1)
    said("a driver takes it")


def test_a_finished_policy_acts_by_its_mean_and_one_that_learns_explores(
    processes, watcher, played, start, commands, policy_at, tmp_path
):
    policy = policy_at(tmp_path / "noisy", bias=0.5, spread=0.5)
    for params, speeds in (({}, 1), ({"trainer_url": "http://127.0.0.1:9"}, 10)):
        del commands[:]
        start(policy, **params)
        played.wait_until(commands, moves, "a moving robot", 20)
        found = {round(m.twist.linear.x, 4) for m in commands if moves(m)}
        assert (len(found) == 1) == (speeds == 1), found
        assert processes.stop("policy_node") == 0


def test_surprise_beyond_the_limit_is_an_alarm_or_a_stop_until_a_rearm(
    watcher, played, start, commands, statuses, policy_at, tmp_path
):
    from tests.wm_ros.test_parameters import Remote

    shade = 20

    def picture() -> np.ndarray:
        return (played.noise() % 20 + shade).astype(np.uint8)

    played.picture = picture
    start(policy_at(tmp_path / "surprised", bias=0.5, surprised=True), surprise_limit=100.0)
    played.wait_until(commands, moves, "a moving robot", 20)
    assert "surprised" not in str(statuses().get("policy"))
    shade = 200
    watcher.until(lambda: "surprised: the policy sees" in statuses()["policy"].message, "an alarm")
    assert statuses()["policy"].level == b"\1"
    played.wait_until(commands, moves, "a robot that moves all the same", 10)
    assert Remote(watcher, "policy").set(surprise_action="stop") == [(True, "")]
    played.wait_until(commands, stands, "a robot that stands", 10)
    shade = 20
    assert all(stands(m) for m in played.settle(commands))  # without latch_safe too
    watcher.until(lambda: "latched" in statuses()["policy"].message, "the latch")
    assert played.trigger("rearm").message == "was latched by surprised"
    played.wait_until(commands, moves, "a robot that moves again", 20)
