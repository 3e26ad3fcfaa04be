"""Loggers by name: what they are given, on which axis, and that none of them ends a run."""

from __future__ import annotations

import json
import sys
import textwrap
from importlib.util import find_spec

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wm_core.cli.main import main
from wm_core.contract.errors import SettingsError
from wm_core.training.loggers.base import BUILT_IN, Loggers, RunAbout, find_loggers
from wm_core.training.metrics import MetricLog

#: the loggers whose packages are here; TensorBoard's always is
INSTALLED = [name for name in BUILT_IN if name == "tensorboard" or find_spec(name)]

ADDED = '''
"""Loggers of another package: one that notes everything, others that fail."""

import json


class Noting:
    def __init__(self, about):
        self._file = (about.run / "noted.jsonl").open("a")
        self._note("open", axis=about.axis, seed=about.settings["seed"], id=about.run_id)

    def _note(self, what, **values):
        self._file.write(json.dumps({"what": what, **values}) + "\\n")

    def write(self, kind, numbers, *, updates, agent_steps):
        self._note(kind, names=sorted(numbers), updates=updates, agent_steps=agent_steps)

    def video(self, name, frames, *, updates, agent_steps, fps):
        self._note("video", shape=frames.shape, updates=updates, agent_steps=agent_steps)

    def close(self):
        self._note("close")
        self._file.close()


class FailsAtWriting(Noting):
    def write(self, *args, **more):
        raise ConnectionError("no route\\nto the server")


def fails_at_opening(about):
    raise PermissionError("who are you?")
'''
POINTS = """
[wm_core.loggers]
noting = wm_added_loggers:Noting
fails-at-writing = wm_added_loggers:FailsAtWriting
fails-at-opening = wm_added_loggers:fails_at_opening
nowhere = wm_added_loggers:Missing
"""


@pytest.fixture
def added(tmp_path, monkeypatch):
    """A distribution that is installed for this test and adds loggers by entry points."""
    site = tmp_path / "site"
    about = site / "wm_added_loggers-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "wm_added_loggers.py").write_text(textwrap.dedent(ADDED))
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: wm-added-loggers\nVersion: 1.0\n"
    )
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("wm_added_loggers", None)


def train(toy, run, tiny, *more):
    """The exit status of a short ``wm train``."""
    short = ("--no-publish", "--train.steps", "128", "--train.replay-ratio", "4")
    return main(["train", "--task", toy, "--run", str(run), *tiny, *short, *more])


def scalars(run, tag):
    events = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.mark.long
def test_loggers_of_other_packages_get_every_number_and_bad_ones_are_dropped(
    added, toy, tiny, tmp_path, caplog
):
    run = tmp_path / "run"
    named = ("noting", "fails-at-writing", "fails-at-opening", "tensorboard")
    assert train(toy, run, tiny, "--loggers", *named, "--log-axis", "agent_steps") == 0
    noted = [json.loads(line) for line in (run / "noted.jsonl").read_text().splitlines()]
    mine = [line for line in noted if "seed" not in line]
    assert noted[0]["axis"] == "agent_steps"
    kinds = {line["what"] for line in mine}
    assert {"train", "episode", "progress", "close"} <= kinds
    train_lines = [line for line in mine if line["what"] == "train" and "loss" in line["names"]]
    assert train_lines[-1]["updates"] > 0
    assert train_lines[-1]["agent_steps"] >= 64
    warned = [r.getMessage() for r in caplog.records if "is dropped" in r.getMessage()]
    assert len(warned) == 2
    assert "ConnectionError: no route" in " ".join(warned)
    assert "who are you?" in " ".join(warned)
    steps = [step for step, _ in scalars(run, "train/loss")]
    assert steps == [line["agent_steps"] for line in train_lines]


@pytest.mark.parametrize("axis", ["updates", "agent_steps"])
def test_tensorboard_shows_steps_and_updates_on_either_axis(axis, tmp_path):
    log = MetricLog(
        tmp_path, Loggers(find_loggers(["tensorboard"]), RunAbout(tmp_path, axis=axis))
    )
    log.add({"loss": 2.0})
    log.write({"updates": 5, "agent_steps": 700}, {"episode/return": 1.5, "recon_loss/image": 3.0})
    log.close()
    place = {"updates": 5, "agent_steps": 700}[axis]
    assert scalars(tmp_path, "train/loss") == [(place, 2.0)]
    assert scalars(tmp_path, "episode/return") == [(place, 1.5)]
    assert scalars(tmp_path, "recon_loss/image") == [(place, 3.0)]
    assert scalars(tmp_path, "progress/agent_steps") == [(place, 700.0)]
    assert scalars(tmp_path, "progress/updates") == [(place, 5.0)]


def test_a_logger_that_does_not_exist_is_refused_before_anything_is_written(
    toy, tiny, tmp_path, capsys
):
    assert train(toy, tmp_path / "run", tiny, "--loggers", "tensorbord") == 2
    assert "did you mean 'tensorboard'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_logger_whose_package_is_missing_names_what_to_install(name, monkeypatch):
    monkeypatch.delitem(sys.modules, f"wm_core.training.loggers.to_{name}", raising=False)
    for part in (name, *[m for m in sys.modules if m.startswith(f"{name}.")]):
        monkeypatch.setitem(sys.modules, part, None)
    with pytest.raises(SettingsError, match=rf"pip install -e .*\[{name}\]"):
        find_loggers([name])


def test_an_entry_point_that_leads_nowhere_is_refused(added):
    with pytest.raises(SettingsError, match="--loggers nowhere: cannot be imported"):
        find_loggers(["nowhere"])


@pytest.mark.parametrize("name", INSTALLED)
def test_a_built_in_logger_takes_numbers_that_are_none_videos_and_a_second_process(
    name, tmp_path, monkeypatch, caplog
):
    """Without the network: Weights & Biases offline, the others into this folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # it would rather have a database
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    frames[2:] = 200
    for resume_at in (None, 3):
        settings = {"seed": 1, "train": {"steps": 10}, "task": "x" * 900, "spec": None}
        about = RunAbout(tmp_path, "0123456789abcdef", settings, resume_at=resume_at)
        loggers = Loggers(find_loggers([name]), about)
        numbers = {"loss": 1.0, "broken": float("nan")}
        loggers.write("train", numbers, updates=4, agent_steps=40)
        loggers.video("imagined", frames, updates=4, agent_steps=40, fps=20)
        assert list(loggers.names) == [name], caplog.text
        loggers.close()
        loggers.close()
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    assert "is dropped" not in caplog.text
