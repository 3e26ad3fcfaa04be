"""Nodes as processes over real rclpy: camera to command, new policies, and what is recorded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.wm_ros.conftest import steps_in

pytestmark = pytest.mark.ros

ROOT = Path(__file__).parents[2]
COUNTING = {"task": "counting_task:Counting-v0"}
EPISODE_STEPS = 12


def pairs_in(steps):
    """Each step with the one that it led to."""
    return [(a, b) for a, b in itertools.pairwise(steps) if not b.is_first]


def check_alignment(steps) -> None:
    """Each reward is the action before it, each image one step on, each end an end."""
    for before, step in itertools.pairwise(steps):
        assert step.stamp_ns > before.stamp_ns
        assert step.is_first == before.is_last
    for before, step in pairs_in(steps):
        sent = -0.5 + (before.action[0] + 1) / 2 * 1.5
        assert step.reward == pytest.approx(sent, abs=1e-5) or not step.is_valid
        assert step.obs["image"][0, 0, 0] == before.obs["image"][0, 0, 0] + 1
        assert step.obs["image"][0, 0, 1] == before.obs["image"][0, 0, 1]
    assert all(s.reward == 0.0 for s in steps if s.is_first and s.is_valid)


def check_accounts(status: dict) -> None:
    """Every tick's step is stored or counted by reason."""
    ticks = status["ticks"] + status["safe_ticks"]
    assert ticks == status["steps_recorded"] + sum(status["dropped"].values())
    assert status["steps_held"] == 0


@pytest.fixture
def recorded(watcher, report_of, tmp_path):
    """Waits until the policy node has recorded so many steps."""

    def wait(count: int) -> None:
        path = tmp_path / "state" / "status.json"
        watcher.until(lambda: report_of(path).get("steps_recorded", 0) >= count, f"{count} steps")

    return wait


def test_recorded_steps_hold_the_action_that_led_to_the_next_reward(
    processes, recorded, policy_at, report_of, tmp_path
):
    state = tmp_path / "state"
    policy_at(tmp_path / "policies" / "00000000", spread=1.5)
    processes.start("sim_node", COUNTING)
    processes.start(
        "policy_node", {"policy_dir": str(tmp_path / "policies"), "state_dir": str(state)}
    )
    recorded(160)
    assert processes.stop("policy_node") == 0
    assert processes.stop("sim_node") == 0
    steps, status = steps_in(state / "spool"), report_of(state / "status.json")
    assert len(steps) == status["steps_recorded"]
    check_alignment(steps)
    check_accounts(status)
    assert len(pairs_in(steps)) > 20
    for step in steps:
        np.testing.assert_array_equal(step.requested_action, step.action)
    ends = [s for s in steps if s.is_last and s.obs["image"][0, 0, 0] == EPISODE_STEPS]
    assert ends
    assert all(s.is_terminal == (s.obs["image"][0, 0, 1] % 2 == 1) for s in ends)
    ticks = report_of(state / "ticks.json")
    assert ticks["ticks"] == status["ticks"]
    assert len(steps) <= sum(ticks["histograms"]["tick_ms"]["counts"]) <= ticks["ticks"]


def test_new_policies_reach_the_running_robot_and_damaged_ones_do_not(
    processes, watcher, recorded, policy_at, damaged, report_of, tmp_path
):
    from geometry_msgs.msg import TwistStamped

    state, policies = tmp_path / "state", tmp_path / "policies"
    commands = watcher.listen(TwistStamped, "cmd_vel")
    policy_at(policies / "00000000", bias=0.0)
    processes.start("sim_node", COUNTING)
    processes.start("policy_node", {"policy_dir": str(policies), "state_dir": str(state)})
    recorded(20)

    def reaches(forward: float) -> None:
        watcher.until(
            lambda: commands and abs(commands[-1].twist.linear.x - forward) < 1e-5,
            f"speed {forward}",
        )

    reaches(0.25)
    damaged(policies / "00000000", policies / "00000001")
    watcher.until(
        lambda: report_of(state / "status.json").get("policies_refused") == 1, "a refusal"
    )
    reaches(0.25)
    policy_at(policies / "00000002", version=2, bias=0.5, learner_updates=70)
    reaches(0.625)
    processes.stop("policy_node")
    processes.stop("sim_node")
    status = report_of(state / "status.json")
    assert (status["swaps"], status["policy_version"]) == (1, 2)
    assert "expected sha256" in status["refusals"][0]
    assert "refused" in processes.said("policy_node")
    swap = json.loads((state / "swaps.jsonl").read_text().splitlines()[-1])
    assert swap["version"] == 2
    assert swap["mode"] in ("reinfer", "border")  # an episode may have begun at that very tick
    steps = steps_in(state / "spool")
    check_alignment(steps)
    assert {s.policy_version for s in steps} == {0, 2}
    border = [(a, b) for a, b in pairs_in(steps) if (a.policy_version, b.policy_version) == (0, 2)]
    assert border or any(s.is_first and s.policy_version == 2 for s in steps)


def test_under_simulated_time_every_frame_is_answered(
    processes, recorded, policy_at, report_of, tmp_path
):
    state = tmp_path / "state"
    policy_at(tmp_path / "policy", spread=1.5)
    fast = {**COUNTING, "rate_factor": 4.0, "use_sim_time": True}
    processes.start("sim_node", {**fast, "task_kwargs": '{"bad_reward_at": 7}'})
    processes.start(
        "policy_node",
        {"policy_dir": str(tmp_path / "policy"), "state_dir": str(state), "use_sim_time": True},
    )
    recorded(300)
    processes.stop("policy_node")
    processes.stop("sim_node")
    steps, status = steps_in(state / "spool"), report_of(state / "status.json")
    check_alignment(steps)
    check_accounts(status)
    breaks = status["breaks"]
    assert breaks.get("gap", 0) + breaks.get("unanswered", 0) < 0.1 * status["ticks"]
    invalid = [s for s in steps if not s.is_valid]
    assert len(invalid) == status["steps_invalid"] > 10
    assert all(np.isnan(s.reward) and s.obs["image"][0, 0, 0] == 7 for s in invalid)


def test_large_frames_arrive_best_effort_with_the_shipped_profile(
    processes, recorded, policy_at, report_of, tmp_path
):
    state = tmp_path / "state"
    policy_at(tmp_path / "policy")
    processes.env["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(ROOT / "launch" / "fastdds.xml")
    processes.start("sim_node", {**COUNTING, "task_kwargs": '{"size": 512}'})  # 786 KB a frame
    processes.start(
        "policy_node", {"policy_dir": str(tmp_path / "policy"), "state_dir": str(state)}
    )
    recorded(60)
    processes.stop("policy_node")
    status = report_of(state / "status.json")
    assert status["frames"] > 60
    # Rewards travel reliably, one for each frame.  Without the profile fewer than a quarter of the
    # frames arrive; with it a busy machine lets newer frames replace some.
    assert status["frames"] > 0.4 * status["signals"]
