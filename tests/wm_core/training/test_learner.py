"""The memory of where windows start from: what is put is what is got."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from wm_core.training.checkpoint import plain, restored
from wm_core.training.context_memory import ContextMemory
from wm_core.world.base import Recorded

KEYS = np.arange(24, dtype=np.int64).reshape(4, 6) + 100
REMEMBERING = {
    "categorical rssm": ("dreamer_v3", {}),
    "gaussian rssm": ("dreamer_v1", {}),
    "lstm": ("world_models", {}),
    "categorical lstm": (
        "world_models",
        {"latent": "categorical", "prior": "net", "rep": "prior"},
    ),
    "ssm": ("s4wm", {}),
    "token gru": ("s4wm", {"backbone": "token_gru", "token_gru": {"deter": 16, "hidden": 8}}),
    "gaussian ssm": ("s4wm", {"latent": "gaussian"}),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=list(REMEMBERING))
def learnt(request, small):
    """An agent, its batch, and the posteriors of it."""
    preset, world = REMEMBERING[request.param]
    parts = small(preset, world=world)
    agent, batch = parts.agent(), parts.batch()
    _, posterior = agent.update(batch, None, seeded())
    return agent, batch, posterior


def test_carries_come_back_as_they_were_kept(learnt):
    agent, _, posterior = learnt
    memory = ContextMemory(agent, 1000)
    memory.put(KEYS, posterior)
    asked = KEYS[[3, 0, 2], [5, 0, 4]]
    got = memory.get(asked)
    names = agent.world.dynamics.carry_names
    assert len(got) == len(names)
    for name, whole, part in zip(
        names, agent.world.dynamics.carry_of(posterior), got, strict=True
    ):
        expected = whole[[3, 0, 2], [5, 0, 4]]
        assert part.shape == expected.shape, name
        torch.testing.assert_close(part, expected, rtol=2e-3, atol=2e-3, msg=name)
    if posterior.stoch.ndim == 4:
        assert torch.equal(got[-1], posterior.stoch[[3, 0, 2], [5, 0, 4]])


def test_unknown_steps_have_the_carry_of_an_agent_without_a_past(learnt):
    agent, _, posterior = learnt
    memory = ContextMemory(agent, 1000)
    memory.put(KEYS, posterior)
    got = memory.get(np.array([7, -1, KEYS[1, 1]]))
    nothing = agent.world.dynamics.carry_of(agent.initial(2))
    for part, zero in zip(got, nothing, strict=True):
        assert torch.equal(part[:2], zero)
        assert part[2].any()


def test_a_window_starts_where_the_last_one_was(learnt):
    """What is seen from a remembered carry is what was seen in one go, but for half precision."""
    agent, batch, _ = learnt
    dynamics, memory = agent.world.dynamics, ContextMemory(agent, 1000)
    uniform = torch.rand(4, 6, *dynamics.latent_dist.shape, generator=seeded(3))
    with torch.no_grad():
        whole, embed = agent.world.observe(batch, agent.initial(4), uniform)
        memory.put(KEYS, whole)
        start = dynamics.latent_of(memory.get(KEYS[:, 2]))
        steps = Recorded(batch.prev_action, embed, batch.is_first, batch.reward)
        later = Recorded(*(x[:, 3:] for x in steps))
        rest = dynamics.observe(start, later, uniform[:, 3:])
    torch.testing.assert_close(rest.deter, whole.deter[:, 3:], rtol=1e-2, atol=5e-3)


def test_a_saved_memory_comes_back(learnt):
    agent, _, posterior = learnt
    memory, other = ContextMemory(agent, 1000), ContextMemory(agent, 1000)
    memory.put(KEYS, posterior)
    other.load_state(restored(plain(memory.state())))
    pairs = zip(memory.get(KEYS[:, 1]), other.get(KEYS[:, 1]), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_smaller_memory_takes_the_newest_of_what_was_saved(learnt):
    agent, _, posterior = learnt
    memory, small = ContextMemory(agent, 1000), ContextMemory(agent, 5)
    memory.put(KEYS, posterior)
    small.load_state(restored(plain(memory.state())))
    newest = KEYS.reshape(-1)[-5:]
    pairs = zip(memory.get(newest), small.get(newest), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len(small) == 5
    older = small.get(KEYS.reshape(-1)[:-5])
    assert not any(part.any() for part in older)


def test_values_beyond_half_precision_stay_finite(learnt):
    agent, _, posterior = learnt
    memory = ContextMemory(agent, 1000)
    memory.put(KEYS, replace(posterior, deter=posterior.deter + 1e9))
    assert all(part.isfinite().all() for part in memory.get(KEYS[:, 0]))


@pytest.mark.parametrize("preset", ["transdreamer", "twm", "awm"])
def test_carries_too_large_or_of_no_use_are_not_remembered(preset, small):
    parts = small(preset)
    agent, batch = parts.agent(), parts.batch()
    memory = ContextMemory(agent, 1000)
    _, posterior = agent.update(batch, memory.get(KEYS[:, 0]), seeded())
    memory.put(KEYS, posterior)
    assert memory.get(KEYS[:, 0]) is None
    assert memory.nbytes == 0
