"""Training with demonstrations in every batch, and with interventions drawn more often."""

from __future__ import annotations

import json

import torch

from wm_core.cli.main import main
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training import checkpoint


def weights(run):
    state = checkpoint.newest(run)[1]["learner"]["agent"]
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


def said(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_a_run_with_demonstrations_and_interventions_resumes_to_the_same_bits(
    record_steps, tiny, tmp_path, capsys
):
    own = record_steps(lambda step: step / 100, interventions={5, 30})
    shown = record_steps(lambda step: 1.0, name="shown", action=-0.5)
    words = (
        *("--store", str(own), *tiny[:-1], "--no-publish", "--replay.intervention-weight", "3"),
        *("--replay.demonstrations", str(shown), "--replay.demonstration-share", "0.4"),
        *("--behavior.clone.scale", "0.1", "--behavior.clone.steps", "both"),
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train", "--run", str(whole), *words, "--train.updates", "14"]) == 0
    line = f"demonstrations fill 2 of the 4 windows of every batch, from 80 steps of {shown}"
    assert line in said(capsys)
    assert main(["train", "--run", str(cut), *words, "--train.updates", "7"]) == 0
    shown.rename(tmp_path / "moved")
    again = ("--replay.demonstrations", str(tmp_path / "moved"), "--quiet")
    more = ("--resume", "--train.updates", "14")
    assert main(["train", "--run", str(cut), *more]) == 2  # they are not where they were
    assert "--replay.demonstrations" in said(capsys)
    assert main(["train", "--run", str(cut), *more, *again]) == 0
    one, other = weights(whole), weights(cut)
    assert all(torch.equal(one[name], other[name]) for name in one)
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["clone_loss"] > 0


def test_demonstrations_that_cannot_be_used_are_refused_before_anything_is_written(
    record_steps, toy, tiny, tmp_path, capsys
):
    own, run = record_steps(lambda step: 1.0 * step), tmp_path / "run"
    Ledger(tmp_path / "empty" / LEDGER_NAME).close()
    train = ("train", "--run", str(run), *tiny)
    store = ("--store", str(own), "--replay.demonstrations")
    for words, reason in (
        ((*store, str(tmp_path / "bagz")), "did you mean 'bags'"),
        ((*store, str(tmp_path / "empty")), "expected at least 8 usable steps in a row"),
        ((*store, str(own), "--replay.length", "81"), "got 80 steps without such a run"),
        ((*store, str(own), "--replay.batch", "1"), "at least 2 windows"),
        ((*store, str(own), "--workers", "2"), "needs one worker, got 2"),
        (("--task", toy, "--replay.demonstrations", str(own)), "was recorded with another spec"),
        (
            (
                *store[:-1],
                "--behavior.clone.scale",
                "1",
                "--behavior.clone.steps",
                "demonstrations",
            ),
            "expected --replay.demonstrations FOLDER too, got none",
        ),
    ):
        try:
            status = main([*train, *words])
        except SystemExit as ended:  # a value that no option takes
            status = ended.code
        assert status == 2, words
        assert reason in said(capsys), words
        assert not run.exists()


def test_options_for_interventions_say_that_a_finished_store_has_none(
    record_steps, tiny, tmp_path, capsys
):
    none, some = (
        record_steps(lambda step: 1.0),
        record_steps(lambda step: 1.0, name="some", interventions={5}),
    )
    words = (
        "train",
        *tiny[:-1],
        "--no-publish",
        "--train.updates",
        "1",
        "--replay.intervention-weight",
    )
    for store, weight, count in ((none, "3", 1), (some, "3", 0)):
        run = tmp_path / f"{store.name}{weight}"
        assert main([*words, weight, "--run", str(run), "--store", str(store)]) == 0
        told = said(capsys)
        assert told.count(f"{store} holds no step with an intervention: --replay") == count


def test_a_run_that_begins_from_another_takes_over_no_demonstrations(record_steps, tiny, tmp_path):
    own = record_steps(lambda step: 1.0 * step)
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("--store", str(own), *tiny, "--no-publish", "--train.updates", "2")
    assert main(["train", "--run", str(one), *words, "--replay.demonstrations", str(own)]) == 0
    assert main(["train", "--run", str(two), *words, "--init-from", str(one)]) == 0
    assert json.loads((two / "settings.json").read_text())["replay"]["demonstrations"] is None
