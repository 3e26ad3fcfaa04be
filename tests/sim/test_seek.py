"""The robot that seeks the pillar: what it earns, where it can go and what it sees."""

import gymnasium
import numpy as np
import pytest

import sim
from sim.seek import (
    APART_M,
    ARENA_M,
    CHOICES,
    CONTROL_S,
    EPISODE_STEPS,
    FORWARD_M_S,
    REACHED_M,
    REACHED_REWARD,
    Seek,
)

pytestmark = pytest.mark.mujoco


@pytest.fixture
def env():
    env = gymnasium.make("sim:seek", proprio=True)
    yield env
    env.close()


def run(env, policy, seed):
    env.reset(seed=seed)
    total, truncated = 0.0, False
    while not truncated:
        _, reward, _, truncated, info = env.step(policy(env))
        total += reward
    return total, info["reached"]


def test_the_expert_earns_much_in_every_episode_and_random_actions_nearly_nothing(env):
    expert = sim.expert("seek")
    rng = np.random.default_rng(0)
    low, high = env.action_space.low, env.action_space.high
    best = [run(env, expert, seed) for seed in range(6)]
    blind = [run(env, lambda _: rng.uniform(low, high), seed)[0] for seed in range(6)]
    assert (
        min(total for total, _ in best) > 0.55 * EPISODE_STEPS
    )  # of about 1 per step at full speed
    assert min(reached for _, reached in best) >= 3
    assert abs(np.mean(blind)) < 0.15 * EPISODE_STEPS


def test_reward_is_the_distance_covered_towards_the_pillar(env):
    seek = env.unwrapped
    env.reset(seed=0)
    full_step_m = FORWARD_M_S[1] * CONTROL_S
    for _ in range(50):
        before = np.linalg.norm(seek.pose[:2] - seek.target)
        target = seek.target
        _, reward, _, _, info = env.step(env.action_space.sample())
        if info["reached"]:
            break
        after = np.linalg.norm(seek.pose[:2] - target)
        assert reward == pytest.approx((before - after) / full_step_m)
        assert abs(reward) < 1.1


def test_a_reached_pillar_pays_and_appears_elsewhere(env):
    seek, expert = env.unwrapped, sim.expert("seek")
    env.reset(seed=0)
    info = {"reached": 0}
    while not info["reached"]:
        old = seek.target
        _, reward, _, _, info = env.step(expert(env))
    assert np.linalg.norm(seek.pose[:2] - old) < REACHED_M
    assert reward > REACHED_REWARD
    assert np.linalg.norm(seek.pose[:2] - seek.target) >= APART_M


@pytest.mark.parametrize("turn", [-0.4, 0.0, 0.4])
def test_walls_hold_the_robot(env, turn):
    env.reset(seed=1)
    for _ in range(EPISODE_STEPS):
        env.step(np.array([FORWARD_M_S[1], turn], np.float32))
        assert np.abs(env.unwrapped.pose[:2]).max() < ARENA_M


def test_the_robot_moves_as_commanded_and_never_sideways(env):
    env.reset(seed=2)
    seek = env.unwrapped
    seek._data.qpos[:] = 0.0  # in the middle, looking along x
    for _ in range(15):
        obs, *_ = env.step(np.array([0.5, 0.0], np.float32))
    assert obs["proprio"] == pytest.approx([0.5, 0.0], abs=0.02)
    x, y, heading = seek.pose
    assert 0.2 < x < 0.5 * 15 * CONTROL_S
    assert [y, heading] == pytest.approx([0.0, 0.0], abs=1e-3)
    for _ in range(15):
        obs, *_ = env.step(np.array([0.0, 1.5], np.float32))
    assert obs["proprio"] == pytest.approx([0.0, 1.5], abs=0.05)
    assert seek.pose[2] > 0.5


def test_the_pillar_is_seen_where_it_stands(env):
    def red_columns(image):
        r, g, b = image.astype(int).transpose(2, 0, 1)
        return np.flatnonzero(((r > 120) & (g < 80) & (b < 80)).any(0))

    env.reset(seed=0)
    seek = env.unwrapped
    still = np.array([0.0, 0.0], np.float32)
    for target, where in (((1.0, 0.0), (28, 36)), ((1.0, 0.6), (0, 26)), ((1.0, -0.6), (38, 64))):
        seek._data.qpos[:], seek._data.qvel[:] = 0.0, 0.0
        seek._data.mocap_pos[0, :2] = target
        seen = red_columns(env.step(still)[0]["image"])
        assert seen.size > 4
        assert where[0] <= seen.mean() <= where[1]
    seek._data.mocap_pos[0, :2] = -1.0, 0.0  # behind
    assert red_columns(env.step(still)[0]["image"]).size == 0


def test_the_view_from_above_shows_the_same_scene():
    env = gymnasium.make("sim:seek", view="overhead", image_size=128)
    obs, _ = env.reset(seed=0)
    assert obs["image"].shape == (128, 128, 3)
    assert obs["image"].std() > 10
    env.close()


@pytest.fixture
def choosing():
    env = gymnasium.make("sim:seek_discrete", proprio=True, image_size=16)
    yield env
    env.close()


def test_each_choice_moves_the_robot_as_it_says(choosing, env):
    assert choosing.metadata["action_names"] == ("stop", "forward", "left", "right")
    choosing.reset(seed=2), env.reset(seed=2)
    for index, command in enumerate(CHOICES.values()):
        for _ in range(4):
            felt = choosing.step(index)[0]["proprio"]
            same = env.step(np.array(command, np.float32))[0]["proprio"]
            np.testing.assert_allclose(felt, same, atol=1e-6)
    assert next(iter(CHOICES.values())) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [4, -1, 1.5, np.array([1.0, 0.0])])
def test_an_action_that_is_not_one_of_the_choices_is_refused(choosing, bad):
    choosing.reset(seed=0)
    with pytest.raises(ValueError, match="expected an index below 4"):
        choosing.step(bad)


def test_the_expert_that_chooses_earns_much_in_every_episode(choosing):
    expert = sim.expert("seek_discrete")
    best = [run(choosing, expert, seed) for seed in range(6)]
    assert min(total for total, _ in best) > 0.5 * EPISODE_STEPS
    assert min(reached for _, reached in best) >= 3


def test_some_tasks_have_an_expert_which_refuses_other_tasks():
    assert sim.expert("walker_walk") is None
    with pytest.raises(TypeError, match="sim:seek"):
        sim.expert("seek")(gymnasium.Env())
    assert issubclass(Seek, gymnasium.Env)
