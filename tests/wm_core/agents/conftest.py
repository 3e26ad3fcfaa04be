"""An agent small enough to update in milliseconds, and a batch for it."""

from __future__ import annotations

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import Agent
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.world.latent import TorchBatch

B, T, A = 4, 6, 2


@pytest.fixture
def spec():
    return Spec(
        images={"image": ImageSpec(height=16, width=16)},
        action=ActionSpec(low=(-1.0,) * A, high=(1.0,) * A),
    )


@pytest.fixture
def config():
    micro = presets.make("dreamer_v3", "micro")
    world = {"depth": 4, "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "units": 32}
    world |= {"bins": 63, "recon_share": 1.0}
    return micro.model_copy(
        update={
            "world": micro.world.model_copy(update=world),
            "behavior": micro.behavior.model_copy(update={"imag_horizon": 4, "imag_starts": 10}),
            "optim": micro.optim.model_copy(
                update={"precision": "float32", "lr": 2e-3, "warmup": 10}
            ),
        }
    )


@pytest.fixture
def make(spec, config):
    """A function that makes the same agent each time."""
    return lambda: Agent(spec, config, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def agent(make):
    return make()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(7)
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[0, 3] = True
    return TorchBatch(
        obs={
            "image": torch.randint(
                0, 256, (B, T, 16, 16, 3), generator=generator, dtype=torch.uint8
            )
        },
        prev_action=torch.rand(B, T, A, generator=generator) * 2 - 1,
        reward=torch.rand(B, T, generator=generator) * ~is_first,
        is_first=is_first,
        is_last=is_first.roll(-1, 1),
        is_terminal=torch.zeros(B, T, dtype=torch.bool),
    )


@pytest.fixture
def context(agent):
    """(B, D) and (B, S, K) of an agent that has seen nothing."""
    start = agent.initial(B)
    return start.deter, start.stoch
