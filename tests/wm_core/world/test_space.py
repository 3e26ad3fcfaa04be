"""The two kinds of latents against torch's distributions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from wm_core.world.settings import WorldConfig
from wm_core.world.space import Categorical, Gaussian, make_space

S, K, Z = 3, 4, 5


@pytest.fixture(params=["categorical", "gaussian"])
def space(request):
    return Categorical(S, K, 0.01) if request.param == "categorical" else Gaussian(Z, 0.1)


def told(space, generator, n=6):
    """(n, ., .) params of a network's random numbers."""
    return space.params(2.0 * torch.randn(n, space.width, generator=generator))


def torchs(space, params):
    if isinstance(space, Categorical):
        return TorchCategorical(logits=params)
    return TorchNormal(*params.unbind(-2))


def test_settings_choose_the_space():
    categorical = make_space(WorldConfig(groups=S, classes=K))
    gaussian = make_space(WorldConfig(latent="gaussian", gaussians=Z))
    assert (categorical.shape, categorical.size, categorical.width) == ((S, K), S * K, S * K)
    assert (gaussian.shape, gaussian.size, gaussian.width) == ((Z,), Z, 2 * Z)


def test_categorical_params_are_log_probabilities_with_a_share_for_every_class():
    params = Categorical(2, 4, 0.04).params(torch.tensor([1e3, 0, 0, 0, 0, 0, 0, 0]))
    expected = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25] * 4])
    torch.testing.assert_close(params.exp(), expected)


def test_gaussian_params_are_a_mean_and_a_spread_that_never_vanishes(generator):
    raw = torch.randn(6, 2 * Z, generator=generator)
    mean, std = Gaussian(Z, 0.1).params(raw).unbind(-2)
    assert torch.equal(mean, raw[:, :Z])
    torch.testing.assert_close(std, F.softplus(raw[:, Z:]) + 0.1)
    assert Gaussian(Z, 0.1).params(torch.full((2 * Z,), -99.0))[1].min() >= 0.1


def test_draws_have_the_moments_of_their_distribution(space, generator):
    params, n = told(space, generator, 1), 20_000
    noise = space.noise(torch.rand(n, *space.shape, generator=generator))
    drawn = space.sample(params.expand(n, -1, -1), noise)
    assert drawn.shape == (n, *space.shape)
    if isinstance(space, Categorical):
        assert torch.equal(drawn.sum(-1), torch.ones(n, S))
        torch.testing.assert_close(drawn.mean(0), params[0].exp(), atol=0.015, rtol=0)
    else:
        mean, std = params[0]
        torch.testing.assert_close(drawn.mean(0), mean, atol=0.06, rtol=0)
        torch.testing.assert_close(drawn.std(0), std, atol=0.0, rtol=0.03)


def test_gradients_reach_the_params_through_draws(space, generator):
    params = told(space, generator).requires_grad_()
    uniform = torch.rand(6, *space.shape, generator=generator)
    drawn = space.sample(params, space.noise(uniform))
    (slope,) = torch.autograd.grad(drawn.flatten(1)[:, 0].sum(), params)
    flat = slope.transpose(-1, -2).flatten(1) if isinstance(space, Gaussian) else slope.flatten(1)
    own = 2 if isinstance(space, Gaussian) else 1
    assert (flat[:, :own].abs() > 0).all()
    assert not slope.flatten(1)[:, K:Z].any()  # neither another group's nor another dimension's


def test_the_kl_is_torchs_in_its_direction(space, generator):
    p, q = told(space, generator), told(space, generator)
    forth = kl_divergence(torchs(space, p), torchs(space, q)).sum(-1)
    back = kl_divergence(torchs(space, q), torchs(space, p)).sum(-1)
    torch.testing.assert_close(space.kl(p, q), forth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(space.kl(q, p), back, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(forth, back, rtol=0.05)
    assert space.kl(p, p).abs().max() < 1e-5


def test_a_unit_distribution_knows_nothing(space, generator):
    params = told(space, generator)
    unit = space.unit(params)
    assert unit.shape == params.shape
    torchs_unit = torchs(space, unit)
    if isinstance(space, Categorical):
        torch.testing.assert_close(torchs_unit.probs, torch.full_like(params, 1 / K))
        entropy = torchs(space, params).entropy().sum(-1)
        torch.testing.assert_close(space.kl(params, unit), S * math.log(K) - entropy)
    else:
        assert torch.equal(torchs_unit.mean, torch.zeros(6, Z))
        assert torch.equal(torchs_unit.stddev, torch.ones(6, Z))
        mean, std = params.unbind(-2)
        closed = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1)
        torch.testing.assert_close(space.kl(params, unit), closed)


def test_a_temperature_of_one_changes_nothing_and_more_surprises_more(space, generator):
    params = told(space, generator)
    torch.testing.assert_close(space.heat(params, 1.0), params)
    entropies = [
        torchs(space, space.heat(params, t)).entropy().sum(-1) for t in (0.5, 1.0, 1.15, 3.0)
    ]
    for cooler, hotter in itertools.pairwise(entropies):
        assert (hotter > cooler).all()


def test_heat_divides_logits_and_multiplies_variances(generator):
    categorical, gaussian = Categorical(S, K, 0.0), Gaussian(Z, 0.1)
    logits = torch.randn(6, S * K, generator=generator)
    hot = categorical.heat(categorical.params(logits), 2.0)
    torch.testing.assert_close(hot, categorical.params(logits / 2.0))
    params = told(gaussian, generator)
    hot = gaussian.heat(params, 2.0)
    torch.testing.assert_close(hot[:, 1].square(), 2.0 * params[:, 1].square())
    assert torch.equal(hot[:, 0], params[:, 0])


def test_entropy_is_a_share_of_the_largest(generator):
    space = Categorical(S, K, 0.0)
    params = told(space, generator)
    expected = torchs(space, params).entropy().mean(-1) / math.log(K)
    torch.testing.assert_close(space.entropy(params), expected)
    assert space.entropy(space.unit(params)).tolist() == pytest.approx([1.0] * 6)
    sure = space.params(torch.tensor([300.0, 0, 0, 0] * S))
    assert space.entropy(sure).item() == pytest.approx(0.0, abs=1e-6)
