"""The world model as a whole: where gradients go, what heads and decoder read, closed eyes."""

from __future__ import annotations

import pytest
import torch

from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.world.settings import WorldConfig
from wm_core.world.world_model import WorldModel

SMALL = {"width": 12, "layers": 2, "heads": 2, "head": 4, "hidden": 16, "window": 8}
SEQUENCES = {
    "transformer": {"backbone": "transformer", "transformer": SMALL},
    "ssm": {"backbone": "ssm", "ssm": {"state": 8, "layers": 2, "blocks": 2}},
    "lstm": {"backbone": "lstm"},
}


def losses_of(world, batch, seed=1):
    start = world.dynamics.initial(3)
    return world.loss(batch, start, torch.Generator().manual_seed(seed))


def awake(world, by=0.05):
    """``world`` with nothing left at zero, behind which gradients would hide."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in world.parameters():
            p.add_(by * torch.randn(p.shape, generator=generator))
    return world


def trained_by(world, loss):
    """The names of the weights that ``loss`` has a gradient on."""
    world.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {n for n, p in world.named_parameters() if p.grad is not None and p.grad.any()}


# ------------------------------------------------------------------ gradients


def test_every_parameter_is_trained_whatever_the_backbone(any_world, batch):
    made = losses_of(awake(any_world), batch)
    loss = sum((made.representation | made.dynamics).values())
    idle = {n for n, _ in any_world.named_parameters()} - trained_by(any_world, loss)
    assert idle == set()


@pytest.mark.parametrize("backbone", SEQUENCES)
def test_staged_dynamics_leave_the_representation_alone(backbone, build, batch):
    sees = ("encoder.", "dynamics.posterior.", "decoder.")
    world = awake(build(gradients="staged", decoder={"reads": "stoch"}, **SEQUENCES[backbone]))
    made = losses_of(world, batch)
    for name, loss in made.dynamics.items():
        trained = trained_by(world, loss)
        assert trained, name
        assert not any(n.startswith(sees) for n in trained), name
    for name, loss in made.representation.items():
        trained = trained_by(world, loss)
        assert not any(n.startswith(("dynamics.backbone.", "dynamics.prior.")) for n in trained)
        assert any(n.startswith("encoder.") for n in trained), name


@pytest.mark.parametrize("backbone", SEQUENCES)
def test_joint_dynamics_train_the_representation_too(backbone, build, batch):
    world = awake(build(**SEQUENCES[backbone]))
    for loss in losses_of(world, batch).dynamics.values():
        assert any(n.startswith("encoder.") for n in trained_by(world, loss))


def test_a_detached_decoder_is_trained_and_trains_nothing_else(build, batch):
    world = awake(build(objective="barlow", decoder={"kind": "detached"}))
    made = losses_of(world, batch).representation
    shown = [name for name in made if name.startswith("recon_loss/")]
    assert sorted(shown) == ["recon_loss/image", "recon_loss/joints"]
    trained = set().union(*(trained_by(world, made[name]) for name in shown))
    assert trained == {n for n, _ in world.named_parameters() if n.startswith("decoder.")}


# ------------------------------------------------------------------ scales that adapt


def test_an_adaptive_scale_of_the_kl_seeks_its_target(build, batch):
    """From its largest value, 1, it falls while the KL is below the target, and not above."""
    kl = losses_of(build(kl={"free_nats": 0.0}), batch).metrics["kl"].item()
    for target, factor in ((2 * kl, 1 / 1.1), (kl, 1.0), (kl / 2, 1.0)):
        world = build(kl={"target": target, "free_nats": 0.0})
        made = losses_of(world, batch)
        assert made.metrics["kl_scale"].item() == pytest.approx(factor)
        again = losses_of(world, batch)
        assert again.dynamics["dyn_loss"].item() == pytest.approx(factor * kl, rel=1e-5)
        rep = again.representation["rep_loss"].item()
        assert rep == pytest.approx(0.1 * factor * kl, rel=1e-5)
    low = build(kl={"target": kl / 2, "free_nats": 0.0})
    low.kl_scale.scale.fill_(0.5)
    losses_of(low, batch)
    assert low.kl_scale.scale.item() == pytest.approx(0.55)


def test_without_a_target_the_kl_s_scale_is_fixed(world, batch):
    assert world.kl_scale is None
    assert "kl_scale" not in losses_of(world, batch).metrics


# ------------------------------------------------------------------ what is read


@pytest.mark.parametrize("part", ["feat", "deter", "stoch"])
def test_heads_and_decoder_read_what_they_are_told_to(part, build, batch):
    world = awake(build(heads={"reads": part}, decoder={"reads": part}))
    width = {"feat": 16 + 12, "deter": 16, "stoch": 12}[part]
    assert world.config.sizes.of(part) == width
    for net in (world.reward, world.cont, world.decoder.vectors["joints"]):
        assert net.layers[0].linear.weight.shape[1] == width
    made = losses_of(world, batch)
    read = {"deter": part != "stoch", "stoch": part != "deter"}
    shown = ("reward_loss", "cont_loss", "recon_loss/image", "recon_loss/joints")
    for name in shown:
        loss = (made.dynamics | made.representation)[name]
        for half, wanted in read.items():
            inputs = getattr(made.posterior, half)
            # stoch of one time makes deter of the next: a last step's reaches no other
            (slope,) = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
            assert (slope is not None and bool(slope.any())) == wanted, (name, half)


def test_what_is_not_predicted_to_end_goes_on_for_ever(build, batch):
    world = build(heads={"cont": False})
    assert world.cont is None
    made = losses_of(world, batch)
    assert "cont_loss" not in made.dynamics
    reward, cont = world.predict(made.posterior)
    assert reward.shape == cont.shape == (3, 7)
    assert torch.equal(cont, torch.ones(3, 7))


@pytest.mark.parametrize(("fold", "cont"), [(True, True), (False, True), (True, False)])
def test_the_discount_is_in_cont_or_beside_it_and_never_both(fold, cont, build, batch):
    """A head that has learnt its target says the discount, or one, of a life that goes on."""
    world = build(fold_discount=fold, heads={"cont": cont}, discount_horizon=5.0)
    if not cont:
        assert world.discount == pytest.approx(0.8)
        return
    wanted = 0.8 if fold else 1.0
    assert world.discount == pytest.approx(1.0 if fold else 0.8)
    batch.is_terminal[0, 2] = True
    weights = [p for p in world.cont.parameters()]
    losses = {}
    for alive in (wanted, 0.5):
        with torch.no_grad():
            for p in weights:
                p.zero_()
            world.cont.out.bias.fill_(torch.logit(torch.tensor(alive), eps=1e-4).item())
        losses[alive] = losses_of(world, batch).dynamics["cont_loss"].item()
    p = min(wanted, 1 - 1e-4)
    entropy = -(wanted * torch.log(torch.tensor(p)) + (1 - wanted) * torch.log1p(-torch.tensor(p)))
    died = -torch.log1p(-torch.tensor(p))
    assert losses[wanted] == pytest.approx(((20 * entropy + died) / 21).item(), rel=1e-3)


def test_a_model_with_reward_tokens_reads_the_reward_that_it_predicts(build, batch):
    world = awake(build(backbone="transformer", transformer=SMALL | {"tokens": "split"}))
    with torch.no_grad():
        posterior = losses_of(world, batch).posterior
        start = world.dynamics.imagination_starts(posterior, torch.tensor([3]))
        action, uniform = torch.zeros(3, 2), torch.full((3, 3, 4), 0.3)
        got = world.imagine_step(start, action, uniform)
        reward = world.predict(start)[0]
        want = world.dynamics.imagine_step(start, action, uniform, reward=reward)
        other = world.dynamics.imagine_step(start, action, uniform, reward=reward + 1)
    assert torch.equal(got.deter, want.deter)
    assert not torch.equal(got.deter, other.deter)


# ------------------------------------------------------------------ closed eyes


def test_open_loop_sees_first_and_then_dreams_whatever_the_backbone(any_world, batch):
    world = awake(any_world, by=0.3)  # so that draws depend on what is seen
    start = world.dynamics.initial(3)

    def made(**images):
        for t, shade in images.items():
            batch.obs["image"][:, int(t[1:]) :] = shade
        return world.open_loop(batch, start, 3, torch.Generator().manual_seed(5))

    seen = made()
    assert seen["image"].shape == batch.obs["image"].shape
    assert seen["image"].dtype == torch.uint8
    assert seen["joints"].shape == batch.obs["joints"].shape
    for later in (0, 255):  # what comes later must not matter
        assert torch.equal(made(t3=later)["image"], seen["image"])
    assert not torch.equal(made(t2=0)["image"], seen["image"])


def test_a_dream_follows_the_recorded_actions(any_world, batch):
    world = awake(any_world)
    start = world.dynamics.initial(3)
    one = world.open_loop(batch, start, 3, torch.Generator().manual_seed(5))
    batch.prev_action[:, 3:] *= -1
    two = world.open_loop(batch, start, 3, torch.Generator().manual_seed(5))
    assert torch.equal(one["joints"][:, :3], two["joints"][:, :3])
    assert (one["joints"][:, 3:] != two["joints"][:, 3:]).any()


def test_a_model_without_a_decoder_cannot_show_and_says_what_to_do(build, batch):
    world = build(objective="barlow", decoder={"kind": "none"})
    start = world.dynamics.initial(3)
    with pytest.raises(SettingsError, match=r"no decoder.* --world.decoder.kind detached"):
        world.open_loop(batch, start, 3, torch.Generator())
    watched = build(objective="barlow", decoder={"kind": "detached"})
    assert "image" in watched.open_loop(batch, start, 3, torch.Generator())


# ------------------------------------------------------------------ what cannot be built


def test_dreamer_v1_s_convolutions_refuse_other_sizes_with_advice():
    spec = Spec(
        images={"image": ImageSpec(height=32, width=48)}, action=ActionSpec(low=(-1,), high=(1,))
    )
    small = WorldConfig(encoder={"kind": "v1", "depth": 2}, gru={"deter": 16, "hidden": 8})
    with pytest.raises(
        SettingsError, match=r"64x64, got 48x32; choose --world\.encoder\.kind k4s2"
    ):
        WorldModel(spec, small, generator=torch.Generator())


# ------------------------------------------------------------------ initial weights


def test_a_world_model_draws_its_own_weights_from_its_generator(build):
    one, two = build(), build()
    weights = dict(one.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in two.named_parameters())
    zero = {name for name, p in weights.items() if not p.any()}
    # biases, and the reward head that predicts exactly 0 at first
    assert {name for name in zero if not name.endswith("bias")} == {"reward.out.weight"}


def test_pixels_that_are_floats_already_are_refused(world, batch):
    obs = batch.obs | {"image": batch.obs["image"] / 255.0}
    with pytest.raises(SpecMismatch, match=r"expected pixels .* uint8, got torch.float32"):
        world.encoder(obs)
