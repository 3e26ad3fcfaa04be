"""The example robots, driven by policy files over real topics, alone and two at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ros, pytest.mark.mujoco]

ROOT = Path(__file__).parents[2]
ROBOTS = ROOT / "examples" / "robots"
#: what a robot must gain in some steps in a row, which one that stands still never does
GAIN = {"diff_drive": (60, 10.0), "planar_arm": (100, 5.0), "walker": (100, 2.0)}


@pytest.fixture(scope="module")
def scripted():
    pytest.importorskip("onnx", reason="needs onnx, which the trainer's machine has")
    spec = importlib.util.spec_from_file_location("scripted", ROBOTS / "scripted_policy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drives(rewards, robot: str) -> bool:
    """Whether any stretch of rewards shows that the robot does its task."""
    steps, gain = GAIN[robot]
    got = [msg.position[0] for msg in rewards]
    return any(sum(got[i : i + steps]) > gain for i in range(0, len(got) - steps, 5))


def start(processes, robot: str, policy: Path, folder: Path, **more) -> None:
    file = str(ROBOTS / f"{robot}.yaml")
    processes.start("sim_node", {"robot_file": file, **more})
    given = {"robot_file": file, "policy_dir": str(policy), "state_dir": str(folder / "state")}
    processes.start("policy_node", {**given, **more})


@pytest.mark.parametrize("robot", GAIN)
def test_a_robot_that_only_a_file_describes_does_its_task(
    processes, watcher, scripted, report_of, robot, tmp_path
):
    from sensor_msgs.msg import JointState

    policy = scripted.write(robot, tmp_path / "policy")
    rewards = watcher.listen(JointState, "reward")
    start(processes, robot, policy, tmp_path)
    watcher.until(lambda: drives(rewards, robot), f"{robot} doing its task")
    assert processes.stop("policy_node") == 0
    assert processes.stop("sim_node") == 0
    status = report_of(tmp_path / "state" / "status.json")
    assert status["policy_version"] == 1
    assert status["ticks"] > 0
    assert status["steps_recorded"] > 0
    assert "Traceback" not in processes.said("policy_node") + processes.said("sim_node")


def test_two_robots_in_one_graph_do_not_meet(processes, watcher, scripted, tmp_path):
    """An arm and a walker, both commanded in joints, both with the topic joint_states."""
    from sensor_msgs.msg import JointState

    heard = {}
    for robot in ("planar_arm", "walker"):
        policy = scripted.write(robot, tmp_path / robot)
        heard[robot] = watcher.listen(JointState, f"/{robot}/reward")
        for node in ("sim", "policy"):
            given = {"robot_file": str(ROBOTS / f"{robot}.yaml")}
            if node == "policy":
                given |= {"policy_dir": str(policy), "state_dir": str(tmp_path / f"{robot}_state")}
            processes.start(f"{node}_node", given, namespace=f"/{robot}")
    watcher.until(
        lambda: all(drives(rewards, robot) for robot, rewards in heard.items()), "both robots"
    )


def test_a_file_that_the_task_cannot_play_is_refused(processes, tmp_path):
    file = tmp_path / "robot.yaml"
    text = (ROBOTS / "walker.yaml").read_text()
    for old, new, said in (
        ("robot: walker", "robot: strider", "no simulated robot is called 'strider'"),
        ("rate_hz: 25", "rate_hz: 50", "rate_hz: 50, task 'walker' takes 25 steps per second"),
        ("gravity.x, gravity.y, gravity.z", "gravity.z", "is 20 numbers, task 'walker' has (22,)"),
    ):
        file.write_text(text.replace(old, new))
        process = processes.start("sim_node", {"robot_file": str(file)})
        assert process.wait(timeout=300) == 2
        assert said in processes.said("sim_node")
        assert "Traceback" not in processes.said("sim_node")
