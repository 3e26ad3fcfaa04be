"""An agent from Python: it learns, acts, is saved, exported, and the same seed gives the same."""

import gymnasium
import numpy as np
import pytest
import torch

import wm_core as wm
from wm_core.world.latent import to_device

#: next to no network
TINY = {
    "world": {"encoder": {"depth": 2}, "units": 16, "heads": {"bins": 41}},
    "behavior": {"imag_starts": 8, "imag_horizon": 3},
    "optim": {"lr": 1e-3, "warmup": 5},
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    shape = (4, 12)
    image = np.zeros((*shape, 64, 64, 3), np.uint8)
    image[:, :, 20:40, :20] = 255
    action = rng.uniform(-1, 1, (*shape, 2)).astype(np.float32)
    return wm.Episodes.from_arrays(image=image, action=action, reward=np.zeros(shape))


def make(data, **settings):
    return wm.Agent.create("dreamer_v3", data.spec, seed=3, **TINY | settings)


def test_it_learns_what_it_is_shown_and_repeats_itself(data):
    def losses(agent):
        return [
            agent.update(batch)["loss"]
            for batch in data.windows(batch=2, length=6, updates=12, seed=1)
        ]

    first, again = losses(make(data)), losses(make(data))
    assert first == again
    assert np.mean(first[-3:]) < np.mean(first[:3])


def test_tensors_and_arrays_are_taken_alike(data):
    (batch,) = data.windows(batch=2, length=6, updates=1)
    assert make(data).update(batch) == make(data).update(to_device(batch))


def test_nothing_is_drawn_from_the_global_generators(data):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    agent = make(data)
    (batch,) = data.windows(batch=2, length=6, updates=1)
    agent.update(batch)
    agent.act(data.spec.zeros(), is_first=True)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002


def test_a_saved_agent_goes_on_exactly(data, tmp_path):
    agent = make(data)
    first, second = data.windows(batch=2, length=6, updates=2)
    agent.update(first)
    agent.save(tmp_path / "agent.pt")
    loaded = wm.Agent.load(tmp_path / "agent.pt")
    assert (loaded.config, loaded.spec, loaded.updates) == (agent.config, agent.spec, 1)
    assert loaded.update(second) == agent.update(second)
    obs = data.spec.zeros()
    np.testing.assert_array_equal(loaded.act(obs, is_first=True), agent.act(obs, is_first=True))


def test_acting_remembers_the_episode_until_the_next_begins(data):
    agent, obs = make(data), data.spec.zeros()

    def episode():
        return [agent.act(obs, is_first=t == 0, mean=True) for t in range(3)]

    first = episode()
    assert all(a.shape == (2,) and a.dtype == np.float32 and (abs(a) <= 1).all() for a in first)
    agent.act(obs, np.ones(2, np.float32))  # what was really sent may be another action
    with pytest.raises(wm.SpecMismatch, match="uint8"):
        agent.act({"image": obs["image"].astype(np.float32)})


def test_open_loop_shows_every_step_of_every_camera(data):
    (batch,) = data.windows(batch=2, length=6, updates=1)
    agent = make(data)
    frames = wm.open_loop(agent, batch, observed=2, seed=5)
    assert frames["image"].shape == (2, 6, 64, 64, 3)
    assert frames["image"].dtype == np.uint8
    np.testing.assert_array_equal(
        frames["image"], wm.open_loop(agent, batch, observed=2, seed=5)["image"]
    )


@pytest.mark.parametrize("observed", [0, 6])
def test_open_loop_wants_steps_to_observe_and_steps_to_imagine(data, observed):
    (batch,) = data.windows(batch=2, length=6, updates=1)
    with pytest.raises(wm.SettingsError, match=f"observed from 1 to 5 .* got {observed}"):
        wm.open_loop(make(data), batch, observed=observed)


@pytest.mark.long
def test_an_exported_agent_is_a_policy_that_proves_itself(data, tmp_path):
    runner = make(data).export(tmp_path / "policy", task="shelf", golden_steps=5)
    assert (runner.card.task, runner.card.learner_updates) == ("shelf", 0)
    engine = wm.PolicyEngine(wm.PolicyRunner.load(tmp_path / "policy"), seed=0)
    assert engine.act(data.spec.zeros(), np.zeros(2, np.float32), True).action.shape == (2,)


def test_settings_are_nested_or_dotted_and_a_typo_is_named(data):
    nested = make(data, world=TINY["world"] | {"units": 24})
    dotted = make(data, **{"world.units": 24})
    assert nested.config == dotted.config
    assert nested.config.world.units == 24
    with pytest.raises(wm.SettingsError, match=r"setting of world 'unit'.*did you mean 'units'"):
        make(data, **{"world.unit": 24})
    with pytest.raises(wm.SettingsError, match=r"optim.lr.*got 'fast'"):
        make(data, **{"optim.lr": "fast"})
    with pytest.raises(wm.SettingsError, match="did you mean 'dreamer_v3'"):
        wm.Agent.create("dreamer_v4", data.spec)


def test_episodes_are_collected_from_a_task_at_random_or_by_the_agent():
    random = wm.collect("CartPole-v1", episodes=3, seed=4)
    assert random.spec.action.discrete
    (batch,) = random.windows(batch=1, length=len(random), updates=1)
    assert batch.is_first.sum() == batch.is_last.sum() == batch.is_terminal.sum() == 3
    assert (batch.reward == ~batch.is_first).all()  # it pays 1 a step until the pole falls
    assert (batch.prev_action.sum(-1) == ~batch.is_first).all()
    agent = wm.Agent.create("dreamer_v3", random.spec, **TINY)
    assert len(wm.collect("CartPole-v1", episodes=1, agent=agent, seed=4)) > 5


def test_an_action_that_the_caller_changes_does_not_change_what_the_agent_remembers(data):
    one, other = make(data), make(data)
    obs = data.spec.zeros()
    mine, theirs = one.act(obs, is_first=True), other.act(obs, is_first=True)
    mine *= 100.0
    np.testing.assert_array_equal(one.act(obs), other.act(obs))
    assert np.abs(theirs).max() <= 1.0


def test_collecting_wants_episodes_and_closes_the_environment_whatever_happens():
    closed = []

    class Breaks(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            raise RuntimeError("out of battery")

        def close(self):
            closed.append(True)

    gymnasium.register("Breaks-v0", Breaks, disable_env_checker=True)
    try:
        with pytest.raises(wm.SettingsError, match="at least 1 of episodes, got 0"):
            wm.collect("Breaks-v0", episodes=0)
        with pytest.raises(wm.WmError, match=r"step\(\) raised RuntimeError: out of battery"):
            wm.collect("Breaks-v0", episodes=1)
    finally:
        del gymnasium.registry["Breaks-v0"]
    assert closed


def test_collecting_cuts_an_episode_without_an_end_as_one_that_goes_on():
    class Endless(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 1.0, False, False, {}

    gymnasium.register("Endless-v0", Endless, disable_env_checker=True)
    try:
        found = wm.collect("Endless-v0", episodes=2, max_episode_steps=12)
    finally:
        del gymnasium.registry["Endless-v0"]
    assert len(found) == 2 * 13  # the first observation, and one after each step
