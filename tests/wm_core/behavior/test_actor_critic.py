"""The actor's distribution, roll-outs, and the direction in which the actor learns."""

from __future__ import annotations

import pytest
import torch

from wm_core.behavior.actor import Actor
from wm_core.behavior.critic import Critic
from wm_core.behavior.imagine import imagine
from wm_core.behavior.settings import ActorConfig, CriticConfig
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.nn.blocks import initialize
from wm_core.presets.micro import merged
from wm_core.world.settings import WorldConfig
from wm_core.world.world_model import WorldModel

ACTION = ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def parts(generator):
    """A world model and an actor that fit together."""
    config = WorldConfig(
        gru={"deter": 16, "hidden": 8, "blocks": 4}, posterior={"units": 8}, net={"units": 8},
        categorical={"groups": 3, "classes": 4}, units=8, heads={"bins": 31},
    )  # fmt: skip
    spec = Spec(images={}, vectors={"v": VectorSpec(size=5)}, action=ACTION)
    world = WorldModel(spec, config, generator=generator)
    actor = Actor(28, ACTION, 8, ActorConfig())
    initialize(actor, generator)
    return world, actor


def test_actions_have_bounded_mean_and_spread(generator):
    actor = Actor(6, ACTION, 8, ActorConfig(min_std=0.1, max_std=0.8))
    initialize(actor, generator)
    actor.mean.weight.data.mul_(1e4)
    actor.std.weight.data.mul_(1e4)
    dist = actor.dist(torch.randn(100, 6, generator=generator))
    assert dist.mean.abs().max() <= 1
    assert dist.std.min() >= 0.1
    assert dist.std.max() <= 0.8 + 1e-6


def test_a_roll_out_is_its_single_steps(parts, generator):
    world, actor = parts
    start = world.dynamics.initial(4)
    dream = imagine(world, actor, start, 3, generator)
    feat = dream.latent.feat
    assert feat.shape == (4, 4, 28)
    assert dream.action.shape == (4, 3, 2)
    assert not feat.requires_grad
    torch.testing.assert_close(feat[:, 0], start.feat)
    # deter follows from the state before and the action, whatever was drawn.
    latent = start
    with torch.no_grad():
        for t in range(3):
            uniform = torch.rand(4, 3, 4, generator=generator)
            expected = world.imagine_step(latent, dream.action[:, t], uniform).deter
            torch.testing.assert_close(feat[:, t + 1, :16], expected)
            stoch = feat[:, t + 1, 16:].unflatten(-1, (3, 4))
            assert torch.equal(stoch.sum(-1), torch.ones(4, 3))
            latent = type(start)(expected, stoch)


def test_the_critic_s_loss_pulls_to_the_target_and_the_slow_copy():
    critic = Critic(3, 4, 31, CriticConfig(target_scale=0.5))
    feat, target = torch.zeros(2, 3), torch.tensor([1.0, -4.0])
    logits = critic.fast(feat)
    twohot = critic.fast.twohot
    expected = twohot.loss(logits, target) + 0.5 * twohot.loss(logits, torch.zeros(2))
    torch.testing.assert_close(critic.loss(logits, feat, target), expected)


def test_updating_the_target_network_moves_the_slow_copy_alone(generator):
    critic = Critic(3, 4, 31, CriticConfig(target_rate=0.25))
    initialize(critic.fast, generator)
    fast = [p.clone() for p in critic.fast.parameters()]
    critic.update_target()
    for now, before, slow in zip(
        critic.fast.parameters(), fast, critic.slow.parameters(), strict=True
    ):
        assert torch.equal(now, before)
        assert slow.grad is None
    torch.testing.assert_close(
        critic.slow.layers[0].linear.weight, 0.25 * critic.fast.layers[0].linear.weight
    )


# ------------------------------------------------------------------ the slow copy


def test_a_bootstrapping_target_network_moves_every_k_updates_and_makes_the_targets(play):
    game = play(critic={"target_network": "bootstrap", "target_rate": 1.0, "target_every": 3})
    critic = game.behavior.critic
    part = torch.randn(4, critic.fast.layers[0].linear.weight.shape[1])
    before = critic.value(part).detach()
    shaken_again(critic.fast)
    moved = critic.fast.value(critic.fast(part)).detach()
    assert not torch.allclose(before, moved)
    for updates, expected in ((1, before), (2, before), (3, moved)):
        game.behavior.update_target(updates)
        torch.testing.assert_close(critic.value(part), expected)
    shaken_again(critic.fast)
    for updates in (4, 5):
        game.behavior.update_target(updates)
        torch.testing.assert_close(critic.value(part), moved)


