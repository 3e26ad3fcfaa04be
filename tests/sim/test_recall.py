"""The shuttle that remembers a colour: what it earns, and that nothing but a memory keeps it."""

import gymnasium
import numpy as np
import pytest

import sim
from sim.recall import CUE_STEPS, DELAY_STEPS, GO_STEPS, PLACE_M, SPEED_M_S, Recall
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env

pytestmark = pytest.mark.mujoco


@pytest.fixture
def make():
    made = []

    def make_task(**kwargs):
        made.append(gymnasium.make("sim:recall", **{"image_size": 16, **kwargs}))
        return made[-1]

    yield make_task
    for env in made:
        env.close()


def run(env, policy, seed):
    """The return of an episode of ``policy``, which gets the environment and its last image."""
    obs, _ = env.reset(seed=seed)
    total, truncated = 0.0, False
    while not truncated:
        obs, reward, terminated, truncated, _ = env.step(policy(env, obs["image"]))
        assert not terminated
        total += reward
    return total


def played(env, pays, actions):
    """Images (T + 1, H, W, 3) and rewards of an episode in which the side ``pays`` is set."""
    obs, _ = env.reset(seed=0)
    task = env.unwrapped
    task._pays = pays
    task._paint()
    images, rewards = [task._observe()["image"]], []
    for action in actions:
        obs, reward, *_ = env.step(np.array([action], np.float32))
        images.append(obs["image"])
        rewards.append(reward)
    return np.stack(images), rewards


@pytest.mark.parametrize("delay", [0, 6, 40])
def test_the_expert_earns_nearly_all_that_there_is(make, delay):
    env, expert = make(delay=delay), sim.expert("recall")
    returns = [run(env, lambda e, _: expert(e), seed) for seed in range(4)]
    assert min(returns) > 0.96 * GO_STEPS
    assert max(returns) <= GO_STEPS


def test_random_actions_earn_nearly_nothing(make):
    env, rng = make(), np.random.default_rng(0)
    returns = [
        run(env, lambda *_: rng.uniform(-SPEED_M_S, SPEED_M_S, 1), seed) for seed in range(30)
    ]
    assert abs(np.mean(returns)) < 0.1 * GO_STEPS


def go_left(env, image):
    """Whatever is seen."""
    return np.array([SPEED_M_S])


def go_by_the_panel(env, image):
    """To the side of the panel's colour for as long as it is there: to the right of white."""
    blue = int(image[4, 8, 2]) > int(image[4, 8, 0])
    return np.array([SPEED_M_S if blue else -SPEED_M_S])


def go_further(env, image):
    """Where the shuttle stands already, as one would who left a mark by where it waits."""
    return np.array([SPEED_M_S * np.sign(env.unwrapped.position)])


@pytest.mark.parametrize("policy", [go_left, go_by_the_panel, go_further])
def test_whoever_has_no_memory_gets_what_guessing_gets(make, policy):
    env = make()
    returns = [run(env, policy, seed) for seed in range(40)]
    assert abs(np.mean(returns)) < 0.25 * GO_STEPS  # sd of the mean is 0.16 of it
    assert min(returns) < -0.9 * GO_STEPS  # it goes somewhere, and half of that is wrong


def test_after_the_colour_nothing_seen_depends_on_it_until_a_place_is_reached(make):
    env = make(image_size=64, proprio=True)
    rng = np.random.default_rng(1)
    n = CUE_STEPS + DELAY_STEPS + 4
    actions = [*rng.uniform(-2, 2, n - 4), 2.0, 2.0, 2.0, 2.0]
    left, paid = played(env, 1, actions)
    right, cost = played(env, -1, actions)
    assert not np.array_equal(left[CUE_STEPS - 1], right[CUE_STEPS - 1])
    np.testing.assert_array_equal(left[CUE_STEPS:], right[CUE_STEPS:])
    assert abs(env.unwrapped.position) > 0.5  # it was under way, and not at a place yet
    assert paid == [-r for r in cost]
    assert sum(paid) > 3.0


def test_no_action_moves_the_shuttle_before_the_panel_is_white(make):
    env = make(delay=5, cue=3)
    env.reset(seed=4)
    task = env.unwrapped
    begin = task.position
    for action in np.random.default_rng(0).uniform(-2, 2, 8):
        assert not task.is_free
        _, reward, *_ = env.step(np.array([action]))
        assert (task.position, reward) == (begin, 0.0)
    assert task.is_free
    env.step(np.array([SPEED_M_S]))
    assert task.position > begin


@pytest.mark.parametrize("side", [-1, 1])
def test_a_place_keeps_the_shuttle_and_pays_or_costs_in_every_step(make, side):
    env = make(delay=0, image_size=64)
    away = [side * SPEED_M_S] * 8 + [-side * SPEED_M_S] * 4
    images, rewards = played(env, 1, away)
    assert rewards[-4:] == [float(side)] * 4
    assert abs(env.unwrapped.position) == pytest.approx(PLACE_M)
    seen = images[-1].astype(int)
    colour = (0, 1) if side == 1 else (1, 0)  # red, green
    for channel, there in enumerate(colour):
        strong = (seen[..., channel] > 120) & (seen[..., 1 - channel] < 90) & (seen[..., 2] < 90)
        assert strong.any() == bool(there)


def test_the_length_is_a_setting_of_the_command_line():
    env = make_env("recall", EnvConfig(kwargs={"delay": 3, "cue": 1}, image_size=16))
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(4 + GO_STEPS)]
    assert ends == [False] * (3 + GO_STEPS) + [True]
    env.close()


@pytest.mark.parametrize("wrong", [{"delay": -1}, {"delay": 1.5}, {"cue": 0}, {"cue": True}])
def test_a_length_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number"):
        Recall(**wrong)


def test_its_expert_refuses_other_tasks():
    with pytest.raises(TypeError, match="sim:recall"):
        sim.expert("recall")(gymnasium.Env())
