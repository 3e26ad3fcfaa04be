"""Dreams whose gradient is written by hand have the states and gradients of autograd."""

from __future__ import annotations

import pytest
import torch

from wm_core.world.latent import Latent

N, STEPS = 3, 4


@pytest.fixture
def world(build):
    world = build(net={"layers": 2})
    for weight in world.dynamics.parameters():  # zeros and ones would hide a wrong gradient
        weight.requires_grad_(False)
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 0.7, 0.3, generator=torch.Generator().manual_seed(1))
    return world


def by_hand(world, start, action, uniform):
    dream = world.dynamics.dream(uniform)
    latents = [start]
    for t in range(STEPS):
        latents.append(dream.step(t, latents[-1], action[:, t].detach()))
    assert not latents[-1].deter.requires_grad
    return dream.differentiable(stacked(latents), action)


def plainly(world, start, action, uniform):
    latents = [start]
    for t in range(STEPS):
        latents.append(world.imagine_step(latents[-1], action[:, t], uniform[t]))
    return stacked(latents)


def stacked(latents):
    return Latent(*(torch.stack([getattr(x, k) for x in latents], 1) for k in ("deter", "stoch")))


def both(world, start, uniform, dtype=None):
    """States by both ways, and gradients to the actions of a sum that weighs every number."""
    found = []
    for way in (by_hand, plainly):
        action = torch.linspace(-1.5, 1.5, N * STEPS * 2).sin().mul(1.2).reshape(N, STEPS, 2)
        action.requires_grad_()  # some beyond [-1, 1], where they are clipped
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            states = way(world, start, action, uniform)
        weights = torch.linspace(0, 50, states.feat.numel()).cos().view_as(states.feat)
        loss = (states.feat * weights).sum()
        first = torch.autograd.grad(loss, action, retain_graph=True)[0]
        assert torch.equal(torch.autograd.grad(loss, action)[0], first)  # a second pass back
        found.append((states, first))
    return found


def test_states_and_gradients_are_those_of_the_plain_form(world, start, generator):
    uniform = torch.rand(STEPS, N, 3, 4, generator=generator)
    (hand, gradient), (plain, expected) = both(world, start, uniform)
    torch.testing.assert_close(hand.deter, plain.deter)
    torch.testing.assert_close(hand.stoch, plain.stoch, atol=1e-6, rtol=0)
    assert (expected == 0).any()  # where an action was clipped
    assert expected[:, -1].any()
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_in_bfloat16_both_forms_differ_by_its_rounding_alone(world, start, generator):
    # one class of each draw is far ahead, so that rounding changes no draw
    ahead = torch.rand(STEPS, N, 3, 1, generator=generator) * 4 // 1 == torch.arange(4)
    uniform = torch.where(ahead, 0.9999, 0.1)
    (hand, gradient), (plain, expected) = both(world, start, uniform, torch.bfloat16)
    torch.testing.assert_close(hand.stoch, plain.stoch, atol=1e-6, rtol=0)
    torch.testing.assert_close(hand.deter, plain.deter, atol=0.02, rtol=0.02)
    assert (gradient - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layer"},
        {"activation": "elu"},
        {"gru": {"cell": "plain"}},
        {"latent": "gaussian", "gaussian": {"size": 6}},
        {"categorical": {"groups": 3, "classes": 4, "unimix": 0.0}},
        {"backbone": "ssm"},
    ],
)
def test_networks_without_a_gradient_by_hand_are_rolled_out_step_by_step(build, changes):
    assert build(**changes).dynamics.dream(torch.rand(STEPS, N, 3, 4)) is None
