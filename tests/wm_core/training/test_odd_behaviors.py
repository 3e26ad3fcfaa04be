"""Environments that behave oddly are trained on, or refused in one clear line."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import pytest

from wm_core.cli.main import main
from wm_core.format.chunk import chunk_path, decode_chunk
from wm_core.store.ledger import LEDGER_NAME, Ledger

pytestmark = pytest.mark.filterwarnings("ignore:.*render_modes:UserWarning")
HERE = Path(__file__).parent / "odd"


def _load():
    spec = importlib.util.spec_from_file_location("wm_odd_behaviors", HERE / "behaviors.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["wm_odd_behaviors"] = module
    spec.loader.exec_module(module)
    return module


odd = sys.modules.get("wm_odd_behaviors") or _load()

SHORT = (
    *("--no-publish", "--train.steps", "128", "--train.prefill", "64"),
    *("--train.replay-ratio", "2", "--replay.length", "8"),
)


@pytest.fixture
def train(tiny, tmp_path):
    """Trains on an odd task; returns the exit status and the run folder."""

    def run(name, *more):
        args = ["--task", f"wm_odd_behaviors:Odd{name}-v0", "--run", str(tmp_path / "run")]
        return main(["train", *args, *tiny, *SHORT, *more]), tmp_path / "run"

    return run


@pytest.mark.parametrize("name", odd.GOOD)
def test_what_can_be_trained_on_is(name, train):
    status, run = train(name)
    assert status == 0
    said = json.loads((run / "status.json").read_text())
    assert said["agent_steps"] >= 128
    short = name in ("OneStep", "CutAtTheFirstStep", "TwoSteps")
    assert said["updates"] > 0 or short


@pytest.mark.parametrize("name", odd.BAD)
def test_what_cannot_is_one_line_that_names_task_and_fault(name, train, capsys):
    status, _ = train(name)
    assert status == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (line,) = [row for row in said.splitlines() if row.startswith("wm train: ")]
    assert odd.BAD[name][1] in line


def test_an_environment_that_raises_costs_its_episode_and_is_counted(train, caplog):
    status, run = train("RaisesNowAndThen")
    assert status == 0
    restarts = json.loads((run / "status.json").read_text())["env_restarts"]
    assert restarts >= 4
    lines = [r.getMessage() for r in caplog.records if "ConnectionError" in r.getMessage()]
    assert len(lines) == restarts
    assert all("the simulator went away for a moment" in line for line in lines)


def test_an_environment_that_fails_for_ever_ends_the_run_with_a_checkpoint(train, capsys):
    status, run = train("RaisesAtEveryStep")
    assert status == 2
    assert "5 times in a row" in capsys.readouterr().err
    assert list((run / "checkpoints").glob("*.pt"))


def test_an_episode_that_was_cut_by_an_error_is_closed_as_truncated(train):
    """Each episode in the store begins at its first step, has no gap, and ends by a last one."""
    _, run = train("RaisesNowAndThen")
    restarts = json.loads((run / "status.json").read_text())["env_restarts"]
    with contextlib.closing(Ledger(run / "store" / LEDGER_NAME, read_only=True)) as ledger:
        rows = ledger.since(0)
    chunks = [decode_chunk(chunk_path(run / "store", row.key).read_bytes()) for row in rows]
    steps = [step for _, several in chunks for step in several]
    assert len(steps) >= 128
    cuts, t = 0, -1
    for step, after in itertools.pairwise(steps):
        t = 0 if step.is_first else t + 1
        assert next(iter(step.obs.values()))[1] * 10 == pytest.approx(t)
        assert after.is_first == step.is_last
        if step.is_last and t < 10:
            cuts += 1
            assert not step.is_terminal
            assert not step.action.any()  # the one that failed led nowhere
    assert 0 < restarts - 2 <= cuts <= restarts  # what failed at once has left no episode
