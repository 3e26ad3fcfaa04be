"""Mixtures against sums by hand, and draws against their own law."""

from __future__ import annotations

import math

import pytest
import torch

from wm_core.nn.blocks import initialize
from wm_core.nn.mdn import Mixture, MixtureHead


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def mixture():
    """One dimension: a quarter N(-1, 0.5^2), three quarters N(2, 1)."""
    logits = torch.tensor([[0.0, math.log(3.0)]])
    return Mixture(logits, torch.tensor([[-1.0, 2.0]]), torch.tensor([[math.log(0.5), 0.0]]))


def normal(x, mean, std):
    return math.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("x", [-3.0, -1.0, 0.3, 2.0, 5.0])
def test_likelihood_is_that_of_the_mixture_summed_by_hand(mixture, x):
    by_hand = 0.25 * normal(x, -1.0, 0.5) + 0.75 * normal(x, 2.0, 1.0)
    assert mixture.log_prob(torch.tensor([x])).item() == pytest.approx(math.log(by_hand), abs=1e-5)


def test_likelihood_stays_finite_far_from_every_component(mixture):
    assert mixture.log_prob(torch.tensor([1e4])).isfinite().all()


def test_dimensions_have_mixtures_of_their_own(generator):
    parts = [torch.randn(4, 3, 5, generator=generator) for _ in range(3)]
    value = torch.randn(4, 3, generator=generator)
    together = Mixture(*parts).log_prob(value)
    for z in range(3):
        alone = Mixture(*(p[:, z : z + 1] for p in parts)).log_prob(value[:, z : z + 1])
        torch.testing.assert_close(together[:, z : z + 1], alone)
    dists = torch.distributions
    want = dists.MixtureSameFamily(
        dists.Categorical(logits=parts[0]), dists.Normal(parts[1], parts[2].exp())
    )
    torch.testing.assert_close(together, want.log_prob(value))


@pytest.mark.parametrize(
    ("uniform", "want"),
    [((0.0, 0.5), -1.0), ((0.2499, 0.5), -1.0), ((0.2501, 0.5), 2.0), ((0.999999, 0.5), 2.0)],
)
def test_the_first_uniform_picks_the_component(mixture, uniform, want):
    assert mixture.sample(torch.tensor([uniform])).item() == pytest.approx(want)


def test_the_second_uniform_is_the_quantile_of_the_noise(mixture):
    upper = 0.841344746  # one standard deviation
    assert mixture.sample(torch.tensor([[0.1, upper]])).item() == pytest.approx(-0.5, abs=1e-4)
    assert mixture.sample(torch.tensor([[0.9, upper]])).item() == pytest.approx(3.0, abs=1e-4)


def test_temperature_divides_logits_and_widens_noise_by_its_root(mixture):
    # logits 0 and log(3) / 2: shares 1 : sqrt(3), so the border lies at 0.366
    for u, want in [(0.365, -1.0), (0.367, 2.0)]:
        drawn = mixture.sample(torch.tensor([[u, 0.5]]), temperature=2.0)
        assert drawn.item() == pytest.approx(want)
    high = mixture.sample(torch.tensor([[0.9, 0.841344746]]), temperature=4.0)
    assert high.item() == pytest.approx(2.0 + 2.0, abs=1e-3)


def test_draws_follow_the_mixture(mixture, generator):
    draws = Mixture(*(p.expand(50_000, 1, 2) for p in mixture)).sample(
        torch.rand(50_000, 1, 2, generator=generator)
    )
    assert draws.mean().item() == pytest.approx(0.25 * -1 + 0.75 * 2, abs=0.02)
    square = 0.25 * (1 + 0.25) + 0.75 * (4 + 1)
    assert draws.square().mean().item() == pytest.approx(square, abs=0.06)
    assert mixture.expected().item() == pytest.approx(1.25)


def test_gradients_reach_the_chosen_component_only(mixture):
    mean, log_std = mixture.mean.clone().requires_grad_(), mixture.log_std.clone().requires_grad_()
    drawn = Mixture(mixture.logits, mean, log_std).sample(torch.tensor([[0.9, 0.8]]))
    slopes = torch.autograd.grad(drawn.sum(), (mean, log_std))
    assert slopes[0].tolist() == [[0.0, 1.0]]
    assert slopes[1][0, 0] == 0
    assert slopes[1][0, 1] > 0


def test_a_head_learns_a_mixture_of_two(generator):
    head = MixtureHead(1, 1, components=2)
    initialize(head, generator)
    target = torch.where(torch.rand(512, 1, generator=generator) < 0.5, -2.0, 2.0)
    target = target + 0.1 * torch.randn(512, 1, generator=generator)
    x = torch.ones(512, 1)
    with torch.no_grad():
        head.linear.bias[2:4] = torch.tensor([-0.5, 0.5])
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(200):
        loss = -head(x).log_prob(target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = math.log(2.0) + math.log(0.1) + 0.5 * math.log(2 * math.pi * math.e)
    assert loss.item() == pytest.approx(best, abs=0.1)


def test_a_head_gives_three_parts_per_dimension_and_component():
    mixture = MixtureHead(7, 4)(torch.zeros(2, 3, 7))
    assert [part.shape for part in mixture] == [(2, 3, 4, 5)] * 3
