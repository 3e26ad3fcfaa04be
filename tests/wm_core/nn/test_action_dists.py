"""Distributions over actions: densities that add up, draws that follow them, gradients, modes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, TransformedDistribution, kl_divergence
from torch.distributions import Normal as TorchNormal
from torch.distributions.transforms import TanhTransform

from wm_core.nn.dists import (
    Normal,
    OneHot,
    TanhNormal,
    TruncatedNormal,
    draw_gap,
    normal_kl,
)

CONTINUOUS = [Normal, TanhNormal, TruncatedNormal]
#: (mean, std) of narrow, wide and lopsided distributions
SHAPES = [(0.0, 0.1), (0.0, 1.0), (0.8, 0.3), (-0.6, 1.5)]
ENDS = {Normal: (-12.0, 12.0), TruncatedNormal: (-1.0, 1.0)}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def of(kind, mean, std, n=1):
    """(n, 1) distributions in double precision."""
    full = torch.full((n, 1), mean, dtype=torch.float64)
    return kind(full, torch.full_like(full, std))


def grid(kind, n=40_001):
    """(n,) points that cover the support of ``kind``, dense where a tangent is steep."""
    if kind is TanhNormal:
        return torch.tanh(torch.linspace(-7.2, 7.2, n, dtype=torch.float64))
    return torch.linspace(*ENDS[kind], n, dtype=torch.float64)


def density(kind, mean, std, at):
    return of(kind, mean, std, len(at)).log_prob(at.unsqueeze(1)).exp()


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize(("mean", "std"), SHAPES)
def test_the_density_adds_up_to_one(kind, mean, std):
    at = grid(kind)
    assert torch.trapezoid(density(kind, mean, std, at), at).item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize(("mean", "std"), SHAPES)
def test_draws_are_the_quantiles_of_the_density(kind, mean, std):
    """The share of the density that lies below the draw of a uniform is that uniform."""
    at = grid(kind)
    below = torch.cat(
        [
            torch.zeros(1, dtype=torch.float64),
            torch.cumulative_trapezoid(density(kind, mean, std, at), at),
        ]
    )
    uniform = torch.linspace(0.01, 0.99, 99, dtype=torch.float64).unsqueeze(1)
    dist = of(kind, mean, std, 99)
    drawn = dist.sample(dist.noise(uniform)).squeeze(1)
    right = torch.searchsorted(at, drawn).clamp(1, len(at) - 1)
    way = (drawn - at[right - 1]) / (at[right] - at[right - 1])
    share = torch.lerp(below[right - 1], below[right], way)
    torch.testing.assert_close(share, uniform.squeeze(1), atol=5e-4, rtol=0)


@pytest.mark.parametrize(("mean", "std"), SHAPES)
def test_a_squashed_normal_has_torchs_density(mean, std):
    value = torch.linspace(-0.99, 0.99, 41)
    squashed = TransformedDistribution(TorchNormal(mean, std), [TanhTransform()])
    got = TanhNormal(torch.full((41, 1), mean), torch.full((41, 1), std)).log_prob(value[:, None])
    torch.testing.assert_close(got, squashed.log_prob(value), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "std"), SHAPES)
def test_a_truncated_normal_is_the_normal_over_its_share_within(mean, std):
    value, normal = torch.linspace(-1, 1, 41), TorchNormal(mean, std)
    share = normal.cdf(torch.tensor(1.0)) - normal.cdf(torch.tensor(-1.0))
    got = TruncatedNormal(torch.full((41, 1), mean), torch.full((41, 1), std))
    torch.testing.assert_close(got.log_prob(value[:, None]), normal.log_prob(value) - share.log())


def test_draws_stay_within_their_support_at_the_ends_of_the_uniforms():
    ends = torch.tensor([[0.0], [1e-9], [1.0 - 1e-7], [1.0]])
    for kind in (TanhNormal, TruncatedNormal):
        dist = kind(torch.full((4, 1), 0.9), torch.full((4, 1), 2.0))
        drawn = dist.sample(dist.noise(ends))
        assert drawn.abs().max() <= 1
        assert torch.isfinite(dist.log_prob(drawn)).all()


@pytest.mark.parametrize("kind", [*CONTINUOUS, OneHot])
def test_uniforms_of_a_half_draw_the_mode(kind, generator):
    raw = torch.randn(50, 3, generator=generator)
    dist = OneHot(raw.log_softmax(-1)) if kind is OneHot else kind(raw.tanh(), raw.exp())
    drawn = dist.sample(dist.noise(torch.full((50, 3), 0.5)))
    torch.testing.assert_close(drawn, dist.mode)
    if kind is OneHot:
        assert torch.equal(dist.mode.argmax(-1), raw.argmax(-1))


@pytest.mark.parametrize("kind", [Normal, TruncatedNormal])
@pytest.mark.parametrize(("mean", "std"), SHAPES)
def test_the_entropy_is_the_mean_of_minus_the_log_density(kind, mean, std):
    at = grid(kind)
    p = density(kind, mean, std, at)
    expected = torch.trapezoid(torch.special.entr(p), at).item()
    assert of(kind, mean, std).entropy().item() == pytest.approx(expected, abs=1e-3)


def test_a_squashed_entropy_takes_the_slope_at_the_mean():
    for mean in (-3.0, 0.0, 0.8, 15.0):
        at_mean = Normal(*of(TanhNormal, mean, 0.3)).entropy().item()
        at_mean += 2.0 * (math.log(2.0) - abs(mean) - math.log1p(math.exp(-2.0 * abs(mean))))
        assert of(TanhNormal, mean, 0.3).entropy().item() == pytest.approx(at_mean, abs=1e-9)


def test_a_squashed_entropy_is_right_where_the_normal_is_narrow():
    at = grid(TanhNormal)
    for mean in (0.0, 0.8):
        p = density(TanhNormal, mean, 0.05, at)
        expected = torch.trapezoid(torch.special.entr(p), at).item()
        assert of(TanhNormal, mean, 0.05).entropy().item() == pytest.approx(expected, abs=5e-3)


def exactly(kind, mean, std, uniform):
    """The draw by torch's own inverse of the normal's distribution function."""
    if kind is Normal:
        return mean + std * torch.special.ndtri(uniform)
    if kind is TanhNormal:
        return torch.tanh(mean + std * torch.special.ndtri(uniform))
    low, high = (torch.special.ndtr((end - mean) / std) for end in (-1.0, 1.0))
    return mean + std * _quantile(low + uniform * (high - low))


class _Quantile(torch.autograd.Function):
    """torch's ndtri has no gradient: it is one over the density."""

    @staticmethod
    def forward(ctx, p):
        x = torch.special.ndtri(p)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * math.sqrt(2 * math.pi) * torch.exp(0.5 * x.square())


