"""Evaluations during training, and the best checkpoint and policy that they choose."""

import json
import math
import random
import shutil
import time

import pytest

from wm_core.cli.main import main
from wm_core.contract.errors import SettingsError
from wm_core.contract.files import read_json
from wm_core.library.evaluate import folder_names
from wm_core.training import checkpoint
from wm_core.training.best import Evaluations, read_best
from wm_core.training.publisher import Publisher
from wm_core.training.returns import Evaluation, PlayedEpisode

pytestmark = pytest.mark.long


def found(mean, episodes=2):
    return Evaluation.of([PlayedEpisode(mean, 5, "truncated")] * episodes)


def evaluations(run, means, *, every=10):
    """Evaluations that find ``means``, one after the other; an error is raised."""
    answers = iter(means)

    def evaluate(stop, on_episode):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        on_episode(1, 0.0)
        return answer if isinstance(answer, Evaluation) else found(answer)

    return Evaluations(run, evaluate, every=every, episodes=2)


def take(of, updates):
    return of.take(updates, updates, updates, lambda: False)


def save(run, updates, of):
    return checkpoint.save(run, {"updates": updates} | of.state(), updates=updates, keep=1)


def test_the_best_is_the_highest_mean_and_outlives_newer_checkpoints(tmp_path):
    of = evaluations(tmp_path, [1.0, 3.0, 2.0])
    for updates in (10, 20, 30):
        take(of, updates)
        path = save(tmp_path, updates, of)
        if of.is_best(updates):
            of.keep(path)
    assert [p.name for p in checkpoint.listed(tmp_path)] == ["000000030.pt"]
    assert checkpoint.find(tmp_path, "best")[1]["updates"] == 20
    told = read_best(tmp_path)
    assert (told["mean"], told["updates"], told["episodes"]) == (3.0, 20, 2)
    assert of.status["mean"] == 2.0
    assert of.status["best"]["mean"] == 3.0


def test_a_kill_before_the_link_is_mended_by_the_next_start(tmp_path):
    """The checkpoint says that it is the best; the files beside it say the one before."""
    of = evaluations(tmp_path, [1.0, 3.0])
    take(of, 10)
    of.keep(save(tmp_path, 10, of))
    take(of, 20)
    path = save(tmp_path, 20, of)  # and here it was killed
    assert read_best(tmp_path)["updates"] == 10
    again = evaluations(tmp_path, [])
    again.load_state(checkpoint.newest(tmp_path)[1])
    assert again.is_best(20)
    again.keep(path)
    again.keep(path)  # a second time changes nothing
    assert read_best(tmp_path)["updates"] == 20
    assert checkpoint.find(tmp_path, "best")[1]["updates"] == 20
    names = {p.name for p in checkpoint.folder_of(tmp_path).iterdir()}
    assert names == {"000000020.pt", "best.pt", "best.json"}


def test_a_resumed_run_compares_with_the_best_on_the_disk(tmp_path):
    """Where the newest checkpoint was damaged, an older one knows less than ``best.json``."""
    of = evaluations(tmp_path, [1.0, 5.0])
    take(of, 10)
    older = of.state()
    take(of, 20)
    of.keep(save(tmp_path, 20, of))
    again = evaluations(tmp_path, [4.0, 6.0])
    again.load_state(older)
    take(again, 30)
    assert not again.is_best(30)
    take(again, 40)
    assert again.is_best(40)


def test_an_evaluation_that_was_stopped_counts_for_nothing_and_is_due_again(tmp_path):
    of = evaluations(tmp_path, [found(9.0, episodes=1), 2.0])
    assert take(of, 10) == {}
    assert of.best is None
    assert of.due(10, 10)
    assert take(of, 10)["eval/return"] == 2.0
    assert not of.due(10, 10)


def test_a_failing_environment_costs_the_evaluation_and_not_the_run(tmp_path, caplog):
    of = evaluations(tmp_path, [SettingsError("task 'x': it broke"), 2.0])
    assert take(of, 10) == {}
    assert of.status == {"error": "task 'x': it broke"}
    assert "it broke" in caplog.text
    assert take(of, 20)["eval/best"] == 2.0
    assert "error" not in of.status


def test_evaluations_are_due_by_steps_and_at_the_end(tmp_path):
    of = evaluations(tmp_path, [1.0])
    assert not of.due(9, 5)
    assert of.due(10, 5)
    assert not of.due(10, 0)  # nothing is learnt yet
    take(of, 10)
    assert not of.due(19, 10, at_end=True)
    assert of.due(19, 11, at_end=True)  # an update that no evaluation has seen
    assert not of.due(15, 11)
    assert not evaluations(tmp_path, [], every=0).due(1000, 1000, at_end=True)


