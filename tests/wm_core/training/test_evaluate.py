"""Returns and their bounds, and every kind of actor in one loop."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.training.collect import EnvAdapter, RandomActor
from wm_core.training.evaluate import Evaluation, ExpertActor, open_env, run_episodes
from wm_core.training.tasks import spec_of


def test_bounds_are_the_student_t_interval_of_the_mean():
    result = Evaluation((1.0, 2.0, 3.0, 4.0), (1, 1, 1, 1))
    low, high = result.bounds
    half = 3.182 * np.std([1, 2, 3, 4], ddof=1) / 2  # t for 3 degrees of freedom
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half))


def test_bounds_cover_the_true_mean_in_about_95_of_100_draws():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        low, high = Evaluation(tuple(rng.normal(5.0, 2.0, 10)), (1,) * 10).bounds
        inside += low <= 5.0 <= high
    assert 0.92 < inside / 400 < 0.98


def test_bounds_of_one_episode_are_infinite_and_null_in_json():
    result = Evaluation((3.0,), (7,))
    assert result.bounds == (-math.inf, math.inf)
    assert result.summary()["low"] is None


def test_expert_beats_random_on_the_same_episodes(toy):
    adapter, spec = open_env(toy, seed=3)
    expert = run_episodes(adapter, ExpertActor(adapter, spec), spec, episodes=5)
    adapter, spec = open_env(toy, seed=3)
    chance = RandomActor(spec.action, np.random.default_rng(0))
    random = run_episodes(adapter, chance, spec, episodes=5)
    assert expert.lengths == random.lengths == (20,) * 5
    assert expert.bounds[0] > random.bounds[1]


def test_same_seed_gives_the_same_episodes(toy):
    def run() -> tuple[float, ...]:
        adapter, spec = open_env(toy, seed=5)
        chance = RandomActor(spec.action, np.random.default_rng(1))
        return run_episodes(adapter, chance, spec, episodes=3).returns

    assert run() == run()


class Guess(gymnasium.Env):
    """Seen is the choice that pays; choices count from 4."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    action_space = spaces.Discrete(3, start=4)
    observation_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.wanted = 0, int(self.np_random.integers(3))
        return self.wanted, {}

    def step(self, action):
        assert isinstance(action, int)
        assert action in (4, 5, 6)
        reward, self.t = float(action - 4 == self.wanted), self.t + 1
        self.wanted = int(self.np_random.integers(3))
        return self.wanted, reward, False, self.t == 30, {}

    def expert_action(self):
        return 4 + self.wanted


def test_choices_reach_an_environment_as_its_own_integers():
    env = Guess()
    spec = spec_of(env)
    adapter = EnvAdapter(env, spec, np.random.default_rng(0))
    assert run_episodes(adapter, ExpertActor(adapter, spec), spec, episodes=2).returns == (
        30.0,
        30.0,
    )
    chance = RandomActor(spec.action, np.random.default_rng(0))
    assert 3 < run_episodes(adapter, chance, spec, episodes=4).mean < 17


def test_a_continuous_policy_is_refused_by_a_task_with_discrete_actions():
    wanted = Spec(
        images={},
        vectors={"vector": VectorSpec(size=4)},
        action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)),
    )
    with pytest.raises(SettingsError, match=r"expected 2 numbers, got 2 choices"):
        open_env("CartPole-v1", seed=0, spec=wanted)


def test_a_policy_with_inputs_that_the_task_lacks_is_refused(toy):
    _, spec = open_env(toy, seed=0)
    more = spec.model_copy(update={"vectors": {"lidar": spec.vectors["place"]}})
    with pytest.raises(SettingsError, match="lidar"):
        open_env(toy, seed=0, spec=more)


def test_a_policy_of_other_bounds_is_refused_though_the_shapes_fit(toy):
    """A policy of another task once scored on this one because both have two actions."""
    _, spec = open_env(toy, seed=0)
    action = spec.action.model_copy(update={"low": (-1.0,)})
    with pytest.raises(SettingsError, match=r"bounds of action 0: expected -1 \.\. 2, got -2"):
        open_env(toy, seed=0, spec=spec.model_copy(update={"action": action}))
