"""The KL's two halves, and where the world model's losses send their gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.nn.blocks import Style
from wm_core.nn.dists import categorical_kl
from wm_core.nn.mdn import Mixture
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import Categorical, Gaussian
from wm_core.world.objectives import barlow_loss, dynamics_losses
from wm_core.world.part_settings import CategoricalConfig, GaussianConfig, MDNConfig
from wm_core.world.prior import MixturePrior, NetPrior
from wm_core.world.settings import KLConfig
from wm_core.world.world_model import WorldModel

CATEGORICAL = Categorical(CategoricalConfig(groups=3, classes=4))
GAUSSIAN = Gaussian(GaussianConfig(size=2))


class FixedPrior(NetPrior):
    """A prior that predicts the same whatever it reads."""

    def __init__(self, dist, prediction):
        torch.nn.Module.__init__(self)
        self.latent_dist, self.prediction = dist, prediction

    def forward(self, deter):
        return self.prediction


def losses_of(posterior, prior, dist=CATEGORICAL, **kl):
    """dyn_loss, rep_loss and the plain nats of ``posterior`` params against ``prior``'s."""
    lead = posterior.shape[:-2]
    latent = Latent(torch.zeros(*lead, 1), torch.zeros(*lead, *dist.shape), posterior)
    return dynamics_losses(dist, FixedPrior(dist, prior), latent, None, KLConfig(**kl))


@pytest.fixture
def pair(generator):
    """Log-probabilities of a posterior and a prior, (5, 3, 4), a few nats apart."""
    return [
        (3 * torch.randn(5, 3, 4, generator=generator)).log_softmax(-1).requires_grad_()
        for _ in range(2)
    ]


def test_each_half_of_the_kl_trains_its_own_side(pair):
    posterior, prior = pair
    dyn, rep, plain = losses_of(posterior, prior, free_nats=0.0)
    torch.testing.assert_close(dyn, categorical_kl(posterior, prior).mean())
    torch.testing.assert_close(rep, dyn)
    torch.testing.assert_close(plain, dyn)
    assert not plain.requires_grad
    by_posterior, by_prior = torch.autograd.grad(dyn, pair, allow_unused=True, retain_graph=True)
    assert by_posterior is None
    assert by_prior.abs().max() > 0
    by_posterior, by_prior = torch.autograd.grad(rep, pair, allow_unused=True)
    assert by_posterior.abs().max() > 0
    assert by_prior is None


def test_free_nats_stop_the_gradient_of_each_step_alone(pair):
    posterior, prior = pair
    with torch.no_grad():
        prior[:2] = posterior[:2]  # two steps are predicted perfectly
    each = categorical_kl(posterior, prior).detach()
    assert each[:2].abs().max() < 1e-5
    assert (each[2:] > 1).all()
    dyn, rep, plain = losses_of(posterior, prior)
    floored = (each[2:].sum() + 2.0) / 5
    torch.testing.assert_close(dyn, floored)
    torch.testing.assert_close(rep, floored)
    torch.testing.assert_close(plain, each.mean())
    for loss, side in ((dyn, prior), (rep, posterior)):
        (gradient,) = torch.autograd.grad(loss, side)
        assert gradient[:2].abs().max() == 0
        assert (gradient[2:].abs().amax((-2, -1)) > 0).all()


