"""Controllers judged in the environment itself, by processes of their own."""

import json
import multiprocessing
import os
import signal
import threading
from contextlib import suppress

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.cli.main import main
from wm_core.contract.errors import EnvFault
from wm_core.presets.micro import changed
from wm_core.training.population import Population
from wm_core.training.tasks import make_env, spec_of

pytestmark = pytest.mark.long

SMALL = {
    "world": {"depth": 2, "deter": 16, "hidden": 8, "gaussians": 4, "units": 16},
    "behavior": {"evolution": {"population": 6, "rollouts": 3, "where": "env"}},
}
OPTIONS = (
    *("--preset", "world_models", "--behavior.evolution.where", "env"),
    *("--behavior.evolution.population", "4", "--behavior.evolution.rollouts", "1"),
    *("--behavior.evolution.every", "1", "--optim.stages", "1", "1"),
    *("--world.gaussian.size", "4", "--world.units", "16", "--no-publish"),
)
STILL = '''
"""The toy task, whose first step never ends in a process that evaluates candidates."""

import multiprocessing
import os
import threading
from pathlib import Path

import gymnasium
from wm_toy_dot import Dot


class Still(Dot):
    def step(self, action):
        if multiprocessing.parent_process() is not None:
            (Path(__file__).parent / f"still-{os.getpid()}").touch()
            threading.Event().wait()
        return super().step(action)


gymnasium.register("WmStill-v0", Still)
'''


@pytest.fixture
def agent(toy, monkeypatch, toy_folder):
    monkeypatch.setenv("PYTHONPATH", str(toy_folder))  # of the processes that it begins
    env = make_env(toy)
    config = changed(presets.make("world_models", "micro"), **SMALL)
    made = AgentCore(spec_of(env), config, generator=torch.Generator().manual_seed(0))
    env.close()
    return made


@pytest.fixture
def still(toy_folder, wait_until):
    """A task that hangs where candidates are evaluated, and what waits for so many processes."""
    (toy_folder / "wm_toy_still.py").write_text(STILL)
    for old in toy_folder.glob("still-*"):
        old.unlink()

    def hanging(count):
        wait_until(lambda: len([*toy_folder.glob("still-*")]) >= count, 300.0)
        return [int(path.name.removeprefix("still-")) for path in toy_folder.glob("still-*")]

    return "wm_toy_still:WmStill-v0", hanging


def is_alive(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_candidates_with_equal_actions_get_equal_returns_on_the_same_episodes(agent, toy):
    size = agent.behavior.actor.parameters_count
    to_the_edge = np.zeros(size)
    to_the_edge[0] = 9.0  # the bias of the only action: full speed to the right
    fitness = Population(agent, toy, processes=2)
    try:
        returns = fitness(np.stack([np.zeros(size), to_the_edge, np.zeros(size)]), 1)
        assert returns[0] == returns[2]  # the same episodes for everybody
        assert returns[1] < returns[0]  # the middle pays, the edge does not
        assert fitness.take_cpu_s() > 0.0
        assert fitness.take_cpu_s() == 0.0  # taken already
        assert fitness(np.zeros((1, size)), 2)[0] != returns[0]  # other episodes next time
    finally:
        fitness.close()


def test_closing_ends_episodes_in_progress(agent, still):
    task, hanging = still
    fitness, ended = Population(agent, task, processes=2), []

    def evaluate():
        try:
            fitness(np.zeros((4, agent.behavior.actor.parameters_count)), 1)
        except EnvFault as error:
            ended.append(str(error))

    thread = threading.Thread(target=evaluate, daemon=True)
    thread.start()
    hanging(2)
    closing = threading.Thread(target=fitness.close, daemon=True)
    closing.start()
    for one in (closing, thread):
        one.join(300.0)
        assert not one.is_alive()
    assert "a process that evaluates candidates ended" in ended[0]
    assert not multiprocessing.active_children()
    fitness.close()  # a second call does nothing


def test_a_second_ctrl_c_ends_a_run_in_the_midst_of_a_generation(
    still, start_wm, tiny, tmp_path, wait_until
):
    task, hanging = still
    process = start_wm("train", "--task", task, "--run", str(tmp_path / "run"), *tiny, *OPTIONS)
    pids = hanging(1)
    process.send_signal(signal.SIGINT)
    assert any("once more ends it at once" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_run_evolves_in_its_environment(toy, tiny, toy_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(toy_folder))
    run = tmp_path / "run"
    more = ["--train.updates", "4", "--train.log-every", "1"]
    args = ["train", "--task", toy, "--run", str(run), *tiny, *OPTIONS, *more]
    assert main(args) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    generations = [row["generation"] for row in rows if "generation" in row]
    assert generations == [1, 2]
    assert all(0.0 <= row["imag_return"] <= 20.0 for row in rows if "imag_return" in row)
    assert not multiprocessing.active_children()  # they ended with the run
