"""The learner's benchmark measures a real agent and reports every figure that it promises."""

from __future__ import annotations

import json

import pytest

from wm_core.bench.contestants import Contestant
from wm_core.bench.learner import LearnerBenchSettings, measure, run
from wm_core.contract.errors import SettingsError

pytestmark = pytest.mark.long


def test_a_measured_size_costs_time_and_memory():
    cost = measure(Contestant("dreamer_v3", "micro"), LearnerBenchSettings(updates=1))
    assert cost.cpu_seconds_per_step > 0
    assert cost.seconds_per_step > 0
    assert cost.peak_mb > 50
    assert cost.parameters > 1e6


def test_the_learners_figures_have_their_documented_names(capsys):
    args = ["--json", "--sizes", "micro", "--updates", "1", "--workers", "1", "2"]
    assert run(args) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [line["name"] for line in lines]
    assert names[0] == "run"
    assert {"learner/micro/seconds_per_step", "learner/micro/peak_mb"} <= set(names)
    assert "learner/micro/2_workers/seconds_per_step" in names
    assert all(line["value"] > 0 for line in lines[1:])


def test_an_unknown_size_is_refused_before_anything_is_measured():
    with pytest.raises(SettingsError, match="did you mean 'micro'"):
        run(["--sizes", "micr"])


def test_workers_that_cannot_share_a_batch_are_refused():
    with pytest.raises(SettingsError, match="cannot be shared evenly"):
        run(["--sizes", "micro", "--workers", "3"])
