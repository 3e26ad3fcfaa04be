"""Every preset, with continuous actions and with choices: what one update does and does not."""

from __future__ import annotations

import functools
import io

import pytest
import torch

from wm_core import presets
from wm_core.contract.batch import Batch

pytestmark = pytest.mark.long

EVERY = pytest.mark.parametrize("preset", presets.PRESETS)
ACTIONS = pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "choices"])
#: no floor below which a loss has no gradient
FELT = {"kl": {"free_nats": 0.0}, "entropy": {"floor": 1.0}}
#: a target network that moves at once
QUICK = {"critic": {"target_every": 1}}
#: the world model's parts that learn to see and to show
SEEING = ("encoder.", "decoder.", "projection.", "dynamics.posterior.")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts_of(agent) -> dict[str, dict[str, torch.nn.Parameter]]:
    parts = {"world": agent.world, "actor": agent.behavior.actor}
    if hasattr(agent.behavior, "critic"):
        parts |= {"critic": agent.behavior.critic.fast, "slow critic": agent.behavior.critic.slow}
    return {name: dict(part.named_parameters()) for name, part in parts.items()}


def touched(agent, loss) -> dict[str, set[str]]:
    """The weights that ``loss`` has a gradient on, by the part of ``agent``."""
    agent.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    by_part = {
        part: {n for n, p in weights.items() if p.grad is not None and p.grad.any()}
        for part, weights in parts_of(agent).items()
    }
    return {part: names for part, names in by_part.items() if names}


def learn(agent, batch, updates, first=0):
    return [agent.update(batch, None, seeded(first + i))[0] for i in range(updates)]


@pytest.fixture(scope="module")
def learnt(small):
    """A function that gives an agent after two updates, with its batch; to look at only."""

    @functools.cache
    def make(preset, discrete=False):
        parts = small(preset, discrete=discrete, world=FELT)
        agent, batch = parts.agent(), parts.batch()
        learn(agent, batch, 2)
        return agent, batch

    return make


@EVERY
@ACTIONS
def test_a_few_updates_move_every_weight_and_stay_finite(preset, discrete, small):
    """More than one, because zero-initialised outputs hide what is behind them at first."""
    parts = small(
        preset, discrete=discrete, vectors=True, world=FELT, behavior=QUICK,
        optim={"warmup": 0},
    )  # fmt: skip
    agent, batch = parts.agent(), parts.batch()
    before = {n: p.clone() for n, p in agent.named_parameters()}
    for metrics in learn(agent, batch, 4):
        assert all(torch.isfinite(value) for value in metrics.values()), metrics
        assert all(value.shape == () for value in metrics.values())
    still = {n for n, p in agent.named_parameters() if torch.equal(p, before[n])}
    assert still == set()
    assert agent.updates == 4


@EVERY
@ACTIONS
def test_each_loss_reaches_its_own_part_and_no_other(preset, discrete, learnt):
    agent, batch = learnt(preset, discrete)
    losses, _, _ = agent.losses(batch, None, seeded())
    config = agent.config.world
    expected = {"policy_loss": {"actor"}, "value_loss": {"critic"}}
    expected["replay_value_loss"] = {"critic", "world"}
    for name, loss in losses.items():
        reached = touched(agent, loss)
        assert set(reached) == expected.get(name, {"world"}), name
        world = reached.get("world", set())
        if config.gradients == "staged" and name in ("dyn_loss", "reward_loss", "cont_loss"):
            assert not any(n.startswith(SEEING) for n in world), name
        elif world and config.gradients == "joint" and name != "cont_loss":
            assert any(n.startswith("encoder.") for n in world), name
    names = {"dyn_loss", "rep_loss", "reward_loss"}
    names |= {"cont_loss"} if config.heads.cont else set()
    names |= {"barlow_loss"} if config.objective == "barlow" else {"recon_loss/image"}
    names |= {"entropy_loss"} if config.entropy.scale else set()
    if hasattr(agent.behavior, "critic"):
        names |= {"policy_loss", "value_loss"}
        names |= {"replay_value_loss"} if agent.config.behavior.critic.replay_scale else set()
    assert set(losses) == names


