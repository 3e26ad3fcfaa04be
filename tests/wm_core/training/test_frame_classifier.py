"""What of a classifier's marks is kept from it, and that a seed gives the same network."""

from __future__ import annotations

import numpy as np

from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.training.frame_classifier import FrameClassifier, held_out, learn_frames

SPEC = Spec(
    images={"depth": ImageSpec(height=80, width=120, channels=1)},
    vectors={"place": VectorSpec(size=2)},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)


def test_whole_episodes_are_held_out_where_both_kinds_are_left_on_both_sides():
    episodes = ["a"] * 4 + ["b"] * 4 + ["c"] * 4 + ["d"] * 4
    success = np.array([True, False] * 8)
    chosen, whole = held_out(episodes, success, np.random.default_rng(0))
    assert whole
    assert chosen.sum() == 4
    assert len({name for name, held in zip(episodes, chosen, strict=True) if held}) == 1


def test_else_some_of_each_kind_are_held_out():
    success = np.array([True] * 8 + [False] * 8)
    chosen, whole = held_out(["a"] * 8 + ["b"] * 8, success, np.random.default_rng(0))
    assert not whole
    assert (chosen[:8].sum(), chosen[8:].sum()) == (2, 2)
    chosen, _ = held_out(["a"] * 4, np.array([True, True, False, False]), np.random.default_rng(0))
    assert chosen.sum() == 2


def test_a_seed_gives_the_same_network_of_images_of_any_size_and_vectors():
    rng, n = np.random.default_rng(0), 24
    obs = {
        "depth": rng.integers(0, 256, (n, 80, 120, 1), np.uint8),
        "place": rng.normal(size=(n, 2)).astype(np.float32),
    }
    success = obs["place"][:, 0] > 0
    names = [f"{i // 4}" for i in range(n)]
    one, report = learn_frames(SPEC, obs, success, names)
    two, _ = learn_frames(SPEC, obs, success, names)
    assert isinstance(one, FrameClassifier)
    assert one.sha256 == two.sha256
    assert report.learnt_from + report.yes + report.no == n
    assert 0 <= report.accuracy <= 1
    assert one.probability(obs).shape == (n,)
    other, _ = learn_frames(SPEC, obs, success, names, seed=1)
    assert other.sha256 != one.sha256
