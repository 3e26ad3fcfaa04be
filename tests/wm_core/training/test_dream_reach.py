"""Of a model that sees so many steps and no more, no longer dream is ever shown."""

import numpy as np
import pytest
from PIL import Image

from wm_core.cli.main import main
from wm_core.contract.files import read_json
from wm_core.library import live_folder, live_learner
from wm_core.library.train import train
from wm_core.training import trainer as trainer_module
from wm_core.training.dream import dream

pytestmark = pytest.mark.long

WINDOW = 10
AWM = {
    "preset": "awm",
    "size": "micro",
    "world.transformer.window": WINDOW,
    "train.prefill": 64,
    "train.steps": 96,
}


@pytest.fixture
def run(monkeypatch, toy, small_settings, tmp_path):
    """A short run that somebody watches."""
    monkeypatch.setattr(trainer_module, "STATUS_S", 1e-9)
    for name in ("FIGURES", "DREAM"):
        monkeypatch.setattr(live_learner, f"{name}_S", 1e-9)
        monkeypatch.setattr(live_learner, f"{name}_SHARE", 1e9)
    run = tmp_path / "run"
    train(run, task=toy, on_status=lambda _: live_folder.touch(run), **small_settings | AWM)
    return run


def test_what_is_shown_of_a_run_ends_where_its_world_model_forgets_the_start(
    run, tmp_path, capsys
):
    told = read_json(live_folder.live_of(run) / live_folder.DREAM)
    assert told["steps"] == WINDOW  # of episodes of 21
    assert 0 < told["observed"] < WINDOW
    assert f"at most {WINDOW} steps" in told["limit"]
    words = ("--run", str(run), "--length", "18", "--windows", "1", "--to", str(tmp_path))
    assert main(["show", *words, "--observed", "4"]) == 0
    said = capsys.readouterr().out
    assert f"on average over {WINDOW - 1} steps" in said
    assert f"{WINDOW - 1} steps are imagined, not 14" in said
    with Image.open(tmp_path / "imagined.gif") as movie:
        assert movie.n_frames <= 4 + WINDOW - 1
    assert main(["show", *words, "--observed", "9"]) == 0
    said = capsys.readouterr().out
    assert f"on average over {WINDOW - 1} steps" in said
    assert "steps are imagined, not" not in said


def test_a_longer_dream_is_refused(small):
    parts = small("awm")
    agent, batch = parts.agent(), parts.batch().map(lambda x: np.asarray(x)[:1].repeat(2, 1))
    assert agent.world.reach == 8
    with pytest.raises(ValueError, match="a window of at most 8 steps, got 12"):
        dream(agent, batch, 4, seed=0)