def shaken_again(module):
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("slow", ["regularize", "none"])
def test_without_a_bootstrapping_target_network_the_critic_makes_its_own_targets(slow, play):
    critic = play(critic={"target_network": slow}).behavior.critic
    shaken_again(critic.slow)
    part = torch.randn(4, critic.fast.layers[0].linear.weight.shape[1])
    torch.testing.assert_close(critic.value(part), critic.fast.value(critic.fast(part)))
    target = torch.randn(4)
    error = critic.fast.error(critic.fast(part), target)
    assert torch.equal(critic.loss(critic.fast(part), part, target), error) == (slow == "none")


# ------------------------------------------------------------------ what the actor pays
# A dream is repeated by hand: the same draws, the returns by their definition, torch's densities.

HORIZON, DISCOUNT, LAM = 4, 0.9, 0.95


class ByHand:
    """The dream of ``game``, with what the actor reads held where it was."""

    def __init__(self, game, seed=0):
        self.game, self.actor = game, game.behavior.actor
        start = self.start = game.starts()
        n = len(start.deter)
        generator = torch.Generator().manual_seed(seed)
        shape, size = game.world.dynamics.prior.noise_shape, self.actor.action_size
        self.uniform = torch.rand(HORIZON, n, *shape, generator=generator)
        self.noise = self.actor.noise(torch.rand(HORIZON, n, size, generator=generator))
        with torch.no_grad():
            self.reads, self.drawn = [], []
            latent = start
            for t in range(HORIZON):
                self.reads.append(latent.feat)
                self.drawn.append(self.actor.dist(latent.feat).sample(self.noise[t]))
                latent = game.world.imagine_step(latent, self.drawn[t], self.uniform[t])
            self.target, self.value, self.weight = self.returns(self.drawn)

    def actions(self):
        """What the actor draws now in the states that it was in, with gradients."""
        return [self.actor.dist(r).sample(e) for r, e in zip(self.reads, self.noise, strict=True)]

    def returns(self, actions, *, beyond=True):
        """(N, T_imag) lambda-returns, (N, T_imag) values and weights, backwards in time."""
        world, critic, latents = self.game.world, self.game.behavior.critic, [self.start]
        for t in range(HORIZON):
            latents.append(world.imagine_step(latents[-1], actions[t], self.uniform[t]))
        told = [world.predict(latent) for latent in latents]
        values = [critic.value(latent.feat) for latent in latents]
        lam, ahead = LAM, values[-1]
        if not beyond:  # rewards to the horizon, and nothing else
            lam, ahead, values = 1.0, torch.zeros_like(ahead), [torch.zeros_like(ahead)] * 5
        targets = []
        for t in range(HORIZON, 0, -1):
            reward, cont = told[t]
            ahead = reward + DISCOUNT * cont * ((1 - lam) * values[t] + lam * ahead)
            targets.append(ahead)
        alive = torch.stack([told[t][1] * DISCOUNT for t in range(HORIZON)], 1).detach()
        weight = alive.cumprod(1) / DISCOUNT
        return torch.stack(targets[::-1], 1), torch.stack(values[:-1], 1), weight


def gradient_of(game, loss):
    game.behavior.zero_grad(set_to_none=True)
    weights = [p for p in game.behavior.actor.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])


def moved(actor, direction, by):
    """Shift all weights of ``actor`` along ``direction`` (n,)."""
    at = 0
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(by * direction[at : at + p.numel()].view_as(p))
            at += p.numel()


