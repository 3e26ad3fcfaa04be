"""A run that begins from one that searched for a controller goes on with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.wm_core.stored import LEARNABLE
from wm_core.library.init_from import take_weights
from wm_core.training import checkpoint


@pytest.fixture
def evolving(small):
    """A function that makes an agent whose candidates are the better, the nearer they are to 1."""

    def make(*, world=None, **evolution):
        parts = small(
            "world_models",
            world=world or {},
            behavior={"evolution": {"where": "env"} | evolution},
        )
        parts.spec = LEARNABLE
        agent = parts.agent()
        agent.behavior.fitness = lambda candidates, _: -np.square(candidates - 1.0).sum(1)
        return agent

    return make


def search(agent, generations):
    for _ in range(generations):
        agent.behavior.loss(None, None, None, torch.Generator())
    return agent


@pytest.fixture
def run(evolving, tmp_path):
    """The folder of a run after three generations of six candidates."""
    agent = search(evolving(), 3)
    state = {
        "config": agent.config.model_dump(mode="json"),
        "spec": LEARNABLE.model_dump(mode="json"),
        "task": "",
        "agent_steps": 0,
        "learner": {"agent": agent.state_dict(), "updates": 3},
    }
    checkpoint.save(tmp_path / "run", state, updates=3, keep=1)
    return tmp_path / "run"


def test_the_search_of_the_other_run_goes_on(run, evolving):
    agent, before = evolving(), checkpoint.load_agent(run).agent.behavior
    got = take_weights(agent, str(run), "all")
    assert got.new_search == ""
    assert "a new search" not in got.sentence()
    for name in ("_mean", "_sigma", "_C"):
        np.testing.assert_array_equal(
            vars(agent.behavior._search)[name], vars(before._search)[name]
        )
    assert search(agent, 1).behavior._search.generation == 4


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"population": 8}, "behavior.evolution.population is 6 there, 8 here"),
        ({"sigma": 0.7}, "behavior.evolution.sigma is 0.3 there, 0.7 here"),
        ({"world": {"units": 24}}, "not every tensor is taken"),
    ],
)
def test_a_search_that_cannot_go_on_begins_anew_at_the_controller(changes, why, run, evolving):
    agent, before = evolving(**changes), checkpoint.load_agent(run).agent.behavior
    got = take_weights(agent, str(run), "all")
    assert got.new_search == why
    assert f"a new search begins at its controller ({why})" in got.sentence()
    found, evolution = agent.behavior._search, agent.config.behavior.evolution
    assert before.actor.candidate.any()
    np.testing.assert_array_equal(found.mean, before.actor.candidate.double().numpy())
    assert (found.generation, found.population_size) == (0, evolution.population)
    assert vars(found)["_sigma"] == evolution.sigma
    assert search(agent, 1).behavior._search.generation == 1


def test_a_run_that_learns_by_gradients_says_nothing_of_a_search(run, small):
    parts = small("dreamer_v3")
    parts.spec = LEARNABLE
    got = take_weights(parts.agent(), str(run), "all")
    assert (got.new_search, bool(got.left)) == ("", True)


@pytest.mark.parametrize(("scale", "begins"), [(1.0, 0.25), (0.5, 0.5)])
def test_another_weight_of_the_entropy_takes_effect_where_it_adapts(
    scale, begins, small, tmp_path, leave_checkpoint
):
    """What the other run has adapted to is taken over only where it began at the same weight."""
    run = tmp_path / "run"
    leave_checkpoint(run, 1, "daydreamer")
    _, state = checkpoint.newest(run)
    state["learner"]["agent"]["behavior.entropy_scale.scale"].fill_(0.25)
    checkpoint.save(run, state, updates=2, keep=1)
    parts = small("daydreamer", behavior={"entropy": {"scale": scale}})
    parts.spec = LEARNABLE
    agent = parts.agent()
    got = take_weights(agent, str(run), "all")
    assert agent.behavior.entropy_scale.scale == begins
    assert ("behavior.entropy.scale is 1 there" in got.sentence()) == (scale != 1.0)
