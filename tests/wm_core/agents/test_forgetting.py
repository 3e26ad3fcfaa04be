"""What stood in a memory when an episode began is gone, NaN and infinity too."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from wm_core import presets
from wm_core.nn.blocks import forget, initialize
from wm_core.nn.ssm import StateSpace


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_new_episode_is_not_reached_by_what_the_memory_held(preset, bad, small):
    parts = small(preset, vectors=True)
    agent = parts.agent()
    obs = {k: v[:, 0] for k, v in parts.batch().obs.items()}
    n = len(next(iter(obs.values())))
    fresh, none = agent.initial(n), torch.zeros(n, parts.spec.action.size)
    first = torch.ones(n, dtype=torch.bool)
    spoilt = agent.world.dynamics.latent_of(
        tuple(torch.full_like(c, bad) for c in agent.world.dynamics.carry_of(fresh))
    )
    behavior = tuple(torch.full_like(c, bad) for c in fresh.behavior)
    carry = replace(fresh, deter=spoilt.deter, stoch=spoilt.stoch, memory=spoilt.memory)
    carry = replace(carry, behavior=behavior)
    got, after = agent.act(obs, carry, none * bad, first, mean=True, generator=seeded())
    want, _ = agent.act(obs, fresh, none, first, mean=True, generator=seeded())
    assert torch.equal(got, want)
    going = ~first
    again, _ = agent.act(obs, after, got, going, mean=True, generator=seeded())
    assert torch.isfinite(again).all()


@pytest.mark.parametrize("preset", ["dreamer_v1", "world_models", "s4wm", "dreamer_v3"])
def test_no_step_is_reached_by_what_the_episode_before_it_held(preset, small):
    """In a sequence too, where NaN stands in the steps of another episode."""
    parts = small(preset, vectors=True)
    agent, batch = parts.agent(), parts.batch()
    cut = 4
    name, vector = next((k, v) for k, v in batch.obs.items() if v.dtype.is_floating_point)
    is_first = torch.zeros_like(batch.is_first)
    is_first[:, 0] = is_first[:, cut] = True
    spoilt = vector.clone()
    spoilt[:, :cut] = torch.nan

    def deter(values):
        with torch.no_grad():
            one = replace(batch, obs=batch.obs | {name: values}, is_first=is_first)
            shape = (*batch.reward.shape, *agent.world.dynamics.latent_dist.shape)
            uniform = torch.rand(shape, generator=seeded())
            return agent.world.observe(one, agent.initial(len(vector)), uniform)[0].deter

    assert torch.equal(deter(spoilt)[:, cut:], deter(vector)[:, cut:])


def test_states_of_a_scan_before_a_reset_do_not_reach_behind_it():
    net = StateSpace(width=8, state=4, layers=2, blocks=2)
    initialize(net, seeded())
    x = torch.randn(2, 12, 8, generator=seeded(1))
    is_first = torch.zeros(2, 12, dtype=torch.bool)
    is_first[:, 5] = True
    spoilt = x.clone()
    spoilt[:, 2] = torch.nan
    with torch.no_grad():
        want, got = net(x, is_first)[0], net(spoilt, is_first)[0]
    assert torch.isnan(got[:, 2:5]).all()
    assert torch.equal(got[:, 5:], want[:, 5:])


def test_forgetting_changes_no_bit_of_what_is_kept_and_stops_gradients():
    memory = torch.randn(3, 2, 4, generator=seeded()).requires_grad_()
    kept = forget(memory, torch.tensor([False, True, False]))
    assert torch.equal(kept[::2], memory[::2])
    assert not kept[1].any()
    kept.sum().backward()
    assert memory.grad[:, 0, 0].tolist() == [1.0, 0.0, 1.0]
