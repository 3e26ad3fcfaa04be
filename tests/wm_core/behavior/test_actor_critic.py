"""The actor's distribution, roll-outs, and the direction in which the actor learns."""

from __future__ import annotations

import pytest
import torch

from wm_core.behavior.actor import Actor
from wm_core.behavior.critic import Critic
from wm_core.behavior.imagine import imagine
from wm_core.config import BehaviorConfig, WorldConfig
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.nn.blocks import initialize
from wm_core.world.world_model import WorldModel

ACTION = ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def parts(generator):
    """A world model and an actor that fit together."""
    config = WorldConfig(deter=16, hidden=8, groups=3, classes=4, blocks=4, units=8, bins=31)
    world = WorldModel(Spec(images={}, vectors={"v": VectorSpec(size=5)}, action=ACTION), config)
    actor = Actor(28, ACTION, 8, BehaviorConfig())
    initialize(world, generator)
    initialize(actor, generator)
    return world, actor


def test_actions_have_bounded_mean_and_spread(generator):
    actor = Actor(6, ACTION, 8, BehaviorConfig(min_std=0.1, max_std=0.8))
    initialize(actor, generator)
    actor.mean.weight.data.mul_(1e4)
    actor.std.weight.data.mul_(1e4)
    dist = actor.dist(torch.randn(100, 6, generator=generator))
    assert dist.mean.abs().max() <= 1
    assert dist.std.min() >= 0.1
    assert dist.std.max() <= 0.8 + 1e-6


def test_a_roll_out_is_its_single_steps(parts, generator):
    world, actor = parts
    start = world.dynamics.initial(4)
    dream = imagine(world, actor, start, 3, generator)
    feat = dream.latent.feat
    assert feat.shape == (4, 4, 28)
    assert dream.action.shape == (4, 3, 2)
    assert not feat.requires_grad
    torch.testing.assert_close(feat[:, 0], start.feat)
    # deter follows from the state before and the action, whatever was drawn.
    latent = start
    with torch.no_grad():
        for t in range(3):
            uniform = torch.rand(4, 3, 4, generator=generator)
            expected = world.imagine_step(latent, dream.action[:, t], uniform).deter
            torch.testing.assert_close(feat[:, t + 1, :16], expected)
            stoch = feat[:, t + 1, 16:].unflatten(-1, (3, 4))
            assert torch.equal(stoch.sum(-1), torch.ones(4, 3))
            latent = type(start)(expected, stoch)


def test_critic_is_drawn_to_target_and_to_its_slow_copy():
    critic = Critic(3, 4, 31, BehaviorConfig(slow_scale=0.5))
    feat, target = torch.zeros(2, 3), torch.tensor([1.0, -4.0])
    logits = critic.fast(feat)
    twohot = critic.fast.twohot
    expected = twohot.loss(logits, target) + 0.5 * twohot.loss(logits, torch.zeros(2))
    torch.testing.assert_close(critic.loss(logits, feat, target), expected)


def test_following_moves_the_slow_copy_alone(generator):
    critic = Critic(3, 4, 31, BehaviorConfig(slow_rate=0.25))
    initialize(critic.fast, generator)
    fast = [p.clone() for p in critic.fast.parameters()]
    critic.follow()
    for now, before, slow in zip(
        critic.fast.parameters(), fast, critic.slow.parameters(), strict=True
    ):
        assert torch.equal(now, before)
        assert slow.grad is None
    torch.testing.assert_close(
        critic.slow.layers[0].linear.weight, 0.25 * critic.fast.layers[0].linear.weight
    )
