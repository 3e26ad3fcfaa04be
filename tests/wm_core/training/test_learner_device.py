"""An update never waits for its device: nothing in it asks what a tensor holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wm_core import presets
from wm_core.training.context_memory import ContextMemory

KEYS = np.arange(24, dtype=np.int64).reshape(4, 6) + 100
#: operations whose result decides something on the host
ASKING = ("_local_scalar_dense", "is_nonzero", "nonzero", "item", "equal", "masked_select")


class NoQuestions(TorchDispatchMode):
    """Refuses what would make the host wait for a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        assert name not in ASKING, f"{func} makes the host wait for the device"
        return func(*args, **(kwargs or {}))


def test_the_mode_notices_a_question():
    with pytest.raises(AssertionError, match="makes the host wait"), NoQuestions():
        torch.ones(1).sum().item()


@pytest.mark.parametrize("preset", [p for p in presets.PRESETS if p != "world_models"])
def test_an_update_asks_its_device_nothing(preset, small):
    """The search of world_models is the exception: CMA-ES runs on the host."""
    parts = small(preset)
    agent, batch = parts.agent(), parts.batch()
    memory = ContextMemory(agent, 1000)
    generator = torch.Generator().manual_seed(0)

    def update():
        context = memory.get(KEYS[:, 0] - 1)
        _, posterior = agent.update(batch, context, generator)
        memory.put(KEYS, posterior)

    update()  # the first makes the optimisers' moments
    before = agent.updates
    with NoQuestions():
        update()
    assert agent.updates == before + 1
