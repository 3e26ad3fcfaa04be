"""Odd spaces end as they should: learnt from, or refused in one line that names the fault."""

import re
from pathlib import Path

import numpy as np
import pytest

from wm_core.cli.main import main
from wm_core.contract.engine import PolicyEngine
from wm_core.contract.runner import PolicyRunner
from wm_core.store.reader import Store
from wm_core.training.spaces import ActionMap, ObsReader
from wm_core.training.tasks import make_env, spec_of

ODD = Path(__file__).parent / "odd"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ODD)
    from odd_spaces import CASES, TRAINS

#: collects 16 steps, and makes two updates
SHORT = (
    *("--train.prefill", "16", "--train.updates", "2", "--train.steps", "60"),
    *("--replay.batch", "2", "--replay.length", "4"),
    *("--behavior.imag-starts", "4", "--behavior.imag-horizon", "2"),
)


def task_of(name: str) -> str:
    return f"odd_spaces:OddSpace/{name}-v0"


@pytest.fixture
def train(tiny, tmp_path, monkeypatch):
    """Trains for two updates on an odd environment; returns the exit status."""
    monkeypatch.syspath_prepend(ODD)

    def run(name: str, *more: str) -> int:
        args = ("--task", task_of(name), "--run", str(tmp_path / "run"), *tiny, *SHORT, *more)
        return main(["train", *args])

    return run


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.said == TRAINS])
def test_an_odd_space_is_collected_from_and_learnt_from(name, train, tmp_path):
    assert train(name, "--no-publish") == 0
    store = Store(tmp_path / "run" / "store", cache_bytes=1_000_000)
    store.refresh()
    assert store.steps >= 16
    env = make_env(task_of(name))
    assert store.spec == spec_of(env)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.said != TRAINS])
def test_an_odd_space_that_cannot_be_used_is_refused_in_one_line(name, train, capsys, caplog):
    """One that goes wrong after whole steps costs its episodes: it is said, and made anew."""
    code = train(name, "--no-publish")
    assert code != 0 or "the environment is made anew" in caplog.text
    said = capsys.readouterr().err.strip() + caplog.text
    assert re.search(CASES[name].said, " ".join(said.split())), said
    assert "Traceback" not in said


def test_the_description_of_a_task_says_what_became_of_each_part(capsys, monkeypatch):
    monkeypatch.syspath_prepend(ODD)
    assert main(["tasks", task_of("Mixed")]) == 0
    said = capsys.readouterr().out
    assert "eye from eye: Box(0, 255, (64, 64, 3), uint8)" in said
    assert "channels first; 32x32 resized and padded" in said
    assert "action from Discrete(2)" in said


def test_there_are_many_of_both_kinds():
    refused = [name for name, case in CASES.items() if case.said]
    assert len(refused) >= 25
    assert len(CASES) - len(refused) >= 50


@pytest.mark.long
@pytest.mark.parametrize("name", ["Mixed", "Dotted", "Pad", "ManyTable", "Wholes"])
def test_a_policy_of_an_odd_space_runs_as_an_exported_file(name, train, tmp_path):
    """Its inputs keep their names, and its commands are elements of the action space."""
    assert train(name, "--train.steps", "24") == 0
    newest = sorted((tmp_path / "run" / "policies" / "main").glob("0*"))[-1]
    env = make_env(task_of(name))
    spec = spec_of(env)
    reader = ObsReader(env.observation_space, env.metadata)
    actions = ActionMap(env.action_space, env.metadata)
    engine = PolicyEngine(PolicyRunner.load(newest), seed=0)
    assert engine.runner.spec == spec
    sent = np.zeros(spec.action.size, np.float32)
    seen, _ = env.reset(seed=0)
    for _ in range(4):
        out = engine.act(reader.read(seen, spec), sent)
        sent = out.action
        seen, *_ = env.step(actions.element(out.command))  # refuses what is no element