@pytest.mark.parametrize("objective", ["value", "rewards"])
@pytest.mark.parametrize("kind", ["gru", "joint", "split", "actions", "ssm", "lstm", "mdn"])
def test_the_gradient_through_dynamics_is_that_of_finite_differences(kind, objective, play):
    """Of the imagined return under fixed noise; what the actor reads is held, as it has none.

    Squashed actions, because a clipped one has a kink.
    """
    smooth = {"actor": {"kind": "tanh_normal", "init_std": 0.5}}
    game = play(kind, gradient="dynamics", objective=objective, **smooth)
    by_hand, actor = ByHand(game), game.behavior.actor
    gradient = gradient_of(game, game.made().losses["policy_loss"])

    def loss():
        with torch.no_grad():
            target, _, _ = by_hand.returns(by_hand.actions(), beyond=objective == "value")
            return -(by_hand.weight * target).double().mean().item()

    generator = torch.Generator().manual_seed(5)
    assert gradient.norm() > 2e-3
    steepest = gradient / gradient.norm()
    other = torch.randn(gradient.shape, generator=generator)
    other = steepest + other / other.norm()
    for direction in (steepest, other / other.norm()):
        moved(actor, direction, 0.002)
        above = loss()
        moved(actor, direction, -0.004)
        below = loss()
        moved(actor, direction, 0.002)
        slope = (gradient @ direction).item()
        assert (above - below) / 0.004 == pytest.approx(slope, rel=0.02, abs=2e-5)


