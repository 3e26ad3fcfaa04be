"""A run may be given CPU time instead of updates, and counts it across a resume."""

import json
from pathlib import Path

import pytest

from wm_core.cli.main import main
from wm_core.training import checkpoint

pytestmark = pytest.mark.long

MINUTES = 0.05  #: 3 seconds


def lines(run: Path) -> list[dict]:
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(toy_folder, tiny, tmp_path_factory) -> Path:
    """A run that was given ``MINUTES``, and then as many again."""
    folder = tmp_path_factory.mktemp("minutes") / "run"
    args = ["train", "--run", str(folder), "--train.minutes"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(toy_folder)
        first = ["--task", "wm_toy_dot:WmDot-v0", "--no-publish", *tiny]
        assert main([*args, str(MINUTES), *first]) == 0
        (folder / "first.json").write_bytes((folder / "status.json").read_bytes())
        assert main([*args, str(2 * MINUTES), "--resume"]) == 0
    return folder


def test_a_run_ends_soon_after_its_minutes_are_used(run):
    first = json.loads((run / "first.json").read_text())
    assert first["phase"] == "done"
    assert first["updates"] > 0
    assert first["cpu_s_goal"] == 60 * MINUTES
    assert 60 * MINUTES <= first["cpu_s"] < 60 * MINUTES + 2.0


def test_a_resumed_run_goes_on_counting(run):
    first = json.loads((run / "first.json").read_text())
    last = json.loads((run / "status.json").read_text())
    assert last["updates"] > first["updates"]
    assert 120 * MINUTES <= last["cpu_s"] < 120 * MINUTES + 2.0
    assert checkpoint.newest(run)[1]["cpu_s"] == pytest.approx(last["cpu_s"], abs=1.0)


def test_metrics_tell_the_cpu_time_of_every_row(run):
    seconds = [row["cpu_s"] for row in lines(run)]
    assert seconds == sorted(seconds)
    assert seconds[0] < 60 * MINUTES < seconds[-1] <= 120 * MINUTES + 2.0


def test_a_run_without_time_left_does_nothing(run):
    before = checkpoint.listed(run)
    assert main(["train", "--run", str(run), "--resume", "--train.minutes", "0.001"]) == 0
    assert checkpoint.listed(run) == before


def test_cpu_time_before_the_first_update_counts_too(toy, tiny, tmp_path):
    words = ["--task", toy, "--no-publish", *tiny, "--train.prefill", "100000"]
    assert main(["train", "--run", str(tmp_path), "--train.minutes", str(MINUTES), *words]) == 0
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["updates"] == 0
    assert status["agent_steps"] > 0
    kept = checkpoint.newest(tmp_path)[1]
    assert kept["cpu_s"] >= 60 * MINUTES
    assert (kept["agent_steps"], kept["episodes"]) == (status["agent_steps"], status["episodes"])
