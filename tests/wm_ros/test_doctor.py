"""The doctor over real topics: a healthy robot, and robots that are broken in many ways."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wm_ros.doctor.findings import as_json, as_text, fail, ok, warn

ROOT = Path(__file__).parents[2]
START = "from wm_ros.start import doctor; raise SystemExit(doctor())"


def test_findings_are_printed_for_people_and_programs():
    found = [
        ok("camera", "30 Hz"),
        warn("clock", "two", "choose"),
        fail("disk", "full", "make room"),
    ]
    text = as_text(found)
    assert "FAIL  disk" in text
    assert "-> make room" in text
    assert text.endswith("1 OK, 1 WARN, 1 FAIL: mend what FAILs first\n")
    parsed = json.loads(as_json(found))
    assert parsed["healthy"] is False
    assert parsed["findings"][2] == {
        "area": "disk",
        "level": "FAIL",
        "text": "full",
        "advice": "make room",
    }


class Examined:
    """What the doctor said, and its exit code."""

    def __init__(self, code: int, said: str) -> None:
        self.code, self.said = code, said
        self.findings = json.loads(said)["findings"] if said.startswith("{") else []

    def level(self, area: str) -> str:
        """The worst level of an area."""
        levels = [f["level"] for f in self.findings if f["area"] == area]
        return next((level for level in ("FAIL", "WARN", "OK") if level in levels), "")

    def text(self, area: str) -> str:
        return "\n".join(f["text"] for f in self.findings if f["area"] == area)


@pytest.fixture
def examine(processes, watcher):
    """Runs the doctor with arguments while the test's own node plays the robot."""

    def run(*args: str, every=lambda: None, period_s: float = 0.05) -> Examined:
        argv = [sys.executable, "-c", START, "--json", "--namespace", "/robot1", *args]
        process = subprocess.Popen(
            argv, env=processes.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        due = 0.0

        def ended() -> bool:
            nonlocal due
            if time.monotonic() >= due:
                every()
                due = time.monotonic() + period_s
            return process.poll() is not None

        watcher.until(ended, "the doctor")
        said, errors = process.communicate()
        assert "Traceback" not in errors, errors
        return Examined(process.returncode, said)

    return run


@pytest.fixture
def robot(watcher):
    """A camera and a driver of the test's own; ``robot(stamp_ns)`` publishes a frame."""
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import Image

    from wm_ros import qos
    from wm_ros.sensors.camera import to_image

    out = watcher.node.create_publisher(Image, "image_raw", qos.sensor())
    watcher.node.create_subscription(TwistStamped, "cmd_vel", lambda msg: None, qos.command())
    rng = np.random.default_rng(0)

    def publish(stamp_ns: int | None = None, size: int = 48) -> None:
        frame = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        out.publish(to_image(frame, time.time_ns() if stamp_ns is None else stamp_ns, "camera"))

    return publish


SENSORS = ("--ros-args", "-p", "sensors:=[image]")


@pytest.mark.ros
def test_a_healthy_robot_has_nothing_to_mend(examine, robot, policy_at, spec_of, tmp_path):
    """The policy is so slow that a camera on a busy machine keeps its pace."""
    policy = policy_at(tmp_path / "policy", spec=spec_of(period_s=0.4))
    more = ("--policy-dir", str(policy), "--state-dir", str(tmp_path / "state"), *SENSORS)
    found = examine(*more, every=robot)
    assert found.code == 0, found.said
    for area in ("python", "ros", "numpy", "onnxruntime", "policy", "image", "cmd_vel", "clock"):
        assert found.level(area) == "OK", found.said
    assert "repeats its golden rollout" in found.text("policy")
    assert "Hz" in found.text("image")
    assert "/robot1/watcher" in found.text("cmd_vel")


@pytest.mark.ros
def test_whatever_is_broken_is_named_with_what_to_do(examine, robot, policy_at, tmp_path, watcher):
    """One robot with many faults at once: each is found beside the others."""
    from geometry_msgs.msg import TwistStamped
    from rosgraph_msgs.msg import Clock

    policy = policy_at(tmp_path / "policy")
    (policy / "policy.onnx").write_bytes(b"half of it")
    watcher.node.create_publisher(TwistStamped, "cmd_vel", 1)
    watcher.node.create_publisher(Clock, "/clock", 1)
    token = tmp_path / "token"
    token.write_text("secret")
    (tmp_path / "file").write_text("")
    found = examine(
        *("--policy-dir", str(policy), "--state-dir", str(tmp_path / "file" / "state")),
        *("--trainer-url", "http://127.0.0.1:9", "--token-file", str(token)),
        *("--ros-args", "-p", "sensors:=[image, wrist]", "-p", "command_type:=twist"),
        every=lambda: robot(0),
    )
    assert found.code == 1
    assert found.level("policy") == "FAIL"
    assert "expected" in found.text("policy")
    assert found.level("state folder") == "FAIL"
    assert found.level("trainer") == "FAIL"
    assert "does not answer" in found.text("trainer")
    assert "no stamp (0)" in found.text("image")
    assert found.level("wrist") == "FAIL"
    assert "nobody publishes on /robot1/wrist/image_raw" in found.text("wrist")
    assert "takes geometry_msgs/TwistStamped" in found.text("cmd_vel")
    assert "sends commands on" in found.text("cmd_vel")
    assert found.level("clock") == "WARN"
    assert all(f["advice"] for f in found.findings if f["level"] != "OK")


@pytest.mark.ros
@pytest.mark.parametrize(
    ("args", "area", "said"),
    [
        (("--robot-file", "missing.yaml"), "parameters", "missing.yaml"),
        (("--ros-args", "-p", "use_sim_time:=true"), "clock", "nobody publishes /clock"),
        (("--ros-args", "-p", "takeover_topic:=/robot1/cmd_vel"), "takeover", "obey itself"),
    ],
)
def test_a_robot_that_cannot_run_fails(examine, args, area, said):
    found = examine("--seconds", "0.3", *args)
    assert found.code == 1
    assert found.level(area) == "FAIL"
    assert said in found.text(area)


@pytest.mark.ros
def test_a_policy_that_is_not_for_this_robot_fails(examine, policy_at, spec_of, tmp_path):
    """Its camera is larger than the robot's file says, and it wants another input."""
    policy = policy_at(tmp_path / "policy", spec=spec_of(more=("wrist",)))
    file = ROOT / "examples" / "robots" / "walker.yaml"
    found = examine("--seconds", "0.3", "--policy-dir", str(policy), "--robot-file", str(file))
    assert found.code == 1
    assert found.level("policy") == "FAIL"


@pytest.mark.ros
def test_wrong_arguments_are_said_by_one_line():
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    done = subprocess.run(
        [sys.executable, "-c", START, "--no-such-option"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
    assert "Traceback" not in done.stderr