_quantile = _Quantile.apply


@pytest.mark.parametrize("kind", CONTINUOUS)
@pytest.mark.parametrize(("mean", "std"), SHAPES)
def test_gradients_reach_mean_and_spread_through_draws(kind, mean, std):
    uniform = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)[:, None]
    inputs = tuple(part.clone().requires_grad_() for part in of(kind, mean, std, 25))
    drawn = kind(*inputs).sample(kind.noise(uniform))
    want = exactly(kind, *inputs, uniform)
    torch.testing.assert_close(drawn, want, rtol=1e-4, atol=1e-4)
    slopes = torch.autograd.grad(drawn.sum(), inputs)
    expected = torch.autograd.grad(want.sum(), inputs)
    for got, slope in zip(slopes, expected, strict=True):
        torch.testing.assert_close(got, slope, rtol=1e-3, atol=1e-3)


def test_choices_have_torchs_log_probabilities_and_entropy(generator):
    logits = torch.randn(20, 5, generator=generator)
    dist, torchs = OneHot(logits.log_softmax(-1)), Categorical(logits=logits)
    chosen = torch.randint(0, 5, (20,), generator=generator)
    onehot = torch.nn.functional.one_hot(chosen, 5).float()
    torch.testing.assert_close(dist.log_prob(onehot), torchs.log_prob(chosen))
    torch.testing.assert_close(dist.entropy(), torchs.entropy())
    every = torch.eye(5).expand(20, 5, 5).transpose(0, 1)
    torch.testing.assert_close(dist.log_prob(every).exp().sum(0), torch.ones(20))


