"""Videos of imagined beside real frames."""

import numpy as np
import pytest
import torch

from wm_core.agents.agent import AgentCore
from wm_core.behavior.settings import BehaviorConfig
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.training.rollout_video import RolloutVideo, render, sample_windows
from wm_core.world.settings import WorldConfig

CONFIG = Config(
    size="test",
    world=WorldConfig(
        encoder={"kind": "k4s2", "depth": 2},
        gru={"deter": 16, "hidden": 8, "blocks": 2},
        categorical={"groups": 4, "classes": 4},
        units=8,
        heads={"bins": 11},
    ),
    behavior=BehaviorConfig(imag_horizon=2),
)
SPEC = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
B, T = 3, 9


def batch(spec: Spec, first: np.ndarray | None = None) -> Batch[np.ndarray]:
    rng = np.random.default_rng(0)
    flag = np.zeros((B, T), bool)
    obs = {k: rng.integers(0, 256, (B, T, *s.shape), np.uint8) for k, s in spec.images.items()}
    vectors = {k: np.zeros((B, T, s.size), np.float32) for k, s in spec.vectors.items()}
    return Batch(
        obs=obs | vectors,
        prev_action=np.zeros((B, T, 1), np.float32),
        reward=np.zeros((B, T), np.float32),
        is_first=flag if first is None else first,
        is_last=flag,
        is_terminal=flag,
        key=np.arange(B * T, dtype=np.int64).reshape(B, T),
        context_key=np.full(B, -1, np.int64),
        policy_version=np.zeros((B, T), np.int64),
    )


def agent(spec: Spec = SPEC):
    return AgentCore(spec, CONFIG, generator=torch.Generator().manual_seed(0))


def test_video_holds_the_real_frames_and_as_many_of_the_model():
    windows = batch(SPEC)
    video = render(agent(), windows, seed=0, observed=4)
    np.testing.assert_array_equal(video.real, windows.obs["image"])
    assert video.model.shape == video.real.shape
    assert video.model.dtype == np.uint8


def test_frames_after_the_observed_ones_do_not_change_the_rollout():
    """Other frames from there on change nothing of what the model draws."""
    windows, seer = batch(SPEC), agent()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # an untrained posterior hardly looks at the image
        for p in seer.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    one = render(seer, windows, seed=0, observed=4)
    windows.obs["image"][:, 4:] = 0
    two = render(seer, windows, seed=0, observed=4)
    np.testing.assert_array_equal(one.model, two.model)
    windows.obs["image"][:, 3] = 0
    three = render(seer, windows, seed=0, observed=4)
    assert (one.model != three.model).any()


def test_the_bar_changes_colour_where_imagination_begins(tmp_path):
    real = np.zeros((1, 4, 8, 8, 3), np.uint8)
    video = RolloutVideo(real, real + 10, observed=2)
    bars = video.frames()[:, 8, 0]  # the first row below the real frame
    assert (bars[0] == bars[1]).all()
    assert (bars[2] == bars[3]).all()
    assert (bars[1] != bars[2]).any()
    assert video.error == 10


def test_windows_within_one_episode_are_preferred():
    first = np.zeros((B, T), bool)
    first[0, 0] = True  # begins with an episode: whole
    first[1, 4] = True  # two episodes

    class Sampler:
        def sample(self):
            return batch(SPEC, first)

    chosen = sample_windows(Sampler(), 5)
    assert len(chosen.key) == 5
    assert not chosen.is_first[:, 1:].any()
    first[:, 4] = True  # none is whole: better those than nothing
    assert len(sample_windows(Sampler(), 5, tries=2).key) == 5


def test_an_agent_without_a_camera_has_no_video():
    spec = SPEC.model_copy(update={"images": {}, "vectors": {"v": VectorSpec(size=2)}})
    with pytest.raises(SettingsError, match="no camera"):
        render(agent(spec), batch(spec), seed=0)


def test_windows_must_be_longer_than_the_observed_frames():
    with pytest.raises(SettingsError, match="more than 9"):
        render(agent(), batch(SPEC), seed=0, observed=9)
