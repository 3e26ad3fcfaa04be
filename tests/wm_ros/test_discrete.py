"""Policies that choose: over real topics, in what is recorded, and when the robot must stop."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.wm_ros.conftest import steps_in
from wm_core.contract.spec import ActionSpec, VectorSpec
from wm_ros.convert import to_ns

pytestmark = pytest.mark.ros

NAMES = ("stop", "forward", "left", "right")


def choices_in(spool):
    """Every step in the chunks of a spool, in order; each holds exactly one choice."""
    steps = steps_in(spool)
    for step in steps:
        assert sorted(step.action.tolist()) == [0.0] * (step.action.size - 1) + [1.0]
    return steps


def stamp_of(message) -> int:
    return to_ns(message.header.stamp)


def check_sent(messages, steps) -> None:
    """What was published for a frame, by its stamp, is what was recorded with it."""
    recorded = {s.stamp_ns: int(s.action.argmax()) for s in steps}
    pairs = [(m, recorded[stamp_of(m)]) for m in messages if stamp_of(m) in recorded]
    assert pairs
    for message, index in pairs:
        assert list(message.position) == [index]
        assert list(message.name) == [NAMES[index]]


@pytest.fixture
def drive(processes, watcher, report_of, tmp_path):
    """Runs a task under a policy until so many steps were recorded; (steps, choices, status)."""
    from sensor_msgs.msg import JointState

    def run(task, count, **policy):
        state, chosen = tmp_path / "state", watcher.listen(JointState, "choice")
        rewards = watcher.listen(JointState, "reward")  # of every frame, with its stamp
        params = {"policy_dir": str(tmp_path / "policy"), "state_dir": str(state)}
        processes.start("sim_node", {"command_type": "index", **task})
        acts = {"command_type": "index", "exploration": "sample"}
        processes.start("policy_node", {**acts, **params, **policy})
        report = state / "status.json"
        watcher.until(
            lambda: chosen and report_of(report).get("steps_recorded", 0) >= count,
            f"{count} steps",
        )
        assert processes.stop("policy_node") == 0
        watcher.until(lambda: stamp_of(chosen[-1]) not in map(stamp_of, rewards), "the last one")
        assert processes.stop("sim_node") == 0
        return choices_in(state / "spool"), chosen, report_of(report)

    return run


def test_each_reward_is_the_choice_that_was_sent_before_it(drive, policy_at, choosing, tmp_path):
    policy_at(tmp_path / "policy", spread=1.0, spec=choosing())
    task = {"task": "counting_task:Choosing-v0"}
    steps, sent, status = drive(task, 60)
    for before, step in itertools.pairwise(steps):
        if not step.is_first:
            assert step.reward == before.action.argmax()
    assert len({int(s.action.argmax()) for s in steps}) == 4
    check_sent(sent, steps)
    assert status["ticks"] >= len(steps)
    assert sent[-1].position[0] == 0.0  # zero: the choice that stops


def test_hold_repeats_the_last_choice_when_the_node_stops(drive, policy_at, choosing, tmp_path):
    policy_at(tmp_path / "policy", bias=[0, 0, 0, 1], spec=choosing())
    _, sent, _ = drive({"task": "counting_task:Choosing-v0"}, 10, safe_action="hold")
    assert (sent[-1].position[0], sent[-1].name[0]) == (3.0, "right")


@pytest.mark.mujoco
def test_a_policy_that_chooses_drives_the_robot_that_seeks(drive, policy_at, choosing, tmp_path):
    policy_at(
        tmp_path / "policy", bias=[0, 1, 0, 0], spread=1.0, spec=choosing(64, 0.1), task="seek"
    )
    fast = {"rate_factor": 2.0, "use_sim_time": True}
    task = {"task": "seek_discrete", **fast}
    steps, sent, _ = drive(task, 60, use_sim_time=True, exploration_noise=0.3, random_prefill=8)
    assert {s.policy_version for s in steps} == {-1, 0}
    chosen = [int(s.action.argmax()) for s in steps]
    assert len(set(chosen)) == 4  # the noise and the prefill choose what the policy would not
    assert chosen.count(1) > len(chosen) / 2
    assert all(sorted(s.requested_action.tolist()) == [0, 0, 0, 1] for s in steps)
    check_sent(sent, steps)
    moved = [
        np.abs(a.obs["image"].astype(int) - b.obs["image"]).mean()
        for a, b in itertools.pairwise(steps)
        if not b.is_first and a.action[1]
    ]
    assert np.median(moved) > 0.5


@pytest.mark.parametrize("view", ["pixels", "both"])
def test_a_task_that_is_rendered_is_driven_by_its_picture_and_its_vector(
    drive, policy_at, choosing, tmp_path, view
):
    felt = {"proprio": VectorSpec(size=2)} if view == "both" else {}
    change = {"action": ActionSpec.choices(2), "vectors": felt}
    policy_at(tmp_path / "policy", bias=[0, 1], spec=choosing().model_copy(update=change))
    steps, sent, _ = drive({"task": f"counting_task:Plain-v0@{view}"}, 10)
    assert {int(s.obs["image"].max()) for s in steps} == {9}  # (48, 40, 3), cropped and reduced
    assert all(s.obs["proprio"].tolist() in ([0.5, 0.5], [0.25, 0.25]) for s in steps if felt)
    assert {s.action[1] for s in steps} == {1.0}
    assert {m.name[0] for m in sent} <= {"choice_0", "choice_1"}  # the first and last are safe


@pytest.mark.parametrize(
    ("executable", "said"), [("sim_node", "of task"), ("policy_node", "of the policy")]
)
def test_a_command_type_that_carries_no_choice_is_refused(
    processes, policy_at, choosing, tmp_path, executable, said
):
    policy_at(tmp_path / "policy", spec=choosing())
    params = {
        "sim_node": {"task": "counting_task:Choosing-v0"},
        "policy_node": {"policy_dir": str(tmp_path / "policy"), "state_dir": str(tmp_path)},
    }
    process = processes.start(executable, params[executable])
    assert process.wait(timeout=300) != 0
    assert "command_type is twist_stamped" in processes.said(executable)
    assert said in processes.said(executable)


def test_a_task_that_shows_no_image_or_does_not_exist_is_refused(monkeypatch):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    from wm_core.contract.errors import SettingsError
    from wm_ros.sim_node import make_task

    monkeypatch.syspath_prepend(Path(__file__).parent)
    for name, said in (
        ("counting_task:Plain-v0@film", "expected @pixels or @both"),
        ("counting_task:Plain-v0", "expected observations with 'image'"),
        ("FrozenLake-v7", "cannot be made"),
    ):
        with pytest.raises(SettingsError, match=said):
            make_task(name, 64, False, "{}")
