"""A disk that is full, read-only or gone ends a run in one line, or costs only what is no loss."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import resource
import threading

import pytest
import torch

from wm_core.cli.main import main
from wm_core.library.train import train
from wm_core.store.disk import DiskFailed, disk_error_of
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.verify import verify_store
from wm_core.training import checkpoint
from wm_core.training.loggers.base import Loggers, RunAbout, find_loggers

STEPS = ("--train.steps", "128", "--train.replay-ratio", "1", "--no-publish")


@contextlib.contextmanager
def files_of_at_most(size):
    """Let the system refuse every file beyond ``size`` bytes, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def unfinished(folder):
    return list(folder.rglob("*.tmp"))


def test_a_checkpoint_that_does_not_fit_leaves_the_older_ones_and_nothing_else(tmp_path):
    state = {"x": torch.rand(50_000)}
    old = checkpoint.save(tmp_path, state, updates=1, keep=2)
    before = old.read_bytes()
    with files_of_at_most(60_000), pytest.raises(DiskFailed) as refused:
        checkpoint.save(tmp_path, state, updates=2, keep=1)
    said = str(refused.value)
    assert "\n" not in said
    assert "000000002.pt" in said
    assert "200.0 kB needed" in said
    assert re.search(r"[\d.]+ (bytes|kB|MB|GB) free", said)
    for option in ("--train.keep-checkpoints", "--replay.store-max-bytes", "--resume"):
        assert option in said
    assert checkpoint.listed(tmp_path) == [old]
    assert old.read_bytes() == before
    assert unfinished(tmp_path) == []
    checkpoint.save(tmp_path, state, updates=2, keep=1)
    assert [path.name for path in checkpoint.listed(tmp_path)] == ["000000002.pt"]


def test_what_a_killed_process_left_is_removed_before_a_checkpoint_is_written(tmp_path):
    left = checkpoint.folder_of(tmp_path) / "000000001.pt.0badcafe.tmp"
    left.parent.mkdir()
    left.write_bytes(bytes(1000))
    with files_of_at_most(0), pytest.raises(DiskFailed):
        checkpoint.save(tmp_path, {}, updates=2, keep=1)
    assert not left.exists()


def test_an_error_that_is_not_the_disks_passes_unchanged(tmp_path):
    with pytest.raises(AttributeError, match="pickle"):
        checkpoint.save(tmp_path, {"x": lambda: 0}, updates=1, keep=1)
    assert unfinished(tmp_path) == []
    assert disk_error_of(ValueError("no")) is None
    assert disk_error_of(PermissionError(errno.EACCES, "no")) is not None


@pytest.mark.parametrize("size", [2_000, 40_000])
def test_a_run_without_room_ends_in_one_line_and_goes_on_by_the_plain_command(
    toy, tiny, tmp_path, capsys, size
):
    run = tmp_path / "run"
    args = ["train", "--task", toy, "--run", str(run), *tiny, *STEPS]
    with files_of_at_most(size):
        assert main(args) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("\n") == 1, said
    assert str(run) in said
    assert "make room" in said
    assert unfinished(run) == []
    resume = ("--resume",) if run.exists() else ()  # a start that made nothing leaves nothing
    assert main([*args, *resume]) == 0
    assert checkpoint.listed(run)
    assert verify_store(run / "store").damaged == []


def test_a_disk_without_room_for_tensorboard_costs_that_logger_in_one_line(tmp_path, caplog):
    """It writes in no thread of its own, whose errors nobody would catch."""
    threads = threading.active_count()
    loggers = Loggers(find_loggers(["tensorboard"]), RunAbout(tmp_path))
    loggers.write("train", {"loss": 1.0}, updates=1, agent_steps=1)
    with files_of_at_most(500):
        for update in range(2, 40):
            loggers.write("train", {"loss": 1.0}, updates=update, agent_steps=1)
    assert threading.active_count() == threads
    assert list(loggers.names) == []
    loggers.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "logger tensorboard is dropped, the run goes on without it: OSError" in said


def test_a_run_goes_on_without_its_metrics_and_says_so(toy, tiny, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").symlink_to("/dev/full")
    assert main(["train", "--task", toy, "--run", str(run), *tiny, *STEPS]) == 0
    assert checkpoint.listed(run)
    status = json.loads((run / "status.json").read_text())
    assert status["phase"] == "done"
    assert status["unwritten"]["metrics"] > 0


def test_a_run_goes_on_without_its_status(toy, tiny, tmp_path):
    run = tmp_path / "run"
    (run / "status.json").mkdir(parents=True)
    assert main(["train", "--task", toy, "--run", str(run), *tiny, *STEPS]) == 0
    assert checkpoint.listed(run)
    assert unfinished(run) == []


def test_a_run_whose_folder_goes_away_says_so_and_makes_no_new_one(toy, tiny, tmp_path):
    run, away = tmp_path / "run", tmp_path / "away"

    def on_status(status) -> None:
        if status.phase == "training" and run.exists():
            run.rename(away)

    small = {"train": {"steps": 100_000, "prefill": 64, "replay_ratio": 1.0, "eval_every": 0}}
    with pytest.raises(DiskFailed, match="removed"):
        train(run, task=toy, publish=False, on_status=on_status, threads=1, **small)
    assert not run.exists()
    ledger = Ledger(away / "store" / LEDGER_NAME, read_only=True)
    assert ledger.counts()["steps"] >= 64
    ledger.close()


@pytest.mark.slow
def test_on_a_real_full_disk_nothing_half_written_stays(toy, tiny, tmp_path, capsys, small_disk):
    with small_disk("1m") as disk:
        run = disk / "run"
        args = ["train", "--task", toy, "--run", str(run), *tiny, *STEPS]
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(2 << 20))
        for left in (0, 4096, 100_000, 300_000, 500_000):
            os.truncate(ballast, max(0, ballast.stat().st_size - left))
            resume = ("--resume",) if run.exists() else ()
            code = main([*args, *resume])
            said = capsys.readouterr().err
            assert "Traceback" not in said
            assert code == 0 or said.count("\n") == 1, said
            assert unfinished(run) == []
        ballast.unlink()
        assert main([*args, "--resume"]) == 0
        assert verify_store(run / "store").damaged == []
