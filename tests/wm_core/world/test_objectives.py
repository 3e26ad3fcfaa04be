"""The KL's two halves, and where the world model's losses send their gradients."""

from __future__ import annotations

import pytest
import torch

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.nn.dists import categorical_kl
from wm_core.world.latent import Latent
from wm_core.world.objectives import dynamics_losses
from wm_core.world.prior import NetPrior
from wm_core.world.space import make_space
from wm_core.world.world_model import WorldModel


class Told(NetPrior):
    """A prior that says what it is told to, whatever it reads."""

    def __init__(self, space, guess):
        torch.nn.Module.__init__(self)
        self.space, self.guess = space, guess

    def forward(self, deter):
        return self.guess


def losses_of(posterior, prior, config):
    """dyn_loss, rep_loss and the plain nats of ``posterior`` params against ``prior``'s."""
    space = make_space(config)
    lead = posterior.shape[:-2]
    latent = Latent(torch.zeros(*lead, 1), torch.zeros(*lead, *space.shape), posterior)
    return dynamics_losses(space, Told(space, prior), latent, None, config)


@pytest.fixture
def pair(generator):
    """Log-probabilities of a posterior and a prior, (5, 3, 4), a few nats apart."""
    return [
        (3 * torch.randn(5, 3, 4, generator=generator)).log_softmax(-1).requires_grad_()
        for _ in range(2)
    ]


def test_each_half_of_the_kl_trains_its_own_side(pair, config):
    posterior, prior = pair
    config = config.model_copy(update={"free_nats": 0.0})
    dyn, rep, plain = losses_of(posterior, prior, config)
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


def test_free_nats_stop_the_gradient_of_each_step_alone(pair, config):
    posterior, prior = pair
    with torch.no_grad():
        prior[:2] = posterior[:2]  # two steps are predicted perfectly
    each = categorical_kl(posterior, prior).detach()
    assert each[:2].abs().max() < 1e-5
    assert (each[2:] > 1).all()
    dyn, rep, plain = losses_of(posterior, prior, config)
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
    world.config = world.config.model_copy(update={"recon_share": 0.5})
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
        WorldModel(spec, config)