@EVERY
def test_equal_seeds_give_equal_agents_and_leave_torchs_own_randomness_alone(preset, small):
    parts = small(preset)
    before = torch.get_rng_state()
    one, other, another = parts.agent(), parts.agent(), parts.agent(seed=1)
    metrics = [learn(agent, parts.batch(), 2) for agent in (one, other)]
    assert metrics[0] == metrics[1]
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs = zip(one.world.parameters(), another.world.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("preset", "discrete"),
    [*((p, False) for p in presets.PRESETS), ("world_models", True), ("dreamer_v3", True)],
)
def test_a_saved_agent_goes_on_bit_for_bit(preset, discrete, small):
    parts = small(preset, discrete=discrete)
    agent, resumed, batch = parts.agent(), parts.agent(seed=1), parts.batch()
    learn(agent, batch, 2)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.updates == agent.updates == 2
    assert learn(agent, batch, 2, first=7) == learn(resumed, batch, 2, first=7)
    one, other = agent.state_dict(), resumed.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name


@EVERY
def test_nothing_before_is_first_changes_what_is_seen_after(preset, learnt):
    """Window 0 starts anew at step 3, window 2 never does."""
    agent, batch = learnt(preset)
    changed = {}
    for row in (0, 2):
        image, action, reward = (
            x.clone() for x in (batch.obs["image"], batch.prev_action, batch.reward)
        )
        image[row, :3] = 255 - image[row, :3]
        action[row, :3] *= -1
        reward[row, :3] += 1
        other = Batch(
            {"image": image}, action, reward, batch.is_first, batch.is_last, batch.is_terminal
        )
        seen = [agent.losses(b, None, seeded())[2] for b in (batch, other)]
        changed[row] = not torch.equal(seen[0].deter[row, 3:], seen[1].deter[row, 3:])
    assert changed == {0: False, 2: True}


@EVERY
@ACTIONS
def test_acting_draws_from_its_generator_alone_and_carries_what_it_needs(preset, discrete, learnt):
    agent, batch = learnt(preset, discrete)
    size = agent.spec.action.size

    def act(seed, *, mean=False, steps=3):
        generator, carry, actions = seeded(seed), agent.initial(4), []
        action = torch.zeros(4, size)
        for t in range(steps):
            obs = {"image": batch.obs["image"][:, t]}
            first = torch.full((4,), t == 0)
            action, carry = agent.act(obs, carry, action, first, mean=mean, generator=generator)
            actions.append(action)
        return torch.stack(actions)

    drawn = act(1)
    assert torch.equal(drawn, act(1))
    assert not torch.equal(drawn, act(2))
    assert drawn.abs().max() <= 1
    if discrete:
        for actions in (drawn, act(1, mean=True)):
            assert torch.equal(actions.sum(-1), torch.ones(3, 4))
            assert ((actions == 0) | (actions == 1)).all()


@EVERY
def test_environments_side_by_side_do_not_touch(preset, learnt):
    agent, batch = learnt(preset)

    def act(rows):
        carry, action = agent.initial(rows), torch.zeros(rows, 2)
        for t in range(3):
            obs = {"image": batch.obs["image"][:rows, t]}
            first = torch.full((rows,), t == 0)
            action, carry = agent.act(obs, carry, action, first, mean=True, generator=seeded(t))
        return action

    # the first environment's draws are the same: generators fill row by row
    torch.testing.assert_close(act(1)[0], act(4)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
@pytest.mark.parametrize("dynamics", ["dreamer_v1", "transdreamer"], ids=["RSSM", "TSSM"])
def test_both_dynamics_learn_with_both_kinds_of_latents(dynamics, latent, small):
    parts = small(dynamics, world=FELT | {"latent": latent}, behavior=QUICK)
    agent, batch = parts.agent(), parts.batch()
    before = {n: p.clone() for n, p in agent.named_parameters()}
    for metrics in learn(agent, batch, 3):
        assert all(torch.isfinite(value) for value in metrics.values())
    still = {n for n, p in agent.named_parameters() if torch.equal(p, before[n])}
    assert still == set()


@pytest.mark.parametrize("preset", ["transdreamer", "dreamer_v2", "twm"])
def test_rewards_are_squashed_where_their_preset_says_so(preset, small):
    parts = small(preset)
    agent, batch = parts.agent(), parts.batch()
    squashed = Batch(
        batch.obs, batch.prev_action, batch.reward.tanh(),
        batch.is_first, batch.is_last, batch.is_terminal,
    )  # fmt: skip
    plain = agent.losses(batch, None, seeded())[0]["reward_loss"]
    error = agent.config.world.heads.reward_scale * 0.5 * squashed.reward.square().mean()
    untouched = agent.config.world.heads.reward_scale * 0.5 * batch.reward.square().mean()
    expected = error if agent.config.world.heads.squash == "tanh" else untouched
    torch.testing.assert_close(plain, expected)  # an untrained head predicts exactly nothing
    assert (preset == "dreamer_v2") == torch.equal(expected, untouched)
