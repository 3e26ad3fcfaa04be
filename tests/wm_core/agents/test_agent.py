"""An agent: gradients go where they should, updates repeat bit for bit, one batch is learnt."""

from __future__ import annotations

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.agents.precision import choose_dtypes
from wm_core.behavior.actor_critic import ActorCritic
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.nn.optim import ParameterGroup
from wm_core.world.latent import Latent


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def warm(agent, batch, context):
    """The agent after a few updates, when no output layer is zero any more."""
    for seed in range(3):
        agent.update(batch, context, seeded(seed))
    return agent


def test_the_slow_critic_is_not_trained(warm, batch, context):
    assert not any(p.requires_grad for p in warm.behavior.critic.slow.parameters())
    groups = warm.optimizers.state_dict()["laprop"]["param_groups"]
    trained = [p for p in warm.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in groups) == len(trained)
    slow = {id(p) for p in warm.behavior.critic.slow.parameters()}
    parts = warm.world.parameter_groups() | warm.behavior.parameter_groups()
    assert not slow & {id(p) for group in parts.values() for p in group.parameters}


def test_the_slow_critic_starts_equal_and_moves_by_its_rate(agent, batch, context):
    fast, slow = agent.behavior.critic.fast.out.weight, agent.behavior.critic.slow.out.weight
    before = slow.clone()
    pairs = zip(
        agent.behavior.critic.fast.parameters(),
        agent.behavior.critic.slow.parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    agent.update(batch, context, seeded())
    torch.testing.assert_close(slow, before + 0.02 * (fast - before))


def test_an_untrained_agent_predicts_values_of_zero(agent, batch, context):
    _, metrics, _ = agent.losses(batch, context, seeded())
    assert metrics["value"] == 0
    assert metrics["imag_reward"] == 0


@pytest.mark.long
def test_one_batch_can_be_overfitted(agent, batch, context):
    """Every window has a brightness of its own; rewards follow it."""
    level = torch.tensor([0, 80, 160, 240], dtype=torch.uint8)
    batch.obs["image"][:] = level.view(4, 1, 1, 1, 1)
    batch.reward[:] = level.view(4, 1) / 240
    first, _ = agent.update(batch, context, seeded())
    for seed in range(200):
        last, _ = agent.update(batch, context, seeded(seed))
    assert last["recon_loss/image"] < 0.7 * first["recon_loss/image"]
    assert last["reward_loss"] < 0.2 * first["reward_loss"]


def test_posteriors_come_back_for_every_step_without_history(agent, batch, context):
    _, posterior = agent.update(batch, context, seeded())
    assert posterior.deter.shape == (4, 6, 32)
    assert posterior.stoch.shape == (4, 6, 4, 4)
    assert not posterior.deter.requires_grad


def test_imagining_from_every_state_works_like_from_some(make, config, batch, context):
    agent = make()
    agent.behavior.config = config.behavior.model_copy(update={"imag_starts": None})
    losses, _, _ = agent.losses(batch, context, seeded())
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_acting_draws_from_its_generator_alone(agent):
    obs = {"image": torch.zeros(3, 16, 16, 3, dtype=torch.uint8)}
    first, action = torch.ones(3, dtype=torch.bool), torch.zeros(3, 2)

    def act(seed: int, mean: bool) -> torch.Tensor:
        start: Latent = agent.initial(3)
        return agent.act(obs, start, action, first, mean=mean, generator=seeded(seed))[0]

    assert torch.equal(act(1, False), act(1, False))
    assert not torch.equal(act(1, False), act(2, False))
    assert act(1, False).abs().max() <= 1
    assert act(1, True).abs().max() < 0.5  # the mean of a fresh actor is near zero


@pytest.mark.parametrize("precision", ["bfloat16", "conv_bfloat16"])
def test_half_precision_keeps_losses_and_weights(spec, config, batch, context, precision):
    agents = []
    for name in ("float32", precision):
        optim = config.optim.model_copy(update={"precision": name})
        changed = config.model_copy(update={"optim": optim})
        agents.append(AgentCore(spec, changed, generator=seeded()))
    full, half = (a.losses(batch, context, seeded())[0] for a in agents)
    for name in ("dyn_loss", "recon_loss/image", "cont_loss"):
        torch.testing.assert_close(half[name], full[name], rtol=0.1, atol=0.05)
    agents[1].update(batch, context, seeded())
    assert {p.dtype for p in agents[1].parameters()} == {torch.float32}
    trained = {n: p for n, p in agents[1].named_parameters() if p.requires_grad}
    assert [n for n, p in trained.items() if p.grad is None] == []


def test_an_explicit_precision_is_used(config):
    cpu = torch.device("cpu")
    assert choose_dtypes(config, cpu) == (None, None)
    optim = config.optim.model_copy(update={"precision": "bfloat16"})
    assert choose_dtypes(config.model_copy(update={"optim": optim}), cpu) == (torch.bfloat16,) * 2
    wide = presets.make("dreamer_v3", "12m")
    assert choose_dtypes(wide, torch.device("cuda")) == (torch.bfloat16,) * 2


@pytest.fixture
def full_size():
    spec = Spec(action=ActionSpec(low=(-1.0,) * 6, high=(1.0,) * 6))
    return AgentCore(spec, presets.make("dreamer_v3", "12m"), generator=seeded())


def test_size_12m_has_twelve_million_parameters(full_size):
    """64x64x3 image, six actions; the slow critic counts, as it does in memory."""
    assert sum(p.numel() for p in full_size.parameters()) == 12_135_117


@pytest.mark.slow
def test_size_12m_runs_three_updates(full_size):
    replay = full_size.config.replay
    shape = (replay.batch, replay.length)
    none = torch.zeros(shape, dtype=torch.bool)
    batch = Batch(
        obs={"image": torch.zeros(*shape, 64, 64, 3, dtype=torch.uint8)},
        prev_action=torch.zeros(*shape, 6),
        reward=torch.zeros(shape),
        is_first=none,
        is_last=none,
        is_terminal=none,
    )
    start = full_size.initial(replay.batch)
    for seed in range(3):
        metrics, _ = full_size.update(batch, (start.deter, start.stoch), seeded(seed))
        assert all(torch.isfinite(value) for value in metrics.values())
    assert full_size.updates == 3


def test_window_losses_are_computed_in_the_precision_of_updates(small):
    parts = small("twm", optim={"precision": "bfloat16"})
    agent, batch = parts.agent(), parts.batch()
    _, posterior = agent.update(batch, None, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        want = agent.world.window_loss(agent._squashed(batch), posterior)
    losses = agent.window_loss(batch, posterior)
    assert torch.equal(losses, want)
    assert losses.isfinite().all()
    losses.numpy()  # what a selector takes


def test_a_behavior_may_not_name_its_weights_as_the_world_model_does(small, monkeypatch):
    groups = {"dynamics": ParameterGroup([])}
    monkeypatch.setattr(ActorCritic, "parameter_groups", lambda self: groups)
    with pytest.raises(SettingsError, match=r"got \['dynamics'\] from the behavior actor_critic"):
        small("dreamer_v3").agent()