def test_choices_have_their_frequencies_and_pass_gradients_to_the_probabilities(generator):
    logits = torch.tensor([0.2, -1.0, 1.0]).requires_grad_()
    many = OneHot(logits.log_softmax(-1).expand(20_000, 3))
    drawn = many.sample(many.noise(torch.rand(20_000, 3, generator=generator)))
    frequencies = drawn.detach().mean(0)
    torch.testing.assert_close(frequencies, logits.softmax(-1).detach(), atol=0.01, rtol=0)
    weight = torch.tensor([1.0, 3.0, -2.0])
    (through,) = torch.autograd.grad((drawn.mean(0) * weight).sum(), logits)
    (plain,) = torch.autograd.grad((logits.softmax(-1) * weight).sum(), logits)
    torch.testing.assert_close(through, plain, rtol=1e-4, atol=1e-5)


GROUPS = [(2, 2, 2), (3, 2, 4)]  #: as one table, and part by part


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_several_choices_are_the_product_of_each(groups, generator):
    logits = torch.randn(30, sum(groups), generator=generator)
    uniform = torch.rand(logits.shape, generator=generator)
    dist = OneHot.of(logits, groups, unimix=0.1)
    each = [OneHot.of(part, unimix=0.1) for part in logits.split(groups, -1)]
    noise = [OneHot.noise(part) for part in uniform.split(groups, -1)]
    drawn = [one.sample(part) for one, part in zip(each, noise, strict=True)]
    torch.testing.assert_close(dist.log_probs, torch.cat([one.log_probs for one in each], -1))
    assert torch.equal(dist.sample(dist.noise(uniform)), torch.cat(drawn, -1))
    assert torch.equal(dist.mode, torch.cat([one.mode for one in each], -1))
    value, gaps = torch.cat(drawn, -1), dist.gap(dist.noise(uniform))
    by_choice = [one.log_prob(part) for one, part in zip(each, drawn, strict=True)]
    torch.testing.assert_close(dist.log_prob(value), sum(by_choice))
    torch.testing.assert_close(dist.entropy(), sum(one.entropy() for one in each))
    apart = [draw_gap(one.log_probs, part) for one, part in zip(each, noise, strict=True)]
    torch.testing.assert_close(gaps, torch.stack(apart, -1))


@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_the_gradient_of_a_draw_reaches_the_choice_that_it_is_of_alone(groups, generator):
    logits = torch.randn(sum(groups), generator=generator).requires_grad_()
    dist = OneHot.of(logits, groups)
    drawn = dist.sample(dist.noise(torch.rand(sum(groups), generator=generator)))
    weight = torch.randn(groups[0], generator=generator)
    (got,) = torch.autograd.grad((drawn[: groups[0]] * weight).sum(), logits)
    assert got[: groups[0]].abs().min() > 0
    assert not got[groups[0] :].any()


def test_the_mode_of_a_choice_has_no_gradient():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert not OneHot(logits.log_softmax(-1)).mode.requires_grad


def test_normal_kl_has_torchs_value_and_direction(generator):
    p, q = (
        Normal(torch.randn(7, 4, generator=generator), torch.rand(7, 4, generator=generator) + 0.2)
        for _ in range(2)
    )
    forth = kl_divergence(TorchNormal(*p), TorchNormal(*q)).sum(-1)
    back = kl_divergence(TorchNormal(*q), TorchNormal(*p)).sum(-1)
    torch.testing.assert_close(normal_kl(p, q), forth)
    torch.testing.assert_close(normal_kl(q, p), back)
    assert (forth - back).abs().min() > 0.1
    torch.testing.assert_close(normal_kl(p, p), torch.zeros(7), atol=1e-5, rtol=0)
