"""``wm bench sim`` on one task, for a moment: the form of what it says, never its speed."""

import json
import math

import numpy as np
import pytest

from wm_core.bench import sim as bench
from wm_core.contract.errors import SettingsError, WmError

pytestmark = pytest.mark.mujoco


def test_one_task_is_compared_with_dm_control(capsys):
    task = "pendulum_swingup"
    quick = ["--json", "--tasks", task, "--rounds", "1", "--turn-s", "0.02", "--no-two-cores"]
    assert bench.run(quick) == 0
    run, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert run["name"] == "run"
    value = {row["name"]: row["value"] for row in rows}
    ours, theirs = value[f"sim/{task}/obs_per_s"], value[f"sim/{task}/dm_control_obs_per_s"]
    assert value[f"sim/{task}/speedup"] == pytest.approx(ours / theirs)
    assert value["sim/geomean/speedup"] == pytest.approx(value[f"sim/lowest/{task}/speedup"])
    assert all(math.isfinite(x) and x > 0 for x in value.values())


def test_the_benchmark_knows_the_twenty_tasks():
    assert len(bench.suite_tasks()) == 20
    with pytest.raises(SettingsError, match="did you mean 'walker_walk'"):
        bench.run(["--tasks", "walker_wolk"])


def test_images_that_do_not_vary_are_refused():
    still = [np.full((8, 8, 3), 7, np.uint8)] * 3
    with pytest.raises(WmError, match="do not vary"):
        bench._check_vary(still)
