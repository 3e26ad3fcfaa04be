"""The fused form of an RSSM's observation equals the plain one, forward and backward."""

from __future__ import annotations

import pytest
import torch

from wm_core.world.base import Recorded
from wm_core.world.latent import Latent
from wm_core.world.rssm import RSSM


@pytest.fixture
def world(build):
    world = build()
    for weight in world.dynamics.parameters():  # zeros and ones would hide a wrong gradient
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 0.7, 0.3, generator=torch.Generator().manual_seed(1))
    return world


def observed(world, batch, start, uniform, dtype=None):
    """Posteriors of ``batch``, and gradients of a sum that weighs every number differently."""
    inputs = [start.deter.clone().requires_grad_(), start.stoch.clone().requires_grad_()]
    action = batch.prev_action.clone().requires_grad_()
    embed = torch.linspace(-1, 1, 3 * 7 * world.encoder.size).sin().reshape(3, 7, -1)
    inputs += [action, embed.requires_grad_()]
    steps = Recorded(action, embed, batch.is_first, batch.reward)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        latent = world.dynamics.observe(Latent(*inputs[:2]), steps, uniform)
    numbers = torch.cat([latent.feat, latent.params.flatten(2)], -1)
    weights = torch.linspace(0, 50, numbers.numel()).cos().view_as(numbers)
    trained = dict(world.dynamics.named_parameters())
    trained = {k: p for k, p in trained.items() if not k.startswith("prior")}
    gradients = torch.autograd.grad((numbers * weights).sum(), [*inputs, *trained.values()])
    names = ["deter", "stoch", "action", "embed", *trained]
    return latent, dict(zip(names, gradients, strict=True))


def plainly(monkeypatch):
    monkeypatch.setattr(RSSM, "fuses", property(lambda self: False))


def test_the_fused_form_is_taken_and_equals_the_plain_one(
    world, batch, start, generator, monkeypatch
):
    uniform = torch.rand(3, 7, 3, 4, generator=generator)
    assert world.dynamics.fuses
    fused, gradients = observed(world, batch, start, uniform)
    assert "Observe" in type(fused.params.grad_fn).__name__
    plainly(monkeypatch)
    plain, expected = observed(world, batch, start, uniform)
    assert "Observe" not in type(plain.params.grad_fn).__name__
    assert batch.is_first[:, 1:].any()  # an episode begins within a window
    for name in ("deter", "stoch", "params"):
        torch.testing.assert_close(getattr(fused, name), getattr(plain, name))
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[name], gradient, msg=lambda m, n=name: f"{n}: {m}")


def test_in_bfloat16_both_forms_differ_by_its_rounding_alone(
    world, batch, start, generator, monkeypatch
):
    # one class of each draw is far ahead, so that rounding changes no draw
    uniform = torch.where(
        torch.rand(3, 7, 3, 1, generator=generator) * 4 // 1 == torch.arange(4), 0.9999, 0.1
    )
    fused, gradients = observed(world, batch, start, uniform, torch.bfloat16)
    plainly(monkeypatch)
    plain, expected = observed(world, batch, start, uniform, torch.bfloat16)
    torch.testing.assert_close(fused.stoch, plain.stoch, atol=1e-6, rtol=0)
    torch.testing.assert_close(fused.deter, plain.deter, atol=0.02, rtol=0.02)
    for name, gradient in expected.items():
        error = (gradients[name] - gradient).norm() / gradient.norm()
        assert error < 0.05, name


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layer"},
        {"activation": "elu"},
        {"gru": {"cell": "plain"}},
        {"latent": "gaussian", "gaussian": {"size": 6}},
        {"categorical": {"groups": 3, "classes": 4, "unimix": 0.0}},
    ],
)
def test_parts_that_the_fused_form_does_not_know_take_the_plain_one(build, changes):
    assert not build(**changes).dynamics.fuses


def test_imagined_steps_equal_those_of_the_plain_form(world, start, generator, monkeypatch):
    uniform, action = torch.rand(2, 3, 3, 4, generator=generator), torch.rand(3, 2)
    with torch.no_grad():
        step, latents = world.imaginer(uniform), [start]
        for t in range(2):
            latents.append(step(t, latents[-1], action))
        plainly(monkeypatch)
        step, latent = world.imaginer(uniform), start
        for t in range(2):
            latent = step(t, latent, action)
            torch.testing.assert_close(latents[t + 1].deter, latent.deter)
            assert torch.equal(latents[t + 1].stoch, latent.stoch)
    assert latents[-1].params is None  # the plain form has them: both were taken
    assert latent.params is not None
