"""Before its first update, every preset already sees that two frames differ."""

from __future__ import annotations

import pytest
import torch

from wm_core import presets
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.training.tasks import make_env
from wm_core.world.world_model import WorldModel

LEAST_NATS = 5e-4  #: 1e-6 to 1e-4 where nothing made up for small pixels and activations

pytestmark = pytest.mark.mujoco


@pytest.fixture(scope="module")
def frames():
    """(2, 64, 64, 3) uint8: two frames of a pole, a fifth of a grey level apart on average."""
    env = make_env("cartpole_swingup")
    env.action_space.seed(0)
    seen = [env.reset(seed=0)[0]]
    seen += [env.step(env.action_space.sample())[0] for _ in range(20)]
    env.close()
    return torch.stack([torch.from_numpy(seen[t]["image"].copy()) for t in (0, 20)])


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_posteriors_of_two_frames_differ_before_anything_was_learnt(preset, frames):
    spec = Spec(action=ActionSpec(names=("x",), low=(-1.0,), high=(1.0,)))
    config = presets.make(preset, "micro").world
    world = WorldModel(spec, config, generator=torch.Generator().manual_seed(0))
    dynamics = world.dynamics
    uniform = torch.full((2, *dynamics.latent_dist.shape), 0.5)
    with torch.no_grad():
        if config.recurrent:
            first = torch.ones(2, dtype=torch.bool)
            start, still = dynamics.initial(2), torch.zeros(2, 1)
            latent = world.observe_step(start, still, {"image": frames}, first, uniform)
        else:
            latent = world.encode_posterior({"image": frames}, uniform)
    one, other = latent.params.split(1)
    assert dynamics.latent_dist.kl(one, other) > LEAST_NATS
