"""Every task by name: Gymnasium's own checker, our conformance kit, seeds, repeats and ends."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check

import sim
from sim.seek import EPISODE_STEPS, Seek
from wm_core.contract.conformance import check_env

pytestmark = [
    pytest.mark.mujoco,
    # The checker would rather have normalised actions and bounded measurements; ours are physical.
    pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*Box observation space m:UserWarning"),
]


@pytest.fixture
def make():
    made = []

    def make_task(name, **kwargs):
        made.append(gymnasium.make(f"sim:{name}", **kwargs))
        return made[-1]

    yield make_task
    for env in made:
        env.close()


def images(env, seed, steps=3):
    obs, _ = env.reset(seed=seed)
    space = env.action_space
    choice = isinstance(space, gymnasium.spaces.Discrete)
    action = 1 if choice else space.low + 0.7 * (space.high - space.low)
    taken = [obs["image"]]
    taken += [env.step(action)[0]["image"] for _ in range(steps)]
    return np.stack(taken)


@pytest.mark.parametrize("name", sim.TASKS)
def test_every_task_is_what_gymnasium_and_training_expect(make, name):
    env = make(name, proprio=True, render_mode="rgb_array")
    gymnasium_check(env)
    check_env(env, steps=10)


@pytest.mark.parametrize("name", sim.TASKS)
def test_the_seed_alone_decides_what_is_seen(make, name):
    env, twin = make(name), make(name)
    first = images(env, seed=1)
    np.testing.assert_array_equal(first, images(twin, seed=1))
    np.testing.assert_array_equal(first, images(env, seed=1))
    assert not np.array_equal(first, images(env, seed=2))


def test_an_unseeded_reset_goes_on_where_the_seed_left_off(make):
    env, twin = make("seek"), make("seek")
    env.reset(seed=3), twin.reset(seed=3)
    second, same = env.reset()[0]["image"], twin.reset()[0]["image"]
    np.testing.assert_array_equal(second, same)
    assert not np.array_equal(second, env.reset()[0]["image"])


@pytest.mark.parametrize("name", ["cartpole_swingup", "seek"])
def test_repeating_an_action_equals_giving_it_again(make, name):
    once, thrice = make(name, action_repeat=1), make(name, action_repeat=3)
    once.reset(seed=0), thrice.reset(seed=0)
    action = thrice.action_space.high
    obs, total, *_ = thrice.step(action)
    singles = [once.step(action) for _ in range(3)]
    np.testing.assert_array_equal(obs["image"], singles[-1][0]["image"])
    assert total == pytest.approx(sum(single[1] for single in singles))
    assert once.metadata["render_fps"] == pytest.approx(3 * thrice.metadata["render_fps"])


@pytest.mark.parametrize(
    ("name", "agent_steps"), [("pendulum_swingup", 500), ("seek", EPISODE_STEPS)]
)
def test_an_episode_is_truncated_once_and_never_terminates(make, name, agent_steps):
    env = make(name, image_size=16)
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    ends = [env.step(action)[2:4] for _ in range(agent_steps)]
    assert ends == [(False, False)] * (agent_steps - 1) + [(False, True)]
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


def test_a_limit_within_a_repeat_ends_the_episode_there(make):
    env = make("seek", image_size=16, action_repeat=EPISODE_STEPS - 1)
    env.reset(seed=0)
    assert env.step(env.action_space.low)[3] is False
    assert env.step(env.action_space.low)[3] is True


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([np.nan, 0.0]), np.zeros((2, 1))])
def test_an_action_of_wrong_shape_or_not_finite_is_refused(make, bad):
    env = make("seek", image_size=16)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected \\(2,\\) finite numbers"):
        env.step(bad)


@pytest.mark.parametrize(
    "setting", [{"action_repeat": 0}, {"image_size": 4}, {"render_mode": "human_array"}]
)
def test_a_setting_that_is_not_allowed_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Seek(**setting)


def test_measurements_come_only_when_asked_for(make):
    assert set(make("walker_walk").observation_space) == {"image"}
    obs, _ = make("walker_walk", proprio=True).reset(seed=0)
    assert obs["proprio"].shape == (24,)
    assert obs["proprio"].dtype == np.float32


def test_names_are_known_before_mujoco_is_loaded():
    code = "import sim, sys; assert len(sim.TASKS) == 23; assert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
