"""``wm sweep`` with real trainings of the smallest agent, each a process of its own."""

from __future__ import annotations

import json
import signal
import time

import pytest

from wm_core.cli.main import main
from wm_core.library.runs import list_runs

TOY = "wm_toy_dot:WmDot-v0"


def words(root, tiny, *more):
    """Options of a sweep over the toy task with no export, which takes seconds."""
    chosen = [word for word in tiny if word not in ("--threads", "1", "--quiet")]
    return [
        *("sweep", "--task", TOY, "--root", str(root), "--episodes", "2", "--json"),
        *(*chosen, "--no-publish", *more),
    ]


def outcome(process, timeout=600):
    out, err = process.communicate(timeout=timeout)
    return json.loads(out), err


@pytest.mark.long
def test_a_sweep_trains_and_evaluates_its_runs(start_wm, tiny, tmp_path):
    root = tmp_path / "sweep"
    process = start_wm(*words(root, tiny, "--seeds", "5", "--train.updates", "2"))
    found, said = outcome(process)
    assert process.returncode == 0, said
    (run,) = found["runs"]
    assert (run["setting"], run["seed"], run["state"]) == ("dreamer_v3", 5, "done")
    assert len(run["evaluation"]["returns"]) == 2
    assert found["settings"][0]["means"] == [run["mean"]]
    assert found["settings"][0]["low"] is None  # one seed has no bounds
    (facts,) = list_runs(root)
    assert (facts.name, facts.state, facts.updates) == ("dreamer_v3-seed5", "done", 2)


@pytest.mark.slow
def test_two_settings_with_two_seeds_go_on_after_a_signal(start_wm, tiny, tmp_path):
    root = tmp_path / "sweep"
    more = ("--seeds", "0", "1", "--set", "optim.lr=1e-3,1e-4", "--train.updates", "300")
    process = start_wm(*words(root, tiny, *more, "--jobs", "2"))
    deadline = time.monotonic() + 600
    while not any(run.updates for run in list_runs(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    found, said = outcome(process)
    assert process.returncode == 130, said
    assert "stopped; the same command goes on" in said
    assert {run["state"] for run in found["runs"]} == {"stopped"}
    assert {run.state for run in list_runs(root)} <= {"stopped", "foreign"}
    process = start_wm(*words(root, tiny, *more, "--jobs", "2"))
    found, said = outcome(process)
    assert process.returncode == 0, said
    assert [len(setting["means"]) for setting in found["settings"]] == [2, 2]
    assert all(s["low"] <= s["mean"] <= s["high"] for s in found["settings"])
    assert {run.updates for run in list_runs(root)} == {300}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--seed", "3"), "--seeds"),
        (("--follow",), "its runs have to end"),
        (("--set", "train.steps"), "expected an option and its values"),
        (("--train.minuts", "3"), "--train.minutes"),
        (("--set", "train.replay-rato=3"), "--train.replay-ratio"),
        (("--preset", "twn"), "did you mean 'twm'"),
        (("--seeds", "1.5"), "Error parsing --seeds"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_is_made(more, why, tmp_path, capsys):
    root = tmp_path / "sweep"
    try:
        status = main(["sweep", "--task", "seek", "--root", str(root), *more])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert why in capsys.readouterr().err
    assert not root.exists()
