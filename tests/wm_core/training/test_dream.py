"""What a model imagines beside what happened, with every system and without pictures too."""

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.contract.batch import Batch
from wm_core.training.dream import dream

STEPS, OBSERVED = 8, 4  # as many as a small transformer sees


def window(spec, *, steps=STEPS) -> Batch[np.ndarray]:
    """(1, ``steps``) random steps of one episode."""
    rng = np.random.default_rng(3)
    flag = np.zeros((1, steps), bool)
    obs = {k: rng.integers(0, 256, (1, steps, *s.shape), np.uint8) for k, s in spec.images.items()}
    obs |= {
        k: rng.normal(size=(1, steps, s.size)).astype(np.float32) for k, s in spec.vectors.items()
    }
    return Batch(
        obs=obs,
        prev_action=rng.uniform(-1, 1, (1, steps, spec.action.size)).astype(np.float32),
        reward=np.arange(steps, dtype=np.float32)[None],
        is_first=flag,
        is_last=flag,
        is_terminal=flag,
    )


def stirred(parts):
    """An agent of ``parts`` that heeds what it sees, which an untrained one hardly does."""
    agent, generator = parts.agent(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in agent.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return agent


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_system_tells_rewards_and_surprise_of_every_step(preset, small):
    parts = small(preset, vectors=True)
    agent, batch = parts.agent(), window(parts.spec)
    before = {name: value.clone() for name, value in agent.named_parameters()}
    made = dream(agent, batch, OBSERVED, seed=0)
    for values in (made.reward, made.reward_seen, made.reward_imagined, made.surprise):
        assert values.shape == (STEPS,)
    np.testing.assert_array_equal(made.reward, batch.reward[0])
    np.testing.assert_array_equal(made.reward_seen[:OBSERVED], made.reward_imagined[:OBSERVED])
    assert np.isnan(made.surprise[0])
    assert np.isfinite(made.surprise[1:]).all()
    assert made.surprise_is_kl == (preset != "world_models")
    if agent.world.decoder is None:
        assert made.truth is None
        assert made.error is None
        assert made.vectors == {}
    else:
        np.testing.assert_array_equal(made.truth, batch.obs["image"][0])
        assert made.imagined.shape == made.truth.shape
        assert made.error.shape == (STEPS,)
        truth, imagined = made.vectors["joints"]
        np.testing.assert_array_equal(truth, batch.obs["joints"][0])
        assert imagined.shape == truth.shape
    assert all(torch.equal(value, before[name]) for name, value in agent.named_parameters())


@pytest.mark.parametrize("preset", ["dreamer_v3", "transdreamer", "s4wm", "awm"])
def test_what_is_imagined_knows_nothing_of_later_observations(preset, small):
    parts = small(preset)
    agent, batch = stirred(parts), window(parts.spec)
    one = dream(agent, batch, OBSERVED, seed=0)
    batch.obs["image"][:, OBSERVED:] = 0
    batch.reward[:, OBSERVED:] = 0
    two = dream(agent, batch, OBSERVED, seed=0)
    np.testing.assert_array_equal(one.imagined, two.imagined)
    np.testing.assert_array_equal(one.reward_imagined, two.reward_imagined)
    assert (one.surprise[OBSERVED:] != two.surprise[OBSERVED:]).any()
    batch.obs["image"][:] = 0
    assert (dream(agent, batch, OBSERVED, seed=0).imagined != two.imagined).any()


def test_the_same_seed_gives_the_same_dream_and_leaves_the_global_generator_alone(small):
    parts = small("dreamer_v3")
    agent, batch, state = stirred(parts), window(parts.spec), torch.get_rng_state()
    one, two, other = (dream(agent, batch, OBSERVED, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.imagined, two.imagined)
    assert (one.imagined != other.imagined).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_rewards_that_are_learnt_squashed_are_told_in_units_of_the_task(small):
    plain, squashed = (
        small("dreamer_v3", world={"heads": {"squash": squash}}) for squash in ("none", "tanh")
    )
    batch = window(plain.spec)
    one, other = (dream(stirred(parts), batch, OBSERVED, seed=0) for parts in (plain, squashed))
    np.testing.assert_allclose(np.tanh(other.reward_seen), one.reward_seen.clip(-1, 1), atol=1e-5)


@pytest.mark.parametrize("observed", [0, STEPS])
def test_a_window_without_a_step_to_see_or_to_imagine_is_refused(observed, small):
    parts = small("dreamer_v3")
    with pytest.raises(ValueError, match="expected one window"):
        dream(parts.agent(), window(parts.spec), observed, seed=0)