def test_a_behaviour_that_has_learnt_nothing_yet_is_neither_evaluated_nor_published(tmp_path):
    """In its first stages a run trains its world model alone."""
    of = Evaluations(tmp_path, lambda *_: found(1.0), every=10, episodes=2, untrained=800)
    assert not of.due(5000, 800)
    assert not of.due(5000, 800, at_end=True)
    assert of.due(5000, 801)
    publisher = Publisher(lambda due: None, 1000, untrained=800)
    publisher.publish(0, 0)
    assert not publisher.due(849)
    assert publisher.due(850)
    assert not publisher.due_at_end(800)
    assert publisher.due_at_end(801)
    publisher.publish(850, 5000)
    assert not publisher.due_at_end(899)
    assert publisher.due_at_end(900)


def test_a_best_that_cannot_be_kept_is_tried_for_again_by_whatever_exceeds_the_kept_one(tmp_path):
    of = evaluations(tmp_path, [1.0, 5.0, 3.0, 2.0])
    take(of, 10)
    of.keep(save(tmp_path, 10, of))
    take(of, 20)
    newest = save(tmp_path, 20, of)
    blocked = checkpoint.folder_of(tmp_path)
    kept = (blocked / "best.pt").read_bytes()
    (blocked / "best.pt").unlink()
    (blocked / "best.pt" / "in the way").mkdir(parents=True)  # as the disk may refuse anybody
    with pytest.raises(OSError, match="directory"):
        of.keep(newest)
    assert not list(blocked.glob("*.tmp"))
    shutil.rmtree(blocked / "best.pt")
    (blocked / "best.pt").write_bytes(kept)
    assert read_best(tmp_path)["mean"] == of.status["best"]["mean"] == 1.0
    take(of, 30)
    assert of.is_best(30)
    again = evaluations(tmp_path, [])
    again.load_state(checkpoint.newest(tmp_path)[1])
    assert again.is_best(20)  # and a start from its checkpoint tries again


# ------------------------------------------------------------------ whole runs

EVALUATED = (
    "--train.eval-every",
    "64",
    "--train.eval-episodes",
    "2",
    "--train.eval-max-steps",
    "9",
)


@pytest.fixture(scope="module")
def run(train_toy):
    """A short run of 96 updates that keeps one checkpoint, evaluated every 64 steps."""
    return train_toy("--train.steps", "192", "--train.keep-checkpoints", "1", *EVALUATED)


