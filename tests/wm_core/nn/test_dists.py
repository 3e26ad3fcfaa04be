"""Distributions against closed forms, and sampling as a function of uniforms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.distributions import Normal as TorchNormal

from wm_core.nn.dists import (
    Normal,
    TwoHot,
    bernoulli_loss,
    categorical_kl,
    normal_noise,
    race_weights,
    sample_onehot,
    sigmoid_error,
    symexp,
    symlog,
    unimix_log_probs,
)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_symexp_undoes_symlog():
    x = torch.tensor([-1e4, -1.0, -1e-3, 0.0, 1e-3, 1.0, 1e4])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-5, atol=1e-7)
    assert symlog(torch.tensor(math.e - 1)) == pytest.approx(1.0)
    assert symlog(torch.tensor(1.0 - math.e)) == pytest.approx(-1.0)


def test_unimix_gives_every_class_a_minimum_probability():
    log_probs = unimix_log_probs(torch.tensor([[1e3, 0.0, 0.0, 0.0]]), 0.01)
    expected = torch.tensor([[0.9925, 0.0025, 0.0025, 0.0025]])
    torch.testing.assert_close(log_probs.exp(), expected)


def test_certain_choices_keep_finite_numbers_and_gradients_without_a_share_for_all():
    logits = torch.tensor([[200.0, 0.0, -200.0]]).requires_grad_()
    log_probs = unimix_log_probs(logits, 0.0).unsqueeze(0)
    torch.testing.assert_close(log_probs[0], torch.tensor([[0.0, -200.0, -400.0]]))
    loss = categorical_kl(log_probs, log_probs.detach().flip(-1)).sum()
    assert loss.item() == pytest.approx(400.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()


def test_draws_have_the_frequencies_of_the_categorical(generator):
    probs = torch.tensor([0.1, 0.6, 0.3]).expand(20_000, 3)
    drawn = sample_onehot(probs, race_weights(torch.rand(20_000, 3, generator=generator)))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(20_000))
    torch.testing.assert_close(drawn.mean(0), probs[0], atol=0.015, rtol=0)


def test_draw_is_the_gumbel_maximum(generator):
    uniform = torch.rand(500, 7, generator=generator).clamp(1e-6, 1 - 1e-6)
    log_probs = torch.log_softmax(torch.randn(500, 7, generator=generator), -1)
    gumbel = (log_probs - torch.log(-torch.log(uniform))).argmax(-1)
    drawn = sample_onehot(log_probs.exp(), race_weights(uniform))
    assert torch.equal(drawn.argmax(-1), gumbel)


def test_extreme_uniforms_still_give_one_class():
    probs = torch.tensor([[0.2, 0.3, 0.5]])
    for uniform in (torch.zeros(1, 3), torch.ones(1, 3), torch.tensor([[0.0, 1.0, 0.5]])):
        assert sample_onehot(probs, race_weights(uniform)).sum() == 1


def test_gradient_of_a_draw_is_that_of_its_probabilities(generator):
    logits = torch.randn(4, 5, generator=generator, requires_grad=True)
    weights = torch.randn(4, 5, generator=generator)
    drawn = sample_onehot(logits.softmax(-1), torch.rand(4, 5, generator=generator))
    assert set(drawn.detach().flatten().tolist()) == {0.0, 1.0}
    (through,) = torch.autograd.grad((drawn * weights).sum(), logits)
    (plain,) = torch.autograd.grad((logits.softmax(-1) * weights).sum(), logits)
    torch.testing.assert_close(through, plain)


def test_categorical_kl_has_torchs_value_and_direction(generator):
    p, q = torch.randn(2, 3, 4, 5, generator=generator).log_softmax(-1)
    expected = kl_divergence(Categorical(logits=p), Categorical(logits=q)).sum(-1)
    torch.testing.assert_close(categorical_kl(p, q), expected)
    assert not torch.allclose(categorical_kl(q, p), expected)


def test_normal_noise_is_the_inverse_distribution_function():
    uniform = torch.linspace(1e-4, 1 - 1e-4, 999)
    expected = torch.special.ndtri(uniform.double()).float()
    torch.testing.assert_close(normal_noise(uniform), expected, rtol=2e-5, atol=2e-6)
    far = torch.tensor([1e-6, 1 - 1e-6])
    expected = torch.special.ndtri(far.double()).float()
    torch.testing.assert_close(normal_noise(far), expected, rtol=1e-3, atol=0)
    assert normal_noise(torch.tensor(0.5)) == 0
    assert torch.isfinite(normal_noise(torch.tensor([0.0, 1.0]))).all()


def test_normal_has_torchs_density_and_entropy(generator):
    mean, value = torch.randn(2, 6, 3, generator=generator)
    std = torch.rand(6, 3, generator=generator) + 0.1
    torch_normal = TorchNormal(mean, std)
    torch.testing.assert_close(
        Normal(mean, std).log_prob(value), torch_normal.log_prob(value).sum(-1)
    )
    torch.testing.assert_close(Normal(mean, std).entropy(), torch_normal.entropy().sum(-1))


def test_two_hot_is_exactly_zero_where_all_logits_are_equal():
    assert TwoHot(255).mean(torch.zeros(3, 255)).tolist() == [0.0, 0.0, 0.0]
    assert TwoHot(255).mean(torch.full((1, 255), 3.0)).item() == 0.0


@pytest.mark.parametrize("target", [-1000.0, -2.5, 0.0, 0.01, 1.0, 333.0])
def test_two_hot_recovers_its_target(target):
    twohot = TwoHot(255)
    logits = torch.zeros(1, 255, requires_grad=True)
    wanted = torch.tensor([target])
    # The gradient of the cross entropy at uniform logits is uniform - two-hot.
    (gradient,) = torch.autograd.grad(twohot.loss(logits, wanted).sum(), logits)
    weights = 1 / 255 - gradient
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert int((weights > 1e-6).sum()) <= 2
    mean = twohot.mean(weights.clamp_min(1e-30).log())
    torch.testing.assert_close(mean, wanted, rtol=1e-4, atol=1e-5)


def test_two_hot_beyond_its_bins_is_the_outermost():
    twohot = TwoHot(5, limit=1.0)
    logits = torch.zeros(2, 5, requires_grad=True)
    loss = twohot.loss(logits, torch.tensor([-99.0, 99.0])).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (0.2 - gradient).argmax(-1).tolist() == [0, 4]


def test_two_hot_refuses_an_even_number_of_bins():
    with pytest.raises(ValueError, match="odd"):
        TwoHot(254)


def test_sigmoid_error_and_its_gradient_are_those_of_autograd(generator):
    logit = torch.randn(3, 4, 5, generator=generator, requires_grad=True)
    target = torch.rand(3, 4, 5, generator=generator)
    weight = torch.rand(3, generator=generator)
    plain = (logit.sigmoid() - target).square().sum((1, 2))
    fused = sigmoid_error(logit, target)
    torch.testing.assert_close(fused, plain)
    (expected,) = torch.autograd.grad((plain * weight).sum(), logit)
    (got,) = torch.autograd.grad((fused * weight).sum(), logit)
    torch.testing.assert_close(got, expected)


def test_bernoulli_loss_is_the_cross_entropy():
    loss = bernoulli_loss(torch.tensor([0.0, 2.0]), torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), math.log1p(math.exp(-2.0))]))
