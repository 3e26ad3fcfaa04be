"""Dynamics: a sequence equals its steps, the past ends at is_first, the future stays unseen."""

from __future__ import annotations

import pytest
import torch

from wm_core.world.base import Recorded
from wm_core.world.latent import Latent

KINDS = {
    "block": {},
    "layer_norm": {"gru": {"cell": "layer_norm"}, "norm": "layer", "activation": "elu"},
    "plain": {"gru": {"cell": "plain"}, "norm": "none", "activation": "elu"},
    "gaussian": {
        "gru": {"cell": "plain"},
        "latent": "gaussian",
        "gaussian": {"size": 12},
        "net": {"layers": 1},
    },
}


@pytest.fixture(params=list(KINDS))
def world(request, build):
    return build(**KINDS[request.param])


@pytest.fixture
def uniform(world, generator):
    """(B, T, ...) noise of the latents."""
    return torch.rand(3, 7, *world.dynamics.latent_dist.shape, generator=generator)


def somewhere(n: int, world) -> Latent:
    """(n,) latents that are not zero."""
    stoch = torch.zeros(n, 3, 4)
    stoch[..., 1] = 1.0
    deter = torch.linspace(-1, 1, n * 16).reshape(n, 16)
    return Latent(deter, stoch.reshape(n, *world.dynamics.latent_dist.shape))


def test_sequence_equals_step_by_step(world, batch, uniform):
    with torch.no_grad():
        whole, _ = world.observe(batch, somewhere(3, world), uniform)
        latent = somewhere(3, world)
        for t in range(7):
            obs = {key: value[:, t] for key, value in batch.obs.items()}
            latent = world.observe_step(
                latent, batch.prev_action[:, t], obs, batch.is_first[:, t], uniform[:, t]
            )
            torch.testing.assert_close(latent.deter, whole.deter[:, t])
            torch.testing.assert_close(latent.stoch, whole.stoch[:, t])
            torch.testing.assert_close(latent.params, whole.params[:, t])


def test_gradients_do_not_change_what_is_observed(world, batch, uniform):
    with torch.no_grad():
        plain, _ = world.observe(batch, somewhere(3, world), uniform)
    traced, _ = world.observe(batch, somewhere(3, world), uniform)
    torch.testing.assert_close(traced.deter.detach(), plain.deter)
    torch.testing.assert_close(traced.stoch.detach(), plain.stoch, atol=1e-6, rtol=0)


def test_nothing_before_is_first_has_a_gradient_after_it(world, batch, uniform):
    action = batch.prev_action.clone().requires_grad_()
    embed = world.encoder(batch.obs).detach().requires_grad_()
    start = somewhere(3, world)
    start.deter.requires_grad_()
    start.stoch.requires_grad_()
    steps = Recorded(action, embed, batch.is_first, batch.reward)
    seen = world.dynamics.observe(start, steps, uniform)
    after = seen.feat[:, 4:].square().sum() + seen.params[:, 4:].square().sum()
    inputs = (action, embed, start.deter, start.stoch)
    by_action, by_embed, by_deter, by_stoch = torch.autograd.grad(after, inputs)
    # The second window starts anew at step 4; the action that "led there" does not count.
    assert by_action[1, :5].abs().max() == 0
    assert by_embed[1, :4].abs().max() == 0
    assert by_deter[1].abs().max() == 0
    assert by_stoch[1].abs().max() == 0
    # The others remember.
    assert by_action[0, :5].abs().amax(-1).min() > 0
    assert by_embed[2, :4].abs().amax(-1).min() > 0
    assert by_deter[0].abs().max() > 0


def test_a_reset_step_forgets_latent_and_action(world, batch, uniform):
    obs = {key: value[:, 0] for key, value in batch.obs.items()}
    first = torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        one = world.observe_step(
            somewhere(3, world), batch.prev_action[:, 0], obs, first, uniform[:, 0]
        )
        other = world.observe_step(
            world.dynamics.initial(3), -batch.prev_action[:, 1], obs, first, uniform[:, 0]
        )
    assert torch.equal(one.deter, other.deter)
    assert torch.equal(one.stoch, other.stoch)


