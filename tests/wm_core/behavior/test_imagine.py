"""Roll-outs: one step after another, with gradients through the dynamics and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from wm_core.behavior.imagine import frozen, imagine

EVERY = ["gru", "joint", "split", "actions", "ssm", "lstm", "mdn"]
HORIZON = 4


def dreamt(game, *, differentiable, seed=0):
    return imagine(
        game.world, game.behavior.actor, game.starts(), HORIZON,
        torch.Generator().manual_seed(seed), reads=game.behavior.config.reads,
        differentiable=differentiable,
    )  # fmt: skip


def draws(game, n, seed=0):
    """The uniforms and the actor's noise of a roll-out, (T_imag, n, ...) each."""
    generator = torch.Generator().manual_seed(seed)
    shape, size = game.world.dynamics.prior.noise_shape, game.behavior.actor.action_size
    uniform = torch.rand(HORIZON, n, *shape, generator=generator)
    return uniform, game.behavior.actor.noise(torch.rand(HORIZON, n, size, generator=generator))


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_roll_out_is_its_single_steps(kind, discrete, differentiable, play):
    """Also where the graph of it is one parallel pass."""
    game = play(kind, discrete=discrete)
    dream = dreamt(game, differentiable=differentiable)
    latent, actor = game.starts(), game.behavior.actor
    n = len(latent.deter)
    uniform, noise = draws(game, n)
    with torch.no_grad():
        torch.testing.assert_close(dream.latent.feat[:, 0], latent.feat)
        for t in range(HORIZON):
            action = actor.dist(latent.feat).sample(noise[t])
            torch.testing.assert_close(dream.action[:, t], action, rtol=1e-4, atol=1e-5)
            latent = game.world.imagine_step(latent, action, uniform[t])
            got = dream.latent.feat[:, t + 1]
            torch.testing.assert_close(got, latent.feat, rtol=1e-4, atol=1e-5)
    assert dream.latent.feat.requires_grad == differentiable
    assert dream.action.requires_grad == differentiable


@pytest.mark.parametrize("kind", EVERY)
def test_only_states_without_a_graph_are_cast_to_the_type_of_the_products(kind, play):
    game = play(kind)
    with torch.autocast("cpu", torch.bfloat16):
        plain, traced = (dreamt(game, differentiable=d).latent for d in (False, True))
    assert plain.deter.dtype == plain.stoch.dtype == torch.bfloat16
    assert traced.deter.dtype == traced.stoch.dtype == torch.float32
    torch.testing.assert_close(plain.deter.float(), traced.deter.detach(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("kind", EVERY)
def test_a_differentiable_roll_out_says_the_same_as_a_plain_one(kind, play):
    game = play(kind)
    plain, traced = (dreamt(game, differentiable=d) for d in (False, True))
    torch.testing.assert_close(
        traced.latent.feat.detach(), plain.latent.feat, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(traced.action.detach(), plain.action, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "latent"),
    [
        (k, z)
        for k in EVERY
        for z in ("gaussian", "categorical")
        if (k, z) != ("mdn", "categorical")
    ],
)
def test_every_action_moves_what_comes_after_and_nothing_before(kind, latent, play, monkeypatch):
    game = play(kind, world={"latent": latent})
    taken, step = [], game.world.imagine_step

    def spy(latent, action, uniform):
        taken.append(action)
        return step(latent, action, uniform)

    monkeypatch.setattr(game.world, "imagine_step", spy)
    dream = dreamt(game, differentiable=True)
    inputs = [dream.action] if kind == "actions" else taken
    for t in (1, HORIZON):
        loss = dream.latent.feat[:, t].square().sum()
        slopes = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
        if kind == "actions":
            slopes = slopes[0].unbind(1)
        moved = [slope is not None and bool(slope.any()) for slope in slopes]
        assert moved == [s < t for s in range(HORIZON)]


@pytest.mark.parametrize("kind", EVERY)
def test_the_actor_alone_has_gradients_from_what_is_imagined(kind, play):
    game = play(kind)
    dreamt(game, differentiable=True).latent.feat.square().sum().backward()
    assert all(p.grad is None for p in game.world.parameters())
    assert all(p.grad is not None and p.grad.any() for p in game.behavior.actor.parameters())


@pytest.mark.parametrize("discrete", [False, True])
def test_a_gradient_by_hand_is_that_of_the_graph(discrete, play, monkeypatch):
    dreamer = {
        "norm": "rms", "activation": "silu", "latent": "categorical",
        "gru": {"cell": "block", "deter": 6, "hidden": 6, "blocks": 2},
    }  # fmt: skip
    game = play("gru", discrete=discrete, world=dreamer)

    def gradients():
        dream = dreamt(game, differentiable=True)
        weights = torch.linspace(0, 9, dream.latent.feat.numel()).cos()
        loss = (dream.latent.feat.flatten() * weights).sum() + dream.action.square().sum()
        return dream, torch.autograd.grad(loss, list(game.behavior.actor.parameters()))

    hand, found = gradients()
    assert hand.dist is not None
    monkeypatch.setattr(type(game.world.dynamics), "dream", lambda self, uniform: None)
    plain, expected = gradients()
    assert plain.dist is None  # both ways were taken
    torch.testing.assert_close(hand.latent.feat, plain.latent.feat)
    torch.testing.assert_close(hand.action, plain.action)
    for got, gradient in zip(found, expected, strict=True):
        assert gradient.any()
        torch.testing.assert_close(got, gradient, rtol=1e-3, atol=1e-5)


def test_frozen_weights_are_trained_again_afterwards_even_on_exceptions():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].requires_grad_(False)  # was never trained: must not be afterwards
    before = [p.requires_grad for p in net.parameters()]

    def fail():
        with frozen(net):
            assert not any(p.requires_grad for p in net.parameters())
            raise KeyError("while frozen")

    with frozen(net):
        x = torch.ones(1, 2, requires_grad=True)
        y = net(x)
    assert [p.requires_grad for p in net.parameters()] == before
    with pytest.raises(KeyError):
        fail()
    assert [p.requires_grad for p in net.parameters()] == before
    y.sum().backward()
    assert x.grad.any()
    assert all(p.grad is None for p in net.parameters())


def test_what_was_computed_before_the_freeze_keeps_its_gradients():
    net = nn.Linear(2, 2)
    before = net(torch.ones(1, 2))
    with frozen(net):
        net(torch.ones(1, 2))
    before.sum().backward()
    assert net.weight.grad.any()
