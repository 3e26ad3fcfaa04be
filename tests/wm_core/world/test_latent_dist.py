"""Both families of latents agree with torch's distributions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from wm_core.world.latent_dist import Categorical, Gaussian
from wm_core.world.part_settings import CategoricalConfig, GaussianConfig

S, K, Z = 3, 4, 5


def categorical(groups=S, classes=K, unimix=0.01):
    return Categorical(CategoricalConfig(groups=groups, classes=classes, unimix=unimix))


def gaussian(size=Z):
    return Gaussian(GaussianConfig(size=size, min_std=0.1))


@pytest.fixture(params=[categorical, gaussian])
def dist(request):
    return request.param()


def some_params(dist, generator, n=6):
    """(n, ., .) params of a network's random numbers."""
    return dist.params(2.0 * torch.randn(n, dist.width, generator=generator))


def torchs(dist, params):
    if isinstance(dist, Categorical):
        return TorchCategorical(logits=params)
    return TorchNormal(*params.unbind(-2))


def test_sizes_follow_from_the_settings():
    one, other = categorical(), gaussian()
    assert (one.shape, one.size, one.width) == ((S, K), S * K, S * K)
    assert (other.shape, other.size, other.width) == ((Z,), Z, 2 * Z)


def test_categorical_params_are_log_probabilities_with_a_share_for_every_class():
    params = categorical(2, 4, 0.04).params(torch.tensor([1e3, 0, 0, 0, 0, 0, 0, 0]))
    expected = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.25] * 4])
    torch.testing.assert_close(params.exp(), expected)


def test_gaussian_params_are_a_mean_and_a_spread_that_never_vanishes(generator):
    raw = torch.randn(6, 2 * Z, generator=generator)
    mean, std = gaussian().params(raw).unbind(-2)
    assert torch.equal(mean, raw[:, :Z])
    torch.testing.assert_close(std, F.softplus(raw[:, Z:]) + 0.1)
    assert gaussian().params(torch.full((2 * Z,), -99.0))[1].min() >= 0.1


def test_draws_have_the_moments_of_their_distribution(dist, generator):
    params, n = some_params(dist, generator, 1), 20_000
    noise = dist.noise(torch.rand(n, *dist.shape, generator=generator))
    drawn = dist.sample(params.expand(n, -1, -1), noise)
    assert drawn.shape == (n, *dist.shape)
    if isinstance(dist, Categorical):
        assert torch.equal(drawn.sum(-1), torch.ones(n, S))
        torch.testing.assert_close(drawn.mean(0), params[0].exp(), atol=0.015, rtol=0)
    else:
        mean, std = params[0]
        torch.testing.assert_close(drawn.mean(0), mean, atol=0.06, rtol=0)
        torch.testing.assert_close(drawn.std(0), std, atol=0.0, rtol=0.03)


def test_gradients_reach_the_params_through_draws(dist, generator):
    params = some_params(dist, generator).requires_grad_()
    uniform = torch.rand(6, *dist.shape, generator=generator)
    drawn = dist.sample(params, dist.noise(uniform))
    (slope,) = torch.autograd.grad(drawn.flatten(1)[:, 0].sum(), params)
    flat = slope.transpose(-1, -2).flatten(1) if isinstance(dist, Gaussian) else slope.flatten(1)
    own = 2 if isinstance(dist, Gaussian) else 1
    assert (flat[:, :own].abs() > 0).all()
    assert not slope.flatten(1)[:, K:Z].any()  # neither another group's nor another dimension's


def test_the_kl_is_torchs_in_its_direction(dist, generator):
    p, q = some_params(dist, generator), some_params(dist, generator)
    forth = kl_divergence(torchs(dist, p), torchs(dist, q)).sum(-1)
    back = kl_divergence(torchs(dist, q), torchs(dist, p)).sum(-1)
    torch.testing.assert_close(dist.kl(p, q), forth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dist.kl(q, p), back, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(forth, back, rtol=0.05)
    assert dist.kl(p, p).abs().max() < 1e-5


def test_a_unit_distribution_knows_nothing(dist, generator):
    params = some_params(dist, generator)
    unit = dist.unit(params)
    assert unit.shape == params.shape
    torchs_unit = torchs(dist, unit)
    if isinstance(dist, Categorical):
        torch.testing.assert_close(torchs_unit.probs, torch.full_like(params, 1 / K))
        entropy = torchs(dist, params).entropy().sum(-1)
        torch.testing.assert_close(dist.kl(params, unit), S * math.log(K) - entropy)
    else:
        assert torch.equal(torchs_unit.mean, torch.zeros(6, Z))
        assert torch.equal(torchs_unit.stddev, torch.ones(6, Z))
        mean, std = params.unbind(-2)
        closed = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1)
        torch.testing.assert_close(dist.kl(params, unit), closed)


def test_a_temperature_of_one_changes_nothing_and_more_surprises_more(dist, generator):
    params = some_params(dist, generator)
    torch.testing.assert_close(dist.with_temperature(params, 1.0), params)
    entropies = [
        torchs(dist, dist.with_temperature(params, t)).entropy().sum(-1)
        for t in (0.5, 1.0, 1.15, 3.0)
    ]
    for cooler, hotter in itertools.pairwise(entropies):
        assert (hotter > cooler).all()


def test_a_temperature_divides_logits_and_multiplies_variances(generator):
    dist = categorical(S, K, 0.0)
    logits = torch.randn(6, S * K, generator=generator)
    hot = dist.with_temperature(dist.params(logits), 2.0)
    torch.testing.assert_close(hot, dist.params(logits / 2.0))
    params = some_params(gaussian(), generator)
    hot = gaussian().with_temperature(params, 2.0)
    torch.testing.assert_close(hot[:, 1].square(), 2.0 * params[:, 1].square())
    assert torch.equal(hot[:, 0], params[:, 0])


def test_entropy_is_a_share_of_the_largest(generator):
    dist = categorical(S, K, 0.0)
    params = some_params(dist, generator)
    expected = torchs(dist, params).entropy().mean(-1) / math.log(K)
    torch.testing.assert_close(dist.entropy(params), expected)
    assert dist.entropy(dist.unit(params)).tolist() == pytest.approx([1.0] * 6)
    sure = dist.params(torch.tensor([300.0, 0, 0, 0] * S))
    assert dist.entropy(sure).item() == pytest.approx(0.0, abs=1e-6)
