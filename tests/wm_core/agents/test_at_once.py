"""Losses whose gradients are taken some rows at a time make the same update."""

from __future__ import annotations

import pytest
import torch

from wm_core.agents.agent import AgentCore
from wm_core.presets.micro import changed

#: each has other inputs, outputs or weights of its losses
CASES = {
    "plain": ("dreamer_v3", {}),
    "share": ("dreamer_v3", {"world": {"recon": {"share": 0.4}}}),
    "sigmoid": ("daydreamer", {}),
    "detached": ("r2dreamer", {"world": {"decoder": {"kind": "detached"}}}),
    "harmony": ("dreamer_v3", {"world": {"balance": {"kind": "harmony"}}}),
    "gaussian": ("dreamer_v1", {}),
    "transformer": ("twm", {}),
}
AT_ONCE = {
    "world": {"recon": {"rows_at_once": 3}},
    "behavior": {"critic": {"rows_at_once": 5}},
}


def one_step(spec, config, batch):
    """Losses, and gradients by the names of the weights, of one batch."""
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    losses, _, _ = agent.losses(batch, None, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    gradients = {k: p.grad for k, p in agent.named_parameters() if p.grad is not None}
    return losses, gradients


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_the_same(small, case):
    preset, changes = CASES[case]
    parts = small(preset, vectors=True, **changes)
    plain = one_step(parts.spec, parts.config, parts.batch())
    at_once = one_step(parts.spec, changed(parts.config, **AT_ONCE), parts.batch())
    for expected, got in zip(plain, at_once, strict=True):
        assert expected.keys() == got.keys()
        for name, value in expected.items():
            torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-5, msg=name)