def test_every_parameter_of_the_world_model_is_trained(world, batch, generator):
    # Zero-initialised outputs hide what is behind them until their first update.
    world.reward.out.weight.data.normal_(generator=generator)
    made = world.loss(batch, world.dynamics.initial(3), generator)
    sum((made.representation | made.dynamics).values()).backward()
    idle = [n for n, p in world.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


def test_reconstructing_a_part_of_the_frames_is_right_on_average(world, batch, generator):
    start = world.dynamics.initial(3)
    generator.manual_seed(1)
    full = world.loss(batch, start, generator).representation["recon_loss/image"].item()
    half = world.config.recon.model_copy(update={"share": 0.5})
    world.config = world.config.model_copy(update={"recon": half})
    parts = [
        world.loss(batch, start, torch.Generator().manual_seed(1))
        .representation["recon_loss/image"]
        .item()
        for _ in range(2)
    ]
    assert parts[0] == parts[1]  # the same frames for the same seed
    assert parts[0] == pytest.approx(full, rel=0.2)
    assert parts[0] != full


def test_open_loop_sees_first_and_then_dreams(world, batch, generator):
    start = world.dynamics.initial(3)
    made = world.open_loop(batch, start, 3, generator)
    assert made["image"].shape == batch.obs["image"].shape
    assert made["image"].dtype == torch.uint8
    assert made["joints"].shape == batch.obs["joints"].shape
    batch.obs["image"][:, 3:] = 0  # what comes later must not matter
    again = world.open_loop(batch, start, 3, torch.Generator().manual_seed(5))
    batch.obs["image"][:, 3:] = 255
    other = world.open_loop(batch, start, 3, torch.Generator().manual_seed(5))
    assert torch.equal(again["image"], other["image"])


def test_odd_image_sizes_are_refused_with_advice(config):
    spec = Spec(
        images={"image": ImageSpec(height=60, width=64)}, action=ActionSpec(low=(-1,), high=(1,))
    )
    with pytest.raises(SettingsError, match="multiples of 16, got 64x60"):
        WorldModel(spec, config, generator=torch.Generator())


def test_scales_weigh_the_two_halves_and_balance_one_kl(build, batch, generator):
    """0.8 and 0.2 of both halves add up to the KL, of whose gradient the prior gets 0.8."""
    start = build().dynamics.initial(3)

    def halves(**scales):
        world = build(kl=scales | {"free_nats": 0.0})
        made = world.loss(batch, start, torch.Generator().manual_seed(1))
        return world, made.dynamics["dyn_loss"], made.representation["rep_loss"], made.metrics

    _, dyn, rep, metrics = halves(dyn_scale=1.0, rep_scale=1.0)
    torch.testing.assert_close(dyn, rep)
    torch.testing.assert_close(metrics["kl"], dyn.detach())
    balanced, dyn_share, rep_share, _ = halves(dyn_scale=0.8, rep_scale=0.2)
    torch.testing.assert_close(dyn_share + rep_share, dyn)
    torch.testing.assert_close(dyn_share, 0.8 * dyn)
    (whole,) = torch.autograd.grad(dyn_share + rep_share, balanced.dynamics.prior.out.weight)
    plain, dyn, _, _ = halves(dyn_scale=1.0, rep_scale=1.0)
    (full,) = torch.autograd.grad(dyn, plain.dynamics.prior.out.weight)
    torch.testing.assert_close(whole, 0.8 * full)


def test_free_nats_of_the_mean_stop_all_or_nothing(pair):
    """Three steps of many nats carry two that are predicted perfectly over the floor."""
    posterior, prior = pair
    with torch.no_grad():
        prior[:2] = posterior[:2]
    mean = categorical_kl(posterior, prior).detach().mean()
    for floor, moves in ((0.5 * mean.item(), True), (2.0 * mean.item(), False)):
        dyn, rep, plain = losses_of(posterior, prior, free_nats=floor, free_over="mean")
        assert dyn.item() == rep.item() == pytest.approx(max(floor, mean.item()))
        assert plain.item() == pytest.approx(mean.item())
        (gradient,) = torch.autograd.grad(dyn, prior)
        assert bool(gradient.any()) == moves


def test_a_posterior_drawn_to_a_unit_normal_forgets_the_prior():
    posterior = torch.tensor([[[1.0, 0.0], [1.0, 2.0]]]).requires_grad_()
    prior = torch.tensor([[[0.0, 0.0], [0.5, 0.5]]]).requires_grad_()
    dyn, rep, _ = losses_of(posterior, prior, GAUSSIAN, rep="unit", free_nats=0.0)
    # KL(N(1, 1) || N(0, 1)) = 1/2, KL(N(0, 2) || N(0, 1)) = (4 - 1) / 2 - log 2
    assert rep.item() == pytest.approx(0.5 + 1.5 - math.log(2))
    assert torch.autograd.grad(rep, prior, allow_unused=True, retain_graph=True) == (None,)
    # KL(N(1, 1) || N(0, 1/2)) = log(1/2) + (1 + 1) / (2 / 4) - 1/2, KL(N(0, 2) || N(0, 1/2)) ...
    one = math.log(0.5) + 2 / 0.5 - 0.5
    other = math.log(0.25) + 4 / 0.5 - 0.5
    assert dyn.item() == pytest.approx(one + other, rel=1e-4)


def test_consistency_is_the_cross_entropy_under_what_the_prior_had_expected(pair):
    posterior, prior = pair
    dyn, rep, nats = losses_of(posterior, prior, rep="consistency", free_nats=0.0)
    by_hand = -(prior.exp() * posterior).sum((-2, -1)).mean()
    torch.testing.assert_close(rep, by_hand.detach())
    by_posterior, by_prior = torch.autograd.grad(rep, pair, allow_unused=True)
    assert by_prior is None
    # towards p the gradient on log q is -p
    torch.testing.assert_close(by_posterior, -prior.detach().exp() / 5)
    torch.testing.assert_close(dyn, categorical_kl(posterior, prior).mean())
    torch.testing.assert_close(nats, categorical_kl(posterior, prior).mean().detach())


def test_a_mixture_s_loss_is_minus_its_log_density_per_dimension():
    """No floor, for a density has none; the gradient reaches the mixture alone."""
    config = KLConfig(free_nats=50.0, rep="unit")
    prior = MixturePrior(MDNConfig(mixtures=2), 1, GAUSSIAN, Style())
    parts = (
        torch.tensor([[[0.0, 0.0], [math.log(3.0), 0.0]]]),
        torch.tensor([[[0.0, 2.0], [1.0, -1.0]]]),
        torch.tensor([[[0.0, 0.0], [math.log(0.5), 0.0]]]),
    )
    mixture = Mixture(*(p.requires_grad_() for p in parts))
    prior.forward = lambda deter: mixture
    stoch = torch.tensor([[1.0, 1.0]]).requires_grad_()
    params = torch.tensor([[[1.0, 1.0], [0.3, 0.3]]])
    latent = Latent(torch.zeros(1, 1), stoch, params)
    dyn, rep, _ = dynamics_losses(GAUSSIAN, prior, latent, None, config)
    root = math.sqrt(2 * math.pi)
    first = math.exp(-0.5) / root  # a unit normal one away, whichever of the two
    second = 0.75 * 2.0 / root + 0.25 * math.exp(-2.0) / root
    assert dyn.item() == pytest.approx(-(math.log(first) + math.log(second)) / 2, rel=1e-5)
    assert rep.item() == 50.0
    slopes = torch.autograd.grad(dyn, (*mixture, stoch), allow_unused=True)
    assert all(slope.any() for slope in slopes[:2])
    assert slopes[3] is None


def test_steps_that_were_not_predictable_do_not_count(pair):
    posterior, prior = pair
    settings, fixed = KLConfig(free_nats=0.0), FixedPrior(CATEGORICAL, prior)
    latent = Latent(torch.zeros(5, 1), torch.zeros(5, 3, 4), posterior)
    counted = torch.tensor([True, False, False, True, False])
    dyn, rep, plain = dynamics_losses(CATEGORICAL, fixed, latent, counted, settings)
    expected = categorical_kl(posterior, prior)[counted].mean()
    for value in (dyn, rep, plain):
        torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(dyn, prior)
    assert (gradient.abs().amax((-2, -1)) > 0).tolist() == counted.tolist()
    for value in dynamics_losses(CATEGORICAL, fixed, latent, ~counted & counted, settings):
        assert value == 0


def test_barlow_is_its_closed_form_on_small_numbers():
    made = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [1.0, 4.0], [-1.0, 2.0]])
    embed = torch.tensor([[2.0, 1.0], [0.0, 1.0], [2.0, -1.0], [0.0, -1.0]])
    # with deviations over N - 1 = 3: columns (+-1) / sqrt(4/3), (0, 2, 4, 2) - 2 over sqrt(8/3)
    first = [x / math.sqrt(4 / 3) for x in (1, -1, 1, -1)]
    second = [x / math.sqrt(8 / 3) for x in (-2, 0, 2, 0)]
    other = [[x / math.sqrt(4 / 3) for x in column] for column in ((1, -1, 1, -1), (1, 1, -1, -1))]
    c = [[sum(a * b for a, b in zip(x, y, strict=True)) / 4 for y in other]
         for x in (first, second)]  # fmt: skip
    expected = (c[0][0] - 1) ** 2 + (c[1][1] - 1) ** 2 + 0.1 * (c[0][1] ** 2 + c[1][0] ** 2)
    got = barlow_loss(made, embed, redundancy=0.1).item()
    assert got == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("rows", [6, 40])  # fewer than elements, and more
