"""The documented way to bring a task of one's own, walked by a test."""

import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

from wm_core.contract.conformance import check_env

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def corridor(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    env = gymnasium.make("own_task:Corridor-v0")
    yield env
    env.close()


def episode_return(env, seed, policy):
    env.reset(seed=seed)
    steps = [env.step(policy(env)) for _ in range(25)]
    assert [truncated for *_, truncated, _ in steps] == [False] * 24 + [True]
    return sum(reward for _, reward, *_ in steps)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version:UserWarning")
def test_a_module_of_ones_own_is_a_task_by_its_name(corridor):
    gymnasium_check(corridor.unwrapped, skip_render_check=True)
    check_env(corridor, steps=60)


def test_light_is_at_either_end_and_visible(corridor):
    seen = set()
    for seed in range(20):
        obs, _ = corridor.reset(seed=seed)
        half = obs["image"].shape[1] // 2
        left, right = obs["image"][0, :half].mean(), obs["image"][0, half:].mean()
        assert (right > left) == (corridor.unwrapped.lit_side > 0)
        seen.add(corridor.unwrapped.lit_side)
    assert seen == {-1, 1}


def test_looking_pays_and_not_looking_does_not(corridor):
    def looking(env):
        return np.array([3.0 * env.unwrapped.lit_side], np.float32)

    def to_the_right(env):
        return np.array([3.0], np.float32)

    best = [episode_return(corridor, seed, looking) for seed in range(20)]
    blind = [episode_return(corridor, seed, to_the_right) for seed in range(20)]
    assert min(best) > 22.0
    assert abs(np.mean(blind)) < 12.0


def test_wm_tasks_describes_it_by_its_name():
    paths = [str(EXAMPLES), str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "wm_core.cli", "tasks", "own_task:Corridor-v0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "speed" in done.stdout
