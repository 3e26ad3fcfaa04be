"""Actors: what their raw numbers mean, and controllers of one linear map."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from wm_core.behavior.actor import Actor, LinearController
from wm_core.behavior.settings import ActorConfig
from wm_core.contract.spec import ActionSpec
from wm_core.nn.blocks import initialize
from wm_core.nn.dists import Normal, OneHot, TanhNormal, TruncatedNormal

CONTINUOUS = ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)
CHOICES = ActionSpec.choices(4)
SEVERAL = ActionSpec.several_choices((4, 2))
EVERY = pytest.mark.parametrize(
    "action", [CONTINUOUS, CHOICES, SEVERAL], ids=["continuous", "choices", "several"]
)
KINDS = {"normal": Normal, "tanh_normal": TanhNormal, "truncated_normal": TruncatedNormal}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def actor_of(what, **changes):
    actor = Actor(6, what, 8, ActorConfig(**changes))
    generator = torch.Generator().manual_seed(1)
    initialize(actor, generator)
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator))
    return actor


def raw_of(actor, part):
    x = actor.layers(part)
    return actor.mean(x), None if actor.std is None else actor.std(x)


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_s_raw_numbers_mean_what_its_paper_says(kind, generator):
    actor = actor_of(CONTINUOUS, kind=kind, min_std=0.2, max_std=0.9, init_std=3.0)
    part = torch.randn(40, 6, generator=generator)
    dist, (mean, spread) = actor.dist(part), raw_of(actor, part)
    assert type(dist) is KINDS[kind]
    expected = {
        "normal": (mean.tanh(), 0.7 * torch.sigmoid(spread + 2) + 0.2),
        "tanh_normal": (
            5 * torch.tanh(mean / 5),
            F.softplus(spread + math.log(math.exp(3.0) - 1)) + 1e-4,
        ),
        "truncated_normal": (mean.tanh(), 2 * torch.sigmoid(spread / 2) + 0.2),
    }[kind]
    torch.testing.assert_close(dist.mean, expected[0])
    torch.testing.assert_close(dist.std, expected[1])


@pytest.mark.parametrize(("shift", "share"), [(2.0, 0.8808), (0.0, 0.5)])
def test_a_normal_actor_begins_at_the_sigmoid_of_its_shift(shift, share):
    """2 is DreamerV3's, 0 DayDreamer's."""
    actor = Actor(6, CONTINUOUS, 8, ActorConfig(std_shift=shift))
    dist = actor.dist(torch.zeros(1, 6))
    torch.testing.assert_close(dist.std, torch.full((1, 2), 0.1 + 0.9 * share), rtol=1e-4, atol=0)


def test_a_tanh_normal_actor_begins_with_init_std():
    actor = Actor(6, CONTINUOUS, 8, ActorConfig(kind="tanh_normal", init_std=5.0))
    dist = actor.dist(torch.zeros(1, 6))
    torch.testing.assert_close(dist.std, torch.full((1, 2), 5.0), rtol=1e-3, atol=0)


def test_every_choice_keeps_at_least_its_uniform_share(generator):
    actor = actor_of(CHOICES, unimix=0.2, kind="tanh_normal")
    actor.mean.weight.data.mul_(100.0)
    dist = actor.dist(torch.randn(40, 6, generator=generator))
    assert isinstance(dist, OneHot)
    assert dist.log_probs.exp().min() >= 0.05 * (1 - 1e-5)
    torch.testing.assert_close(dist.log_probs.exp().sum(-1), torch.ones(40))


def test_each_of_several_choices_keeps_its_own_uniform_share(generator):
    actor = actor_of(SEVERAL, unimix=0.2)
    actor.mean.weight.data.mul_(100.0)
    probs = actor.dist(torch.randn(40, 6, generator=generator)).log_probs.exp().detach()
    for part in probs.split((4, 2), -1):
        assert part.min().item() == pytest.approx(0.2 / part.shape[-1], rel=1e-4)
        torch.testing.assert_close(part.sum(-1), torch.ones(40))


@pytest.mark.parametrize("kind", [*KINDS, "choices", "several"])
def test_an_actor_s_draws_are_those_of_its_distribution(kind, generator):
    choices = {"choices": CHOICES, "several": SEVERAL}
    action, settings = choices.get(kind, CONTINUOUS), {} if kind in choices else {"kind": kind}
    actor = actor_of(action, **settings)
    uniform = torch.rand(5, action.size, generator=generator)
    dist = actor.dist(torch.randn(5, 6, generator=generator))
    assert torch.equal(actor.noise(uniform), dist.noise(uniform))
    torch.testing.assert_close(dist.sample(actor.noise(torch.full_like(uniform, 0.5))), dist.mode)


def test_the_share_of_the_entropy_is_zero_at_its_least_and_one_at_its_most():
    actor = actor_of(CONTINUOUS, min_std=0.1, max_std=1.0)
    for std, share in ((0.1, 0.0), (math.sqrt(0.1), 0.5), (1.0, 1.0)):
        dist = Normal(torch.zeros(1, 2), torch.full((1, 2), std))
        assert actor.entropy_share(dist).item() == pytest.approx(share, abs=1e-6)
    chooser = actor_of(CHOICES)
    even = OneHot(torch.full((1, 4), -math.log(4)))
    sure = OneHot(torch.tensor([[1e-9, 1.0, 1e-9, 1e-9]]).log())
    assert chooser.entropy_share(even).item() == pytest.approx(1.0)
    assert chooser.entropy_share(sure).item() == pytest.approx(0.0, abs=1e-6)
    half = OneHot.of(torch.tensor([[0.0, 0.0, 0.0, 0.0, 50.0, 0.0]]), SEVERAL.groups)
    assert actor_of(SEVERAL).entropy_share(half).item() == pytest.approx(2 / 3)  # of 3 bits


@EVERY
def test_a_population_acts_as_each_of_its_candidates_would(action, generator):
    controller = LinearController(6, action)
    assert controller.parameters_count == sum(p.numel() for p in controller.parameters())
    candidates = torch.randn(5, controller.parameters_count, generator=generator)
    part = torch.randn(5, 7, 6, generator=generator)
    together = controller.act(part, candidates)
    assert together.shape == (5, 7, action.size)
    for candidate, rows, acted in zip(candidates, part, together, strict=True):
        controller.take(candidate)
        torch.testing.assert_close(controller.dist(rows).mode, acted)
    if not action.discrete:
        bias, weight = candidates[4, :2], candidates[4, 2:].reshape(2, 6)
        torch.testing.assert_close(together[4], torch.tanh(part[4] @ weight.T + bias))


@EVERY
def test_a_fresh_linear_controller_is_deterministic_and_zero(action, generator):
    controller = LinearController(6, action)
    initialize(controller, generator)
    assert not any(p.any() for p in controller.parameters())
    controller.take(torch.randn(controller.parameters_count, generator=generator))
    part = torch.randn(4, 6, generator=generator)
    dist = controller.dist(part)
    if not action.discrete:
        noise = controller.noise(torch.rand(4, action.size, generator=generator))
        torch.testing.assert_close(dist.sample(noise), dist.mode)
    assert dist.mode.abs().max() <= 1
