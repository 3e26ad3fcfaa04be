"""Candidates that are evaluated in the task: which that is, what it costs, and how it ends."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.library import assembly
from wm_core.training.population import Population

WHERE_ENV = (
    *("--preset", "world_models", "--behavior.evolution.where", "env", "--no-publish"),
    *("--behavior.evolution.population", "4", "--behavior.evolution.every", "1"),
    *("--optim.stages", "0", "0", "--world.gaussian.size", "4"),
)

#: what ``record_steps`` records
PLACE = Spec(vectors={"place": VectorSpec(size=2)}, action=ActionSpec(low=(-1.0,), high=(1.0,)))


class Alike(Population):
    """Finds all candidates alike, at once, for 100 CPU seconds of processes that there are not."""

    made: list[Alike]

    def __init__(self, agent, task):
        super().__init__(agent, task)
        self.made.append(self)
        self.task, self.ended = task, 0

    def __call__(self, candidates, generation):
        self._cpu_s += 100.0
        return np.zeros(len(candidates))

    def close(self):
        self.ended += 1
        super().close()


@pytest.fixture
def made(monkeypatch):
    """What evaluated the candidates of the runs so far."""
    Alike.made = []
    monkeypatch.setattr(assembly, "Population", Alike)
    return Alike.made


@pytest.fixture
def train(tiny, tmp_path):
    """Trains a search in the task; gives the status and the run folder."""

    def run(*args):
        folder = tmp_path / "run"
        return main(["train", "--run", str(folder), *tiny, *WHERE_ENV, *args]), folder

    return run


def test_candidates_are_evaluated_in_the_task_that_the_store_names(
    made, robot, toy, train, tmp_path
):
    robot()
    store = ("--store", str(tmp_path / "store"))
    assert train(*store, "--train.updates", "3", "--train.policy", "on")[0] == 0
    assert [population.task for population in made] == [toy]


def test_their_cpu_time_is_the_run_s_and_its_end_is_theirs(made, toy, train):
    """Two generations are 200 s, of the 180 s that the run has."""
    status, run = train(
        "--task", toy, "--train.steps", "96", "--train.minutes", "3", "--train.log-every", "1"
    )
    assert status == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["generation"] for row in rows if "generation" in row] == [1, 2]
    assert json.loads((run / "status.json").read_text())["cpu_s"] >= 200.0
    assert made[0].ended


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--store", "bags", "--train.policy", "on"), "expected a --task"),
        (("--follow", "--spec", "place.json"), "expected a --task"),
        (("--follow", "--spec", "place.json", "--task", "drive"), "unknown task 'drive'"),
        (("--follow", "--spec", "place.json", "--task", "CartPole-v1"), "does not fit"),
    ],
)
def test_without_an_environment_it_is_refused_at_the_start(
    args, said, train, record_steps, tmp_path, monkeypatch, capsys
):
    record_steps(reward=float)
    (tmp_path / "place.json").write_text(PLACE.model_dump_json())
    monkeypatch.chdir(tmp_path)
    status, run = train(*args)
    assert status == 2
    err = capsys.readouterr().err
    assert said in err
    assert "behavior.evolution.where env" in err
    assert "--behavior.evolution.where dream" in err
    assert err.count("\n") == 1
    assert not run.exists()


def test_where_no_policy_is_learnt_no_environment_is_asked_for(made, train, record_steps):
    store = record_steps()
    assert train("--store", str(store), "--train.updates", "2")[0] == 0
    assert not made
