"""A learner shows what it does while somebody looks, and learns the same bits either way."""

import io
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from wm_core.contract.files import read_json
from wm_core.library import live_folder, live_learner
from wm_core.library.train import train
from wm_core.training import checkpoint
from wm_core.training import trainer as trainer_module

EPISODE = 21  #: steps of the toy task


@pytest.fixture
def eager(monkeypatch):
    """A learner that looks after every update."""
    monkeypatch.setattr(trainer_module, "STATUS_S", 1e-9)
    for name in ("FIGURES", "DREAM"):
        monkeypatch.setattr(live_learner, f"{name}_S", 1e-9)
        monkeypatch.setattr(live_learner, f"{name}_SHARE", 1e9)


def learnt(run):
    return checkpoint.newest(run)[1]["learner"]


def pixels(path):
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


@pytest.mark.parametrize(
    "how", ["simulation", "store", pytest.param("follow", marks=pytest.mark.long)]
)
def test_a_watched_run_learns_the_same_bits_and_shows_its_dream(
    how, eager, robot, toy, small_settings, tmp_path
):
    ways = {
        "simulation": {"train.steps": 64},
        "store": {"store": tmp_path / "store", "train.updates": 8},
        "follow": {"store": tmp_path / "store", "follow": True, "train.updates": 8},
    }
    if how != "simulation":
        robot()
    runs = {looks: tmp_path / f"run-{looks}" for looks in (False, True)}
    for looks, run in runs.items():

        def look(status, run=run, looks=looks):
            if looks and status.updates >= 4:
                live_folder.touch(run)

        train(run, task=toy, on_status=look, **small_settings | ways[how])
    alone, watched = (learnt(run) for run in runs.values())
    assert alone["agent"].keys() == watched["agent"].keys()
    for name, value in alone["agent"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, watched["agent"][name]), name
    assert str(alone["sampler"]) == str(watched["sampler"])
    assert not live_folder.live_of(runs[False]).exists()
    _check_live(live_folder.live_of(runs[True]))


def _check_live(folder):
    learner, dream = (read_json(folder / n) for n in (live_folder.LEARNER, live_folder.DREAM))
    assert learner["updates"] >= 1
    assert learner["memory_bytes"] > 0
    assert 0 < learner["steps_trained_on"] <= learner["agent_steps"]
    assert learner["dream"]["surprise"] >= 0
    assert dream["steps"] == EPISODE
    assert dream["observed"] == EPISODE // 3
    for name in ("reward", "reward_seen", "reward_imagined", "surprise"):
        assert len(dream[name]) == EPISODE
    assert dream["frames"] == len(dream["error"]) == EPISODE - EPISODE // 3
    size = (dream["frame_height"], dream["frames"] * dream["frame_width"], 3)
    truth, imagined, error = (
        pixels(folder / live_folder.strip_name(strip)) for strip in live_folder.STRIPS
    )
    assert truth.shape == imagined.shape == error.shape == size == (64, 64 * dream["frames"], 3)
    np.testing.assert_array_equal(error, np.abs(truth.astype(int) - imagined))
    means = error.reshape(64, dream["frames"], 64, 3).mean((0, 2, 3))
    np.testing.assert_allclose(means, dream["error"], rtol=1e-4)
    assert not [p for p in folder.iterdir() if p.suffix == ".tmp"]


def test_a_look_that_fails_is_logged_once_and_ends_nothing(
    eager, robot, small_settings, tmp_path, caplog
):
    robot()
    run = tmp_path / "run"

    def look(status):
        live_folder.touch(run)
        target = live_folder.live_of(run) / live_folder.DREAM
        target.mkdir(exist_ok=True)  # where a folder lies, no file can be put

    with caplog.at_level(logging.WARNING):
        status = train(
            run, store=tmp_path / "store", on_status=look,
            **small_settings | {"train.updates": 8},
        )  # fmt: skip
    assert status.updates == 8
    told = [r.message for r in caplog.records if "no live figures" in r.message]
    assert len(told) == 1


def test_a_touch_counts_for_some_seconds(tmp_path):
    assert not live_folder.is_watched(tmp_path)
    live_folder.touch(tmp_path)
    assert live_folder.is_watched(tmp_path)
    watched = live_folder.live_of(tmp_path) / live_folder.WATCHED
    touched_s = watched.stat().st_mtime
    for moved_s in (-60.0, 60.0):
        os.utime(watched, (touched_s + moved_s,) * 2)
        assert not live_folder.is_watched(tmp_path)


@pytest.mark.parametrize(("side", "shown"), [(128, 128), (129, 65), (500, 125)])
def test_large_pictures_are_thinned_out(side, shown):
    film = np.zeros((3, side, side // 2, 3), np.uint8)
    assert live_learner.reduced(film).shape[:2] == (3, shown)