def test_nothing_later_has_a_gradient_on_what_was_seen(world, batch, uniform):
    embed = world.encoder(batch.obs).detach().requires_grad_()
    steps = Recorded(batch.prev_action, embed, batch.is_first, batch.reward)
    seen = world.dynamics.observe(somewhere(3, world), steps, uniform)
    (gradient,) = torch.autograd.grad(seen.feat[:, :3].square().sum(), embed)
    assert gradient[:, 3:].abs().max() == 0


def test_imagining_is_observing_without_eyes(world, uniform):
    """Both advance deter alike: it depends on the past and the action alone."""
    action = torch.tensor([[0.3, -0.5]] * 3)
    with torch.no_grad():
        dreamt = world.dynamics.imagine_step(somewhere(3, world), action, uniform[:, 0])
        seen = world.dynamics.observe_step(
            somewhere(3, world),
            action,
            torch.zeros(3, world.encoder.size),
            torch.zeros(3, dtype=torch.bool),
            uniform[:, 0],
        )
    torch.testing.assert_close(dreamt.deter, seen.deter)
    torch.testing.assert_close(world.dynamics.prior(dreamt.deter), dreamt.params)


def test_an_action_beyond_its_range_counts_as_clipped(world, uniform):
    with torch.no_grad():
        far, near = (
            world.dynamics.imagine_step(
                somewhere(1, world), torch.tensor([[x, -x]]), uniform[:1, 0]
            )
            for x in (5.0, 1.0)
        )
    assert torch.equal(far.deter, near.deter)


def test_environments_side_by_side_do_not_touch(world, batch, uniform):
    with torch.no_grad():
        together, _ = world.observe(batch, somewhere(3, world), uniform)
        start = Latent(somewhere(3, world).deter[2:], somewhere(3, world).stoch[2:])
        alone, _ = world.observe(batch.map(lambda x: x[2:]), start, uniform[2:])
    torch.testing.assert_close(alone.deter[0], together.deter[2])


def test_any_observed_state_can_be_continued(world, batch, uniform):
    """What a carry holds is all that the next steps need."""
    dynamics = world.dynamics
    with torch.no_grad():
        whole, embed = world.observe(batch, somewhere(3, world), uniform)
        carry = tuple(c[:, 2] for c in dynamics.carry_of(whole))
        assert len(carry) == len(dynamics.carry_names)
        steps = Recorded(batch.prev_action, embed, batch.is_first, batch.reward)
        later = Recorded(*(x[:, 3:] for x in steps))
        rest = dynamics.observe(dynamics.latent_of(carry), later, uniform[:, 3:])
    torch.testing.assert_close(rest.deter, whole.deter[:, 3:])
    torch.testing.assert_close(rest.stoch, whole.stoch[:, 3:])


def test_dreams_start_at_the_same_times_of_every_window_in_order(world, batch, uniform):
    with torch.no_grad():
        whole, _ = world.observe(batch, somewhere(3, world), uniform)
    start = world.dynamics.imagination_starts(whole, torch.tensor([4, 1]))
    for row in range(3):
        for i, t in enumerate((4, 1)):
            assert torch.equal(start.deter[row * 2 + i], whole.deter[row, t])
            assert torch.equal(start.stoch[row * 2 + i], whole.stoch[row, t])


def test_a_temperature_changes_the_draw_and_not_the_path_to_it(world, generator):
    action = torch.zeros(50, 2)
    uniform = torch.rand(50, *world.dynamics.prior.noise_shape, generator=generator)
    world.dynamics.prior.out.weight.data.mul_(10.0)  # an untrained prior surprises enough
    plain, same, hot = (
        world.dynamics.imagine_step(somewhere(50, world), action, uniform, temperature=t)
        for t in (1.0, 1.0, 20.0)
    )
    assert torch.equal(plain.stoch, same.stoch)
    assert torch.equal(plain.deter, hot.deter)
    assert not torch.equal(plain.stoch, hot.stoch)