def test_barlow_of_many_elements_is_that_of_their_correlation(rows, generator):
    made = torch.randn(rows, 20, generator=generator).requires_grad_()
    embed = torch.randn(rows, 20, generator=generator) + made.detach()
    embed[:, 3] = 0.5  # an element that never moves

    def plainly():
        one, other = ((x - x.mean(0)) / (x.std(0) + 1e-5) for x in (made, embed))
        c = one.T @ other / rows
        off = c[~torch.eye(20, dtype=torch.bool)].square().sum()
        return (c.diagonal() - 1.0).square().sum() + 0.1 * off

    found, expected = barlow_loss(made, embed, redundancy=0.1), plainly()
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(loss, made)[0] for loss in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [4, 40])
def test_an_element_that_is_the_same_in_every_row_leaves_barlow_s_gradient_finite(rows, generator):
    made = torch.randn(rows, 8, generator=generator)
    made[:, 3] = 2.0
    made.requires_grad_(True)
    barlow_loss(made, torch.randn(rows, 8, generator=generator), redundancy=0.1).backward()
    assert made.grad.isfinite().all()


def test_barlow_is_least_where_both_views_are_one_and_its_parts_independent():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(250, 1)
    best = barlow_loss(signs, signs, redundancy=0.1)
    assert best < 1e-4
    assert barlow_loss(7.0 * signs + 3.0, signs, redundancy=0.1) < 1e-4  # scale and place are free
    assert barlow_loss(signs.flip(1), signs, redundancy=0.1) > 2.0
    assert barlow_loss(-signs, signs, redundancy=0.1) > 7.9
    doubled = signs[:, :1].expand(-1, 2)
    assert barlow_loss(doubled, doubled, redundancy=0.1) > 0.19


