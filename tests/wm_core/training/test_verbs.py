"""The verbs that look at a run, on a run of the toy task."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from PIL import Image

from wm_core.cli.main import main
from wm_core.contract.spec import Spec

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(train_toy) -> Path:
    """A short run, with policies."""
    return train_toy("--train.steps", "128", "--train.eval-every", "64")


def answer(*args: str) -> dict:
    """The JSON object that a verb prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(list(args)) == 0
    return json.loads(out.getvalue())


def test_evaluations_in_sim_are_in_the_metrics(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("eval/return" in row for row in rows)


@pytest.mark.parametrize(
    "who",
    [("--run",), ("--run", "--checkpoint"), ("--run", "--sample"), ("--random",), ("--expert",)],
)
def test_evaluate_reports_every_kind_of_actor_alike(run, toy, who):
    args = [str(run) if i == 1 and who[0] == "--run" else w for i, w in enumerate(who)]
    named = ["--run", str(run), *who[1:]] if who[0] == "--run" else args
    got = answer("evaluate", *named, "--task", toy, "--episodes", "3", "--json")
    assert got["episodes"] == len(got["returns"]) == 3
    assert got["low"] <= got["mean"] <= got["high"]
    assert got["lengths"] == [20, 20, 20]


def test_exported_file_and_training_network_agree_where_nothing_is_drawn(run, toy):
    """Latents are drawn from other generators, so only roughly: both are of one policy."""
    policy = sorted((run / "policies" / "main").glob("0*"))[-1]
    file = answer("evaluate", "--policy", str(policy), "--episodes", "10", "--json")
    net = answer("evaluate", "--run", str(run), "--checkpoint", "--episodes", "10", "--json")
    assert file["task"] == net["task"] == toy
    assert file["low"] <= net["high"]
    assert net["low"] <= file["high"]


def test_evaluate_refuses_more_than_one_actor(capsys):
    assert main(["evaluate", "--random", "--expert", "--task", "seek"]) == 2
    assert main(["evaluate"]) == 2
    assert "exactly one of policy" in capsys.readouterr().err


def test_show_writes_a_video_and_a_strip(run, tmp_path, capsys):
    args = ("--length", "18", "--windows", "2", "--to", str(tmp_path))
    assert main(["show", "--run", str(run), *args]) == 0
    assert "differ by" in capsys.readouterr().out
    with Image.open(tmp_path / "imagined.gif") as movie:
        assert movie.n_frames > 5
        assert movie.size == (2 * (64 + 2), 3 * 64 + 4)
    with Image.open(tmp_path / "imagined.png") as strip:
        assert strip.size == (16 * (64 + 2), 3 * 64 + 4)


def test_info_describes_runs_policies_chunks_and_stores(run):
    chunk = next((run / "store").glob("*/*/00000000.mcap"))
    policy = run / "policies" / "main" / "00000000"
    assert answer("info", str(run), "--json")["policy"]["version"] >= 1
    assert answer("info", str(run / "store"), "--json")["steps"] >= 128
    assert answer("info", str(chunk), "--json")["seq"] == 0
    said = answer("info", str(policy), "--json")
    assert (said["kind"], said["version"], said["size"]) == ("policy", 0, "micro")
    assert answer("info", str(policy / "policy.onnx"), "--json")["kind"] == "policy"


def test_info_is_a_table_for_people(run, capsys):
    assert main(["info", str(run)]) == 0
    assert "agent_steps" in capsys.readouterr().out


def test_info_refuses_what_is_damaged_missing_or_not_ours(run, tmp_path, capsys):
    chunk = next((run / "store").glob("*/*/*.mcap"))
    half = tmp_path / "00000000.mcap"
    half.write_bytes(chunk.read_bytes()[:500])
    assert main(["info", str(half)]) == 2
    assert main(["info", str(run.with_name("rum"))]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 2
    assert "expected a policy folder" in capsys.readouterr().err


def test_a_tasks_json_is_a_spec_file(toy, tmp_path, capsys):
    assert main(["tasks", toy, "--json"]) == 0
    spec = Spec.model_validate_json(capsys.readouterr().out)
    assert spec.vectors["place"].size == 1
    assert main(["tasks", toy]) == 0
    assert "camera" in capsys.readouterr().out


def test_a_task_with_choices_is_described_by_their_numbers(capsys):
    assert main(["tasks", "CartPole-v1"]) == 0
    shown = capsys.readouterr().out
    assert "choice 0" in shown
    assert "choice 1" in shown


@pytest.mark.mujoco
def test_tasks_lists_the_projects_own(capsys):
    assert main(["tasks", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    assert {"seek", "walker_walk", "cartpole_swingup"} <= set(names)


def test_a_full_store_evicts_its_oldest_chunks(toy, tiny, tmp_path):
    run = tmp_path / "run"
    limit = 60_000
    more = ("--train.steps", "512", "--train.replay-ratio", "2", "--no-publish")
    args = ["--task", toy, "--run", str(run), *tiny, *more]
    assert main(["train", *args, "--replay.store-max-bytes", str(limit)]) == 0
    chunks = list((run / "store").glob("*/*/*.mcap"))
    assert sum(p.stat().st_size for p in chunks) <= limit
    facts = answer("info", str(run / "store"), "--json")
    assert facts["steps"] >= 512  # every step that ever came is still counted
    assert len(chunks) < facts["chunks"]


def test_without_a_decoder_a_training_that_should_write_videos_goes_on_to_its_end(
    toy, tiny, tmp_path
):
    run, size = tmp_path / "run", ("--replay.length", "16", "--train.steps", "128")
    args = ["--task", toy, "--run", str(run), *tiny, *size, "--no-publish"]
    assert main(["train", "--preset", "r2dreamer", *args, "--train.video-every", "3"]) == 0
    assert json.loads((run / "status.json").read_text())["phase"] == "done"
