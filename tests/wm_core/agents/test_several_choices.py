"""Every preset with several choices at once: it learns, acts and explores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_core import presets

pytestmark = pytest.mark.long

EVERY = pytest.mark.parametrize("preset", presets.PRESETS)
GROUPS = (3, 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def act(agent, batch, steps=3, *, mean=False, seed=1):
    """(steps, 4, A) what it chooses on the batch's observations."""
    generator, carry = seeded(seed), agent.initial(4)
    actions = [torch.zeros(4, agent.spec.action.size)]
    for t in range(steps):
        obs = {"image": batch.obs["image"][:, t]}
        first = torch.full((4,), t == 0)
        action, carry = agent.act(obs, carry, actions[-1], first, mean=mean, generator=generator)
        actions.append(action)
    return torch.stack(actions[1:])


@EVERY
def test_a_few_updates_move_every_weight_and_every_choice_is_made(preset, small):
    parts = small(
        preset, groups=GROUPS, optim={"warmup": 0}, behavior={"critic": {"target_every": 1}},
        world={"kl": {"free_nats": 0.0}, "entropy": {"floor": 1.0}},
    )  # fmt: skip
    agent, batch = parts.agent(), parts.batch()
    before = {n: p.clone() for n, p in agent.named_parameters()}
    for i in range(4):
        metrics = agent.update(batch, None, seeded(i))[0]
        assert all(torch.isfinite(value) for value in metrics.values()), metrics
    assert {n for n, p in agent.named_parameters() if torch.equal(p, before[n])} == set()
    for mean in (False, True):
        chosen = act(agent, batch, mean=mean).numpy()
        assert parts.spec.action.is_chosen(chosen).all()
    assert not torch.equal(act(agent, batch), act(agent, batch, seed=2))


def test_exploring_draws_every_choice_anew(small):
    parts = small("dreamer_v3", groups=GROUPS, behavior={"explore_noise": 1.0})
    agent, batch = parts.agent(), parts.batch()
    with torch.no_grad():  # so sure that the actor alone would never choose otherwise
        agent.behavior.actor.mean.bias.copy_(torch.tensor([99.0, 0.0, 0.0, 99.0, 0.0]))
    chosen = np.concatenate([act(agent, batch, seed=seed).flatten(0, 1) for seed in range(20)])
    assert parts.spec.action.is_chosen(chosen).all()
    both = chosen[:, :3, None] * chosen[:, None, 3:]
    assert both.sum(0).min() > 20  # of 40 expected of each pair