def test_barlow_trains_the_projection_and_through_feat_but_never_its_aim(
    build, batch, monkeypatch
):
    world = build(objective="barlow", decoder={"kind": "none"}, barlow={"scale": 0.5})
    start, observe = world.dynamics.initial(3), world.observe

    def losses():
        return world.loss(batch, start, torch.Generator().manual_seed(1)).representation

    losses()["barlow_loss"].backward()
    assert world.projection.weight.grad.any()
    assert any(p.grad is not None and p.grad.any() for p in world.encoder.parameters())
    world.zero_grad(set_to_none=True)

    def blind(*args, **kwargs):  # what is left of the gradient is the embedding's own
        posterior, embed = observe(*args, **kwargs)
        return replace(posterior.detach(), params=posterior.params), embed

    monkeypatch.setattr(world, "observe", blind)
    losses()["barlow_loss"].backward()
    assert world.projection.weight.grad.any()
    assert [n for n, p in world.encoder.named_parameters() if p.grad is not None] == []


def test_barlow_is_scaled(build, batch):
    start = build().dynamics.initial(3)
    one, two = (
        build(objective="barlow", decoder={"kind": "none"}, barlow={"scale": scale})
        .loss(batch, start, torch.Generator().manual_seed(1))
        .representation["barlow_loss"]
        for scale in (1.0, 0.05)
    )
    torch.testing.assert_close(two, 0.05 * one)


def test_posteriors_that_are_surer_than_the_floor_pay_and_no_others(build):
    world = build(entropy={"scale": 5.0, "floor": 0.5}, categorical={"unimix": 0.0})
    logits = torch.tensor([[[0.0] * 4] * 3, [[50.0, 0, 0, 0]] * 3, [[3.0, 0, 0, 0]] * 3])
    params = logits.log_softmax(-1).requires_grad_()
    latent = Latent(torch.zeros(3, 1), torch.zeros(3, 3, 4), params)
    share = world.dynamics.latent_dist.entropy(params).detach()
    assert share[0].item() == pytest.approx(1.0)
    assert share[2] < 0.5
    hinge = world._entropy_hinge(latent)
    assert hinge.item() == pytest.approx((0.5 - share[2].item() + 0.5) / 3, abs=1e-4)
    (gradient,) = torch.autograd.grad(hinge, params)
    assert not gradient[0].any()
    assert gradient[2].any()


def test_a_floor_of_the_mean_lets_sure_posteriors_be_where_others_are_not(build):
    """As in TWM's code: entropies of 1, 0 and 0.5 of the largest have a mean of 0.5."""
    logits = torch.tensor([[0.0] * 4, [50.0, 0, 0, 0], [50.0, 50.0, 0, 0]])
    params = logits[:, None].expand(3, 3, 4).log_softmax(-1)
    latent = Latent(torch.zeros(3, 1), torch.zeros(3, 3, 4), params)
    hinges = {}
    for over in ("step", "mean"):
        for floor in (0.5, 0.6):
            world = build(
                entropy={"scale": 1.0, "floor": floor, "over": over}, categorical={"unimix": 0.0}
            )
            hinges[over, floor] = world._entropy_hinge(latent).item()
    assert hinges["mean", 0.5] == pytest.approx(0.0, abs=1e-6)
    assert hinges["mean", 0.6] == pytest.approx(0.1, abs=1e-6)
    assert hinges["step", 0.5] == pytest.approx(0.5 / 3, abs=1e-6)
    assert hinges["step", 0.6] == pytest.approx((0.6 + 0.1) / 3, abs=1e-6)


def test_the_hinge_is_a_scaled_part_of_the_representation_s_losses(build, batch):
    start = build().dynamics.initial(3)
    world = build(entropy={"scale": 5.0, "floor": 1.0})
    made = world.loss(batch, start, torch.Generator().manual_seed(1))
    hinge = world._entropy_hinge(made.posterior)
    assert hinge > 0
    torch.testing.assert_close(made.representation["entropy_loss"], 5.0 * hinge)
    plain = build().loss(batch, start, torch.Generator().manual_seed(1))
    assert "entropy_loss" not in plain.representation
