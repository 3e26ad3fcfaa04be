"""Whole episodes by every kind of actor, one after the other or side by side."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.presets.micro import changed
from wm_core.training.collect import EnvAdapter, RandomActor
from wm_core.training.evaluate import open_env, run_episodes
from wm_core.training.players import AgentPlayer, ExpertPlayer, Player, RandomPlayer
from wm_core.training.tasks import spec_of


def test_expert_beats_random_on_the_same_episodes(toy):
    adapter, spec = open_env(toy, seed=3)
    expert = run_episodes(adapter, ExpertPlayer(adapter, spec), spec, episodes=5, seed=3)
    random = run_episodes(adapter, RandomPlayer(spec.action), spec, episodes=5, seed=3)
    assert [e.seed for e in expert.episodes] == [e.seed for e in random.episodes]
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
    assert run_episodes(adapter, ExpertPlayer(adapter, spec), spec, episodes=2).returns == (
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
    with pytest.raises(SettingsError, match=r"expected 2 actions, got 2 choices"):
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


class Odd(gymnasium.Env):
    """Ends after ``length`` steps or never; says what ``told`` and pays what ``pays`` say."""

    metadata = {"render_fps": 10}  # noqa: RUF012
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, length=None, told=None, pays=(1.0,), shows=(0.0,)):
        self.length, self.told, self.pays, self.shows = length, told or [], pays, shows

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.place = 0, float(self.np_random.uniform())
        return self._obs(), {}

    def step(self, action):
        assert np.isfinite(action).all()
        self.t += 1
        reward = self.pays[self.t % len(self.pays)] + 0.01 * float(action[0]) + self.place
        info = self.told[self.t % len(self.told)] if self.told else {}
        return self._obs(), reward, False, self.t == self.length, info

    def _obs(self):
        shown = self.shows[self.t % len(self.shows)]
        return np.array([shown, self.place], np.float32)


def opened(count=1, **settings):
    """Adapters of so many odd environments, and their spec."""
    envs = [Odd(**settings) for _ in range(count)]
    spec = spec_of(envs[0])
    return [EnvAdapter(env, spec, np.random.default_rng(0)) for env in envs], spec


def test_an_episode_without_an_end_is_cut_counted_and_said():
    adapters, spec = opened()
    player = RandomPlayer(spec.action)
    result = run_episodes(adapters, player, spec, episodes=2, seed=0, max_steps=30)
    assert result.lengths == (30, 30)
    assert result.cut == 2
    assert result.summary()["endings"] == {"terminated": 0, "truncated": 0, "cut": 2}
    assert "2 of 2 episodes were cut after 30 steps" in result.notes[0]


def test_an_episode_without_an_end_can_be_stopped_at_every_step():
    adapters, spec = opened(2)
    asked = iter(range(100))
    result = run_episodes(
        adapters,
        RandomPlayer(spec.action),
        spec,
        episodes=5,
        seed=0,
        stop=lambda: next(asked) == 12,
    )
    assert result.returns == ()
    assert [adapter.env.t for adapter in adapters] == [12, 12]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_same_episodes_are_played_however_many_act_side_by_side(count):
    (one,), spec = opened(length=7)
    alone = run_episodes(one, RandomPlayer(spec.action), spec, episodes=5, seed=4)
    adapters, _ = opened(count, length=7)
    beside = run_episodes(adapters, RandomPlayer(spec.action), spec, episodes=5, seed=4)
    assert beside.episodes == alone.episodes
    assert len({*alone.returns}) == 5
    other = run_episodes(one, RandomPlayer(spec.action), spec, episodes=5, seed=5)
    assert not {*other.returns} & {*alone.returns}


SMALL = {
    "world": {
        "units": 8,
        "gru": {"deter": 16, "hidden": 8, "blocks": 2},
        "categorical": {"groups": 4, "classes": 4},
        "heads": {"bins": 11},
    }
}


def test_a_training_network_plays_the_same_episodes_side_by_side():
    """Several rows are one batch, but each draws from its own generator."""
    _, spec = opened(length=9)
    config = changed(presets.make("dreamer_v3", "micro"), **SMALL)
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    results = []
    for count in (1, 3):
        adapters, _ = opened(count, length=9)
        player = AgentPlayer(agent, count, mean=False)
        results.append(run_episodes(adapters, player, spec, episodes=4, seed=1))
    np.testing.assert_allclose(results[0].returns, results[1].returns, rtol=1e-4)
    assert len({round(r, 3) for r in results[0].returns}) == 4


def test_side_by_side_the_short_episodes_do_not_count_for_more():
    adapters, spec = opened(2, length=3)
    adapters[1].env.length = 30
    result = run_episodes(adapters, RandomPlayer(spec.action), spec, episodes=4, seed=0)
    assert sorted(result.lengths) == [3, 3, 3, 30]


@pytest.mark.parametrize(
    ("told", "success", "once"),
    [
        ([{"success": True}], True, True),
        ([{"is_success": np.float32(0.0)}], False, False),
        ([{"success": np.array([1.0])}], True, True),
        ([{"success": 1.0}, {"success": 0.0}], False, True),  # it is lost in the end
        ([{"success": "yes"}], None, None),
        ([{}], None, None),
    ],
)
def test_success_is_what_the_environment_said_last(told, success, once):
    adapters, spec = opened(length=3, told=told)
    result = run_episodes(adapters, RandomPlayer(spec.action), spec, episodes=2, seed=0)
    assert {e.success for e in result.episodes} == {success}
    assert {e.success_once for e in result.episodes} == {once}
    assert (result.success is None) == (success is None)


def test_numbers_that_are_not_finite_are_counted_and_leave_the_mean_finite():
    adapters, spec = opened(length=10, pays=(1.0, 1.0, np.nan, 1.0, np.inf))
    result = run_episodes(adapters, RandomPlayer(spec.action), spec, episodes=2, seed=0)
    assert np.isfinite(result.mean)
    assert result.unusable == 2 * 4
    assert "8 of 20 steps" in result.notes[0]


def test_an_action_that_is_not_finite_is_never_sent():
    class Broken(Player):
        def act(self, obs, prev_action, is_first):
            return np.full_like(prev_action, np.nan)

    adapters, spec = opened(length=4)  # whose step() would refuse it
    result = run_episodes(adapters, Broken(), spec, episodes=1, seed=0)
    assert result.unusable == 4