def test_an_attached_baseline_takes_its_own_gradient_from_the_returns(play):
    """As in DayDreamer's code: the loss falls with returns and rises with values."""
    smooth = {"actor": {"kind": "tanh_normal", "init_std": 0.5}}
    gradients = {}
    for baseline in ("detached", "attached"):
        game = play(gradient="dynamics", baseline=baseline, **smooth)
        gradients[baseline] = gradient_of(game, game.made().losses["policy_loss"])
        by_hand = ByHand(game)
        target, value, _ = by_hand.returns(by_hand.actions())
        weight = by_hand.weight
        pays = target if baseline == "detached" else target - value
        expected = gradient_of(game, -(weight * pays).mean())
        torch.testing.assert_close(gradients[baseline], expected, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(*gradients.values(), rtol=0.1)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_reinforce_is_the_score_function(kind, discrete, play):
    game = play(kind, gradient="reinforce", discrete=discrete, actor={"unimix": 0.0})
    by_hand, actor = ByHand(game), game.behavior.actor
    gradient = gradient_of(game, game.made().losses["policy_loss"])
    advantage = by_hand.target - by_hand.value
    loss = 0.0
    for t in range(HORIZON):
        dist = actor.dist(by_hand.reads[t])
        if discrete:
            chosen = by_hand.drawn[t].argmax(-1)
            score = torch.distributions.Categorical(logits=dist.log_probs).log_prob(chosen)
        else:
            score = torch.distributions.Normal(*dist).log_prob(by_hand.drawn[t]).sum(-1)
        loss = loss - (by_hand.weight[:, t] * advantage[:, t] * score).mean() / HORIZON
    torch.testing.assert_close(gradient, gradient_of(game, loss), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_mix_is_the_convex_combination_of_both_gradients(discrete, play):
    parts = {}
    for gradient in ("reinforce", "dynamics", "mix"):
        game = play(gradient=gradient, mix=0.3, discrete=discrete, entropy={"scale": 0.01})
        parts[gradient] = gradient_of(game, game.made().losses["policy_loss"])
    expected = 0.3 * parts["reinforce"] + 0.7 * parts["dynamics"]
    torch.testing.assert_close(parts["mix"], expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(parts["reinforce"], parts["dynamics"], rtol=0.1)


@pytest.mark.parametrize(("discrete", "chosen"), [(False, "dynamics"), (True, "reinforce")])
def test_auto_takes_the_gradient_that_suits_the_actions(discrete, chosen, play):
    auto = play(gradient="auto", discrete=discrete)
    named = play(gradient=chosen, discrete=discrete)
    losses = [game.made().losses["policy_loss"] for game in (auto, named)]
    assert torch.equal(*(gradient_of(g, x) for g, x in zip((auto, named), losses, strict=True)))


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics", "mix"])
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("kind", ["gru", "joint", "split", "actions", "ssm", "lstm", "mdn"])
def test_each_loss_of_a_behaviour_reaches_its_own_part(kind, discrete, gradient, play):
    game = play(kind, gradient=gradient, discrete=discrete, entropy={"scale": 0.01})
    losses = game.made().losses
    assert all(torch.isfinite(loss) for loss in losses.values())
    parts = {
        "world": game.world, "actor": game.behavior.actor, "critic": game.behavior.critic,
    }  # fmt: skip
    for name, own in (("policy_loss", "actor"), ("value_loss", "critic")):
        for part in parts.values():
            part.zero_grad(set_to_none=True)
        losses[name].backward(retain_graph=True)
        reached = {k for k, m in parts.items() if any(p.grad is not None for p in m.parameters())}
        assert reached == {own}
        own_weights = [p for p in parts[own].parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.any() for p in own_weights)


@pytest.mark.parametrize("gradient", ["reinforce", "dynamics"])
def test_an_actor_that_maximises_rewards_alone_does_not_use_the_critic(gradient, play):
    game = play(gradient=gradient, objective="rewards")
    policy = game.made().losses["policy_loss"]
    before = gradient_of(game, policy)
    shaken_again(game.behavior.critic.fast)
    again = game.made().losses["policy_loss"]
    torch.testing.assert_close(again, policy)
    torch.testing.assert_close(gradient_of(game, again), before)


def test_the_baseline_of_rewards_alone_is_the_mean_of_all_rollouts(play):
    game = play(gradient="reinforce", objective="rewards")
    by_hand, actor = ByHand(game), game.behavior.actor
    with torch.no_grad():
        target, _, _ = by_hand.returns(by_hand.drawn, beyond=False)
    advantage = target - target.mean(0)
    loss = 0.0
    for t in range(HORIZON):
        score = actor.dist(by_hand.reads[t]).log_prob(by_hand.drawn[t])
        loss = loss - (by_hand.weight[:, t] * advantage[:, t] * score).mean() / HORIZON
    torch.testing.assert_close(game.made().losses["policy_loss"], loss, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ scales and bonuses


def bonus(play, **behavior):
    """What the entropy rule adds to the loss, and the dream by hand."""
    with_rule = play(**behavior)
    without = play(**merged(behavior, {"entropy": {"rule": "fixed", "scale": 0.0}}))
    by_hand = ByHand(without)
    added = with_rule.made().losses["policy_loss"] - without.made().losses["policy_loss"]
    dists = [without.behavior.actor.dist(r) for r in by_hand.reads]
    return added.item(), by_hand.weight, dists, with_rule


@pytest.mark.parametrize("discrete", [False, True])
def test_a_fixed_bonus_is_a_share_of_the_entropy(discrete, play):
    added, weight, dists, _ = bonus(play, entropy={"scale": 0.5}, discrete=discrete)
    entropy = torch.stack([dist.entropy() for dist in dists], 1)
    assert added == pytest.approx(-0.5 * (weight * entropy).mean().item(), rel=1e-3)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_hinge_bonus_counts_the_entropy_missing_to_its_target(discrete, play):
    settings = {"entropy": {"scale": 0.5, "rule": "hinge"}, "discrete": discrete}
    _, _, dists, game = bonus(play, **settings)
    share = torch.stack([game.behavior.actor.entropy_share(dist) for dist in dists], 1)
    target = share.median().item()
    added, weight, _, _ = bonus(play, **merged(settings, {"entropy": {"target": target}}))
    short = (target - share).clamp_min(0)
    assert 0 < (short > 0).float().mean() < 1
    assert added == pytest.approx(0.5 * (weight * short).mean().item(), rel=1e-3)
    target = share.min().item() - 0.01
    nothing, *_ = bonus(play, **merged(settings, {"entropy": {"target": target}}))
    assert nothing == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_hinge_of_the_mean_counts_what_the_weighted_mean_lacks(discrete, play):
    """As in TWM's code; the penalty itself has no weight."""
    settings = {"entropy": {"scale": 0.5, "rule": "hinge", "over": "mean"}, "discrete": discrete}
    _, weight, dists, game = bonus(play, **settings)
    share = torch.stack([game.behavior.actor.entropy_share(dist) for dist in dists], 1)
    mean = (weight * share).mean().item()
    for target, short in ((mean + 0.2, 0.2), (mean - 0.01, 0.0)):
        added, *_ = bonus(play, **merged(settings, {"entropy": {"target": target}}))
        assert added == pytest.approx(0.5 * short, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("discrete", [False, True])
def test_an_adaptive_bonus_grows_while_the_entropy_is_below_its_target(discrete, play):
    settings = {"entropy": {"scale": 0.5, "rule": "adaptive"}, "discrete": discrete}
    for target, factor in ((0.01, 1 / 1.1), (5.0, 1.1)):
        added, weight, dists, game = bonus(
            play, **merged(settings, {"entropy": {"target": target}})
        )
        share = torch.stack([game.behavior.actor.entropy_share(dist) for dist in dists], 1)
        assert added == pytest.approx(-0.5 * (weight * share).mean().item(), rel=1e-3)
        assert game.behavior.entropy_scale.scale.item() == pytest.approx(0.5 * factor)
        metrics = game.made().metrics
        assert metrics["entropy_scale"].item() == pytest.approx(0.5 * factor)


def test_advantages_are_divided_by_the_range_of_returns_or_normalised(play):
    """In the first update, so that running averages are known."""
    plain = play(gradient="reinforce")
    by_hand = ByHand(plain)
    advantage = by_hand.target - by_hand.value
    score = torch.stack(
        [
            plain.behavior.actor.dist(r).log_prob(a)
            for r, a in zip(by_hand.reads, by_hand.drawn, strict=True)
        ],
        1,
    )
    low, high = torch.quantile(by_hand.target.flatten(), torch.tensor([0.05, 0.95]))
    scaled = {
        "range": advantage / (1.0 * (high - low)).clamp_min(0.01),
        "std": (advantage - advantage.mean()) / advantage.std(correction=0),
        "none": advantage,
    }
    for kind, expected in scaled.items():
        game = play(gradient="reinforce", advantage=kind, returns={"rate": 1.0, "limit": 0.01})
        loss = -(by_hand.weight * expected * score).mean()
        torch.testing.assert_close(
            game.made().losses["policy_loss"], loss, rtol=2e-3, atol=1e-5, msg=kind
        )


def test_the_critic_learns_the_lambda_return_of_every_imagined_state(play):
    game = play(gradient="reinforce")
    by_hand = ByHand(game)
    error = 0.5 * (by_hand.value - by_hand.target).square()
    expected = (by_hand.weight * error).mean()
    torch.testing.assert_close(game.made().losses["value_loss"], expected, rtol=1e-3, atol=1e-6)


def test_a_recorded_return_bootstraps_with_imagined_returns_and_stops_at_the_end(play):
    game = play(gradient="reinforce", critic={"replay_scale": 0.5})
    game.batch.is_last[0, 2] = True
    game.batch.is_first[0, 3] = True
    game.batch.is_terminal[1, 3] = game.batch.is_last[1, 3] = True
    game.batch.is_first[1, 4] = True
    by_hand, critic = ByHand(game), game.behavior.critic
    boot = by_hand.target[:, 0].unflatten(0, (2, 5))
    with torch.no_grad():
        value = critic.fast(game.posterior().feat)
    batch, target = game.batch, torch.zeros(2, 4)
    for b in range(2):
        ahead = boot[b, 4]
        for t in range(4, 0, -1):
            lam = 0.0 if batch.is_last[b, t] else LAM
            alive = 0.0 if batch.is_terminal[b, t] else DISCOUNT
            ahead = batch.reward[b, t] + alive * ((1 - lam) * boot[b, t] + lam * ahead)
            target[b, t - 1] = ahead
    counts = (~batch.is_last[:, :-1]).float()
    expected = 0.5 * (counts * 0.5 * (value[:, :-1] - target).square()).mean()
    got = game.made().losses["replay_value_loss"]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)


def test_some_starts_are_the_same_random_times_of_every_window(play):
    game = play(gradient="reinforce", imag_starts=4)
    times = {tuple(game.behavior._times((2, 5), torch.Generator().manual_seed(s), "cpu").tolist())
             for s in range(30)}  # fmt: skip
    assert all(len(set(t)) == 2 for t in times)
    assert {t for pair in times for t in pair} == set(range(5))
    every = play(imag_starts=None).behavior._times((2, 5), torch.Generator(), "cpu")
    assert every.tolist() == [0, 1, 2, 3, 4]


def test_an_actor_that_reads_stoch_does_not_see_deter(play):
    game = play("lstm", reads="stoch", gradient="reinforce")
    assert game.behavior.actor.layers[0].linear.weight.shape[1] == 3
    assert game.behavior.critic.fast.layers[0].linear.weight.shape[1] == 3
    assert all(torch.isfinite(x) for x in game.made().losses.values())
