"""Controllers judged in the environment itself, by processes of their own."""

import json

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.cli.main import main
from wm_core.presets.micro import changed
from wm_core.training.population import Population
from wm_core.training.tasks import make_env, spec_of

pytestmark = pytest.mark.long

SMALL = {
    "world": {"depth": 2, "deter": 16, "hidden": 8, "gaussians": 4, "units": 16},
    "behavior": {"evolution": {"population": 6, "rollouts": 3, "where": "env"}},
}


@pytest.fixture
def agent(toy, monkeypatch, toy_folder):
    monkeypatch.setenv("PYTHONPATH", str(toy_folder))  # of the processes that it begins
    env = make_env(toy)
    config = changed(presets.make("world_models", "micro"), **SMALL)
    made = AgentCore(spec_of(env), config, generator=torch.Generator().manual_seed(0))
    env.close()
    return made


def test_candidates_with_equal_actions_get_equal_returns_on_the_same_episodes(agent, toy):
    size = agent.behavior.actor.parameters_count
    to_the_edge = np.zeros(size)
    to_the_edge[0] = 9.0  # the bias of the only action: full speed to the right
    fitness = Population(agent, toy, processes=2)
    try:
        returns = fitness(np.stack([np.zeros(size), to_the_edge, np.zeros(size)]))
        assert returns[0] == returns[2]  # the same episodes for everybody
        assert returns[1] < returns[0]  # the middle pays, the edge does not
        assert fitness(np.zeros((1, size)))[0] != returns[0]  # other episodes next time
    finally:
        fitness.close()


def test_a_run_evolves_in_its_environment(toy, tiny, toy_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(toy_folder))
    run = tmp_path / "run"
    small = [
        *("--behavior.evolution.where", "env", "--behavior.evolution.population", "4"),
        *("--behavior.evolution.rollouts", "1", "--behavior.evolution.every", "1"),
        *("--optim.stages", "1", "1", "--world.gaussian.size", "4", "--world.units", "16"),
        *("--train.updates", "4", "--no-publish", "--train.log-every", "1"),
    ]
    args = ["train", "--preset", "world_models", "--task", toy, "--run", str(run), *tiny, *small]
    assert main(args) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    generations = [row["generation"] for row in rows if "generation" in row]
    assert generations == [1, 2]
    assert all(0.0 <= row["imag_return"] <= 20.0 for row in rows if "imag_return" in row)
