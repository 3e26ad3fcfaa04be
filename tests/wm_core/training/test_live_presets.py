"""What a learner of each preset shows while somebody looks can be shown: no number is nonsense."""

import math

import pytest

from wm_core.contract.files import read_json
from wm_core.library import live_folder, live_learner
from wm_core.library.train import train
from wm_core.presets import PRESETS
from wm_core.training import trainer as trainer_module

EPISODE = 21  #: steps of the toy task
MOST_REWARD = 1e3  #: that a model which has hardly learnt may imagine; the task's are below 1
MOST_NATS = 1e4
#: small networks of the presets that are no RSSM
MORE = {
    "world.lstm.deter": 16, "world.lstm.hidden": 8, "world.ssm.deter": 16, "world.net.units": 8,
    "world.posterior.units": 8, "replay.latents": 5000,
}  # fmt: skip


@pytest.fixture
def shown(monkeypatch, toy, small_settings, tmp_path):
    """Trains a preset for a few updates while somebody looks; gives the folder of its figures."""
    monkeypatch.setattr(trainer_module, "STATUS_S", 1e-9)
    for name in ("FIGURES", "DREAM"):
        monkeypatch.setattr(live_learner, f"{name}_S", 1e-9)
        monkeypatch.setattr(live_learner, f"{name}_SHARE", 1e9)
    run = tmp_path / "run"

    def learn(preset):
        train(
            run, task=toy, preset=preset, size="micro",
            on_status=lambda status: live_folder.touch(run),
            **small_settings | MORE | {"train.prefill": 64, "train.steps": 96},
        )  # fmt: skip
        return live_folder.live_of(run)

    return learn


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_dream_of_each_preset_has_no_nonsense(preset, shown):
    folder = shown(preset)
    learner, dream = (read_json(folder / n) for n in (live_folder.LEARNER, live_folder.DREAM))
    steps, observed = dream["steps"], dream["observed"]
    assert (steps, observed) == (EPISODE, EPISODE // 3)
    for name in ("reward", "reward_seen", "reward_imagined"):
        assert len(dream[name]) == steps
        assert all(abs(value) <= MOST_REWARD for value in dream[name]), name
    assert max(dream["reward"]) <= 1.0
    assert dream["reward_seen"][:observed] == pytest.approx(
        dream["reward_imagined"][:observed], rel=1e-3, abs=1e-3
    )
    nats = [value for value in dream["surprise"] if value is not None]
    assert len(dream["surprise"]) == steps
    assert len(nats) >= steps - 2  # of the first step, and where a model looks at pairs, one more
    assert all(math.isfinite(value) and abs(value) <= MOST_NATS for value in nats)
    assert min(nats) >= 0.0 or not dream["surprise_is_kl"]
    _check_pictures(dream, folder, steps - observed)
    told = learner["dream"]
    assert told["ahead"] == steps - observed
    assert told["surprise"] == pytest.approx(sum(nats) / len(nats), rel=1e-3)
    assert told["updates"] == dream["updates"] >= 1
    assert learner["updates"] >= 1
    assert learner["replay_ratio"] > 0


def _check_pictures(dream, folder, ahead):
    """Either pictures and their errors are there, or a sentence says why not."""
    there = [(folder / live_folder.strip_name(strip)).exists() for strip in live_folder.STRIPS]
    if dream["why_no_pictures"]:
        assert not any(there)
        assert dream["error"] == []
        assert dream["frames"] == 0
        return
    assert all(there)
    assert len(dream["error"]) == dream["frames"] == ahead
    assert all(0.0 <= value <= 255.0 for value in dream["error"])
    assert (dream["frame_width"], dream["frame_height"]) == (64, 64)
