"""The bag of the tutorial becomes, by the tutorial's robot file, what the simulator did."""

import importlib.util
import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import sim
from wm_core.recordings.options import ReadOptions
from wm_ros.recorded.reader import open_source

pytestmark = pytest.mark.mujoco

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs" / "tutorials" / "my_bag.md").read_text()
SEED = 3


def example():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(
        "record_bag", ROOT / "examples" / "record_bag.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def driven(steps):
    """The rewards of the simulator under the actions of ``steps``, which have to be its own."""
    env = gymnasium.make("sim:seek", image_size=96)
    env.reset(seed=SEED)
    low, high = env.action_space.low, env.action_space.high
    rewards = [0.0]
    for step in steps[:-1]:
        command = low + (step.action + 1) / 2 * (high - low)
        rewards.append(env.step(command.astype(np.float32))[1])
    env.close()
    return rewards


def test_rewards_actions_and_episodes_of_the_bag_are_those_of_the_simulator(tmp_path):
    assert sim.expert("seek") is not None
    frames = example().record(tmp_path / "bag", 2, SEED)
    (text,) = re.findall(r"```yaml\n(robot: .*?)```", TUTORIAL, re.DOTALL)
    (tmp_path / "robot.yaml").write_text(text)
    source = open_source(tmp_path / "bag", ReadOptions(robot=tmp_path / "robot.yaml"))
    first, second = [list(episode) for episode in source.episodes()]
    assert len(first) + len(second) == frames
    assert first[-1].is_last
    assert not first[-1].is_terminal
    assert source.left_out == {}
    expected = driven(first)
    got = [step.reward for step in first]
    np.testing.assert_allclose(got[:20], expected[:20], atol=1e-4)
    assert {step.obs["image"].shape for step in first} == {(64, 64, 3)}
