"""The node's life cycle, its parameters, and the Pythons and paths it has to run on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
COUNTING = {"task": "counting_task:Counting-v0"}
#: runs the node with torch made unimportable, as on a robot without it
NO_TORCH = (
    "import sys; sys.modules['torch'] = None; "
    "from wm_ros.policy_node import main; sys.exit(main())"
)
PYTHONS = {
    "this": Path(sys.executable),
    "3.10": ROOT / ".venv-robot-3.10/bin/python",
    "3.12": ROOT / ".venv-robot-3.12/bin/python",
    "3.14": ROOT / ".venv-robot-3.14/bin/python",
}


def test_the_node_goes_through_every_state_of_its_life_cycle(
    processes, watcher, policy_at, tmp_path
):
    from geometry_msgs.msg import TwistStamped
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    policy = policy_at(tmp_path / "policy", bias=0.5)
    commands = watcher.listen(TwistStamped, "cmd_vel")
    processes.start("sim_node", COUNTING)
    processes.start(
        "policy_node",
        {"autostart": False, "policy_dir": str(policy), "state_dir": str(tmp_path / "state")},
    )

    def change(number: int) -> str:
        request = ChangeState.Request(transition=Transition(id=number))
        assert watcher.call(ChangeState, "policy/change_state", request).success
        return watcher.call(GetState, "policy/get_state", GetState.Request()).current_state.label

    for _ in range(2):  # a second life after clean-up
        assert change(Transition.TRANSITION_CONFIGURE) == "inactive"
        commands.clear()
        assert change(Transition.TRANSITION_ACTIVATE) == "active"
        watcher.until(lambda: any(m.twist.linear.x for m in commands), "a moving robot")
        assert change(Transition.TRANSITION_DEACTIVATE) == "inactive"
        watcher.until(lambda: commands[-1].twist.linear.x == 0.0, "a last zero")
        assert change(Transition.TRANSITION_CLEANUP) == "unconfigured"
    assert change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN) == "finalized"
    assert processes.stop("policy_node") == 0


def test_a_bad_policy_keeps_the_node_unconfigured_and_says_why(
    processes, policy_at, damaged, tmp_path
):
    damaged(policy_at(tmp_path / "good"), tmp_path / "bad")
    process = processes.start(
        "policy_node", {"policy_dir": str(tmp_path / "bad"), "state_dir": str(tmp_path / "state")}
    )
    assert process.wait(timeout=300) == 2
    assert "expected sha256" in processes.said("policy_node")
    assert "Traceback" not in processes.said("policy_node")


@pytest.mark.parametrize(
    ("executable", "params", "said"),
    [
        (
            "policy_node",
            {"exploration": "meen"},
            "unknown exploration 'meen'; did you mean 'mean'",
        ),
        ("policy_node", {"robot": "Robot 1"}, "robot"),
        ("policy_node", {"exploration_nois": 0.3}, "did you mean 'exploration_noise'"),
        ("sim_node", {"rate_facto": 2.0}, "did you mean 'rate_factor'"),
        ("sim_node", {"task": "seak"}, "seak"),
        ("sim_node", {"command_type": "twistt"}, "did you mean 'twist'"),
        ("policy_node", {"twist_fields": ["linear.x", "angular"]}, "did you mean 'angular."),
        ("sim_node", {"twist_fields": ["linear.x"], **COUNTING}, "twist_fields names 1 elements"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_one_line(
    processes, executable, params, said, policy_at, tmp_path
):
    more = {"state_dir": str(tmp_path / "state"), "policy_dir": str(policy_at(tmp_path / "p"))}
    process = processes.start(executable, params | (more if executable == "policy_node" else {}))
    assert process.wait(timeout=300) == 2
    assert said in processes.said(executable)
    assert "Traceback" not in processes.said(executable)


@pytest.mark.parametrize("name", PYTHONS)
def test_the_robot_runs_without_torch(name, processes, watcher, policy_at, report_of, tmp_path):
    python = PYTHONS[name]
    if not python.exists():
        pytest.skip(f"no {python.parents[1].name}: `make robot-setup` makes it where Python is")
    policy, state = policy_at(tmp_path / "policy"), tmp_path / "state"
    env = dict(processes.env)
    if name != "this":  # two variables of the wheels' own bootstrap belong to one interpreter
        env = {k: v for k, v in env.items() if k not in _BOOTSTRAP}
    processes.start("sim_node", COUNTING)
    processes.start(
        "policy_node",
        {"policy_dir": str(policy), "state_dir": str(state)},
        python=python,
        before=("-c", NO_TORCH),
        env=env,
    )
    watcher.until(lambda: report_of(state / "status.json").get("steps_recorded", 0) > 20, "steps")
    assert processes.stop("policy_node") == 0
    assert "Traceback" not in processes.said("policy_node")


_BOOTSTRAP = ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")


def test_every_parameter_of_the_tables_is_described_and_ranged(watcher, monkeypatch):
    from rclpy.node import Node

    from wm_ros.parameters import params
    from wm_ros.settings import PolicySettings, SimSettings

    tables = ((PolicySettings, params.POLICY), (SimSettings, params.SIM))
    for model, table in tables:
        node = Node("described", context=watcher.context)
        params.declare(node, table)
        assert params.read(node, model) == model()
        for param in table:
            assert node.describe_parameter(param.name).description == param.text
        node.destroy_node()
    assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
