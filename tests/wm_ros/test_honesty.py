"""A robot that does not act says so, and why, and what to do; one that acts says what is odd."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from tests.wm_ros.conftest import steps_in
from wm_ros.safety.reasons import reason_of

pytestmark = pytest.mark.ros

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"
COUNTING = {"task": "counting_task:Counting-v0"}
HOUR_NS = 3600 * 10**9


class Camera:
    """A camera whose rate, stamps and picture a test changes while it runs."""

    def __init__(self, watcher, size: int = 32) -> None:
        from sensor_msgs.msg import Image

        from wm_ros import qos

        self.every_s, self.stamp, self.frozen, self.size = 0.1, time.time_ns, False, size
        self.lost: tuple[bool, ...] = (False,)  # which frames in turn are not sent
        self._rng, self._due_s, self._count = np.random.default_rng(0), 0.0, 0
        self._watcher = watcher
        self._out = watcher.node.create_publisher(Image, "image_raw", qos.sensor())

    def until(self, ready, what: str) -> None:
        """Publishes on time until ``ready``."""
        from wm_ros.sensors.camera import to_image

        picture = self._rng.integers(0, 256, (self.size, self.size, 3), dtype=np.uint8)

        def published() -> bool:
            nonlocal picture
            if time.monotonic() >= self._due_s:
                self._due_s = max(self._due_s + self.every_s, time.monotonic() - self.every_s)
                if not self.frozen:
                    picture = self._rng.permuted(picture, axis=0)
                self._count += 1
                if not self.lost[self._count % len(self.lost)]:
                    self._out.publish(to_image(picture, self.stamp(), "camera_optical"))
            return ready()

        node, executor = self._watcher.node, self._watcher.executor
        timer = node.create_timer(0.005, lambda: None)  # so that the watcher's spin returns
        try:
            self._watcher.until(published, what)
        finally:
            node.destroy_timer(timer)
            executor.wake()


@pytest.fixture
def commands(watcher):
    from geometry_msgs.msg import TwistStamped

    return watcher.listen(TwistStamped, "cmd_vel")


@pytest.fixture
def diagnosed(watcher):
    """What ``/diagnostics`` said: ``diagnosed()`` forgets, ``diagnosed(level, text)`` asks."""
    from diagnostic_msgs.msg import DiagnosticArray

    heard = watcher.listen(DiagnosticArray, "/diagnostics")

    def said(level: bytes | None = None, text: str = "", of: str = "policy") -> bool:
        if level is None:
            heard.clear()
            return False
        return any(
            s.level == level and s.name == f"/robot1/policy: {of}" and re.search(text, s.message)
            for m in heard
            for s in m.status
        )

    said.heard = heard
    return said


def start_robot(processes, folder, policy, **params):
    defaults = {"state_dir": str(folder / "state"), "reward_required": False}
    processes.start("policy_node", {**defaults, "policy_dir": str(policy), **params})


def goes_on(commands, count: int = 30) -> bool:
    """Whether so many commands in a row moved the robot."""
    return len(commands) >= count and all(m.twist.linear.x for m in commands[-count:])


def stands(commands, count: int = 10) -> bool:
    return len(commands) >= count and not any(m.twist.linear.x for m in commands[-count:])


def test_every_wrong_stamp_and_picture_is_named_with_level_and_advice_and_its_end_is_said(
    processes, watcher, commands, diagnosed, policy_at, spec_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(period_s=0.1))
    start_robot(processes, tmp_path, policy, frozen_s=0.4, robot="arm")
    camera = Camera(watcher)
    constant = time.time_ns()
    cases = {
        "stale_stamp": [
            (lambda: 0, "the stamp on /robot1/image_raw is zero"),
            (lambda: time.time_ns() - 10 * 10**9, r"it is 1\d(\.\d)? s old, at most 0.5 s"),
            (lambda: constant, "s old, at most 0.5 s"),
        ],
        "stamp_in_future": [(lambda: time.time_ns() + HOUR_NS, "s ahead, at most 0.5 s")],
        "frozen_frame": [(time.time_ns, "repeats the same image")],
    }
    for word, variants in cases.items():
        for stamp, text in variants:
            camera.stamp, camera.frozen = time.time_ns, False
            camera.until(lambda: goes_on(commands, 10), "a moving robot")
            diagnosed()
            camera.stamp, camera.frozen = stamp, word == "frozen_frame"
            whole = f"{word}: .*{text}.*{re.escape(reason_of(word).advice)}"
            camera.until(lambda whole=whole: diagnosed(ERROR, whole), f"{word}, {text}")
            camera.until(lambda: stands(commands, 3), "a robot that stands")
            said = lambda whole=whole: re.search(whole, processes.said("policy_node"))  # noqa: E731
            camera.until(said, f"a line of the log about {word}, {text}")
            diagnosed()
    camera.stamp, camera.frozen = time.time_ns, False
    camera.until(lambda: "acts again after" in processes.said("policy_node"), "its end in the log")
    diagnosed()
    camera.until(lambda: len(diagnosed.heard) > 2, "diagnostics")
    assert {s.hardware_id for m in diagnosed.heard for s in m.status} == {"arm /robot1"}
    names = {s.name for m in diagnosed.heard for s in m.status}
    assert {"/robot1/policy: sensor image", "/robot1/policy: stream"} <= names


def test_a_slower_camera_is_followed_at_every_rate_and_both_rates_are_said(
    processes, watcher, commands, diagnosed, policy_at, spec_of, report_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(period_s=0.1))
    start_robot(processes, tmp_path, policy)
    camera = Camera(watcher)
    camera.until(lambda: goes_on(commands), "a moving robot")
    for periods in (1.3, 2.0, 3.5):
        camera.every_s = 0.1 * periods
        diagnosed()
        rates = r"camera [\d.]+ Hz, policy 10 Hz: it acts at that rate"
        camera.until(lambda rates=rates: diagnosed(WARN, rates), f"both rates at {periods}")
        commands.clear()
        camera.until(lambda: goes_on(commands, 25), f"no stop at {periods} periods")
    camera.every_s = 0.1
    diagnosed()
    camera.until(lambda: diagnosed(OK, "policy version 0 acts$"), "all well again")
    assert processes.stop("policy_node") == 0
    steps = steps_in(tmp_path / "state" / "spool")
    slow = [step for step in steps if step.period_s]
    assert len(slow) > 15
    assert np.median([step.period_s for step in slow]) > 0.12
    begins = [i for i, step in enumerate(steps) if step.is_first] + [len(steps)]
    assert max(np.diff(begins)) > 10  # an episode goes on though frames are rare
    status = report_of(tmp_path / "state" / "status.json")
    counted = status["steps_recorded"] + status["steps_held"] + sum(status["dropped"].values())
    assert counted == status["ticks"] + status["safe_ticks"]


def test_a_camera_that_is_too_slow_or_not_to_be_followed_stops_the_robot_for_good(
    processes, watcher, commands, diagnosed, policy_at, spec_of, tmp_path
):
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter

    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(period_s=0.1))
    start_robot(processes, tmp_path, policy)
    camera = Camera(watcher)
    camera.until(lambda: goes_on(commands), "a moving robot")
    camera.every_s = 0.7
    slow = r"camera_slow: .*camera [\d.]+ Hz, policy 10 Hz.*slow_camera"
    camera.until(lambda: diagnosed(ERROR, slow), "both rates")
    commands.clear()
    camera.until(lambda: len(commands) > 40, "more commands")
    assert stands(commands, 40)
    camera.every_s = 0.2
    camera.until(lambda: goes_on(commands, 40), "a robot that follows")
    value = Parameter("slow_camera", value="stop").to_parameter_msg()
    watcher.call(SetParameters, "policy/set_parameters", SetParameters.Request(parameters=[value]))
    diagnosed()
    camera.until(lambda: diagnosed(ERROR, slow), "both rates once more")
    camera.until(lambda: stands(commands, 40), "a robot that stands")


def test_a_tick_that_works_longer_than_the_period_is_called_an_overrun_and_nothing_else(
    processes, watcher, commands, diagnosed, policy_at, spec_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(period_s=0.1))
    slow = {"inference_deadline_s": -1.0}  # the tick as a whole is too long, not the policy's part
    start_robot(processes, tmp_path, policy, period_s=0.0005, max_gap_s=2.0, **slow)
    camera = Camera(watcher, size=640)
    camera.every_s = 0.02
    camera.until(lambda: diagnosed(WARN, r"overrun: a tick takes [\d.]+ ms .*period is"), "it")
    said = [s.message for m in diagnosed.heard for s in m.status if s.name.endswith(": policy")]
    assert not any("got lost" in text or "camera_slow" in text for text in said)
    assert "period_s 0.0005 s, its card says 0.1 s" in said[-1]
    text = "period_s 0.0005 s overrides the 0.1 s of the policy's card: it acts at 2e+03 Hz"
    assert text in processes.said("policy_node")
    assert processes.stop("policy_node") == 0


def test_large_raw_images_of_which_few_arrive_get_the_advice_that_helps(
    processes, watcher, diagnosed, policy_at, spec_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(period_s=0.1))
    start_robot(processes, tmp_path, policy)
    camera = Camera(watcher, size=640)
    camera.lost = (False, False, True, True)  # of every four frames, on top of the transport's
    text = "raw images of 1.2 MB: start driver and node with the Fast DDS profile.*CompressedImage"
    unheard = "Fast DDS profile"  # where not one of them arrives
    camera.until(
        lambda: (
            any(diagnosed(level, text) for level in (WARN, ERROR))
            or diagnosed(ERROR, unheard, of="sensor image")
        ),
        "advice on large images",
    )


def test_a_node_that_is_not_active_and_one_without_a_clock_say_so(
    processes, watcher, diagnosed, policy_at, spec_of, tmp_path
):
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState

    policy = policy_at(tmp_path / "policy", bias=0.5, spec=spec_of(period_s=0.1))
    start_robot(processes, tmp_path, policy, autostart=False, use_sim_time=True)
    camera = Camera(watcher)

    def change(name: str) -> None:
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name}")
        assert watcher.call(ChangeState, "policy/change_state", request).success

    change("CONFIGURE")
    camera.until(lambda: diagnosed(WARN, "inactive: .*not active.*ros2 lifecycle"), "inactive")
    change("ACTIVATE")
    clock = "no_clock: use_sim_time is set and no /clock has come; start the simulator"
    camera.until(lambda: diagnosed(ERROR, clock), "no clock")
    assert processes.stop("policy_node") == 0


def test_a_simulator_slower_than_real_time_runs_without_stops(
    processes, watcher, commands, policy_at, report_of, tmp_path
):
    policy = policy_at(tmp_path / "policy", bias=0.5)
    start_robot(processes, tmp_path, policy, use_sim_time=True)
    watcher.until(lambda: processes.said("policy_node") != "", "a node")
    processes.start("sim_node", {**COUNTING, "use_sim_time": True, "rate_factor": 0.25})
    watcher.until(lambda: goes_on(commands, 1), "a moving robot")
    before = len(commands)
    watcher.until(lambda: len(commands) > before + 60, "sixty more commands")
    stops = sum(m.twist.linear.x == 0.0 for m in commands[before:])
    assert stops <= 10  # hiccups of a busy machine; more than every second one would be a fault
    assert processes.stop("policy_node") == 0
    status = report_of(tmp_path / "state" / "status.json")
    assert status["latency_p50_ms"] > 0
    assert status["work_p50_ms"] > 0