def answer(capsys, *args):
    assert main(list(args)) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_keeps_its_best_checkpoint_and_policy_by_name(run, capsys):
    best = read_best(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    means = {r["updates"]: r["eval/return"] for r in rows if "eval/return" in r}
    assert len(means) >= 3
    assert best["mean"] == max(means.values()) == means[best["updates"]]
    assert all(
        r["eval/low"] <= r["eval/return"] <= r["eval/high"] for r in rows if "eval/low" in r
    )
    assert checkpoint.find(run, "best")[1]["learner"]["updates"] == best["updates"]
    policies = list((run / "policies" / "best").glob("0*"))
    assert len(policies) == 1
    got = answer(capsys, "info", str(policies[0]), "--json")
    assert got["learner_updates"] == best["updates"]
    status = read_json(run / "status.json")["evaluation"]
    assert status["best"]["mean"] == best["mean"]
    assert status["cut"] == 2  # of episodes of 20 steps


def test_any_version_is_evaluated_by_its_name(run, capsys):
    toy = read_best(run)["task"]
    shared = ("evaluate", "--run", str(run), "--episodes", "2", "--json", "--task", toy)
    best = answer(capsys, *shared, "--version", "best")
    assert "policies/best" in best["policy"]
    newest = sorted((run / "policies" / "main").glob("0*"))[-1]
    by_number = answer(capsys, *shared, "--version", str(int(newest.name)))
    assert by_number["returns"] == answer(capsys, *shared)["returns"]
    net = answer(capsys, *shared, "--checkpoint", "--version", "best")
    assert net["policy"].endswith("best.pt")
    assert main([*shared, "--version", "77"]) == 2
    assert "keeps no policy 77: there are" in capsys.readouterr().err
    assert main([*shared, "--checkpoint", "--version", "77"]) == 2
    assert "no checkpoint '77'; kept are those of updates" in capsys.readouterr().err


def test_several_runs_are_a_table_with_bounds_over_runs(run, capsys):
    shared = ("--task", read_best(run)["task"], "--episodes", "2", "--checkpoint")
    assert main(["evaluate", "--run", str(run), str(run), *shared]) == 0
    shown = capsys.readouterr().out
    assert "over 2 runs" in shown
    got = answer(capsys, "evaluate", "--run", str(run), str(run), *shared, "--json")
    assert [r["mean"] for r in got["runs"]] == [got["mean"]] * 2
    assert got["low"] == got["high"] == got["mean"]  # two runs that are one
    assert main(["evaluate", "--run", str(run), str(run.with_name("rum"))]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err


def test_training_from_a_store_is_evaluated_in_the_task_that_its_chunks_name(run, tiny, capsys):
    """It is due by the steps that its updates are worth: 2 each, at this batch and ratio."""
    again = run.with_name("again")
    args = ("--store", str(run / "store"), "--run", str(again), *tiny, "--no-publish")
    every = (*EVALUATED[:1], "16", *EVALUATED[2:])
    assert main(["train", *args, "--train.updates", "20", *every]) == 0
    rows = [json.loads(line) for line in (again / "metrics.jsonl").read_text().splitlines()]
    assert [row["updates"] for row in rows if "eval/return" in row] == [8, 16, 20]
    assert read_best(again)["task"] == read_best(run)["task"]
    assert read_json(again / "status.json")["evaluation"]["episodes"] == 2


def test_a_run_that_its_minutes_end_is_evaluated_at_its_end(toy, tiny, tmp_path):
    run = tmp_path / "run"
    args = ("--task", toy, "--run", str(run), *tiny, "--no-publish", *EVALUATED)
    assert main(["train", *args, "--train.minutes", "0.03", "--train.eval-every", "100000"]) == 0
    status = read_json(run / "status.json")
    assert status["cpu_s"] >= 1.8
    assert 0 < status["updates"] == status["evaluation"]["updates"] == read_best(run)["updates"]
    assert checkpoint.find(run, "best")[1]["learner"]["updates"] == status["updates"]
    args = ("--run", str(run), "--resume", "--quiet")
    before = (run / "metrics.jsonl").read_text().count("eval/return")
    assert before == 1
    assert main(["train", *args]) == 0  # nothing is left to do, nor to evaluate
    assert (run / "metrics.jsonl").read_text().count("eval/return") == 1


def test_a_disk_that_refuses_the_best_costs_that_copy_and_not_the_run(toy, tiny, tmp_path, caplog):
    run = tmp_path / "run"
    (run / "checkpoints" / "best.pt" / "in the way").mkdir(parents=True)
    args = ("--task", toy, "--run", str(run), *tiny, "--no-publish", *EVALUATED)
    assert main(["train", *args, "--train.steps", "128"]) == 0
    status = read_json(run / "status.json")
    assert status["phase"] == "done"
    assert status["unwritten"]["best"] >= 1
    assert status["evaluation"]["updates"] == status["updates"]
    assert caplog.text.count("best could not be written") == 1
    assert read_best(run) is None


def test_films_of_runs_with_one_name_lie_in_folders_of_their_own():
    assert folder_names(["a/x", "b/y"]) == ["x", "y"]
    assert folder_names(["a/run", "b/run", "b/other"]) == ["a-run", "b-run", "other"]
    assert folder_names(["s/a/run", "t/a/run"]) == ["s-a-run", "t-a-run"]
    assert folder_names(["run", "run", "run-2", "run"]) == ["run", "run-2", "run-2-2", "run-3"]
    names = folder_names(["run", "/run", "c/../run", "..", "/"])
    assert len({*names}) == 5
    assert not any("/" in name or ".." in name for name in names)


def test_a_policy_from_before_the_first_update_is_said_to_be_untrained(run, capsys):
    task = read_best(run)["task"]
    args = ("evaluate", "--run", str(run), "--task", task, "--episodes", "1", "--version", "0")
    assert main([*args]) == 0
    said = capsys.readouterr().err
    assert "untrained" in said
    assert "--checkpoint evaluates the network after 96 updates" in said


@pytest.mark.slow
def test_the_best_is_whole_whenever_a_run_is_killed(toy, tiny, tmp_path, start_wm):
    """Killed at any moment, the plain command goes on, and what is kept as best can be read."""
    run, rng = tmp_path / "run", random.Random(3)
    args = ("--task", toy, "--run", str(run), *tiny, "--no-publish", "--resume")
    args = (*args, "--train.steps", "1024", "--train.eval-every", "32", *EVALUATED[2:])
    best = -math.inf
    for _ in range(6):
        process = start_wm("train", *args)
        began = (run / "metrics.jsonl").stat().st_size if run.exists() else 0
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            metrics = run / "metrics.jsonl"
            if metrics.exists() and metrics.stat().st_size > began:  # it is learning
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 3.0))
        process.kill()
        process.wait(timeout=60)
        told = read_best(run)
        if told is not None:
            kept = checkpoint.find(run, "best")[1]
            assert kept["best"]["updates"] == kept["learner"]["updates"]
            assert kept["best"]["mean"] >= told["mean"] >= best  # it may lack the last line alone
            best = told["mean"]
    assert best > -math.inf
