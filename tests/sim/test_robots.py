"""The simulated robots that files describe: checker, seeds, experts, several cameras."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import sim

pytestmark = [
    pytest.mark.mujoco,
    pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Box observation space m:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*It seems a Box observation space:UserWarning"),
]
#: return that the scripted expert reaches, and that a robot at rest does not
RETURN = {"diff_drive": 60.0, "planar_arm": 40.0, "walker": 6.0}


@pytest.fixture(params=sim.ROBOT_TASKS)
def robot(request):
    env = gymnasium.make(f"sim:{request.param}", render_mode="rgb_array")
    yield request.param, env
    env.close()


def test_every_robot_is_what_gymnasium_expects(robot):
    gymnasium_check(robot[1], skip_render_check=True)


def test_the_seed_alone_decides_what_happens(robot):
    _, env = robot
    space = env.action_space

    def played(seed: int):
        first, _ = env.reset(seed=seed)
        action = space.low + 0.6 * (space.high - space.low)
        return [first, *(env.step(action)[0] for _ in range(3))]

    one, again, other = played(1), played(1), played(2)
    for a, b in zip(one, again, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert any(not np.array_equal(one[-1][name], other[-1][name]) for name in one[-1])


def test_the_expert_does_the_task_and_rest_does_not(robot):
    name, env = robot
    expert = sim.expert(name)
    home = np.broadcast_to(
        np.array(env.metadata.get("action_home", 0.0), np.float32), env.action_space.shape
    )

    def returned(policy) -> float:
        env.reset(seed=0)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(policy(env))
            total, over = total + reward, terminated or truncated
        return total

    assert returned(expert) > RETURN[name]
    assert returned(lambda env: home) < 0.5 * RETURN[name]


def test_what_is_measured_has_a_name_for_each_number(robot):
    _, env = robot
    obs, _ = env.reset(seed=0)
    vectors = {name: value for name, value in obs.items() if value.ndim == 1}
    assert {name: len(names) for name, names in env.metadata["vector_names"].items()} == {
        name: value.size for name, value in vectors.items()
    }


def test_two_cameras_look_in_different_directions():
    env = gymnasium.make("sim:diff_drive", image_size=32)
    obs, _ = env.reset(seed=0)
    env.close()
    assert obs["front"].shape == obs["rear"].shape == (32, 32, 3)
    assert not np.array_equal(obs["front"], obs["rear"])


def test_a_robot_without_a_camera_renders_nothing():
    env = gymnasium.make("sim:walker", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    assert env.render() is None
